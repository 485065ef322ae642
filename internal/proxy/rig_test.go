package proxy

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weftmesh/weft/internal/ca"
	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/memnet"
	"github.com/weftmesh/weft/internal/proxy/bind"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mesh is an in-memory network with an authority: everything that proxies touch but the control plane, which tests are.
type mesh struct {
	t         testing.TB
	net       *memnet.Network
	authority *ca.Authority
	now       func() time.Time // the clock of the pods that are made from here on; nil for the real one
	real      sync.Map         // addresses (strings) that are reached by real sockets, and the machine's in their place
}

func newMesh(t testing.TB) *mesh {
	t.Helper()
	a, err := ca.Open(t.TempDir(), ca.Options{TrustDomain: "cluster.local", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return &mesh{t: t, net: memnet.New(), authority: a}
}

// fixed is a Config that a test publishes.
type fixed struct {
	mu       sync.Mutex
	snapshot *conf.Snapshot
	names    map[string]*conf.Target
	changed  chan struct{}
}

func (f *fixed) Snapshot() *conf.Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.snapshot
}

func (f *fixed) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

func (f *fixed) Resolve(_ context.Context, name string) (*conf.Target, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t, ok := f.names[name]; ok && t == nil {
		return nil, errors.New("control plane unreachable")
	}
	return f.names[name], nil
}

func (f *fixed) Ready(context.Context) error { return nil }

func (f *fixed) publish(change func(*conf.Snapshot, map[string]*conf.Target)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := &conf.Snapshot{Clusters: map[string]*conf.Cluster{}, RouteTables: map[string]*conf.RouteTable{}}
	names := map[string]*conf.Target{}
	if f.snapshot != nil {
		next.Inbound, next.Gateways, next.Opened = f.snapshot.Inbound, f.snapshot.Gateways, f.snapshot.Opened
		for k, v := range f.snapshot.Clusters {
			next.Clusters[k] = v
		}
		for k, v := range f.snapshot.RouteTables {
			next.RouteTables[k] = v
		}
		for k, v := range f.names {
			names[k] = v
		}
		close(f.changed)
	}
	change(next, names)
	f.snapshot, f.names, f.changed = next, names, make(chan struct{})
}

// pod is a workload with its sidecar.
type pod struct {
	udp atomic.Value // net.Addr of the port for HTTP/3
	*memnet.Host
	m      *mesh
	proxy  *Proxy
	config *fixed
	log    *lines
	id     identity.ID
	stop   func()
}

// lines collects an access log.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// material signs a certificate for a workload.
func (m *mesh) material(account string) *identity.Material {
	m.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		m.t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		m.t.Fatal(err)
	}
	peer := identity.Peer{ID: identity.ID{TrustDomain: "cluster.local", Namespace: "default", ServiceAccount: account},
		Workload: account + "-v1", App: account, Version: "v1", Service: account, Revision: "v1"}
	issued, err := m.authority.Sign(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}), peer, 0, ca.ProofJoinToken)
	if err != nil {
		m.t.Fatal(err)
	}
	mat, err := identity.NewMaterial(issued.Chain, key, issued.Bundle, time.Now())
	if err != nil {
		m.t.Fatal(err)
	}
	return mat
}

