package datagram

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/weftmesh/weft/internal/proxy/balance"
	"github.com/weftmesh/weft/internal/proxy/cluster"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/resolve"
	"github.com/weftmesh/weft/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a server of datagrams in front of real sockets, with a configuration and a clock that the test sets.
type rig struct {
	t        *testing.T
	listener atomic.Pointer[conf.Listener]
	snapshot atomic.Pointer[conf.Snapshot]
	clusters *cluster.Set
	clock    atomic.Int64
	entered  atomic.Int64
	bearable atomic.Int64
	metrics  *telemetry.Metrics
	server   *Server
	at       *net.UDPAddr

	mu    sync.Mutex
	lines []telemetry.Entry
}

func (r *rig) Snapshot() *conf.Snapshot { return r.snapshot.Load() }
func (r *rig) Changed() <-chan struct{} { return nil }

func (r *rig) now() time.Time { return time.Unix(0, r.clock.Load()) }

func (r *rig) later(d time.Duration) { r.clock.Add(int64(d)) }

func listenUDP(t *testing.T) *net.UDPConn {
	t.Helper()
	u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	return u
}

// backend answers each datagram with its name and the datagram.
func backend(t *testing.T, name string) *net.UDPConn {
	u := listenUDP(t)
	done := make(chan struct{})
	t.Cleanup(func() { u.Close(); <-done })
	go func() { // ends when the socket is closed
		defer close(done)
		buf := make([]byte, largest)
		for {
			n, from, err := u.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			u.WriteToUDPAddrPort(append([]byte(name+" "), buf[:n]...), from)
		}
	}()
	return u
}

func endpointAt(u *net.UDPConn) *conf.Endpoint {
	a := u.LocalAddr().(*net.UDPAddr).AddrPort()
	return &conf.Endpoint{Address: a.Addr().String(), Port: a.Port(), Addr: a, Weight: 1, Healthy: true}
}

func clusterOf(name string, endpoints ...*conf.Endpoint) *conf.Cluster {
	c := &conf.Cluster{Name: name, Total: len(endpoints)}
	if len(endpoints) > 0 {
		c.Localities = []conf.Locality{{Endpoints: endpoints, Weight: 1}}
	}
	return c
}

// publish makes the clusters the configuration, with one weight each.
func (r *rig) publish(d *conf.Datagrams, clusters ...*conf.Cluster) {
	s := &conf.Snapshot{Clusters: map[string]*conf.Cluster{}}
	for _, c := range clusters {
		s.Clusters[c.Name] = c
		d.Clusters = append(d.Clusters, conf.WeightedCluster{Cluster: c.Name, Weight: 1})
		d.TotalWeight++
	}
	r.snapshot.Store(s)
	r.listener.Store(&conf.Listener{Name: "udp", Datagrams: d, Address: netip.MustParseAddrPort("127.0.0.1:53")})
}

// answer says of each name that it is this machine's.
func answer(_ context.Context, q *dns.Msg) (*dns.Msg, error) {
	m := new(dns.Msg).SetReply(q)
	if q.Question[0].Qtype == dns.TypeA {
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(127, 0, 0, 1)}}
	}
	return m, nil
}

func start(t *testing.T, sessions int, d *conf.Datagrams, clusters ...*conf.Cluster) *rig {
	t.Helper()
	return startOn(t, listenUDP(t), sessions, d, clusters...)
}

