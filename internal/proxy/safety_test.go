package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/exchange"
	"github.com/weftmesh/weft/internal/wire"
)

// rawHTTP answers by hand: answer gets each request and may write what it wants; false closes the connection.
func (p *pod) rawHTTP(port uint16, answer func(net.Conn, *http.Request) bool) {
	p.serveRaw(port, func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			io.Copy(io.Discard, req.Body)
			if !answer(c, req) {
				return
			}
		}
	})
}

const okResponse = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func TestKilledEndpointFailsNoGET(t *testing.T) {
	m := newMesh(t)
	client := m.pod("productpage", "10.0.0.1", nil)
	a, b := m.pod("a", "10.0.0.2", nil), m.pod("b", "10.0.0.3", nil)
	a.serve(9080, hello("a"))
	b.serve(9080, hello("b"))
	client.cluster("reviews", 9080, a, b)
	r := forwardTo("reviews")
	r.Forward.Retry = istioRetries()
	r.Forward.Retry.On |= conf.OnReset // for those that a new connection has taken to the endpoint; of kept ones it goes without saying
	client.knows("reviews", 9080, r)
	var wg sync.WaitGroup
	var failed, fromB atomic.Int64
	half := make(chan struct{})
	for range 8 {
		wg.Go(func() {
			c := client.client()
			for i := range 200 {
				status, body, _ := client.get(c, "http://reviews:9080/")
				if status != 200 {
					failed.Add(1)
					t.Logf("%d %s", status, body)
				}
				if strings.HasPrefix(body, "b") {
					fromB.Add(1)
				}
				if i == 100 {
					select {
					case half <- struct{}{}:
					default:
					}
				}
			}
		})
	}
	<-half
	b.kill()
	wg.Wait()
	if failed.Load() != 0 || fromB.Load() == 0 {
		t.Fatalf("%d failed, %d from the killed endpoint", failed.Load(), fromB.Load())
	}
}

// kill takes the pod off the network as a crash does: its sidecar's connections break at once.
func (p *pod) kill() {
	p.proxy.opt.DrainTime = 0
	p.stop()
}

func TestPOSTIsNotReplayed(t *testing.T) {
	client, server := pair(t)
	any5xx := forwardTo("reviews")
	any5xx.Forward.Retry = istioRetries()
	any5xx.Forward.Retry.On |= conf.On5xx
	client.knows("reviews", 9080, any5xx)
	var posts, gets, keyed atomic.Int64
	server.rawHTTP(9080, func(c net.Conn, r *http.Request) bool {
		switch {
		case r.Header.Get("Idempotency-Key") != "":
			if keyed.Add(1) == 1 {
				return false
			}
		case r.Method == "POST" && r.URL.Path == "/busy":
			if posts.Add(1) == 1 {
				io.WriteString(c, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
				return true
			}
		case r.Method == "POST":
			posts.Add(1)
			return false // acted on it, and died
		case gets.Add(1) == 1:
			return false
		}
		io.WriteString(c, okResponse)
		return true
	})
	c := client.client()
	if status, body, _ := client.do(c, "POST", "http://reviews:9080/", strings.NewReader("pay")); status != 503 {
		t.Errorf("POST: %d %q", status, body)
	}
	if n := posts.Load(); n != 1 {
		t.Errorf("the application saw the POST %d times", n)
	}
	posts.Store(0)
	if status, body, _ := client.do(c, "POST", "http://reviews:9080/busy", strings.NewReader("pay")); status != 200 || posts.Load() != 2 {
		t.Errorf("POST that was answered 503, and the policy names it: %d %q, sent %d times", status, body, posts.Load())
	}
	if status, body, _ := client.get(c, "http://reviews:9080/"); status != 200 {
		t.Errorf("GET: %d %q", status, body)
	}
	if status, body, _ := client.do(c, "POST", "http://reviews:9080/", strings.NewReader("pay"), "Idempotency-Key", "1"); status != 200 {
		t.Errorf("POST with key: %d %q", status, body)
	}
}

func TestKeptConnectionClosedByServerIsInvisible(t *testing.T) {
	m := newMesh(t)
	client := m.pod("productpage", "10.0.0.1", nil)
	outside := &pod{Host: m.net.Host(netip.MustParseAddr("10.0.0.9")), m: m, stop: client.stop}
	var n atomic.Int64
	outside.rawHTTP(8080, func(c net.Conn, r *http.Request) bool {
		if n.Add(1)%2 == 0 {
			return false // as if an idle time-out struck as the request came in
		}
		io.WriteString(c, okResponse)
		return true
	})
	c := client.client()
	c.Transport.(*http.Transport).DialContext = dialTo(client, outside, 8080)
	for i := range 20 {
		if status, body, _ := client.get(c, "http://example.org:8080/"); status != 200 {
			t.Fatalf("request %d: %d %q", i, status, body)
		}
	}
}

func TestStrictRefusesPlaintext(t *testing.T) {
	client, server := pair(t)
	asked := atomic.Bool{}
	server.serve(9080, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Store(true) }))
	c, err := client.DialDirect(t.Context(), netip.AddrPortFrom(server.Addr(), 9080))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: reviews\r\n\r\n")
	if b, _ := io.ReadAll(c); len(b) > 0 || asked.Load() {
		t.Fatalf("answered %q, asked %v", b, asked.Load())
	}
	eventually(t, "reason in the log", func() bool { return server.logged("mutual TLS is required", "NR filter_chain_not_found") })
}