// pod starts a workload's sidecar at an address. The sidecar serves its inbound ports under the given mode until the test
// ends or stop is called.
func (m *mesh) pod(account, ip string, change func(*wire.Bootstrap)) *pod {
	m.t.Helper()
	p := &pod{Host: m.net.Host(netip.MustParseAddr(ip)), m: m, config: &fixed{}, log: &lines{}}
	mat := m.material(account)
	p.id = mat.Self.ID
	source := &identity.Source{}
	source.Publish(mat)
	p.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) { s.Inbound = strict(9080) })
	b := &wire.Bootstrap{Node: wire.Node{Role: wire.Sidecar, Name: account + "-1", Namespace: "default", ServiceAccount: account,
		Workload: account + "-v1"}, TrustDomain: "cluster.local", Outbound: net.JoinHostPort(ip, "15001"), Inbound: net.JoinHostPort(ip, "15006"), DrainSeconds: 2}
	if change != nil {
		change(b)
	}
	out, in := netip.MustParseAddrPort(net.JoinHostPort(ip, "15001")), netip.MustParseAddrPort(net.JoinHostPort(ip, "15006"))
	if b.Outbound != "" {
		p.CaptureOutbound(func(dst netip.AddrPort) (netip.AddrPort, bool) {
			return out, !dst.Addr().IsLoopback() && dst.Addr() != p.Addr()
		})
		p.CaptureInbound(func(dst netip.AddrPort) (netip.AddrPort, bool) { return in, true })
	}
	var err error
	var accessLog io.Writer = p.log
	if b.AccessLog == "none" {
		b.AccessLog, accessLog = "", nil
	}
	p.proxy, err = New(Options{Bootstrap: b, Now: m.now, Config: p.config, Source: source, AccessLog: accessLog, Log: slog.New(slog.DiscardHandler),
		Network: bind.Network{Listen: func(_ context.Context, _, address string) (net.Listener, error) {
			return p.Listen(netip.MustParseAddrPort(address))
		}, ListenGatewayPacket: func(ctx context.Context, _ string) (net.PacketConn, error) { // of the machine: there is no UDP in memory
			var lc net.ListenConfig
			pc, err := lc.ListenPacket(ctx, "udp", "127.0.0.1:0")
			if err == nil {
				p.udp.Store(pc.LocalAddr())
			}
			return pc, err
		}},
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			if network == "udp" { // name servers are of the machine: there is no UDP in memory
				var d net.Dialer
				return d.DialContext(ctx, network, address)
			}
			if real, ok := m.real.Load(address); ok {
				var d net.Dialer
				return d.DialContext(ctx, "tcp", real.(string))
			}
			a, err := netip.ParseAddrPort(address)
			if err != nil {
				return nil, err
			}
			return p.DialDirect(ctx, a)
		}})
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.proxy.Run(ctx) }() // ends by stop
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			m.t.Errorf("proxy of %s: %v", account, err)
		}
	})
	m.t.Cleanup(func() {
		p.proxy.arrivedAt.Store(0) // nobody comes any more: no need to wait for whom has not heard of the end
		p.stop()
	})
	eventually(m.t, "proxy of "+account+" ready", func() bool { return p.proxy.Unready() == "" })
	return p
}

// serve runs an HTTP application at a port of the pod.
func (p *pod) serve(port uint16, h http.Handler) (stop func()) {
	p.m.t.Helper()
	l, err := p.Listen(netip.AddrPortFrom(p.Addr(), port))
	if err != nil {
		p.m.t.Fatal(err)
	}
	s := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	done := make(chan struct{})
	go func() { // ends by stop
		defer close(done)
		s.Serve(l)
	}()
	stop = sync.OnceFunc(func() {
		s.Close()
		<-done
	})
	p.m.t.Cleanup(stop)
	return stop
}

// serveRaw runs a TCP application: handle owns each connection.
func (p *pod) serveRaw(port uint16, handle func(net.Conn)) {
	p.m.t.Helper()
	l, err := p.Listen(netip.AddrPortFrom(p.Addr(), port))
	if err != nil {
		p.m.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				handle(c)
			})
		}
	})
	p.m.t.Cleanup(func() {
		l.Close()
		p.stop()
		wg.Wait()
	})
}

// vip is where every service's virtual address is; ports tell them apart.
const vip = "10.78.0.1"

// client is an HTTP client that runs in the pod.
func (p *pod) client() *http.Client {
	t := &http.Transport{DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
		_, port, _ := net.SplitHostPort(address)
		return p.Dial(ctx, netip.MustParseAddrPort(vip+":"+port))
	}}
	p.m.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// get asks and gives status and body.