func startOn(t *testing.T, pc *net.UDPConn, sessions int, d *conf.Datagrams, clusters ...*conf.Cluster) *rig {
	r := &rig{t: t, metrics: telemetry.New(0)}
	r.bearable.Store(1 << 30)
	r.clock.Store(time.Now().UnixNano())
	r.publish(d, clusters...)
	r.clusters = cluster.New(cluster.Options{Config: r, Now: r.now, Resolver: &resolve.Resolver{Exchange: answer}})
	r.clusters.Open(t.Context())
	r.server = New(Options{Log: slog.New(slog.DiscardHandler), Listener: r.listener.Load, Cluster: r.clusters.Get, Sessions: sessions,
		Dial: func(_ context.Context, to netip.AddrPort) (*net.UDPConn, error) {
			return net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		},
		Enter: func() bool {
			if r.entered.Add(1) > r.bearable.Load() {
				r.entered.Add(-1)
				return false
			}
			return true
		},
		Leave: func() { r.entered.Add(-1) },
		Edge: func(c *cluster.Cluster, _ *cluster.Endpoint) *telemetry.Edge {
			return r.metrics.Edge(telemetry.EdgeKey{Protocol: "udp", ServiceName: c.Conf.Name})
		},
		Write: func(e *telemetry.Entry, _ []conf.AccessLog) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.lines = append(r.lines, *e)
		},
		Now: r.now})
	r.at = pc.LocalAddr().(*net.UDPAddr)
	served := make(chan error, 1)
	go func() { served <- r.server.Serve(pc) }()
	t.Cleanup(func() {
		r.server.Close()
		if err := <-served; err != nil {
			t.Errorf("served: %v", err)
		}
		if n := r.entered.Load(); n != 0 {
			t.Errorf("%d sessions were not counted out", n)
		}
	})
	return r
}

// client is one that sends and awaits an answer.
type client struct{ *net.UDPConn }

func (r *rig) client() client {
	u, err := net.DialUDP("udp4", nil, r.at)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { u.Close() })
	return client{u}
}

// ask sends a datagram and gives the answer to it; "" when none came.
func (c client) ask(t *testing.T, what string, patience time.Duration) string {
	t.Helper()
	if _, err := c.Write([]byte(what)); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, largest)
	n, err := c.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

const (
	long  = 2 * time.Minute
	short = 100 * time.Millisecond // where no answer is expected
)

// eventually waits for what the server does when a client has its answer, or has none to expect.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(long); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestEcho(t *testing.T) {
	a := backend(t, "a")
	r := start(t, 0, &conf.Datagrams{}, clusterOf("echo", endpointAt(a)))
	c := r.client()
	for _, text := range []string{"hello", "", string(make([]byte, 9000))} {
		if got := c.ask(t, text, long); got != "a "+text {
			t.Fatalf("asked %q, heard %q", text, got)
		}
	}
	if n := r.server.Open(); n != 1 {
		t.Errorf("%d sessions", n)
	}
	stats := map[string]int64{}
	read := func() {
		for _, s := range r.server.Stats(nil, "udp") {
			stats[s.Name] = s.Value
		}
	}
	eventually(t, "the last answer is counted", func() bool { read(); return stats["downstream_sess_tx_bytes"] >= 9011 }) // after it was sent
	if stats["downstream_sess_rx_datagrams"] != 3 || stats["downstream_sess_tx_bytes"] != 9011 || stats["downstream_sess_total"] != 1 {
		t.Errorf("stats %v", stats)
	}
}

// TestBothFamilies: a port at all addresses serves clients of IPv4 and of IPv6, and answers from the address that they sent to.
func TestBothFamilies(t *testing.T) {
	pc, err := net.ListenUDP("udp", &net.UDPAddr{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	r := startOn(t, pc, 0, &conf.Datagrams{}, clusterOf("echo", endpointAt(backend(t, "a"))))
	for _, ip := range []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(127, 0, 0, 9), net.IPv6loopback} {
		u, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: ip, Port: r.at.Port})
		if err != nil {
			t.Skipf("no address %s here: %v", ip, err)
		}
		defer u.Close() // it is connected, so that answers from elsewhere would not come
		if got := (client{u}).ask(t, ip.String(), long); got != "a "+ip.String() {
			t.Errorf("asked at %s, heard %q", ip, got)
		}
	}
}

// TestNameOfAnEndpoint: a name is looked up when the first datagram comes, which does not wait.
func TestNameOfAnEndpoint(t *testing.T) {
	at := endpointAt(backend(t, "a"))
	named := clusterOf("outside", &conf.Endpoint{Address: "echo.example", Port: at.Port, Weight: 1, Healthy: true})
	named.Discovery, named.DNS = conf.StrictDNS, conf.DNS{Family: conf.V4Preferred}
	r := start(t, 0, &conf.Datagrams{}, named)
	c := r.client()
	for began := time.Now(); ; {
		if c.ask(t, "hello", short) == "a hello" {
			return
		}
		if time.Since(began) > long {
			t.Fatal("no answer")
		}
	}
}