// A kept plaintext connection ends when mutual TLS is required, with an answer to the request that finds it out.
func TestKeptConnectionIsToldThatItIsNotTakenAnyMore(t *testing.T) {
	client, server := pair(t)
	server.accepts(permissive(9080))
	asked := atomic.Int64{}
	server.serve(9080, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	c, err := client.DialDirect(t.Context(), netip.AddrPortFrom(server.Addr(), 9080))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := bufio.NewReader(c)
	for _, want := range []int{200, http.StatusMisdirectedRequest} {
		io.WriteString(c, "POST /pay HTTP/1.1\r\nHost: reviews\r\nContent-Length: 2\r\n\r\nhi")
		res, err := http.ReadResponse(r, nil)
		if err != nil || res.StatusCode != want || res.Close != (want != 200) {
			t.Fatalf("%v, %v; want %d", res, err, want)
		}
		io.Copy(io.Discard, res.Body)
		server.accepts(strict(9080))
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the application was asked %d times", n)
	}
	// What may be repeated is not answered: the client does so by itself.
	server.accepts(permissive(9080))
	get, err := client.DialDirect(t.Context(), netip.AddrPortFrom(server.Addr(), 9080))
	if err != nil {
		t.Fatal(err)
	}
	defer get.Close()
	r.Reset(get)
	for _, want := range []bool{true, false} {
		io.WriteString(get, "GET / HTTP/1.1\r\nHost: reviews\r\n\r\n")
		res, err := http.ReadResponse(r, nil)
		if (err == nil) != want || !want && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("GET: %v, %v", res, err)
		}
		server.accepts(strict(9080))
	}
	eventually(t, "reason in the log", func() bool { return server.logged("421", "NR filter_chain_not_found", "does not take this connection") })
}

func TestPermissiveAcceptsBoth(t *testing.T) {
	client, server := pair(t)
	server.accepts(permissive(9080))
	server.serve(9080, hello("reviews"))
	c := client.client()
	if status, body, _ := client.get(c, "http://reviews:9080/tls"); status != 200 {
		t.Fatalf("%d %q", status, body)
	}
	plain := client.client()
	plain.Transport.(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return client.DialDirect(ctx, netip.AddrPortFrom(server.Addr(), 9080))
	}
	if status, body, _ := client.get(plain, "http://reviews:9080/plain"); status != 200 || body != "reviews /plain" {
		t.Fatalf("%d %q", status, body)
	}
	eventually(t, "both kinds counted", func() bool {
		return metric(server, "istio_requests_total", `connection_security_policy="none"`, `source_workload="unknown"`) &&
			metric(server, "istio_requests_total", `connection_security_policy="mutual_tls"`)
	})
}