func (p *pod) get(c *http.Client, url string, header ...string) (int, string, http.Header) {
	return p.do(c, "GET", url, nil, header...)
}

func (p *pod) do(c *http.Client, method, url string, body io.Reader, header ...string) (int, string, http.Header) {
	p.m.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, url, body)
	if err != nil {
		p.m.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := c.Do(r)
	if err != nil {
		return 0, err.Error(), nil
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error(), nil
	}
	return res.StatusCode, string(b), res.Header
}

// route makes a forwarding route.
func forwardTo(clusters ...string) *conf.Route {
	f := &conf.Forward{Upgrades: true}
	for _, c := range clusters {
		f.Clusters = append(f.Clusters, conf.WeightedCluster{Cluster: c, Weight: 1})
		f.TotalWeight++
	}
	return &conf.Route{Name: "test", Forward: f}
}

func table(routes ...*conf.Route) *conf.RouteTable {
	t := &conf.RouteTable{Name: "test", Hosts: []*conf.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: routes}}}
	t.Seal()
	return t
}

// istioRetries is what our control plane gives every route that has no retries, and the codes of gRPC that Istio's adds.
func istioRetries() *conf.Retry {
	return &conf.Retry{On: conf.OnConnectFailure | conf.OnRefusedStream | conf.OnGRPCUnavailable | conf.OnGRPCCancelled | conf.OnResetBeforeRequest | conf.OnSafeReset,
		Attempts: 2, BackOff: time.Millisecond, OtherHosts: true}
}

// knows makes the pod's configuration know a service at a port with the routes; names are its hosts.
func (p *pod) knows(name string, port uint16, routes ...*conf.Route) {
	target := &conf.Target{Name: name, Routes: table(routes...),
		Listener: &conf.Listener{Name: name, Chains: []*conf.Chain{{HTTP: &conf.HTTP{ServerName: "istio-envoy"}}}}}
	p.config.publish(func(_ *conf.Snapshot, names map[string]*conf.Target) {
		names[wire.ListenerName(name, port)] = target
		names[wire.ListenerName(vip, port)] = target
	})
}

// cluster publishes a cluster whose endpoints are the port of the given pods, reached by mutual TLS.
func (p *pod) cluster(name string, port uint16, pods ...*pod) {
	p.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) { s.Clusters[name] = meshCluster(name, port, pods...) })
}

func meshCluster(name string, port uint16, pods ...*pod) *conf.Cluster {
	u := &conf.UpstreamTLS{Workload: true, SNI: "outbound_.9080_._" + name, ALPN: []string{wire.ALPNHTTP1, wire.ALPNTCP}}
	l := conf.Locality{}
	for _, e := range pods {
		u.SANs = append(u.SANs, conf.StringMatch{Kind: conf.Exact, Value: e.id.String()})
		l.Endpoints = append(l.Endpoints, &conf.Endpoint{Address: e.Addr().String(), Port: port, Weight: 1, Healthy: true, TLSMode: "istio",
			Workload: e.id.ServiceAccount + "-v1", WorkloadNamespace: "default", App: e.id.ServiceAccount, Version: "v1",
			CanonicalService: e.id.ServiceAccount, Revision: "v1", ServiceAccount: e.id.ServiceAccount,
			Addr: netip.AddrPortFrom(e.Addr(), port)})
	}
	return &conf.Cluster{Name: name, Discovery: conf.EDS, Speaks: conf.AsClient, Localities: []conf.Locality{l}, Total: len(pods),
		ServiceHost: name + ".default.svc.cluster.local", ServiceName: name, ServiceNamespace: "default", Port: port,
		Transports: []conf.TransportMatch{{TLSMode: "istio", TLS: u}, {}}}
}