// TestSessionsStayAndSpread: a client's datagrams go to one endpoint, clients are divided among all.
func TestSessionsStayAndSpread(t *testing.T) {
	a, b := backend(t, "a"), backend(t, "b")
	r := start(t, 0, &conf.Datagrams{}, clusterOf("echo", endpointAt(a), endpointAt(b)))
	seen := map[string]int{}
	for range 20 {
		c := r.client()
		first := c.ask(t, "x", long)
		for range 3 {
			if got := c.ask(t, "x", long); got != first {
				t.Fatalf("the session moved from %q to %q", first, got)
			}
		}
		seen[first]++
	}
	if seen["a x"] < 5 || seen["b x"] < 5 {
		t.Errorf("clients by endpoint: %v", seen)
	}
}

// TestEndpointRefuses: where nobody listens any more, the host says so (ICMP); the client's next datagram goes elsewhere.
func TestEndpointRefuses(t *testing.T) {
	a, b := backend(t, "a"), backend(t, "b")
	r := start(t, 0, &conf.Datagrams{}, clusterOf("echo", endpointAt(a), endpointAt(b)))
	c := r.client()
	first := c.ask(t, "x", long)
	dead, other := a, "b x"
	if first == "b x" {
		dead, other = b, "a x"
	}
	dead.Close()
	deadline := time.Now().Add(long)
	for got := ""; got != other; got = c.ask(t, "x", short) {
		if time.Now().After(deadline) {
			t.Fatal("the client is not served by the other endpoint")
		}
	}
	for _, h := range r.clusters.Get("echo").Balancer.Hosts() {
		if int(h.Endpoint.Port) == dead.LocalAddr().(*net.UDPAddr).Port && h.Healthy() {
			t.Error("the endpoint that refused counts as healthy")
		}
	}
	for range 10 {
		if got := r.client().ask(t, "x", long); got != other {
			t.Errorf("a new client heard %q", got)
		}
	}
}

// TestAnswerClearsItsEndpoint: an endpoint that refused, and then answers, gets its share again.
func TestAnswerClearsItsEndpoint(t *testing.T) {
	a := backend(t, "a")
	r := start(t, 0, &conf.Datagrams{}, clusterOf("echo", endpointAt(a)))
	b := r.clusters.Get("echo").Balancer
	b.Report(b.Hosts()[0], balance.ConnectFailed, 0, errors.New("refused"))
	if got := r.client().ask(t, "x", long); got != "a x" || !b.Hosts()[0].Healthy() {
		t.Errorf("heard %q of an endpoint that is %s", got, b.Hosts()[0].Condition())
	}
}

// TestFloodIsBounded: datagrams from any number of ports make no more sessions than may be.
func TestFloodIsBounded(t *testing.T) {
	a := backend(t, "a")
	r := start(t, 8, &conf.Datagrams{}, clusterOf("echo", endpointAt(a)))
	for i := range 100 {
		if got := r.client().ask(t, strconv.Itoa(i), long); got != fmt.Sprintf("a %d", i) {
			t.Fatalf("client %d heard %q", i, got)
		}
		if n := r.server.Open(); n > 8 {
			t.Fatalf("%d sessions", n)
		}
	}
	if n := r.server.counts.evicted.Load(); n != 92 {
		t.Errorf("%d sessions were evicted", n)
	}
}

// TestProxyIsShort: what the proxy cannot bear takes the place of its oldest session, or is dropped.
func TestProxyIsShort(t *testing.T) {
	a := backend(t, "a")
	r := start(t, 0, &conf.Datagrams{}, clusterOf("echo", endpointAt(a)))
	r.bearable.Store(2)
	for range 5 {
		if got := r.client().ask(t, "x", long); got != "a x" {
			t.Fatalf("heard %q", got)
		}
	}
	if n := r.server.Open(); n != 2 {
		t.Errorf("%d sessions", n)
	}
}