func TestWrongIdentityIsRefused(t *testing.T) {
	m := newMesh(t)
	client, server, other := m.pod("productpage", "10.0.0.1", nil), m.pod("reviews", "10.0.0.2", nil), m.pod("other", "10.0.0.3", nil)
	asked := atomic.Bool{}
	server.serve(9080, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Store(true) }))
	expected := *other
	expected.Host = server.Host
	client.cluster("reviews", 9080, &expected) // at the server's address, with the other's identity
	client.knows("reviews", 9080, forwardTo("reviews"))
	status, body, _ := client.get(client.client(), "http://reviews:9080/")
	if status != 503 || asked.Load() || !strings.Contains(body, "none of the identities") {
		t.Fatalf("%d %q, asked %v", status, body, asked.Load())
	}
}

func rbac(action conf.Action, name string, rule *conf.Rule) *conf.RBAC {
	return &conf.RBAC{Action: action, Policies: []conf.RBACPolicy{{Name: name, Permissions: []*conf.Rule{{Any: true}}, Principals: []*conf.Rule{rule}}}}
}

func from(account string) *conf.Rule {
	return &conf.Rule{Principal: &conf.StringMatch{Kind: conf.Exact, Value: "spiffe://cluster.local/ns/default/sa/" + account}}
}

func TestRBAC(t *testing.T) {
	client, server := pair(t)
	asked := atomic.Int64{}
	server.serve(9080, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	c := client.client()
	ask := func(set ...*conf.RBAC) (int, string, http.Header) {
		server.accepts(strict(9080, set...))
		// Existing connections keep the chain they came in by.
		client.proxy.source.Publish(client.m.material("productpage"))
		return client.get(c, "http://reviews:9080/")
	}
	if status, body, _ := ask(rbac(conf.Allow, "p", from("productpage"))); status != 200 {
		t.Fatalf("allowed: %d %q", status, body)
	}
	before := asked.Load()
	status, body, h := ask(rbac(conf.Deny, "ns[default]-policy[lock]-rule[0]", from("productpage")))
	if status != 403 || body != "RBAC: access denied" || !strings.Contains(h.Get("X-Weft-Reason"), "policy[lock]") {
		t.Fatalf("denied: %d %q %v", status, body, h)
	}
	if status, _, _ := ask(rbac(conf.Allow, "p", from("someone-else"))); status != 403 {
		t.Fatalf("not allowed: %d", status)
	}
	if asked.Load() != before {
		t.Fatal("a denied request reached the application")
	}
	eventually(t, "policy in the log", func() bool {
		return server.logged(" 403 - rbac_access_denied_matched_policy[ns[default]-policy[lock]-rule[0]]")
	})
	if status, _, _ := ask(&conf.RBAC{Action: conf.Deny, Shadow: true, Policies: rbac(conf.Deny, "dry", from("productpage")).Policies}); status != 200 {
		t.Fatalf("dry run: %d", status)
	}
}

func TestCertificateRotationDrainsOldConnections(t *testing.T) {
	client, server := pair(t)
	server.serve(9080, hello("reviews"))
	c := client.client()
	client.get(c, "http://reviews:9080/")
	open := func() int {
		for _, cl := range client.proxy.Clusters() {
			if cl.Name == "reviews" {
				return cl.Endpoints[0].Open
			}
		}
		return -1
	}
	if open() != 1 {
		t.Fatalf("%d connections", open())
	}
	client.proxy.source.Publish(client.m.material("productpage"))
	eventually(t, "old connection closed", func() bool { return open() == 0 })
	if status, body, _ := client.get(c, "http://reviews:9080/"); status != 200 {
		t.Fatalf("%d %q", status, body)
	}
}

func TestUpgradeIsTunnelled(t *testing.T) {
	client, server := pair(t)
	server.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "echo" {
			t.Errorf("upgrade %q", r.Header.Get("Upgrade"))
		}
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nfirst ")
		io.Copy(c, rw)
	}))
	c, err := client.Dial(t.Context(), netip.MustParseAddrPort(vip+":9080"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: reviews:9080\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nsecond ")
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 101 || res.Header.Get("Upgrade") != "echo" {
		t.Fatalf("%v, %v", res, err)
	}
	io.WriteString(c, "third")
	c.(interface{ CloseWrite() error }).CloseWrite()
	if got, err := io.ReadAll(r); err != nil || string(got) != "first second third" {
		t.Fatalf("%q, %v", got, err)
	}
}

// tcpService makes the client know a service of bytes; auto leaves the protocol open.
func tcpService(client *pod, name string, port uint16, auto bool) {
	chain := &conf.Chain{TCP: &conf.TCP{Clusters: []conf.WeightedCluster{{Cluster: name, Weight: 1}}, TotalWeight: 1}}
	target := &conf.Target{Name: name, Listener: &conf.Listener{Name: name, Chains: []*conf.Chain{chain}}}
	if auto {
		chain.HTTP = &conf.HTTP{}
		target.Routes = table(forwardTo(name))
	}
	client.config.publish(func(_ *conf.Snapshot, names map[string]*conf.Target) { names[wire.ListenerName(vip, port)] = target })
}

func TestTCP(t *testing.T) {
	m := newMesh(t)
	client, server := m.pod("productpage", "10.0.0.1", nil), m.pod("db", "10.0.0.2", nil)
	server.serveRaw(5432, func(c net.Conn) {
		b, _ := io.ReadAll(c)
		c.Write(bytes.ToUpper(b))
	})
	client.cluster("db", 5432, server)
	tcpService(client, "db", 5432, false)
	c, err := client.Dial(t.Context(), netip.MustParseAddrPort(vip+":5432"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	want := strings.Repeat("hello ", 100_000)
	go func() { // ends with its writes
		io.WriteString(c, want)
		c.(interface{ CloseWrite() error }).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || string(got) != strings.ToUpper(want) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	eventually(t, "tcp metrics", func() bool {
		return metric(client, "istio_tcp_sent_bytes_total", `reporter="source"`, `request_protocol="tcp"`, " 600000") &&
			metric(server, "istio_tcp_received_bytes_total", `reporter="destination"`, `source_workload="productpage-v1"`, " 600000")
	})
}

func TestTooManyRelayedConnections(t *testing.T) {
	m := newMesh(t)
	client, server := m.pod("productpage", "10.0.0.1", nil), m.pod("db", "10.0.0.2", nil)
	server.serveRaw(5432, func(c net.Conn) { io.Copy(c, c) })
	client.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		c := meshCluster("db", 5432, server)
		c.MaxConnections = 1
		s.Clusters["db"] = c
	})
	tcpService(client, "db", 5432, false)
	dial := func() net.Conn { return client.connects(5432) }
	first := dial()
	if !echoes(first) {
		t.Fatal("the first connection is refused")
	}
	if echoes(dial()) {
		t.Error("a second connection in spite of the limit")
	}
	eventually(t, "flag", func() bool { return client.logged(" UO ") })
	first.Close()
	eventually(t, "room for another", func() bool { return echoes(dial()) })
}

func TestServerFirst(t *testing.T) {
	m := newMesh(t)
	client, server := m.pod("productpage", "10.0.0.1", nil), m.pod("mail", "10.0.0.2", nil)
	server.serveRaw(2525, func(c net.Conn) {
		io.WriteString(c, "220 ready\r\n")
		io.Copy(c, c)
	})
	client.cluster("mail", 2525, server)
	for _, auto := range []bool{false, true, true} {
		tcpService(client, "mail", 2525, auto)
		c, err := client.Dial(t.Context(), netip.MustParseAddrPort(vip+":2525"))
		if err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(c)
		if line, err := r.ReadString('\n'); err != nil || line != "220 ready\r\n" {
			t.Fatalf("auto %v: %q, %v", auto, line, err)
		}
		io.WriteString(c, "EHLO\r\n")
		if line, err := r.ReadString('\n'); err != nil || line != "EHLO\r\n" {
			t.Fatalf("auto %v: %q, %v", auto, line, err)
		}
		c.Close()
	}
}

func TestAutoServesHTTPOfASlowClient(t *testing.T) {
	client, server := pair(t)
	server.serve(9080, hello("reviews"))
	tcpService(client, "reviews", 9080, true)
	c, err := client.Dial(t.Context(), netip.MustParseAddrPort(vip+":9080"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// The proxy has opened the upstream by now, since nobody spoke.
	eventually(t, "upstream opened", func() bool { return server.proxy.entered.Load() == 1 })
	io.WriteString(c, "GET /late HTTP/1.1\r\nHost: x\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("%v, %v", res, err)
	}
}

func TestMalformedNeverReachesTheApplication(t *testing.T) {
	client, server := pair(t)
	asked := atomic.Int64{}
	server.serve(9080, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err == nil {
			asked.Add(1) // a broken body may begin to arrive, and must not seem whole
		}
	}))
	for name, c := range map[string]struct {
		request string
		status  int // 0: closed without an answer
	}{
		"bad request line":    {"GET / \r\n\r\n", 400},
		"two lengths":         {"POST / HTTP/1.1\r\nHost: reviews\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400},
		"length and chunked":  {"POST / HTTP/1.1\r\nHost: reviews\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		"large header":        {"GET / HTTP/1.1\r\nHost: reviews\r\nX: " + strings.Repeat("x", 70_000) + "\r\n\r\n", 431},
		"no host":             {"GET / HTTP/1.1\r\n\r\n", 400},
		"bare line feed":      {"GET / HTTP/1.1\nHost: reviews\n\n", 400},
		"space before colon":  {"GET / HTTP/1.1\r\nHost : reviews\r\n\r\n", 400},
		"version":             {"GET / HTTP/3.0\r\nHost: reviews\r\n\r\n", 505},
		"connect":             {"CONNECT reviews:9080 HTTP/1.1\r\nHost: reviews:9080\r\n\r\n", 405},
		"ends in the middle":  {"GET / HTTP/1.1\r\nHost: rev", 0},
		"ends in the body":    {"POST / HTTP/1.1\r\nHost: reviews\r\nContent-Length: 9\r\n\r\nabc", 0},
		"garbage":             {"\x00\x01\x02\x03\r\n\r\n", 400},
		"body without length": {"POST / HTTP/1.1\r\nHost: reviews\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := client.Dial(t.Context(), netip.MustParseAddrPort(vip+":9080"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			io.WriteString(conn, c.request)
			if c.status == 0 {
				conn.(interface{ CloseWrite() error }).CloseWrite()
			}
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if c.status == 0 {
				if err == nil {
					t.Fatalf("answered %d", res.StatusCode)
				}
				return
			}
			if err != nil || res.StatusCode != c.status {
				t.Fatalf("%v, %v; want %d", res, err, c.status)
			}
			if allow, told := res.Header["Allow"]; c.status == 405 && (!told || allow[0] != "") {
				t.Errorf("allow: %q", allow) // RFC 9110 section 15.5.6 wants it, and no method is of use here
			}
			if c.status != 405 {
				eventually(t, "logged as protocol error", func() bool { return client.logged(fmt.Sprintf(" %d DPE ", c.status)) })
			}
		})
	}
	if n := asked.Load(); n > 0 {
		t.Fatalf("%d reached the application", n)
	}
}

func TestEndpointSwapUnderLoadLosesNothing(t *testing.T) {
	m := newMesh(t)
	client := m.pod("productpage", "10.0.0.1", nil)
	var pods []*pod
	for i := range 3 {
		p := m.pod(fmt.Sprintf("v%d", i), fmt.Sprintf("10.0.0.%d", i+2), nil)
		p.serve(9080, hello("reviews"))
		pods = append(pods, p)
	}
	client.cluster("reviews", 9080, pods[0])
	client.knows("reviews", 9080, forwardTo("reviews")) // no retries: nothing may need one
	var wg sync.WaitGroup
	var stop atomic.Bool
	var failed, done atomic.Int64
	for range 8 {
		wg.Go(func() {
			c := client.client()
			for !stop.Load() {
				if status, body, _ := client.do(c, "POST", "http://reviews:9080/", strings.NewReader("x")); status != 200 {
					failed.Add(1)
					t.Logf("%d %s", status, body)
				}
				done.Add(1)
			}
		})
	}
	for i := range 60 {
		client.cluster("reviews", 9080, pods[i%3])
		if i%10 == 0 {
			client.knows("reviews", 9080, forwardTo("reviews"))
		}
		before := done.Load()
		eventually(t, "requests go on", func() bool { return done.Load() > before+5 })
	}
	stop.Store(true)
	wg.Wait()
	if failed.Load() != 0 {
		t.Fatalf("%d of %d failed", failed.Load(), done.Load())
	}
}

func TestDrainLosesNothing(t *testing.T) {
	m := newMesh(t)
	client, a, b := m.pod("productpage", "10.0.0.1", nil), m.pod("a", "10.0.0.2", nil), m.pod("b", "10.0.0.3", nil)
	started, release := make(chan struct{}), make(chan struct{})
	a.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(started)
			<-release
		}
		io.WriteString(w, "a")
	}))
	b.serve(9080, hello("b"))
	client.cluster("reviews", 9080, a)
	client.knows("reviews", 9080, forwardTo("reviews"))
	slow := make(chan string, 1)
	go func() { // ends with its answer
		_, body, _ := client.get(client.client(), "http://reviews:9080/slow")
		slow <- body
	}()
	<-started
	client.cluster("reviews", 9080, b) // as the control plane does when the pod terminates
	stopped := make(chan struct{})
	go func() { // ends with the drain
		a.stop()
		close(stopped)
	}()
	eventually(t, "draining", func() bool { return a.proxy.Unready() == "draining" })
	if status, body, _ := client.get(client.client(), "http://reviews:9080/"); status != 200 || body != "b /" {
		t.Fatalf("%d %q", status, body)
	}
	select {
	case <-stopped:
		t.Fatal("the proxy ended before its live request")
	default:
	}
	close(release)
	if body := <-slow; body != "a" {
		t.Fatalf("live request got %q", body)
	}
	<-stopped
}

