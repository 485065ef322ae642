// Package mesh runs a whole mesh in one process, for tests: the control plane and certificate authority, one proxy per pod with the
// capture that nftables does elsewhere, Bookinfo's services behind them, an ingress gateway, and a client outside. Everything is the
// real thing but the network, which is package memnet's.
//
// A mesh opens no sockets, so it runs in a testing/synctest bubble, where time costs nothing, as well as outside of one.
package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/memnet"
)

// TrustDomain of every mesh here.
const TrustDomain = "cluster.local"

// Options of Start.
type Options struct {
	// Manifests are applied before anything starts, by file name. Deployments in them run; see Pod.
	Manifests []File
}

// File is configuration with the name that findings show.
type File struct{ Name, Text string }

// Mesh is a running mesh. Its methods may be called from any goroutine; those that change it do not run concurrently.
type Mesh struct {
	// Set once.
	t        testing.TB
	dir      string
	net      *memnet.Network
	client   *memnet.Host // the one outside
	outside  *http.Transport
	outside2 *http.Transport // for HTTP/2
	jar      *cookiejar.Jar  // of the client outside
	log      *slog.Logger
	plane    plane

	changing sync.Mutex // held by methods that change what runs

	mu       sync.Mutex
	pods     []*Pod
	ever     map[string]*Pod // by name, those that ended too
	scale    map[string]int  // by Deployment: replicas, where not the manifest's
	virtual  map[string]netip.Addr
	lastPod  int
	serial   map[string]int // by Deployment: number of pods ever made
	services []*corev1.Service
}

// clientHost is the address of the client outside.
var clientHost = netip.MustParseAddr("192.0.2.1")

// Start starts a mesh and waits until all its proxies serve. The test's end stops it.
func Start(t testing.TB, o Options) *Mesh {
	t.Helper()
	m := &Mesh{
		t: t, dir: t.TempDir(), net: memnet.New(), log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
		virtual: map[string]netip.Addr{}, ever: map[string]*Pod{}, scale: map[string]int{}, serial: map[string]int{},
	}
	m.plane = plane{dir: m.dir, host: m.net.Host(controlAddress.Addr()), log: m.log}
	m.client = m.net.Host(clientHost)
	m.outside, m.outside2 = newTransport(m.dialOutside), newTransport2(m.dialOutside)
	m.jar, _ = cookiejar.New(nil) // fails never, as documented
	t.Cleanup(m.stop)
	if err := m.start(o); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *Mesh) start(o Options) error {
	o.Manifests = append([]File{{"ingress-gateway.yaml", ingressGateway}}, o.Manifests...)
	if err := m.plane.open(); err != nil {
		return err
	}
	if err := m.StartControl(); err != nil {
		return err
	}
	for _, f := range o.Manifests {
		if _, err := m.Apply(context.Background(), f.Name, f.Text); err != nil {
			return err
		}
	}
	return nil
}

// stop ends everything.
func (m *Mesh) stop() {
	m.outside.CloseIdleConnections()
	m.outside2.CloseIdleConnections()
	for _, p := range m.Pods("") {
		p.kill()
	}
	if err := m.plane.close(); err != nil {
		m.t.Error(err)
	}
}

// Apply does what `weft apply` does, and gives the findings as text. An error says that the text was refused.
func (m *Mesh) Apply(ctx context.Context, file, text string) (findings []string, err error) {
	objects, found := source.Decode(source.LayerApplied, file, []byte(text))
	for _, f := range found {
		findings = append(findings, f.String())
	}
	if source.HasErrors(found) {
		return findings, fmt.Errorf("%s is refused: %s", file, findings)
	}
	found, err = m.plane.apply(ctx, objects)
	for _, f := range found {
		findings = append(findings, f.String())
	}
	if err != nil {
		return findings, err
	}
	if source.HasErrors(found) {
		return findings, fmt.Errorf("%s is refused: %s", file, findings)
	}
	for _, o := range objects {
		if runs(o.Kind.Name) {
			return findings, m.reconcile(ctx)
		}
	}
	return findings, nil
}

// runs reports whether objects of a kind say what runs.
func runs(kind string) bool { return kind == "Deployment" || kind == "Service" }

// Delete does what `weft delete` does. Name may be "namespace/name".
func (m *Mesh) Delete(ctx context.Context, kind, name string) error {
	if err := m.plane.remove(ctx, kind, name); err != nil || !runs(kind) {
		return err
	}
	return m.reconcile(ctx)
}

