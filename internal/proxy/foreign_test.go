package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/exchange"
)

// serveOnlyHTTP1 runs an application that answers the preface of HTTP/2 with a page without a head, as Python's http.server does. It
// counts how often that happens.
func (p *pod) serveOnlyHTTP1(port uint16) *atomic.Int64 {
	var prefaces atomic.Int64
	p.serveRaw(port, func(c net.Conn) {
		for in := bufio.NewReader(c); ; {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if r.Method == "PRI" {
				prefaces.Add(1)
				io.WriteString(c, "<!DOCTYPE HTML>\n<h1>Error 505: Invalid HTTP version (2.0)</h1>\n")
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
	for _, mutual := range []bool{false, true} {
		t.Run(fmt.Sprintf("mutual TLS %v", mutual), func(t *testing.T) {
			m := newMesh(t)
			client := m.pod("frontend", "10.0.0.1", nil)
			server := client.bare("10.0.0.2")
			if mutual {
				server = m.pod("web", "10.0.0.2", nil)
				server.accepts(strict(9080))
				server.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
					l := strict(9080)
					l.Chains[0].HTTP = inboundHTTP()
					l.Chains[0].HTTP.Routes = table(forwardTo("app"))
					s.Inbound = l
					s.Clusters["app"] = &conf.Cluster{Name: "app", Discovery: conf.OriginalDst, Speaks: conf.AsClient, Transports: []conf.TransportMatch{{}}}
				})
			}
			prefaces := server.serveOnlyHTTP1(9080)
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
			if got := h.Get("Grpc-Status") + " " + h.Get("Grpc-Message"); !strings.HasPrefix(got, "14 ") || !strings.Contains(got, "does not speak HTTP/2") {
				t.Errorf("gRPC is told %q", got)
			}
			if n := prefaces.Load(); n != 1+3 { // an attempt and the route's two retries, one connection each
				t.Errorf("asked %d times for HTTP/2 in the end", n)
			}
		})
	}
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
