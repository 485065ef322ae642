package fault

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/weftmesh/weft/internal/loopback/loopbacktest"
	"github.com/weftmesh/weft/internal/proxy"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/test/rig"
)

// everywhere serves on one port of all loopback addresses until the test ends.
func everywhere(t *testing.T) (port uint16, conns *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	conns = &atomic.Int64{}
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed by the cleanup
			}
			conns.Add(1)
			mu.Lock()
			open[c] = true
			mu.Unlock()
			serving.Go(func() {
				answerAll(c)
				c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		serving.Wait()
	})
	return l.Addr().(*net.TCPAddr).AddrPort().Port(), conns
}

// answerAll answers requests without bodies, by the count of their ends.
func answerAll(c net.Conn) {
	p := make([]byte, 4096)
	for state := 0; ; {
		n, err := c.Read(p)
		if err != nil {
			return
		}
		for _, b := range p[:n] {
			if b == "\r\n\r\n"[state] {
				state++
			} else if state = 0; b == '\r' {
				state = 1
			}
			if state == 4 {
				state = 0
				if _, err := io.WriteString(c, okResponse); err != nil {
					return
				}
			}
		}
	}
}

func loopback(i int, port uint16) *conf.Endpoint {
	return rig.Plain(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}), port).String())
}

// TestThousandEndpointsFlap publishes ever other halves of a thousand endpoints, a tenth of which refuse connections, while clients
// ask without pause: retries that are safe save every request, and nothing of the endpoints stays behind.
func TestThousandEndpointsFlap(t *testing.T) {
	port, conns := everywhere(t)
	closed := netip.MustParseAddrPort(loopbacktest.Address(t)).Port() // nobody has it
	p, address, _ := outbound(t, func(f *conf.Forward) {
		f.Retry = &conf.Retry{On: conf.OnConnectFailure, Attempts: 20, BackOff: time.Millisecond, OtherHosts: true}
	}, loopback(0, port))
	before := rig.Measure(t)
	var stop atomic.Bool
	var done, failed atomic.Int64
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for !stop.Load() {
				if g, err := get(t, address); err != nil || g.status != 200 {
					failed.Add(1)
					t.Logf("%v, %v", g, err)
				}
				done.Add(1)
			}
		})
	}
	const rounds = 60
	for range rounds {
		var endpoints []*conf.Endpoint
		for _, i := range rand.Perm(1000)[:500] {
			if i%10 == 0 {
				endpoints = append(endpoints, loopback(i, closed))
			} else {
				endpoints = append(endpoints, loopback(i, port))
			}
		}
		p.Config.Publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
			c := rig.Cluster("backend", endpoints...)
			c.Policy, c.MaxRetries = conf.LeastRequest, 1000
			s.Clusters["backend"] = c
		})
		from := done.Load()
		rig.Eventually(t, "requests go on", func() bool { return done.Load() > from+20 })
	}
	stop.Store(true)
	clients.Wait()
	t.Logf("%d requests over %d connections in %d rounds", done.Load(), conns.Load(), rounds)
	if failed.Load() > 0 {
		t.Errorf("%d of %d failed", failed.Load(), done.Load())
	}
	p.Config.Publish(func(s *conf.Snapshot, _ map[string]*conf.Target) { s.Clusters["backend"] = rig.Cluster("backend") })
	before.Back(t)
}

// TestEndpointsThatGoAreSwept: connections to an endpoint that left the configuration end after the request they carry.
func TestEndpointsThatGoAreSwept(t *testing.T) {
	release := make(chan struct{})
	slow := rig.NewBackend(t, func(c net.Conn, r *rig.Received) bool {
		if r.URL.Path == "/g" {
			<-release
		}
		return ok(c, r)
	})
	other := rig.NewBackend(t, ok)
	p, address, _ := outbound(t, nil, rig.Plain(slow.Addr().String()))
	result := make(chan error, 1)
	go func() { // ends with its answer
		g, err := get(t, address)
		if err == nil && g.status != 200 {
			err = fmt.Errorf("status %d", g.status)
		}
		result <- err
	}()
	rig.Eventually(t, "the request arrived", func() bool { return len(slow.Received()) == 1 })
	p.Config.Publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		s.Clusters["backend"] = rig.Cluster("backend", rig.Plain(other.Addr().String()))
	})
	if g, err := get(t, address); err != nil || g.status != 200 || len(other.Received()) == 0 {
		t.Errorf("the new endpoint: %v, %v", g, err)
	}
	close(release)
	if err := <-result; err != nil {
		t.Errorf("the request that was under way: %v", err)
	}
	rig.Eventually(t, "its connection ended", func() bool { return slow.Open() == 0 })
}

// TestDNSLoss: while the name server is silent or fails, the addresses that are known serve on, also when their time is over.
func TestDNSLoss(t *testing.T) {
	b := rig.NewBackend(t, ok)
	var lost, asked atomic.Int64
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	names := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		asked.Add(1)
		m := new(dns.Msg).SetReply(q)
		switch {
		case lost.Load() == 1:
			m.Rcode = dns.RcodeServerFailure
		case lost.Load() == 2:
			return
		case q.Question[0].Qtype == dns.TypeA:
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: net.IPv4(127, 0, 0, 1)}}
		}
		_ = w.WriteMsg(m) // whoever asked may have given up
	})}
	served := make(chan error, 1)
	go func() { served <- names.ActivateAndServe() }() // ends with the test
	t.Cleanup(func() {
		names.Shutdown()
		<-served
	})
	p, address := rig.New(t).OutboundOptions(func(o *proxy.Options) { o.Bootstrap.DNSUpstream = []string{pc.LocalAddr().String()} })
	p.Config.Publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		c := rig.Cluster("backend", &conf.Endpoint{Address: "backend.internal", Port: b.Addr().Port(), Weight: 1, Healthy: true})
		c.Discovery = conf.StrictDNS
		s.Clusters["backend"] = c
	})
	rig.Eventually(t, "the name is known", func() bool { g, err := get(t, address); return err == nil && g.status == 200 })
	for how := range int64(3) {
		lost.Store(how)
		before := asked.Load()
		rig.Eventually(t, "the name server is asked again", func() bool {
			if g, err := get(t, address); err != nil || g.status != 200 {
				t.Errorf("with a loss of kind %d: %v, %v", how, g, err)
			}
			return t.Failed() || asked.Load() > before+1
		})
		b.Reset() // and over new connections as well
		if g, err := get(t, address); err != nil || g.status != 200 {
			t.Errorf("with a loss of kind %d, over a new connection: %v, %v", how, g, err)
		}
	}
}
