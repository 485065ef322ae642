package mesh

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/weftmesh/weft/internal/memnet"
	"github.com/weftmesh/weft/internal/wire"
)

// Pod is an instance of a Deployment: a host of the network with a proxy that captures its traffic, and a program. A gateway has
// no program and captures nothing.
type Pod struct {
	// Set once.
	Name, Namespace, Workload, ServiceAccount string
	Labels                                    map[string]string
	IP                                        netip.Addr

	mesh      *Mesh
	spec      corev1.PodSpec
	born      time.Time
	stateDir  string
	host      *memnet.Host
	transport *http.Transport // of the program
	client    *http.Transport // of the test, in the program's place
	client2   *http.Transport // likewise, for HTTP/2
	accessLog *lines

	ready, leaving bool // guarded by Mesh.mu

	// Owned by whoever changes the mesh.
	process *process
	sidecar *sidecar
}

// newPod makes a pod that does not run yet.
func (m *Mesh) newPod(d *appsv1.Deployment) (*Pod, error) {
	if len(d.Spec.Template.Spec.Containers) == 0 {
		return nil, fmt.Errorf("deployment %s has no containers", d.Name)
	}
	m.mu.Lock()
	m.lastPod++
	n := m.lastPod
	key := d.Namespace + "/" + d.Name
	m.serial[key]++
	name := d.Name + "-" + strconv.Itoa(m.serial[key])
	m.mu.Unlock()
	p := &Pod{
		Name: name, Namespace: d.Namespace, Workload: d.Name, Labels: maps.Clone(d.Spec.Template.Labels),
		ServiceAccount: d.Spec.Template.Spec.ServiceAccountName, IP: netip.AddrFrom4([4]byte{10, 77, byte(n >> 8), byte(n)}),
		mesh: m, spec: d.Spec.Template.Spec, born: time.Now(), stateDir: filepath.Join(m.dir, name), accessLog: &lines{},
	}
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	if p.ServiceAccount == "" {
		p.ServiceAccount = "default"
	}
	p.host = m.net.Host(p.IP)
	p.transport, p.client, p.client2 = newTransport(p.dial), newTransport(p.dial), newTransport2(p.dial)
	return p, nil
}

// is reports whether the pod is what a name means: the pod itself, its Deployment, or its app; with or without namespace.
func (p *Pod) is(name string) bool {
	if ns, rest, ok := strings.Cut(name, "/"); ok {
		if ns != p.Namespace {
			return false
		}
		name = rest
	}
	return name == p.Name || name == p.Workload || name == p.Labels["app"]
}

func (p *Pod) role() wire.Role {
	if p.Labels["istio"] == "ingressgateway" {
		return wire.Gateway
	}
	return wire.Sidecar
}

// start starts the proxy, waits until it serves, and then starts the program, as the local runtime does.
func (p *Pod) start(ctx context.Context) error {
	if p.role() == wire.Sidecar {
		p.capture()
	}
	if err := p.startProxy(ctx); err != nil {
		return err
	}
	var err error
	p.process, err = startProcess(p, p.spec.Containers[0])
	return err
}

// capture does what nftables does in a real pod: outgoing connections go to the proxy, except to the host itself; so do incoming
// ones, except to the proxy's own ports. The proxy's own connections are exempt because it makes them with DialDirect.
func (p *Pod) capture() {
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	p.host.CaptureOutbound(func(dst netip.AddrPort) (netip.AddrPort, bool) {
		return netip.AddrPortFrom(loopback, wire.OutboundPort), !dst.Addr().IsLoopback() && dst.Addr() != p.IP
	})
	p.host.CaptureInbound(func(dst netip.AddrPort) (netip.AddrPort, bool) {
		return netip.AddrPortFrom(p.IP, wire.InboundPort), dst.Port() < wire.OutboundPort || dst.Port() > wire.DNSPort
	})
}

// dial connects as the pod's program does: it asks the sidecar for the name's address, then connects through the capture.
func (p *Pod) dial(ctx context.Context, _, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	n, err := net.LookupPort("tcp", port)
	if err != nil {
		return nil, err
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		found, err := p.lookup(ctx, host)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}
		ip = found[0]
	}
	return p.host.Dial(ctx, netip.AddrPortFrom(ip, uint16(n)))
}

// kill ends the pod at once.
func (p *Pod) kill() {
	p.client.CloseIdleConnections()
	p.client2.CloseIdleConnections()
	p.transport.CloseIdleConnections()
	if p.sidecar != nil {
		p.sidecar.crash()
	}
	if p.process != nil {
		p.process.stop()
	}
	p.host.CaptureInbound(nil)
	p.host.CaptureOutbound(nil)
}

// retire ends the proxy in order: it finishes live requests within the grace period. The program is still there meanwhile.
func (p *Pod) retire(grace time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	p.sidecar.drain(ctx)
}

func (p *Pod) stopProxy() {
	p.client.CloseIdleConnections()
	p.client2.CloseIdleConnections()
	p.transport.CloseIdleConnections()
	p.sidecar.stop()
}

func (p *Pod) startProxy(ctx context.Context) (err error) {
	p.sidecar, err = startSidecar(ctx, p)
	if err != nil {
		err = fmt.Errorf("proxy of %s: %w", p.Name, err)
	}
	return err
}

// lines is an access log in memory.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// ingressGateway is the gateway that the local runtime brings along.
const ingressGateway = `
apiVersion: v1
kind: Service
metadata:
  name: istio-ingressgateway
  namespace: istio-system
  labels:
    app: istio-ingressgateway
    istio: ingressgateway
spec:
  selector:
    app: istio-ingressgateway
    istio: ingressgateway
  ports:
  - name: http2
    port: 80
    targetPort: 8080
  - name: http-8080
    port: 8080
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: istio-ingressgateway
  namespace: istio-system
spec:
  selector:
    matchLabels:
      app: istio-ingressgateway
      istio: ingressgateway
  template:
    metadata:
      labels:
        app: istio-ingressgateway
        istio: ingressgateway
    spec:
      serviceAccountName: istio-ingressgateway-service-account
      containers:
      - name: istio-proxy
        image: weftmesh/weft-proxy
        command: ["sleep"]
`
