package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/exchange"
)

// page is what an application of HTTP/1 may answer the preface of HTTP/2 with: no head, as Python's http.server does.
const page = "<!DOCTYPE HTML>\n<h1>Error 505: Invalid HTTP version (2.0)</h1>\n"

// serveOnlyHTTP1 runs an application that answers the preface of HTTP/2 as said, and closes the connection. It counts how often that
// happens.
func (p *pod) serveOnlyHTTP1(port uint16, answer string) *atomic.Int64 {
	var prefaces atomic.Int64
	p.serveRaw(port, func(c net.Conn) {
		for in := bufio.NewReader(c); ; {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if r.Method == "PRI" {
				prefaces.Add(1)
				io.WriteString(c, answer)
				return
			}
			b, _ := io.ReadAll(r.Body)
			says := r.Proto + " " + string(b)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(says), says)
		}
	})
	return &prefaces
}

// TestHTTP2ReachesApplicationsOfHTTP1: where the client's version counts, and the application does not know it, the request is carried
// as HTTP/1.1 at once; a call of gRPC hears why not.
func TestHTTP2ReachesApplicationsOfHTTP1(t *testing.T) {
	for _, c := range []struct {
		mutual       bool
		answer, says string
	}{{false, page, "does not speak HTTP/2"}, {true, page, "does not speak HTTP/2"}, {false, "", "closed the connection before it spoke HTTP/2"}, {true, "", "closed the connection before it spoke HTTP/2"}} {
		t.Run(fmt.Sprintf("mutual TLS %v, says %q", c.mutual, c.answer), func(t *testing.T) {
			client, server := sideBySide(t, c.mutual)
			prefaces := server.serveOnlyHTTP1(9080, c.answer)
			says := c.says
			c := client.clientOf(2)
			for range 5 {
				if status, body, _ := client.do(c, "POST", "http://web:9080/", strings.NewReader("hello")); status != 200 || body != "HTTP/1.1 hello" {
					t.Fatalf("%d %q", status, body)
				}
			}
			if n := prefaces.Load(); n != 1 {
				t.Errorf("asked %d times for HTTP/2 by five requests, of which the first found out", n)
			}
			_, _, h := client.do(c, "POST", "http://web:9080/a.B/C", strings.NewReader(""), "Content-Type", "application/grpc")
			if got := h.Get("Grpc-Status") + " " + h.Get("Grpc-Message"); !strings.HasPrefix(got, "14 ") || !strings.Contains(got, says) {
				t.Errorf("gRPC is told %q", got)
			}
			if n := prefaces.Load(); n != 1+3 { // an attempt and the route's two retries, one connection each
				t.Errorf("asked %d times for HTTP/2 in the end", n)
			}
		})
	}
}

// sideBySide gives a client, which knows the service web with the mesh's usual retries, and the service's pod, whose application listens
// at 9080 and of which nobody has declared what it speaks. Both have sidecars where TLS is mutual; else the client alone.
func sideBySide(t *testing.T, mutual bool) (client, server *pod) {
	t.Helper()
	m := newMesh(t)
	client = m.pod("frontend", "10.0.0.1", nil)
	server = client.bare("10.0.0.2")
	if mutual {
		server = m.pod("web", "10.0.0.2", nil)
		server.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
			l := strict(9080)
			l.Chains[0].HTTP = inboundHTTP()
			l.Chains[0].HTTP.Routes = table(forwardTo("app"))
			s.Inbound = l
			s.Clusters["app"] = &conf.Cluster{Name: "app", Discovery: conf.OriginalDst, Speaks: conf.AsClient, Transports: []conf.TransportMatch{{}}}
		})
	}
	client.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		c := meshCluster("web", 9080, server)
		if !mutual {
			c.Transports = []conf.TransportMatch{{}}
		}
		s.Clusters["web"] = c
	})
	route := forwardTo("web")
	route.Forward.Retry = istioRetries()
	client.knows("web", 9080, route)
	return client, server
}

// TestManyFirstRequestsFindOutTogether that an endpoint does not speak HTTP/2: with one connection, and then one for each.
func TestManyFirstRequestsFindOutTogether(t *testing.T) {
	const many = 50
	for _, mutual := range []bool{false, true} {
		t.Run(fmt.Sprintf("mutual TLS %v", mutual), func(t *testing.T) {
			client, server := sideBySide(t, mutual)
			prefaces := server.serveOnlyHTTP1(9080, "")
			c := client.clientOf(2)
			var all sync.WaitGroup
			for range many {
				all.Go(func() {
					if status, body, _ := client.do(c, "POST", "http://web:9080/", strings.NewReader("hello")); status != 200 || body != "HTTP/1.1 hello" {
						t.Errorf("%d %q", status, body)
					}
				})
			}
			all.Wait()
			if n := prefaces.Load(); n > 3 { // those that had looked before it was known may ask once more
				t.Errorf("asked %d times for HTTP/2 by %d requests at once", n, many)
			}
		})
	}
}