func TestPOSTIsRetriedWhereTheApplicationNeverSawIt(t *testing.T) {
	m := newMesh(t)
	client := m.pod("productpage", "10.0.0.1", nil)
	down, up := m.pod("a", "10.0.0.2", nil), m.pod("b", "10.0.0.3", nil) // down's sidecar runs, its application does not
	var asked atomic.Int64
	up.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		io.Copy(w, r.Body)
	}))
	client.cluster("reviews", 9080, down, up)
	r := forwardTo("reviews")
	r.Forward.Retry = istioRetries()
	client.knows("reviews", 9080, r)
	c := client.client()
	const n = 20
	for range n {
		status, body, h := client.do(c, "POST", "http://reviews:9080/", strings.NewReader("pay"))
		if status != 200 || body != "pay" || h.Get(exchange.UnsentHeader) != "" {
			t.Fatalf("%d %q %v", status, body, h)
		}
	}
	if asked.Load() != n {
		t.Fatalf("%d requests arrived %d times", n, asked.Load())
	}
}

// What an application took on a new connection and did not answer may have been acted on: it comes again only where the policy names
// that case, or names it for requests that ask for nothing to be done, as the mesh's default does.
func TestUnansweredIsSentAgainOnlyWhereAsked(t *testing.T) {
	client, server := pair(t)
	var seen atomic.Int64
	server.rawHTTP(9080, func(_ net.Conn, r *http.Request) bool {
		io.Copy(io.Discard, r.Body)
		seen.Add(1)
		return false
	})
	c := client.client()
	for _, p := range []struct {
		on         conf.RetryOn
		safe, want int64
	}{{istioRetries().On, 3, 1}, {conf.OnConnectFailure, 1, 1}, {conf.OnReset, 3, 3}, {conf.OnGatewayError, 3, 3}} {
		r := forwardTo("reviews")
		r.Forward.Retry = istioRetries()
		r.Forward.Retry.On = p.on
		client.knows("reviews", 9080, r)
		for method, want := range map[string]int64{"GET": p.safe, "OPTIONS": p.safe, "PUT": p.want, "DELETE": p.want} {
			seen.Store(0)
			status, _, _ := client.do(c, method, "http://reviews:9080/", strings.NewReader("body"))
			if status != 503 || seen.Load() != want {
				t.Errorf("%s, policy %b: status %d, sent %d times, want %d", method, p.on, status, seen.Load(), want)
			}
		}
	}
}