// inboundHTTP is the chain of an HTTP port.
func inboundHTTP(rbac ...*conf.RBAC) *conf.HTTP {
	return &conf.HTTP{Routes: table(forwardTo(wire.InboundPassthroughCluster)), RBAC: rbac, ForwardClientCert: conf.SanitizeSetClientCert}
}

func inboundTCP(rbac ...*conf.RBAC) *conf.TCP {
	return &conf.TCP{Clusters: []conf.WeightedCluster{{Cluster: wire.InboundPassthroughCluster, Weight: 1}}, TotalWeight: 1, RBAC: rbac}
}

func meshTLS(alpn ...string) *conf.DownstreamTLS {
	return &conf.DownstreamTLS{Workload: true, RequireClient: true, ALPN: alpn}
}

// strict accepts mutual TLS alone.
func strict(port uint16, rbac ...*conf.RBAC) *conf.Listener {
	return &conf.Listener{Name: wire.InboundListener, Direction: "inbound", Chains: []*conf.Chain{
		{Name: "http", Match: conf.ChainMatch{DestinationPort: port, Transport: conf.TLSTransport, ALPN: []string{wire.ALPNHTTP1, wire.ALPNHTTP2}},
			TLS: meshTLS(wire.ALPNHTTP2, wire.ALPNHTTP1), HTTP: inboundHTTP(rbac...)},
		{Name: "tcp", Match: conf.ChainMatch{Transport: conf.TLSTransport, ALPN: []string{wire.ALPNTCP}}, TLS: meshTLS(wire.ALPNTCP),
			TCP: inboundTCP()},
		{Name: "tcp of the port", Match: conf.ChainMatch{DestinationPort: port, Transport: conf.TLSTransport, ALPN: []string{wire.ALPNTCP}},
			TLS: meshTLS(wire.ALPNTCP), TCP: inboundTCP()},
	}}
}

// permissive accepts plaintext of any protocol as well.
func permissive(port uint16, rbac ...*conf.RBAC) *conf.Listener {
	l := strict(port, rbac...)
	l.Chains = append(l.Chains,
		&conf.Chain{Name: "raw http", Match: conf.ChainMatch{DestinationPort: port, Transport: conf.RawTransport, ALPN: []string{"http/1.1", "h2c"}},
			HTTP: inboundHTTP(rbac...)},
		&conf.Chain{Name: "raw", Match: conf.ChainMatch{DestinationPort: port, Transport: conf.RawTransport}, TCP: inboundTCP()})
	return l
}

func (p *pod) accepts(l *conf.Listener) {
	p.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) { s.Inbound = l })
}

// eventually waits for a condition that another goroutine brings about.
// enough bounds waits for what should come soon.
const enough = 2 * time.Minute

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(enough)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func (p *pod) logged(parts ...string) bool {
	for _, line := range strings.Split(p.log.String(), "\n") {
		all := true
		for _, part := range parts {
			all = all && strings.Contains(line, part)
		}
		if all {
			return true
		}
	}
	return false
}

func hello(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, name+" "+r.URL.Path) })
}

func dialTo(from, to *pod, port uint16) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return from.Dial(ctx, netip.AddrPortFrom(to.Addr(), port))
	}
}

// keyPair gives a certificate in the form of the configuration.
func keyPair(t testing.TB, c tls.Certificate) conf.KeyPair {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return conf.KeyPair{Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}),
		Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})}
}

// connects opens a connection from the pod to a port of a service, which ends with the test.
func (p *pod) connects(port uint16) net.Conn {
	p.m.t.Helper()
	c, err := p.Dial(p.m.t.Context(), netip.AddrPortFrom(netip.MustParseAddr(vip), port))
	if err != nil {
		p.m.t.Fatal(err)
	}
	p.m.t.Cleanup(func() { c.Close() })
	return c
}

// echoes reports whether a connection gives back what is written to it.
func echoes(c net.Conn) bool {
	io.WriteString(c, "hello")
	n, _ := io.ReadFull(c, make([]byte, 5))
	return n == 5
}