// reconcile makes what runs equal to what is wanted, as the local runtime does, and waits until new pods are ready.
func (m *Mesh) reconcile(ctx context.Context) error {
	m.changing.Lock()
	defer m.changing.Unlock()
	var wanted []*appsv1.Deployment
	var services []*corev1.Service
	for _, o := range m.plane.objects() {
		if o.Origin.Layer == source.LayerRuntime {
			continue // our own report
		}
		switch k := o.Kube.(type) {
		case *appsv1.Deployment:
			wanted = append(wanted, k)
		case *corev1.Service:
			services = append(services, m.addressed(k))
		}
	}
	m.mu.Lock()
	m.services = byName(services)
	m.mu.Unlock()
	if err := m.report(); err != nil {
		return err
	}
	fresh, err := m.adjust(byName(wanted))
	if err != nil {
		return err
	}
	return m.launch(ctx, fresh)
}

// adjust adds the pods that are missing and kills those that are too many.
func (m *Mesh) adjust(wanted []*appsv1.Deployment) (fresh []*Pod, err error) {
	keep := map[string]bool{}
	for _, d := range wanted {
		key := d.Namespace + "/" + d.Name
		keep[key] = true
		m.mu.Lock()
		want, scaled := m.scale[key]
		m.mu.Unlock()
		if !scaled {
			want = 1
			if d.Spec.Replicas != nil {
				want = int(*d.Spec.Replicas)
			}
		}
		have := m.ofDeployment(key)
		for len(have) < want {
			p, err := m.newPod(d)
			if err != nil {
				return nil, err
			}
			have, fresh = append(have, p), append(fresh, p)
		}
		for _, p := range have[want:] {
			m.remove(p)
		}
	}
	for _, p := range m.Pods("") {
		if !keep[p.Namespace+"/"+p.Workload] {
			m.remove(p)
		}
	}
	return fresh, nil
}

