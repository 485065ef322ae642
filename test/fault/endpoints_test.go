package fault

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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
	dead, err := net.Listen("tcp", "127.0.0.1:0") // to have a port that nobody has
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	closed := uint16(dead.Addr().(*net.TCPAddr).Port)
	p, address, _ := outbound(t, func(f *conf.Forward) {
		f.Retry = &conf.Retry{On: conf.OnConnectFailure, Attempts: 5, BackOff: time.Millisecond, OtherHosts: true}
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

// TestDNSLoss: while names are not resolved, connections that are open serve on, others get an answer at once, and nothing has to be
// forgotten when names are resolved again.
func TestDNSLoss(t *testing.T) {
	b := rig.NewBackend(t, ok)
	var lost atomic.Bool
	var d net.Dialer
	p, address := rig.New(t).OutboundOptions(func(o *proxy.Options) {
		o.Dial = func(ctx context.Context, network, to string) (net.Conn, error) {
			host, _, err := net.SplitHostPort(to)
			switch {
			case err != nil || host != "backend.internal":
				return nil, fmt.Errorf("dial %s: not expected", to)
			case lost.Load():
				return nil, &net.DNSError{Err: "server misbehaving", Name: host, IsTemporary: true}
			}
			return d.DialContext(ctx, network, b.Addr().String())
		}
	})
	p.Config.Publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		c := rig.Cluster("backend", &conf.Endpoint{Address: "backend.internal", Port: 80, Weight: 1, Healthy: true})
		c.Discovery = conf.StrictDNS
		s.Clusters["backend"] = c
	})
	before := rig.Measure(t)
	for range 3 {
		c := dial(t, address)
		r := bufio.NewReader(c)
		for n := range 10 {
			io.WriteString(c, "GET /g HTTP/1.1\r\nHost: a\r\n\r\n")
			if g, err := read(r); err != nil || g.status != 200 {
				t.Errorf("request %d over one connection: %v, %v", n, g, err)
			}
			lost.Store(true)
		}
		c.Close()
		b.Reset()
		rig.Eventually(t, "no kept connection", func() bool { return b.Open() == 0 })
		start := time.Now()
		if g, err := get(t, address); err != nil || g.status != 503 || time.Since(start) > time.Second {
			t.Errorf("without names: %v, %v after %v", g, err, time.Since(start))
		}
		lost.Store(false)
	}
	if g, err := get(t, address); err != nil || g.status != 200 {
		t.Errorf("afterwards: %v, %v", g, err)
	}
	before.Back(t, b)
}
