package proxy

import (
	"context"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/wire"
)

// nameServer is a real one on loopback; a test sets its answers, which hold for no time.
type nameServer struct {
	address string
	stop    func()

	mu        sync.Mutex
	code      int
	addresses []string
	asked     int
}

func newNameServer(t *testing.T, addresses ...string) *nameServer {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &nameServer{address: pc.LocalAddr().String(), addresses: addresses}
	started, ended := make(chan struct{}), make(chan error, 1)
	s := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(n.answer), NotifyStartedFunc: func() { close(started) }}
	go func() { ended <- s.ActivateAndServe() }() // ends by stop
	<-started
	n.stop = sync.OnceFunc(func() {
		s.Shutdown()
		<-ended
	})
	t.Cleanup(n.stop)
	return n
}

func (n *nameServer) answer(w dns.ResponseWriter, q *dns.Msg) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	m := new(dns.Msg).SetRcode(q, n.code)
	for _, a := range n.addresses {
		kind := "A"
		if strings.Contains(a, ":") {
			kind = "AAAA"
		}
		if dns.StringToType[kind] != q.Question[0].Qtype || n.code != dns.RcodeSuccess {
			continue
		}
		rr, err := dns.NewRR(q.Question[0].Name + " 0 IN " + kind + " " + a)
		if err != nil {
			continue
		}
		m.Answer = append(m.Answer, rr)
	}
	w.WriteMsg(m)
}

func (n *nameServer) set(code int, addresses ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.code, n.addresses = code, addresses
}

func (n *nameServer) questions() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked
}

// dnsCluster is one endpoint with a name.
func dnsCluster(kind conf.Discovery) *conf.Cluster {
	e := &conf.Endpoint{Address: "db.example", Port: 9080, Weight: 1, Healthy: true}
	return &conf.Cluster{Name: "db", Discovery: kind, Localities: []conf.Locality{{Endpoints: []*conf.Endpoint{e}}}, Total: 1, ServiceHost: "db.example",
		Transports: []conf.TransportMatch{{}}, ConnectTimeout: 2 * time.Second,
		DNS: conf.DNS{Family: conf.AllFamilies, Refresh: 10 * time.Millisecond, FailureBase: 10 * time.Millisecond, FailureMax: 10 * time.Millisecond}}
}

// namesRig is a client pod, and two servers one of which has an address of IPv6.
func namesRig(t *testing.T, n *nameServer, c *conf.Cluster) (client *pod, get func() (int, string)) {
	m := newMesh(t)
	client = m.pod("productpage", "10.0.0.1", func(b *wire.Bootstrap) { b.DNSUpstream = []string{n.address} })
	for ip, name := range map[string]string{"10.0.0.2": "one", "10.0.0.3": "two", "fd00::4": "six"} {
		p := m.pod(name, ip, func(b *wire.Bootstrap) { b.Outbound, b.Inbound = "", "" })
		p.serve(9080, hello(name))
	}
	client.knows("db", 80, forwardTo("db"))
	client.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) { s.Clusters["db"] = c })
	h := client.client()
	return client, func() (int, string) {
		status, body, _ := client.get(h, "http://db/")
		return status, strings.TrimSuffix(body, " /")
	}
}

// reaches waits until exactly the wanted servers answer.
func reaches(t *testing.T, get func() (int, string), want ...string) {
	t.Helper()
	eventually(t, "answers come from "+strings.Join(want, " and "), func() bool {
		got := map[string]bool{}
		for range 8 * len(want) {
			status, body := get()
			if status != 200 {
				return false
			}
			got[body] = true
		}
		all := len(got) == len(want)
		for _, w := range want {
			all = all && got[w]
		}
		return all
	})
}

