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
	"k8s.io/apimachinery/pkg/types"
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
	k := key{namespaceOf(namespace), deployment}
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
	accounts := map[key]bool{}
	for _, a := range r.desired.ServiceAccounts {
		accounts[key{namespaceOf(a.Namespace), a.Name}] = true
	}
	for k := range r.programs {
		accounts[k] = true
	}
	r.workloads, r.findings = map[key]*workload{}, nil
	if !r.opt.DisableGateway {
		r.workloads[gatewayKey] = gatewayWorkload(r.restarts[gatewayKey])
	}
	for _, d := range deployments {
		c := compiler{images: r.opt.Images, accounts: accounts, ownHosts: r.mode == Netns}
		w := c.compile(d, r.restarts[key{namespaceOf(d.Namespace), d.Name}])
		r.findings = append(r.findings, c.findings...)
		r.workloads[w.key] = w
	}
	r.assignAddresses(services)
	r.changed()
}

func (r *Runtime) assignAddresses(services []*corev1.Service) {
	wanted := func(s *corev1.Service) netip.Addr { ip, _ := netip.ParseAddr(s.Spec.ClusterIP); return ip }
	r.services = make([]*corev1.Service, 0, len(services))
	for _, s := range services {
		s = s.DeepCopy()
		s.Namespace = namespaceOf(s.Namespace)
		r.services = append(r.services, s)
		r.findings = append(r.findings, serviceFields(s)...)
	}
	slices.SortStableFunc(r.services, func(a, b *corev1.Service) int { // the explicit addresses first
		return cmp.Or(b2i(!wanted(a).IsValid())-b2i(!wanted(b).IsValid()), compareKeys(keyOf(a), keyOf(b)))
	})
	dirty := false
	explicit := map[netip.Addr]bool{}
	for _, s := range r.services {
		if s.Spec.ClusterIP == corev1.ClusterIPNone || s.Spec.Type == corev1.ServiceTypeExternalName {
			continue
		}
		ip := wanted(s)
		if ip.IsValid() && !r.opt.ServiceCIDR.Contains(ip) {
			r.findings = append(r.findings, Finding{Warning, "Service", s.Namespace, s.Name, "spec.clusterIP", "is outside of " + r.opt.ServiceCIDR.String() + "; another address is given"})
		}
		if ip.IsValid() && explicit[ip] {
			r.findings = append(r.findings, Finding{Warning, "Service", s.Namespace, s.Name, "spec.clusterIP", ip.String() + " is another service's; another address is given"})
			ip = netip.Addr{}
		}
		explicit[ip] = ip.IsValid()
		ip, changed, err := r.virtual.Assign(keyOf(s).String(), ip)
		if err != nil {
			r.findings = append(r.findings, Finding{Refused, "Service", s.Namespace, s.Name, "spec.clusterIP", err.Error()})
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
}) key {
	return key{namespaceOf(o.GetNamespace()), o.GetName()}
}

func compareKeys(a, b key) int {
	return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name))
}

func sortedKeys[V any](m map[key]V) []key {
	var out []key
	for k := range m {
		out = append(out, k)
	}
	slices.SortFunc(out, compareKeys)
	return out
}

// reconcile starts and stops pods; mu is held. It acts on what is true now, and every change calls it again.
func (r *Runtime) reconcile() {
	for _, p := range r.pods {
		if r.workloads[p.w.key] == nil {
			r.stop(p)
		}
	}
	for _, k := range sortedKeys(r.workloads) {
		if w := r.workloads[k]; w.state == "" {
			r.reconcileWorkload(w)
		}
	}
}

// reconcileWorkload is a Deployment's rolling update with maxSurge 1 and maxUnavailable 0.
func (r *Runtime) reconcileWorkload(w *workload) {
	var current, old []*pod
	leaving, ready := 0, 0
	for _, p := range r.pods {
		switch {
		case p.w.key != w.key:
			continue
		case p.terminating:
			leaving++
			continue
		case p.w.revision == w.revision:
			current = append(current, p)
		default:
			old = append(old, p)
		}
		ready += b2i(p.ready())
	}
	if w.recreate && len(old) > 0 {
		r.stopSome(old, len(old))
		return
	}
	if w.recreate && leaving > 0 && len(current) == 0 {
		return
	}
	surge := b2i(len(old) > 0)
	for range min(w.replicas-len(current), w.replicas+surge-len(current)-len(old)) {
		r.add(w)
	}
	r.stopSome(current, len(current)-w.replicas)
	for _, p := range old { // what is not ready serves nobody
		if !p.ready() {
			r.stop(p)
		}
	}
	r.stopSome(slices.DeleteFunc(old, func(p *pod) bool { return !p.ready() }), ready-w.replicas)
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
func (r *Runtime) add(w *workload) {
	if r.ending {
		return
	}
	ip := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if r.mode == Netns {
		var err error
		if ip, err = r.ips.Take(); err != nil {
			r.log.Error("pod is not started", "workload", w.key.String(), "error", err)
			return
		}
	}
	r.folders++
	p := &pod{
		rt: r, w: w, ip: ip, slot: r.freeSlot(w.key), created: time.Now(), uid: newUID(),
		key: key{w.namespace, r.podName(w)}, dir: filepath.Join(r.podsDir(), strconv.Itoa(r.folders)),
		stopping: make(chan struct{}), done: make(chan struct{}), sidecarUp: make(chan struct{}),
	}
	if w.sidecar {
		p.sidecar = &process{p: p, name: sidecarName, backoff: sidecarBackoff, upgrades: make(chan upgrade)}
	}
	for i := range w.inits {
		p.inits = append(p.inits, &process{p: p, name: w.inits[i].name, c: &w.inits[i], backoff: appBackoff})
	}
	for i := range w.apps {
		p.apps = append(p.apps, &process{p: p, name: w.apps[i].name, c: &w.apps[i], backoff: appBackoff})
	}
	r.pods[p.key] = p
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
	delete(r.pods, p.key)
	if r.mode == Netns {
		r.ips.Give(p.ip)
	}
	for _, port := range p.plan.all() {
		r.ports.Give(port)
	}
	r.changed()
}

func (r *Runtime) freeSlot(k key) int {
	taken := map[int]bool{}
	for _, p := range r.pods {
		if p.w.key == k {
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
func (r *Runtime) podName(w *workload) string {
	const letters = "bcdfghjklmnpqrstvwxz2456789"
	for {
		var b [5]byte
		for i := range b {
			b[i] = letters[rand.IntN(len(letters))]
		}
		name := w.name + "-" + string(b[:])
		if r.pods[key{w.namespace, name}] == nil {
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