// A kept connection that ends as the next request comes is no answer to that request: it goes on a new one, whatever the policy, and
// that one's end counts.
func TestKeptConnectionThatEndedIsMadeUpForOnce(t *testing.T) {
	client, server := pair(t)
	var seen atomic.Int64
	var mu sync.Mutex
	carried := map[net.Conn]bool{}
	server.rawHTTP(9080, func(c net.Conn, r *http.Request) bool {
		seen.Add(1)
		mu.Lock()
		again := carried[c]
		carried[c] = true
		mu.Unlock()
		if again || r.URL.Path == "/never" {
			return false
		}
		_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere")
		return err == nil
	})
	r := forwardTo("reviews")
	r.Forward.Retry = &conf.Retry{On: conf.OnConnectFailure, Attempts: 2, BackOff: time.Millisecond}
	client.knows("reviews", 9080, r)
	c := client.client()
	for _, want := range []struct {
		path   string
		status int
		sent   int64
	}{{"/", 200, 1}, {"/", 200, 2}, {"/never", 503, 2}, {"/never", 503, 1}} {
		seen.Store(0)
		if status, _, _ := client.get(c, "http://reviews:9080"+want.path); status != want.status || seen.Load() != want.sent {
			t.Errorf("%s: status %d, sent %d times, want %d, %d", want.path, status, seen.Load(), want.status, want.sent)
		}
	}
}

