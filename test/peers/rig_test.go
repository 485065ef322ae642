package peers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/weftmesh/weft/internal/agent"
	"github.com/weftmesh/weft/internal/ca"
	"github.com/weftmesh/weft/internal/control"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/serve"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/loopback/loopbacktest"
	"github.com/weftmesh/weft/internal/proxy"
	"github.com/weftmesh/weft/internal/wire"
)

const (
	trustDomain = "cluster.local"
	patience    = 2 * time.Minute
)

// mesh is a control plane with the pods that it was told of.
type mesh struct {
	t         *testing.T
	dir       string
	address   string // of the control plane
	authority *ca.Authority
	tokens    *ca.Tokens
	control   *control.Control
	stop      func()

	mu       sync.Mutex
	pods     []*pod
	services []*corev1.Service
}

// newMesh starts a control plane whose certificates live for ttl.
func newMesh(t *testing.T, ttl time.Duration) *mesh {
	t.Helper()
	m := &mesh{t: t, dir: t.TempDir(), address: loopbacktest.Address(t)}
	var err error
	dir := filepath.Join(m.dir, "ca")
	if m.authority, err = ca.Open(dir, ca.Options{TrustDomain: trustDomain, LeafTTL: ttl, Log: m.log()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.authority.Close() })
	if m.tokens, err = ca.OpenTokens(dir, ca.TokenOptions{TrustDomain: trustDomain}); err != nil {
		t.Fatal(err)
	}
	m.start()
	t.Cleanup(func() { m.stop() })
	return m
}

func (m *mesh) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(m.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// start starts the control plane, at the address that it had before.
func (m *mesh) start() {
	m.t.Helper()
	l, err := net.Listen("tcp", m.address)
	if err != nil {
		m.t.Fatal(err)
	}
	m.control, err = control.New(control.Options{
		StateDir: filepath.Join(m.dir, "control"), LocalRuntime: true, Settings: model.Settings{TrustDomain: trustDomain},
		Address: "-", HTTPAddress: "-", Listeners: []net.Listener{l}, Authority: m.authority, Tokens: m.tokens, Log: m.log(),
	})
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.control.Run(ctx) }() // stop ends it
	m.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			m.t.Error(err)
		}
	})
	m.report()
	m.eventually("a mesh", func() error {
		if m.control.Mesh() == nil {
			return errors.New("none yet")
		}
		return nil
	})
}