// TestAnEndpointThatClosesEveryConnection is asked once for HTTP/2, and once more for HTTP/1.1 where it may know that: it cannot have
// acted on anything before, and may have after.
func TestAnEndpointThatClosesEveryConnection(t *testing.T) {
	for _, mutual := range []bool{false, true} {
		t.Run(fmt.Sprintf("mutual TLS %v", mutual), func(t *testing.T) {
			client, server := sideBySide(t, mutual)
			var conns atomic.Int64
			server.serveRaw(9080, func(c net.Conn) {
				conns.Add(1)
				c.Read(make([]byte, 1<<10))
			})
			status, body, _ := client.do(client.clientOf(2), "POST", "http://web:9080/", strings.NewReader("hello"))
			if n := conns.Load(); status != 503 || n != 2 {
				t.Errorf("%d %q after %d connections", status, body, n)
			}
			if !mutual {
				eventually(t, "the flag", func() bool { return client.logged(" 503 UC ") })
			}
		})
	}
}

// TestAnEndpointIsForgivenOneConnection: one that speaks HTTP/2 and ends a connection before it does may be about to leave. The request
// goes on, and the endpoint is not taken for one of HTTP/1.
func TestAnEndpointIsForgivenOneConnection(t *testing.T) {
	client, server := sideBySide(t, false)
	client.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		c := *s.Clusters["web"]
		c.MaxRequestsPerConnection = 1
		s.Clusters["web"] = &c
	})
	client.knows("web", 9080, forwardTo("web")) // without retries
	l, err := server.Listen(netip.AddrPortFrom(server.Addr(), 9080))
	if err != nil {
		t.Fatal(err)
	}
	second := &endsSecond{Listener: l}
	s := &http.Server{Protocols: speaks(2), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) })}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(second) }() // ends with the server
	t.Cleanup(func() { s.Close(); <-done })
	c := client.clientOf(2)
	for range 3 {
		if status, body, _ := client.do(c, "POST", "http://web:9080/", strings.NewReader("hello")); status != 200 || body != "HTTP/2.0" {
			t.Errorf("%d %q", status, body)
		}
	}
	if n := second.conns.Load(); n != 4 {
		t.Errorf("%d connections for three requests, each on its own, of which one was ended", n)
	}
}

// endsSecond ends the second connection that comes.
type endsSecond struct {
	net.Listener
	conns atomic.Int64
}

func (l *endsSecond) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil && l.conns.Add(1) == 2 {
		c.Close()
		return l.Accept()
	}
	return c, err
}

// TestDeclaredHTTP2IsNotReplaced: a service that has declared HTTP/2 and does not speak it hears so.
func TestDeclaredHTTP2IsNotReplaced(t *testing.T) {
	m := newMesh(t)
	client := m.pod("frontend", "10.0.0.1", nil)
	server := client.bare("10.0.0.2")
	server.serveOf(1, 9080, http.NotFoundHandler())
	client.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		c := meshCluster("web", 9080, server)
		c.Transports, c.Speaks = []conf.TransportMatch{{}}, conf.HTTP2
		s.Clusters["web"] = c
	})
	client.knows("web", 9080, forwardTo("web"))
	if status, body, h := client.get(client.client(), "http://web:9080/"); status != 502 || !strings.Contains(h.Get(exchange.ReasonHeader), "speaks HTTP/1, not HTTP/2") {
		t.Errorf("%d %q %v", status, body, h)
	}
}

// TestABudgetOfRetriesComesBackWithTime, and says that it was used up.
func TestABudgetOfRetriesComesBackWithTime(t *testing.T) {
	begun := time.Now()
	var later atomic.Int64
	m := newMesh(t)
	m.now = func() time.Time { return begun.Add(time.Duration(later.Load())) }
	client := m.pod("frontend", "10.0.0.1", nil)
	server := client.bare("10.0.0.2")
	var asked atomic.Int64
	server.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { asked.Add(1); w.WriteHeader(503) }))
	client.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		c := meshCluster("web", 9080, server)
		c.Transports = []conf.TransportMatch{{}}
		s.Clusters["web"] = c
	})
	route := forwardTo("web")
	route.Forward.Retry = &conf.Retry{On: conf.On5xx, Attempts: 1000, BackOff: 1, MaxBackOff: 1}
	client.knows("web", 9080, route)
	c := client.client()
	for _, s := range []struct {
		after time.Duration
		want  int64
	}{{0, 201}, {0, 1}, {time.Second, 11}} {
		later.Add(int64(s.after))
		asked.Store(0)
		if status, _, _ := client.get(c, "http://web:9080/"); status != 503 || asked.Load() != s.want {
			t.Errorf("after %s: %d, after %d attempts of %d", s.after, status, asked.Load(), s.want)
		}
	}
	eventually(t, "the flag", func() bool { return client.logged(" 503 URX ") })
	eventually(t, "the count", func() bool { return metric(client, "upstream_rq_retry_overflow", " 3") })
}
