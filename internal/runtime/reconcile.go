package runtime

import (
	"cmp"
	crand "crypto/rand"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/weftmesh/weft/internal/runtime/demand"
)

// SetDesired replaces what should run and returns at once. A changed pod template starts a rolling restart: new pods are ready
// before old ones leave. A Deployment that is refused leaves what ran of it before as it is.
func (r *Runtime) SetDesired(d Desired) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.desired = d
	r.compile()
}

// Restart replaces the pods of a Deployment, program or gateway one by one, each new one ready before an old one leaves.
func (r *Runtime) Restart(namespace, deployment string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := demand.Key{Namespace: demand.NamespaceOf(namespace), Name: deployment}
	if r.workloads[k] == nil {
		return notFound("workload", k)
	}
	r.restarts[k]++
	r.compile()
	return nil
}

// compile makes workloads and services of what is desired; mu is held.
func (r *Runtime) compile() {
	deployments, services := r.desired.Deployments, slices.Clone(r.desired.Services)
	for _, k := range sortedKeys(r.programs) {
		d, s := r.programs[k].objects()
		deployments = append(slices.Clip(deployments), d)
		if s != nil {
			services = append(services, s)
		}
	}
	services = append(services, r.gatewayServices(services)...)
	accounts := map[demand.Key]bool{}
	for _, a := range r.desired.ServiceAccounts {
		accounts[demand.Key{Namespace: demand.NamespaceOf(a.Namespace), Name: a.Name}] = true
	}
	for k := range r.programs {
		accounts[k] = true
	}
	r.workloads, r.findings = map[demand.Key]*demand.Workload{}, nil
	if !r.opt.DisableGateway {
		r.workloads[demand.GatewayKey] = demand.GatewayWorkload(r.restarts[demand.GatewayKey])
	}
	for _, d := range deployments {
		c := demand.Compiler{Images: r.opt.Images, Accounts: accounts, OwnHosts: r.mode == Netns}
		w := c.Compile(d, r.restarts[demand.Key{Namespace: demand.NamespaceOf(d.Namespace), Name: d.Name}])
		r.findings = append(r.findings, c.Findings...)
		r.workloads[w.Key] = w
	}
	r.assignAddresses(services)
	r.changed()
}

// gatewayServices gives those of the built-in gateway of which no other has the name; mu is held.
func (r *Runtime) gatewayServices(others []*corev1.Service) (list []*corev1.Service) {
	r.ofGateway = map[demand.Key]bool{}
	if r.opt.DisableGateway {
		return nil
	}
	taken := map[demand.Key]bool{}
	for _, s := range others {
		taken[keyOf(s)] = true
	}
	for _, s := range r.desired.Gateways {
		if k := keyOf(s); !taken[k] {
			taken[k], r.ofGateway[k] = true, true
			list = append(list, s)
		}
	}
	return list
}

func (r *Runtime) assignAddresses(services []*corev1.Service) {
	wanted := func(s *corev1.Service) netip.Addr { ip, _ := netip.ParseAddr(s.Spec.ClusterIP); return ip }
	r.services = make([]*corev1.Service, 0, len(services))
	for _, s := range services {
		s = s.DeepCopy()
		s.Namespace = demand.NamespaceOf(s.Namespace)
		if w := r.workloads[demand.GatewayKey]; r.mode == Ports && w != nil && selectsWorkload(s, w) { // its target ports are the host's, which nobody chose
			metav1.SetMetaDataLabel(&s.ObjectMeta, labelOwnPorts, "true")
		}
		r.services = append(r.services, s)
		r.findings = append(r.findings, demand.ServiceFields(s)...)
	}
	slices.SortStableFunc(r.services, func(a, b *corev1.Service) int { // the explicit addresses first
		return cmp.Or(b2i(!wanted(a).IsValid())-b2i(!wanted(b).IsValid()), compareKeys(keyOf(a), keyOf(b)))
	})
	say := func(severity Severity, s *corev1.Service, message string) {
		r.findings = append(r.findings, Finding{Severity: severity, Kind: "Service", Namespace: s.Namespace, Name: s.Name, Field: "spec.clusterIP", Message: message})
	}
	dirty := false
	explicit := map[netip.Addr]bool{}
	for _, s := range r.services {
		if s.Spec.ClusterIP == corev1.ClusterIPNone || s.Spec.Type == corev1.ServiceTypeExternalName {
			continue
		}
		ip := wanted(s)
		if ip.IsValid() && !r.opt.ServiceCIDR.Contains(ip) {
			say(Warning, s, "is outside of "+r.opt.ServiceCIDR.String()+"; another address is given")
		}
		if ip.IsValid() && explicit[ip] {
			say(Warning, s, ip.String()+" is another service's; another address is given")
			ip = netip.Addr{}
		}
		explicit[ip] = ip.IsValid()
		ip, changed, err := r.virtual.Assign(keyOf(s).String(), ip)
		if err != nil {
			say(Refused, s, err.Error())
			continue
		}
		dirty = dirty || changed
		s.Spec.ClusterIP, s.Spec.ClusterIPs = ip.String(), []string{ip.String()}
	}
	slices.SortFunc(r.services, func(a, b *corev1.Service) int { return compareKeys(keyOf(a), keyOf(b)) })
	if dirty {
		if err := r.virtual.Save(); err != nil {
			r.log.Error("service addresses are not saved and may change at the next start", "error", err)
		}
	}
}