// launch starts pods side by side. Each is known to the control plane before its proxy starts, and ready after.
func (m *Mesh) launch(ctx context.Context, fresh []*Pod) error {
	if len(fresh) == 0 {
		return nil
	}
	m.mu.Lock()
	m.pods = append(m.pods, fresh...)
	for _, p := range fresh {
		m.ever[p.Name] = p
	}
	m.mu.Unlock()
	if err := m.report(); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range fresh {
		g.Go(func() error { return p.start(ctx) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	m.mu.Lock()
	for _, p := range fresh {
		p.ready = true
	}
	m.mu.Unlock()
	return m.report()
}

// report tells the control plane what runs.
func (m *Mesh) report() error {
	m.mu.Lock()
	all := objects(m.services, m.pods)
	m.mu.Unlock()
	return m.plane.observe(all)
}

// addressed gives a copy of a service with the virtual address that it keeps for the mesh's life.
func (m *Mesh) addressed(s *corev1.Service) *corev1.Service {
	s = s.DeepCopy()
	if s.Spec.Type == corev1.ServiceTypeExternalName || s.Spec.ClusterIP == corev1.ClusterIPNone {
		return s
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	key := s.Namespace + "/" + s.Name
	ip, ok := m.virtual[key]
	if !ok {
		n := len(m.virtual) + 1
		ip = netip.AddrFrom4([4]byte{10, 78, byte(n >> 8), byte(n)})
		m.virtual[key] = ip
	}
	s.Spec.ClusterIP, s.Spec.ClusterIPs = ip.String(), []string{ip.String()}
	return s
}

// ServiceAddress is the virtual address of a service ("reviews", "shop/reviews").
func (m *Mesh) ServiceAddress(name string) (netip.Addr, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if ip, ok := m.virtual[qualified(name)]; ok {
		return ip, nil
	}
	return netip.Addr{}, fmt.Errorf("no service %s", name)
}

// Pods lists the running pods of a workload (a Deployment, an app, or a pod by its name; "" for all), the oldest first.
func (m *Mesh) Pods(workload string) []*Pod {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []*Pod
	for _, p := range m.pods {
		if workload == "" || p.is(workload) {
			found = append(found, p)
		}
	}
	return found
}

// Pod gives the oldest pod of a workload.
func (m *Mesh) Pod(workload string) (*Pod, error) {
	if found := m.Pods(workload); len(found) > 0 {
		return found[0], nil
	}
	return nil, fmt.Errorf("no pod runs for %s", workload)
}

func (m *Mesh) ofDeployment(key string) []*Pod {
	return slices.DeleteFunc(m.Pods(""), func(p *Pod) bool { return p.Namespace+"/"+p.Workload != key })
}

// Is reports whether a pod, by its name, belongs to a workload. It may have ended.
func (m *Mesh) Is(pod, workload string) (bool, error) {
	if pod == "" {
		return false, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.ever[pod]
	if p == nil {
		return false, fmt.Errorf("there was never a pod %s", pod)
	}
	return p.is(workload), nil
}

// Kill ends the oldest pod of a workload with its proxy at once, as a crash of its machine would, and reports it gone.
func (m *Mesh) Kill(workload string) error {
	m.changing.Lock()
	defer m.changing.Unlock()
	p, err := m.Pod(workload)
	if err != nil {
		return err
	}
	key := p.Namespace + "/" + p.Workload
	m.setScale(key, len(m.ofDeployment(key))-1)
	m.remove(p)
	return nil
}

// Crash is Kill without the report: the control plane learns nothing.
func (m *Mesh) Crash(workload string) error {
	p, err := m.Pod(workload)
	if err != nil {
		return err
	}
	p.kill()
	return nil
}

// Add starts one more pod of a Deployment.
func (m *Mesh) Add(deployment string) error {
	key := qualified(deployment)
	m.setScale(key, len(m.ofDeployment(key))+1)
	return m.reconcile(context.Background())
}

func (m *Mesh) setScale(key string, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.scale[key] = n
}

// Replace does one step of a rolling restart: one more pod of the Deployment, and when it is ready the oldest one leaves: first it
// is no endpoint any more, then it finishes its requests within the grace period, then it ends.
func (m *Mesh) Replace(deployment string, grace time.Duration) error {
	if err := m.Add(deployment); err != nil {
		return err
	}
	key := qualified(deployment)
	have := m.ofDeployment(key)
	if len(have) < 2 {
		return fmt.Errorf("deployment %s has %d pods", deployment, len(have))
	}
	m.changing.Lock()
	defer m.changing.Unlock()
	m.setScale(key, len(have)-1)
	m.mu.Lock()
	have[0].leaving = true
	m.mu.Unlock()
	if err := m.report(); err != nil {
		return err
	}
	have[0].retire(grace)
	m.remove(have[0])
	return nil
}

// SetReady says what the readiness probes of a workload's pods find from now on.
func (m *Mesh) SetReady(workload string, ready bool) error {
	found := m.Pods(workload)
	if len(found) == 0 {
		return fmt.Errorf("no pod runs for %s", workload)
	}
	m.mu.Lock()
	for _, p := range found {
		p.ready = ready
	}
	m.mu.Unlock()
	return m.report()
}

// RestartProxy ends the proxy of a workload's oldest pod and starts it again. It waits until the proxy serves.
func (m *Mesh) RestartProxy(workload string) error {
	p, err := m.Pod(workload)
	if err != nil {
		return err
	}
	p.stopProxy()
	return p.startProxy(context.Background())
}

// remove ends a pod.
func (m *Mesh) remove(p *Pod) {
	p.kill()
	m.mu.Lock()
	m.pods = slices.DeleteFunc(m.pods, func(q *Pod) bool { return p == q })
	m.mu.Unlock()
	if err := m.report(); err != nil {
		m.t.Error(err)
	}
}

// StopControl ends the control plane, abruptly for its clients; StartControl starts one on the same state.
func (m *Mesh) StopControl() error { return m.plane.end() }

// StartControl starts the control plane.
func (m *Mesh) StartControl() error { return m.plane.start() }

// Credentials gives what the local runtime would give to a pod of an account: the mesh's roots (PEM) and a join token.
func (m *Mesh) Credentials(id identity.ID) (roots []byte, token string, err error) {
	token, err = m.plane.tokens.Mint(identity.Peer{ID: id, Workload: id.ServiceAccount})
	return m.plane.authority.RootsPEM(), token, err
}

// DialControl connects to the control plane from outside.
func (m *Mesh) DialControl(ctx context.Context) (net.Conn, error) {
	return m.client.Dial(ctx, controlAddress)
}

// Seen gives the requests that reached the programs of a workload's running pods ("" for all), by pod.
func (m *Mesh) Seen(workload string) (map[string][]Seen, error) {
	found := m.Pods(workload)
	if len(found) == 0 {
		return nil, fmt.Errorf("no pod runs for %s", workload)
	}
	all := map[string][]Seen{}
	for _, p := range found {
		if p.process != nil {
			all[p.Name] = p.process.requests()
		}
	}
	return all, nil
}

// Log is what the proxies of a workload's running pods have written to their access logs.
func (m *Mesh) Log(workload string) (string, error) {
	found := m.Pods(workload)
	if len(found) == 0 {
		return "", fmt.Errorf("no pod runs for %s", workload)
	}
	text := ""
	for _, p := range found {
		text += p.accessLog.String()
	}
	return text, nil
}

// Model gives the mesh that is being served, as compiled.
func (m *Mesh) Model() (*model.Mesh, error) {
	c, err := m.plane.get()
	if err != nil {
		return nil, err
	}
	return c.Mesh(), nil
}

// Eventually tries until there is no error, for at most the given time.
func Eventually(limit time.Duration, try func() error) error {
	err := try()
	for end := time.Now().Add(limit); err != nil && time.Now().Before(end); err = try() {
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// qualified gives "namespace/name" of a name without namespace.
func qualified(name string) string {
	for i := range len(name) {
		if name[i] == '/' {
			return name
		}
	}
	return "default/" + name
}

var errNotRunning = errors.New("the control plane does not run")

// Down reports whether an error says no more than that the control plane does not run.
func Down(err error) bool { return errors.Is(err, errNotRunning) }