func TestGETIsRetriedWhereTheApplicationBrokeOff(t *testing.T) {
	m := newMesh(t)
	client := m.pod("productpage", "10.0.0.1", nil)
	dying, up := m.pod("a", "10.0.0.2", nil), m.pod("b", "10.0.0.3", nil)
	var posts atomic.Int64
	dying.rawHTTP(9080, func(_ net.Conn, r *http.Request) bool {
		if r.Method == http.MethodPost {
			posts.Add(1)
		}
		return false
	})
	up.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "here") }))
	client.cluster("reviews", 9080, dying, up)
	r := forwardTo("reviews")
	r.Forward.Retry = istioRetries()
	client.knows("reviews", 9080, r)
	c := client.client()
	for range 20 {
		if status, body, h := client.get(c, "http://reviews:9080/"); status != 200 || body != "here" || h.Get(exchange.UnansweredHeader) != "" {
			t.Fatalf("GET: %d %q %v", status, body, h)
		}
	}
	refused := int64(0)
	for range 20 {
		if status, _, _ := client.do(c, "POST", "http://reviews:9080/", strings.NewReader("pay")); status == 503 {
			refused++
		}
	}
	if refused == 0 || posts.Load() != refused {
		t.Fatalf("POST: %d failed, and the dying application saw %d", refused, posts.Load())
	}
}