func keyOf(o interface {
	GetNamespace() string
	GetName() string
}) demand.Key {
	return demand.Key{Namespace: demand.NamespaceOf(o.GetNamespace()), Name: o.GetName()}
}

func compareKeys(a, b demand.Key) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

func sortedKeys[V any](m map[demand.Key]V) []demand.Key {
	var out []demand.Key
	for k := range m {
		out = append(out, k)
	}
	slices.SortFunc(out, compareKeys)
	return out
}

// reconcile starts and stops pods; mu is held. It acts on what is true now, and every change calls it again.
func (r *Runtime) reconcile() {
	for _, p := range r.pods {
		if r.workloads[p.w.Key] == nil {
			r.stop(p)
		}
	}
	for _, k := range sortedKeys(r.workloads) {
		if w := r.workloads[k]; w.State == "" {
			r.reconcileWorkload(w)
		}
	}
}

// reconcileWorkload is a Deployment's rolling update with maxSurge 1 and maxUnavailable 0.
func (r *Runtime) reconcileWorkload(w *demand.Workload) {
	var current, old []*pod
	leaving, ready := 0, 0
	for _, p := range r.pods {
		switch {
		case p.w.Key != w.Key:
			continue
		case p.terminating:
			leaving++
			continue
		case p.w.Revision == w.Revision:
			current = append(current, p)
		default:
			old = append(old, p)
		}
		ready += b2i(p.ready())
	}
	if w.Recreate && len(old) > 0 {
		r.stopSome(old, len(old))
		return
	}
	if w.Recreate && leaving > 0 && len(current) == 0 {
		return
	}
	surge := b2i(len(old) > 0)
	for range min(w.Replicas-len(current), w.Replicas+surge-len(current)-len(old)) {
		r.add(w)
	}
	r.stopSome(current, len(current)-w.Replicas)
	for _, p := range old { // what is not ready serves nobody
		if !p.ready() {
			r.stop(p)
		}
	}
	r.stopSome(slices.DeleteFunc(old, func(p *pod) bool { return !p.ready() }), ready-w.Replicas)
}

// stopSome stops n of the pods: the ones that are not ready first, then the youngest.
func (r *Runtime) stopSome(pods []*pod, n int) {
	slices.SortFunc(pods, func(a, b *pod) int {
		return cmp.Or(b2i(a.ready())-b2i(b.ready()), b.created.Compare(a.created))
	})
	for i := 0; i < n && i < len(pods); i++ {
		r.stop(pods[i])
	}
}

// add makes a pod and starts its goroutine, which ends after stop.
func (r *Runtime) add(w *demand.Workload) {
	if r.ending {
		return
	}
	ip := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if r.mode == Netns {
		var err error
		if ip, err = r.ips.Take(); err != nil {
			r.log.Error("pod is not started", "workload", w.Key.String(), "error", err)
			return
		}
	}
	r.folders++
	p := &pod{
		rt: r, w: w, ip: ip, slot: r.freeSlot(w.Key), created: time.Now(), uid: newUID(),
		Key: demand.Key{Namespace: w.Namespace, Name: r.podName(w)}, dir: filepath.Join(r.podsDir(), strconv.Itoa(r.folders)),
		stopping: make(chan struct{}), done: make(chan struct{}), sidecarUp: make(chan struct{}),
	}
	if w.Sidecar {
		p.sidecar = &process{p: p, name: sidecarName, backoff: sidecarBackoff, upgrades: make(chan upgrade)}
	}
	for i := range w.Inits {
		p.inits = append(p.inits, &process{p: p, name: w.Inits[i].Name, c: &w.Inits[i], backoff: appBackoff})
	}
	for i := range w.Apps {
		p.apps = append(p.apps, &process{p: p, name: w.Apps[i].Name, c: &w.Apps[i], backoff: appBackoff})
	}
	r.pods[p.Key] = p
	go p.run()
	r.changed()
}

// stop asks a pod to leave; mu is held. From here on it is no endpoint.
func (r *Runtime) stop(p *pod) {
	if p.terminating {
		return
	}
	p.wasReady = p.ready()
	p.terminating, p.deleted = true, time.Now()
	close(p.stopping)
	r.changed()
}

// gone forgets a pod, at the end of its goroutine.
func (r *Runtime) gone(p *pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pods, p.Key)
	if r.mode == Netns {
		r.ips.Give(p.ip)
	}
	for _, port := range p.plan.all() {
		r.ports.Give(port)
	}
	r.changed()
}

func (r *Runtime) freeSlot(k demand.Key) int {
	taken := map[int]bool{}
	for _, p := range r.pods {
		if p.w.Key == k {
			taken[p.slot] = true
		}
	}
	for i := 0; ; i++ {
		if !taken[i] {
			return i
		}
	}
}

// podName ends in five letters that spell no word.
func (r *Runtime) podName(w *demand.Workload) string {
	const letters = "bcdfghjklmnpqrstvwxz2456789"
	for {
		var b [5]byte
		for i := range b {
			b[i] = letters[rand.IntN(len(letters))]
		}
		name := w.Name + "-" + string(b[:])
		if r.pods[demand.Key{Namespace: w.Namespace, Name: name}] == nil {
			return name
		}
	}
}

// newUID is a random UUID (RFC 9562 5.4).
func newUID() types.UID {
	var b [16]byte
	crand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return types.UID(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]))
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