func TestIdleSessionsEnd(t *testing.T) {
	a := backend(t, "a")
	r := start(t, 0, &conf.Datagrams{IdleTimeout: 20 * time.Second}, clusterOf("echo", endpointAt(a)))
	old, young := r.client(), r.client()
	old.ask(t, "x", long)
	r.later(15 * time.Second)
	young.ask(t, "x", long)
	r.later(10 * time.Second)
	r.server.sweep()
	if n := r.server.Open(); n != 1 {
		t.Errorf("%d sessions", n)
	}
	if got := old.ask(t, "y", long); got != "a y" {
		t.Errorf("a client that comes again heard %q", got)
	}
}

// TestConfigurationChanges: sessions stay while their cluster and endpoint do, and end with either.
func TestConfigurationChanges(t *testing.T) {
	a, b := backend(t, "a"), backend(t, "b")
	r := start(t, 0, &conf.Datagrams{}, clusterOf("one", endpointAt(a)))
	c := r.client()
	c.ask(t, "x", long)
	at := c.LocalAddr().(*net.UDPAddr).AddrPort()
	session := func() *session { r.server.mu.Lock(); defer r.server.mu.Unlock(); return r.server.sessions[at] }
	first := session()
	r.publish(&conf.Datagrams{}, clusterOf("one", endpointAt(a), endpointAt(b)), clusterOf("two", endpointAt(b)))
	if c.ask(t, "x", long); session() != first {
		t.Error("the session did not outlive a change that leaves its cluster")
	}
	r.publish(&conf.Datagrams{}, clusterOf("one", endpointAt(b)))
	if got := c.ask(t, "x", long); got != "b x" {
		t.Errorf("heard %q after the endpoint left", got)
	}
	r.publish(&conf.Datagrams{}, clusterOf("two", endpointAt(a)))
	r.server.sweep()
	if n := r.server.Open(); n != 0 {
		t.Errorf("%d sessions of a cluster that left", n)
	}
	r.publish(&conf.Datagrams{}, clusterOf("none"))
	if got := c.ask(t, "x", short); got != "" {
		t.Errorf("heard %q from no endpoint", got)
	}
}

func TestPolicies(t *testing.T) {
	a := backend(t, "a")
	deny := &conf.RBAC{Action: conf.Allow} // allows nobody
	r := start(t, 0, &conf.Datagrams{RBAC: []*conf.RBAC{deny}}, clusterOf("echo", endpointAt(a)))
	c := r.client()
	if got := c.ask(t, "x", short); got != "" {
		t.Fatalf("a client that may not come heard %q", got)
	}
	eventually(t, "it is denied", func() bool { return r.server.counts.denied.Load() > 0 })
	if r.server.Open() != 0 || r.server.counts.denied.Load() != 1 {
		t.Errorf("%d sessions, %d denied", r.server.Open(), r.server.counts.denied.Load())
	}
	r.publish(&conf.Datagrams{}, clusterOf("echo", endpointAt(a)))
	if got := c.ask(t, "x", long); got != "a x" {
		t.Fatalf("heard %q", got)
	}
	r.publish(&conf.Datagrams{RBAC: []*conf.RBAC{deny}}, clusterOf("echo", endpointAt(a)))
	if got := c.ask(t, "x", short); got != "" {
		t.Errorf("heard %q after the policy came", got)
	}
	eventually(t, "its session ends", func() bool { return r.server.Open() == 0 })
}

// TestDrain: answers still come, new datagrams are left to whoever shares the socket, and idle sessions end soon.
func TestDrain(t *testing.T) {
	slow := listenUDP(t)
	r := start(t, 0, &conf.Datagrams{}, clusterOf("slow", endpointAt(slow)))
	c := r.client()
	if got := c.ask(t, "x", 0); got != "" {
		t.Fatal(got)
	}
	buf := make([]byte, 16)
	_, from, err := slow.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatal(err)
	}
	drained := make(chan error, 1)
	go func() { drained <- r.server.Drain(t.Context()) }()
	for !r.server.leaving() {
		runtime.Gosched()
	}
	slow.WriteToUDPAddrPort([]byte("late"), from)
	c.SetReadDeadline(time.Now().Add(long))
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "late" {
		t.Fatalf("heard %q: %v", buf[:n], err)
	}
	r.later(2 * drainIdle)
	if err := <-drained; err != nil {
		t.Error(err)
	}
}