// A request that the policy would repeat, and whose body was too long to be kept, fails with that reason.
func TestLongBodyIsNotRepeatedAndSaysSo(t *testing.T) {
	m := newMesh(t)
	client, dying := m.pod("productpage", "10.0.0.1", nil), m.pod("a", "10.0.0.2", nil)
	dying.rawHTTP(9080, func(_ net.Conn, r *http.Request) bool {
		io.Copy(io.Discard, r.Body)
		return false
	})
	client.cluster("reviews", 9080, dying)
	r := forwardTo("reviews")
	r.Forward.Retry = istioRetries()
	client.knows("reviews", 9080, r)
	status, _, _ := client.do(client.client(), "PUT", "http://reviews:9080/", strings.NewReader(strings.Repeat("x", 2*exchange.MaxReplay)))
	if status != 503 {
		t.Errorf("status %d", status)
	}
	eventually(t, "reason in the log", func() bool { return client.logged("PUT", "503", "too long to be kept") })
}

// So does an answer that the policy would not have let stand; one that is well has nothing to say.
func TestAnswerToALongBodyStandsAndSaysWhy(t *testing.T) {
	m := newMesh(t)
	client, app := m.pod("productpage", "10.0.0.1", nil), m.pod("a", "10.0.0.2", nil)
	app.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/fails" {
			w.WriteHeader(503)
		}
	}))
	client.cluster("reviews", 9080, app)
	r := forwardTo("reviews")
	r.Forward.Retry = &conf.Retry{On: conf.On5xx, Attempts: 2, BackOff: time.Millisecond}
	client.knows("reviews", 9080, r)
	for path, want := range map[string]int{"/fails": 503, "/well": 200} {
		status, _, h := client.do(client.client(), "PUT", "http://reviews:9080"+path, strings.NewReader(strings.Repeat("x", 2*exchange.MaxReplay)))
		if status != want || h.Get(exchange.ReasonHeader) != "" {
			t.Errorf("%s: %d, %v", path, status, h)
		}
	}
	eventually(t, "reason in the log", func() bool {
		return client.logged("/fails", "the upstream answered 503 (not tried again: the request's body was too long to be kept)") && client.logged("/well")
	})
	if client.logged("/well", "too long") {
		t.Error("a reason for what went well")
	}
}