func TestNamesAreResolved(t *testing.T) {
	n := newNameServer(t, "10.0.0.2")
	client, get := namesRig(t, n, dnsCluster(conf.StrictDNS))
	if q := n.questions(); q != 0 {
		t.Fatalf("asked %d times before the first request", q)
	}
	if status, body := get(); status != 200 || body != "one" {
		t.Fatalf("the first request: %d %q", status, body)
	}
	n.set(dns.RcodeSuccess, "10.0.0.2", "10.0.0.3", "fd00::4")
	reaches(t, get, "one", "two", "six")
	n.set(dns.RcodeSuccess, "10.0.0.3")
	reaches(t, get, "two")

	// A failure keeps the addresses, and is told.
	n.set(dns.RcodeServerFailure)
	clusters := func() string {
		w := httptest.NewRecorder()
		client.proxy.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/clusters", nil))
		return w.Body.String()
	}
	eventually(t, "the failure is shown", func() bool {
		return strings.Contains(clusters(), "db::name::db.example::10.0.0.3; name db.example is not resolved any more")
	})
	reaches(t, get, "two")
	if !strings.Contains(clusters(), "db::10.0.0.3:9080::hostname::db.example") {
		t.Errorf("no name at the endpoint:\n%s", clusters())
	}
	n.stop()
	reaches(t, get, "two")
}

// No request is lost while the addresses change all the time, or nobody tells them.
func TestNamesChangeUnderLoad(t *testing.T) {
	n := newNameServer(t, "10.0.0.2")
	client, get := namesRig(t, n, dnsCluster(conf.StrictDNS))
	reaches(t, get, "one")
	ctx, stop := context.WithCancel(t.Context())
	var sent atomic.Int64
	var load sync.WaitGroup
	for range 4 {
		h := client.client()
		load.Go(func() { // ends with stop
			for ctx.Err() == nil {
				if status, body, _ := client.get(h, "http://db/"); status != 200 {
					t.Errorf("%d %q", status, body)
				}
				sent.Add(1)
			}
		})
	}
	codes := []int{dns.RcodeSuccess, dns.RcodeSuccess, dns.RcodeServerFailure}
	answers := [][]string{{"10.0.0.3"}, {"10.0.0.2", "fd00::4"}, {"10.0.0.2", "10.0.0.3", "fd00::4"}, {"fd00::4"}, {"10.0.0.2"}}
	for i := range 30 {
		n.set(codes[i%len(codes)], answers[i%len(answers)]...)
		asked, before := n.questions(), sent.Load()
		eventually(t, "the name is looked up, twice for both families, and requests are sent", func() bool {
			return n.questions() >= asked+4 && sent.Load() > before+8
		})
	}
	stop()
	load.Wait()
}

func TestNamesThatDoNotExist(t *testing.T) {
	n := newNameServer(t)
	n.set(dns.RcodeNameError)
	_, get := namesRig(t, n, dnsCluster(conf.StrictDNS))
	if status, body := get(); status != 503 || !strings.Contains(body, "name db.example does not exist") {
		t.Fatalf("%d %q", status, body)
	}
	n.set(dns.RcodeSuccess, "10.0.0.2")
	reaches(t, get, "one")
	n.set(dns.RcodeNameError)
	eventually(t, "the addresses go with the name", func() bool { status, _ := get(); return status == 503 })
}

func TestNamesWithoutServer(t *testing.T) {
	n := newNameServer(t)
	n.stop()
	_, get := namesRig(t, n, dnsCluster(conf.StrictDNS))
	if status, body := get(); status != 503 || !strings.Contains(body, "name db.example is not resolved") {
		t.Fatalf("%d %q", status, body)
	}
}

// New connections go to the first address; open ones stay.
func TestLogicalNames(t *testing.T) {
	n := newNameServer(t, "10.0.0.2", "10.0.0.3")
	c := dnsCluster(conf.LogicalDNS)
	_, get := namesRig(t, n, c)
	reaches(t, get, "one")
	n.set(dns.RcodeSuccess, "10.0.0.3", "10.0.0.2")
	before := n.questions()
	eventually(t, "the name was resolved again", func() bool { return n.questions() > before+4 })
	reaches(t, get, "one")

	limited := *c
	limited.MaxRequestsPerConnection = 1
	n.set(dns.RcodeSuccess, "10.0.0.2")
	_, get = namesRig(t, n, &limited)
	reaches(t, get, "one")
	n.set(dns.RcodeSuccess, "10.0.0.3")
	reaches(t, get, "two")
}