// eventually tries until there is no error.
func (m *mesh) eventually(what string, try func() error) {
	m.t.Helper()
	err := try()
	for end := time.Now().Add(patience); err != nil; err = try() {
		if time.Now().After(end) {
			m.t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// apply does what `weft apply` does.
func (m *mesh) apply(text string) {
	m.t.Helper()
	objects, found := source.Decode(source.LayerApplied, "test.yaml", []byte(text))
	if source.HasErrors(found) {
		m.t.Fatal(found)
	}
	_, found, err := m.control.Apply(m.t.Context(), objects)
	if err != nil || source.HasErrors(found) {
		m.t.Fatal(err, found)
	}
}

// refusals are the findings about configuration that clients refused.
func (m *mesh) refusals() []serve.Client {
	var out []serve.Client
	for _, c := range m.control.Clients() {
		for _, s := range c.Types {
			if len(s.Nacks) > 0 {
				out = append(out, c)
			}
		}
	}
	return out
}

// pod is a workload's instance: an address of the loopback network with a port, and whatever the test runs there.
type pod struct {
	mesh               *mesh
	name, app, version string
	ip                 netip.Addr
	port               uint16
	proxyless, sidecar bool
	unready            bool
	locality           string
	dir                string
	agent              *agent.Agent
	extra              map[string]string // labels
	accountOf          string            // whose certificate it has, where not its own
}

var lastPod atomic.Uint32

// newPod makes a pod that the control plane does not know yet. Its account is its app's name.
func (m *mesh) newPod(app, version string) *pod {
	n := lastPod.Add(1)
	pid := uint32(os.Getpid())
	p := &pod{mesh: m, app: app, version: version, name: fmt.Sprintf("%s-%s-%d", app, version, n),
		ip: netip.AddrFrom4([4]byte{127, byte(64 + pid%128), byte(pid >> 7), byte(1 + n)})}
	p.port = p.free()
	p.dir = filepath.Join(m.dir, p.name)
	return p
}

// free gives a port that nobody uses on the pod's own address.
func (p *pod) free() uint16 {
	p.mesh.t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(p.ip, 0).String())
	if err != nil {
		p.mesh.t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func (p *pod) addr() string { return netip.AddrPortFrom(p.ip, p.port).String() }

// add tells the control plane of pods.
func (m *mesh) add(pods ...*pod) {
	m.t.Helper()
	m.mu.Lock()
	m.pods = append(m.pods, pods...)
	m.mu.Unlock()
	m.report()
}

// serve tells the control plane of a service for all pods of an app.
func (m *mesh) serve(app string, port int32, protocol string) {
	m.t.Helper()
	m.mu.Lock()
	ip := fmt.Sprintf("10.78.0.%d", len(m.services)+1)
	m.services = append(m.services, &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Name: app, Namespace: "default"},
		Spec: corev1.ServiceSpec{ClusterIP: ip, ClusterIPs: []string{ip}, Selector: map[string]string{"app": app},
			Ports: []corev1.ServicePort{{Name: protocol, Port: port, TargetPort: intstr.FromInt32(port)}}},
	})
	m.mu.Unlock()
	m.report()
}

func (m *mesh) report() {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []source.Kube
	for _, p := range m.pods {
		all = append(all, p.object())
	}
	for _, s := range m.services {
		all = append(all, s.DeepCopy())
		for _, p := range m.pods {
			if p.app == s.Name {
				all = append(all, p.slice(s))
			}
		}
	}
	if err := m.control.SetRuntimeObjects(all); err != nil {
		m.t.Fatal(err)
	}
}

func (p *pod) object() *corev1.Pod {
	o := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: p.name, Namespace: "default", Annotations: map[string]string{},
			Labels: map[string]string{"app": p.app, "version": p.version}},
		Spec: corev1.PodSpec{ServiceAccountName: p.app, Containers: []corev1.Container{{Name: "app",
			Ports: []corev1.ContainerPort{{ContainerPort: int32(p.port)}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: p.ip.String(), PodIPs: []corev1.PodIP{{IP: p.ip.String()}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
	for k, v := range p.extra {
		o.Labels[k] = v
	}
	if p.proxyless {
		o.Annotations["inject.istio.io/templates"] = "grpc-agent"
	}
	if p.sidecar {
		o.Labels["security.istio.io/tlsMode"] = "istio"
	}
	if p.locality != "" {
		o.Labels["istio-locality"] = strings.ReplaceAll(p.locality, "/", ".")
	}
	return o
}

func (p *pod) slice(s *corev1.Service) *discoveryv1.EndpointSlice {
	name, number, protocol, ready := s.Spec.Ports[0].Name, int32(p.port), corev1.ProtocolTCP, !p.unready
	return &discoveryv1.EndpointSlice{
		TypeMeta:    metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta:  metav1.ObjectMeta{Name: s.Name + "-" + p.name, Namespace: "default", Labels: map[string]string{discoveryv1.LabelServiceName: s.Name}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &number, Protocol: &protocol}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{p.ip.String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: p.name}}},
	}
}

// bootstrap is what a runtime would give to the pod's proxy or agent.
func (p *pod) bootstrap() *wire.Bootstrap {
	p.mesh.t.Helper()
	account := p.app
	if p.accountOf != "" {
		account = p.accountOf
	}
	token, err := p.mesh.tokens.Mint(identity.Peer{ID: identity.ID{TrustDomain: trustDomain, Namespace: "default", ServiceAccount: account},
		Workload: p.app, Instance: p.name, App: p.app, Version: p.version})
	if err != nil {
		p.mesh.t.Fatal(err)
	}
	return &wire.Bootstrap{
		Node: wire.Node{Role: wire.Sidecar, Name: p.name, Namespace: "default", ServiceAccount: account, Workload: p.app, IP: p.ip.String(),
			Labels: map[string]string{"app": p.app, "version": p.version}},
		Control: p.mesh.address, TrustDomain: trustDomain, Roots: string(p.mesh.authority.RootsPEM()), Token: token,
	}
}

// attend runs an agent for the pod, and waits until its files are there.
func (p *pod) attend() {
	t := p.mesh.t
	t.Helper()
	if p.agent != nil {
		return
	}
	var err error
	if p.agent, err = agent.New(agent.Options{Bootstrap: p.bootstrap(), Dir: p.dir, Log: p.mesh.log()}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.agent.Run(ctx) }() // the test's end stops it
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-p.agent.Ready():
	case <-time.After(patience):
		t.Fatal("the agent has no certificate")
	}
}

// proxied runs our proxy in front of the pod's program: what comes to its port goes to the port that is returned. Outbound names a
// service that the pod's programs reach at the address that is returned.
func (p *pod) proxied(outbound string) (program, service string) {
	t := p.mesh.t
	t.Helper()
	p.sidecar = true
	b := p.bootstrap()
	program = netip.AddrPortFrom(p.ip, p.free()).String()
	b.InboundPorts = []wire.PortMap{{Listen: p.addr(), Destination: program, Port: p.port}}
	if outbound != "" {
		service = netip.AddrPortFrom(p.ip, p.free()).String()
		b.OutboundPorts = []wire.PortMap{{Listen: service, Destination: outbound}}
	}
	sidecar, err := proxy.New(proxy.Options{Bootstrap: b, Log: p.mesh.log(), DrainTime: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- sidecar.Run(ctx) }() // the test's end stops it
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	p.mesh.eventually("the sidecar's readiness", func() error {
		if why := sidecar.Unready(); why != "" {
			return errors.New(why)
		}
		return nil
	})
	return program, service
}