func TestInnerErrorsAreNotToldOutside(t *testing.T) {
	m := newMesh(t)
	edge, server := m.pod("ingress", "10.0.0.1", asGateway), m.pod("productpage", "10.0.0.2", nil) // without application
	edge.cluster("productpage", 9080, server)
	edge.opens("productpage", 8080)
	v, c := visitor(m, edge, 8080)
	var status int
	var body string
	var h http.Header
	eventually(t, "gateway answers", func() bool { status, body, h = v.get(c, "http://shop.example/"); return status != 0 })
	if status != 503 || body != "the service is unavailable" || h.Get(exchange.ReasonHeader) != "" || h.Get(exchange.UnsentHeader) != "" {
		t.Fatalf("%d %q %v", status, body, h)
	}
	eventually(t, "reason in the log", func() bool { return edge.logged("connection refused") })
}

func TestPoliciesSeeTheCanonicalPath(t *testing.T) {
	client, server := pair(t)
	var seen atomic.Value
	server.serve(9080, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen.Store(r.RequestURI) }))
	deny := &conf.RBAC{Action: conf.Deny, Policies: []conf.RBACPolicy{{Name: "admin", Principals: []*conf.Rule{{Any: true}},
		Permissions: []*conf.Rule{{Path: &conf.StringMatch{Kind: conf.PrefixOf, Value: "/admin"}}}}}}
	l := strict(9080, deny)
	for _, c := range l.Chains {
		if c.HTTP != nil {
			c.HTTP.NormalizePath, c.HTTP.MergeSlashes = true, true
		}
	}
	server.accepts(l)
	c := client.client()
	for path, want := range map[string]int{"/admin": 403, "/x/%2e%2e/admin": 403, "/%61dmin": 403, "/x//../admin": 403, "/./admin/x": 403, "/../admin": 400, "/x": 200, "/x/./y": 200} {
		req := &http.Request{Method: http.MethodGet, Host: "reviews:9080", URL: &url.URL{Scheme: "http", Host: "reviews:9080", Opaque: path}}
		res, err := c.Do(req.WithContext(t.Context()))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, res.StatusCode, want)
		}
	}
}

func TestPathsAreNormalizedBeforePolicies(t *testing.T) {
	client, server := pair(t)
	var got atomic.Value
	server.serve(9080, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got.Store(r.RequestURI) }))
	deny := rbac(conf.Deny, "admin", from("productpage"))
	deny.Policies[0].Permissions = []*conf.Rule{{Path: &conf.StringMatch{Kind: conf.PrefixOf, Value: "/admin"}}}
	l := strict(9080, deny)
	for _, c := range l.Chains {
		if c.HTTP != nil {
			c.HTTP.NormalizePath = true
		}
	}
	server.accepts(l)
	for path, want := range map[string]int{"/admin": 403, "/x/../admin": 403, "/%61dmin": 403, "/x/%2e%2e/admin": 403, "/ok/../fine": 200} {
		c, err := client.Dial(t.Context(), netip.MustParseAddrPort(vip+":9080"))
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: reviews:9080\r\nConnection: close\r\n\r\n")
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || res.StatusCode != want {
			t.Errorf("%s: %v, %v; want %d", path, res, err, want)
		}
		c.Close()
	}
	if got.Load() != "/fine" {
		t.Errorf("the application saw %v", got.Load())
	}
}

func TestUpgradeNeedsTheRoutesConsent(t *testing.T) {
	client, server := pair(t)
	server.serve(9080, hello("reviews"))
	r := forwardTo("reviews")
	r.Forward.Upgrades = false
	client.knows("reviews", 9080, r)
	c := client.client()
	if status, body, _ := client.get(c, "http://reviews:9080/", "Connection", "Upgrade", "Upgrade", "websocket"); status != 403 {
		t.Errorf("%d %q", status, body)
	}
	if status, body, _ := client.get(c, "http://reviews:9080/", "Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c", "HTTP2-Settings", "AAMAAABk"); status != 200 {
		t.Errorf("h2c: %d %q", status, body)
	}
}
