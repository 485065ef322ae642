package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
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

func asGateway(b *wire.Bootstrap) {
	b.Node.Role, b.Outbound, b.Inbound = wire.Gateway, "", ""
}

// opens makes the gateway's snapshot have an HTTP listener at a port, with a route table to the cluster.
func (p *pod) opens(cluster string, ports ...uint16) {
	p.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		s.Gateways = nil
		for _, port := range ports {
			name := wire.GatewayListenerName(port)
			s.RouteTables[wire.GatewayRouteName(port)] = table(forwardTo(cluster))
			s.Gateways = append(s.Gateways, &conf.Listener{Name: name, Address: netip.AddrPortFrom(netip.IPv4Unspecified(), port), Direction: "gateway",
				Chains: []*conf.Chain{{HTTP: &conf.HTTP{RouteName: wire.GatewayRouteName(port), UseRemoteAddress: true}}}})
		}
	})
}

// visitor is a client outside the mesh, at a host of its own.
func visitor(m *mesh, to *pod, port uint16) (*pod, *http.Client) {
	v := &pod{Host: m.net.Host(netip.MustParseAddr("192.168.0.9")), m: m}
	c := v.client()
	c.Transport.(*http.Transport).DialContext = dialTo(v, to, port)
	return v, c
}

func TestGateway(t *testing.T) {
	m := newMesh(t)
	edge, server := m.pod("ingress", "10.0.0.1", asGateway), m.pod("productpage", "10.0.0.2", nil)
	var got http.Header
	server.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Clone()
		io.WriteString(w, "page")
	}))
	edge.cluster("productpage", 9080, server)
	edge.opens("productpage", 8080)
	v, c := visitor(m, edge, 8080)
	eventually(t, "gateway serves", func() bool { status, _, _ := v.get(c, "http://shop.example/"); return status == 200 })
	status, body, _ := v.get(c, "http://shop.example/", "X-Envoy-Retry-On", "5xx", "X-Forwarded-For", "1.2.3.4", "X-Forwarded-Client-Cert", "By=me",
		"X-Forwarded-Proto", "https", "X-Envoy-Internal", "true")
	if status != 200 || body != "page" {
		t.Fatalf("%d %q", status, body)
	}
	if got.Get("X-Envoy-Retry-On") != "" || got.Get("X-Envoy-Internal") != "" || strings.Contains(got.Get("X-Forwarded-Client-Cert"), "By=me") {
		t.Errorf("believed the outside: %v", got)
	}
	if got.Get("X-Forwarded-For") != "1.2.3.4,192.168.0.9" || got.Get("X-Forwarded-Proto") != "http" {
		t.Errorf("forwarded: %q %q", got.Get("X-Forwarded-For"), got.Get("X-Forwarded-Proto"))
	}
	// What fails inside is not told outside.
	edge.opens("missing", 8080)
	status, body, h := v.get(c, "http://shop.example/")
	if status != 503 || strings.Contains(body, "cluster") || h.Get("X-Weft-Reason") != "" {
		t.Errorf("%d %q %v", status, body, h)
	}
}

func TestGatewayPortsFollowTheConfiguration(t *testing.T) {
	m := newMesh(t)
	edge, server := m.pod("ingress", "10.0.0.1", asGateway), m.pod("productpage", "10.0.0.2", nil)
	server.serve(9080, hello("page"))
	taken, err := edge.Listen(netip.MustParseAddrPort("0.0.0.0:8081"))
	if err != nil {
		t.Fatal(err)
	}
	edge.cluster("productpage", 9080, server)
	edge.opens("productpage", 8080, 8081)
	v, c := visitor(m, edge, 8080)
	works := func(c *http.Client) func() bool {
		return func() bool { status, _, _ := v.get(c, "http://shop.example/"); return status == 200 }
	}
	eventually(t, "the free port serves although the other is taken", works(c))
	if why := edge.proxy.Unready(); why != "" {
		t.Fatalf("not ready: %s", why)
	}
	dump := httptest.NewRecorder()
	edge.proxy.Handler().ServeHTTP(dump, httptest.NewRequest("GET", "/config_dump", nil))
	if !strings.Contains(dump.Body.String(), "unboundPorts") {
		t.Fatal("the dump does not name the port that is not bound")
	}
	taken.Close()
	_, c81 := visitor(m, edge, 8081)
	eventually(t, "the other serves once it is free", works(c81))
	edge.opens("productpage", 8081)
	c.CloseIdleConnections()
	eventually(t, "the removed port is closed", func() bool { status, _, _ := v.get(c, "http://shop.example/"); return status == 0 })
	if !works(c81)() {
		t.Fatal("the port that stayed does not serve")
	}
}

func TestHTTP10WithoutHost(t *testing.T) {
	m := newMesh(t)
	edge, server := m.pod("ingress", "10.0.0.1", asGateway), m.pod("reviews", "10.0.0.2", nil)
	client := m.pod("productpage", "10.0.0.3", nil)
	server.accepts(permissive(9080))
	server.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "for "+r.Host) }))
	for _, p := range []*pod{edge, client} {
		p.cluster("reviews", 9080, server)
	}
	edge.opens("reviews", 8080)
	client.knows("reviews", 9080, forwardTo("reviews"))
	outside, _ := visitor(m, edge, 8080)
	_, tried := visitor(m, edge, 8080)
	eventually(t, "gateway open", func() bool { status, _, _ := outside.get(tried, "http://shop.example/"); return status != 0 })
	const service = "reviews.default.svc.cluster.local:9080"
	for name, c := range map[string]struct {
		from     *pod
		to, host string
	}{
		"gateway":                    {outside, "10.0.0.1:8080", service},
		"sidecar":                    {client, vip + ":9080", service},
		"sidecar of a pod's address": {client, "10.0.0.2:9080", "10.0.0.2:9080"},
		"straight to the workload":   {outside, "10.0.0.2:9080", "10.0.0.2:9080"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := c.from.Dial(t.Context(), netip.MustParseAddrPort(c.to))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode != 200 || string(body) != "for "+c.host {
				t.Fatalf("%d %q, %v", res.StatusCode, body, err)
			}
		})
	}
}

func TestGatewayTerminatesTLS(t *testing.T) {
	m := newMesh(t)
	edge, server := m.pod("ingress", "10.0.0.1", asGateway), m.pod("productpage", "10.0.0.2", nil)
	server.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("X-Forwarded-Proto")) }))
	edge.cluster("productpage", 9080, server)
	web := httptest.NewUnstartedServer(nil) // for its certificate of example.com
	web.StartTLS()
	defer web.Close()
	pair := keyPair(t, web.TLS.Certificates[0])
	edge.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		s.Gateways = []*conf.Listener{{Name: "0.0.0.0_443", Address: netip.MustParseAddrPort("0.0.0.0:443"), Chains: []*conf.Chain{{
			Match: conf.ChainMatch{ServerNames: []string{"example.com"}},
			TLS:   &conf.DownstreamTLS{Certificates: []conf.KeyPair{pair}, ALPN: []string{"h2", "http/1.1"}},
			HTTP:  &conf.HTTP{Routes: table(forwardTo("productpage")), UseRemoteAddress: true}}}}}
	})
	v, c := visitor(m, edge, 443)
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	c.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: roots, NextProtos: []string{"http/1.1"}}
	eventually(t, "https", func() bool {
		status, body, _ := v.get(c, "https://example.com/")
		return status == 200 && body == "https"
	})
	if status, _, _ := v.get(c, "https://other.example/"); status != 0 {
		t.Fatalf("served a name that is not configured: %d", status)
	}
}

func TestExplicitPorts(t *testing.T) {
	m := newMesh(t)
	server := m.pod("reviews", "10.0.0.2", func(b *wire.Bootstrap) {
		b.Outbound, b.Inbound = "", ""
		b.InboundPorts = []wire.PortMap{{Listen: "10.0.0.2:19080", Destination: "10.0.0.2:9080", Port: 9080}}
	})
	server.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "reviews at "+r.Host) }))
	client := m.pod("productpage", "10.0.0.1", func(b *wire.Bootstrap) {
		b.Outbound, b.Inbound = "", ""
		b.OutboundPorts = []wire.PortMap{{Listen: "127.0.0.1:30001", Destination: "reviews:9080"}}
	})
	client.cluster("reviews", 19080, server)
	client.knows("reviews", 9080, forwardTo("reviews"))
	c := client.client()
	c.Transport.(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return client.Dial(ctx, netip.MustParseAddrPort("127.0.0.1:30001"))
	}
	if status, body, _ := client.get(c, "http://127.0.0.1:30001/"); status != 200 || body != "reviews at reviews:9080" {
		t.Fatalf("%d %q", status, body)
	}
}

func TestForwardProxy(t *testing.T) {
	m := newMesh(t)
	client := m.pod("productpage", "10.0.0.1", func(b *wire.Bootstrap) { b.Outbound, b.Inbound, b.ForwardProxy = "", "", "127.0.0.1:3128" })
	server := m.pod("reviews", "10.0.0.2", nil)
	server.serve(9080, hello("reviews"))
	outside := &pod{Host: m.net.Host(netip.MustParseAddr("10.0.0.9")), m: m, stop: client.stop}
	outside.serveRaw(7, func(c net.Conn) { io.Copy(c, c) })
	outside.serve(8080, hello("outside"))
	client.cluster("reviews", 9080, server)
	client.knows("reviews", 9080, forwardTo("reviews"))
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return client.Dial(ctx, netip.MustParseAddrPort("127.0.0.1:3128"))
	}
	c := client.client()
	tr := c.Transport.(*http.Transport)
	tr.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: "127.0.0.1:3128"})
	tr.DialContext = dial
	if status, body, _ := client.get(c, "http://reviews:9080/mesh"); status != 200 || body != "reviews /mesh" {
		t.Fatalf("mesh: %d %q", status, body)
	}
	if status, body, _ := client.get(c, "http://10.0.0.9:8080/x"); status != 200 || body != "outside /x" {
		t.Fatalf("outside: %d %q", status, body)
	}
	conn, err := dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "CONNECT 10.0.0.9:7 HTTP/1.1\r\nHost: 10.0.0.9:7\r\n\r\n")
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, &http.Request{Method: "CONNECT"})
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("%v, %v", res, err)
	}
	io.WriteString(conn, "echo\n")
	if line, err := r.ReadString('\n'); err != nil || line != "echo\n" {
		t.Fatalf("%q, %v", line, err)
	}
}

// TestConnectIsAnsweredWhenItIsConnected: a tunnel that cannot be had is refused with the reason, and one in which the server speaks first
// is there at once.
func TestConnectIsAnsweredWhenItIsConnected(t *testing.T) {
	m := newMesh(t)
	client := m.pod("productpage", "10.0.0.1", func(b *wire.Bootstrap) { b.Outbound, b.Inbound, b.ForwardProxy = "", "", "127.0.0.1:3128" })
	outside := &pod{Host: m.net.Host(netip.MustParseAddr("10.0.0.9")), m: m, stop: client.stop}
	outside.serveRaw(25, func(c net.Conn) {
		io.WriteString(c, "220 hello\n")
		io.Copy(c, c)
	})
	client.config.publish(func(s *conf.Snapshot, names map[string]*conf.Target) {
		s.Clusters["db"] = meshCluster("db", 5432)
		chain := &conf.Chain{TCP: &conf.TCP{Clusters: []conf.WeightedCluster{{Cluster: "db", Weight: 1}}, TotalWeight: 1}}
		names[wire.ListenerName("db", 5432)] = &conf.Target{Name: "db", Listener: &conf.Listener{Name: "db", Chains: []*conf.Chain{chain}}}
	})
	connect := func(to string) (net.Conn, *bufio.Reader, *http.Response) {
		t.Helper()
		c, err := client.Dial(t.Context(), netip.MustParseAddrPort("127.0.0.1:3128"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", to)
		r := bufio.NewReader(c)
		res, err := http.ReadResponse(r, &http.Request{Method: "CONNECT"})
		if err != nil {
			t.Fatal(err)
		}
		return c, r, res
	}
	for _, to := range []string{"10.0.0.9:1", "db:5432"} {
		_, _, res := connect(to)
		if res.StatusCode != 503 || res.Header.Get(exchange.ReasonHeader) == "" {
			t.Errorf("%s: %d, %v", to, res.StatusCode, res.Header)
		}
		eventually(t, "log of "+to, func() bool { return client.logged("CONNECT", to, " 503 ") })
	}
	c, r, res := connect("10.0.0.9:25")
	if line, err := r.ReadString('\n'); res.StatusCode != 200 || err != nil || line != "220 hello\n" {
		t.Fatalf("%d, %q, %v", res.StatusCode, line, err)
	}
	io.WriteString(c, "EHLO a\n")
	if line, err := r.ReadString('\n'); err != nil || line != "EHLO a\n" {
		t.Fatalf("%q, %v", line, err)
	}
}

func TestCircuitBreakerAnswersAtOnce(t *testing.T) {
	m := newMesh(t)
	client, server := m.pod("productpage", "10.0.0.1", nil), m.pod("reviews", "10.0.0.2", nil)
	release := make(chan struct{})
	var inside atomic.Int64
	server.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inside.Add(1)
		<-release
	}))
	client.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		c := meshCluster("reviews", 9080, server)
		c.MaxRequests = 2
		s.Clusters["reviews"] = c
	})
	client.knows("reviews", 9080, forwardTo("reviews"))
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if status, body, _ := client.get(client.client(), "http://reviews:9080/"); status != 200 {
				t.Errorf("%d %q", status, body)
			}
		})
	}
	eventually(t, "two requests inside", func() bool { return inside.Load() == 2 })
	status, body, h := client.get(client.client(), "http://reviews:9080/")
	if status != 503 || !strings.Contains(body, "limit") || h.Get("X-Envoy-Overloaded") != "true" {
		t.Errorf("%d %q %v", status, body, h)
	}
	close(release)
	wg.Wait()
	eventually(t, "flag", func() bool { return client.logged(" 503 UO ") })
}

func TestHTTP2ReachesAPortOfBytes(t *testing.T) {
	m := newMesh(t)
	client, server := m.pod("productpage", "10.0.0.1", nil), m.pod("grpc", "10.0.0.2", nil)
	l, err := server.Listen(netip.MustParseAddrPort("10.0.0.2:9090"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) })}
	s.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }() // ends with the server
	t.Cleanup(func() { s.Close(); <-done })
	client.cluster("grpc", 9090, server)
	tcpService(client, "grpc", 9090, true)
	c := client.client()
	tr := c.Transport.(*http.Transport)
	tr.Protocols = new(http.Protocols)
	tr.Protocols.SetUnencryptedHTTP2(true)
	if status, body, _ := client.get(c, "http://grpc:9090/"); status != 200 || body != "HTTP/2.0" {
		t.Fatalf("%d %q", status, body)
	}
}

func TestDrainEndpointEndsInboundConnections(t *testing.T) {
	client, server := pair(t)
	server.serve(9080, hello("reviews"))
	c := client.client()
	client.get(c, "http://reviews:9080/")
	w := httptest.NewRecorder()
	server.proxy.Handler().ServeHTTP(w, fromHere("POST", "/drain"))
	if w.Code != 200 || server.proxy.entered.Load() != 0 {
		t.Fatalf("%d with %d connections", w.Code, server.proxy.entered.Load())
	}
	w = httptest.NewRecorder()
	server.proxy.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/ready", nil))
	if w.Code != 503 {
		t.Fatalf("ready %d", w.Code)
	}
	// Who comes all the same is served, once per connection.
	if status, body, _ := client.get(c, "http://reviews:9080/late"); status != 200 {
		t.Fatalf("%d %q", status, body)
	}
	eventually(t, "connection closed after it", func() bool { return server.proxy.entered.Load() == 0 })
}

func TestDrainEndpointWaitsForClientsThatStillCome(t *testing.T) {
	m := newMesh(t)
	client := m.pod("productpage", "10.0.0.1", nil)
	var passed atomic.Int64
	var runs atomic.Bool // the clock stands still unless it is told how much has passed
	begin := time.Now()
	m.now = func() time.Time {
		if runs.Load() {
			return time.Now().Add(time.Duration(passed.Load()))
		}
		return begin.Add(time.Duration(passed.Load()))
	}
	server := m.pod("reviews", "10.0.0.2", func(b *wire.Bootstrap) { b.DrainSeconds = 60 })
	client.cluster("reviews", 9080, server)
	client.knows("reviews", 9080, forwardTo("reviews"))
	server.serve(9080, hello("reviews"))
	client.get(client.client(), "http://reviews:9080/")
	drained := make(chan struct{})
	go func() { // ends with the drain
		defer close(drained)
		server.proxy.Handler().ServeHTTP(httptest.NewRecorder(), fromHere("POST", "/drain"))
	}()
	eventually(t, "draining", func() bool { return server.proxy.Unready() == "draining" })
	for range 20 {
		passed.Add(int64(server.proxy.drainGrace() * 3 / 4))
		if status, body, _ := client.get(client.client(), "http://reviews:9080/"); status != 200 {
			t.Fatalf("%d %q", status, body)
		}
		select {
		case <-drained:
			t.Fatal("the end was told while clients came")
		default:
		}
	}
	passed.Add(int64(server.proxy.drainGrace()))
	<-drained
	runs.Store(true)
}

func TestAdminPages(t *testing.T) {
	client, server := pair(t)
	server.serve(9080, hello("reviews"))
	client.get(client.client(), "http://reviews:9080/")
	for path, want := range map[string]string{"/metrics": "istio_requests_total{", "/stats/prometheus": "weft_certificate_expiry", "/ready": "ready",
		"/healthz": "ok", "/config_dump": `"reviews"`, "/clusters": "10.0.0.2:9080::health_flags::healthy", "/debug/pprof/cmdline": "",
		"/clusters?format=json": `"port_value": 9080`, "/listeners": "virtualOutbound::10.0.0.1:15001", "/server_info": `"state": "LIVE"`,
		"/stats?filter=reviews.*rq_2xx": "upstream_rq_2xx: 1", "/stats?format=json&filter=^server": `"server.live"`,
		"/stats?format=prometheus&filter=upstream_cx_total": `envoy_cluster_upstream_cx_total{cluster_name="`, "/certs": "spiffe://cluster.local/ns/default/sa/productpage",
		"/memory": `"allocated"`, "/": "/config_dump"} {
		w := httptest.NewRecorder()
		client.proxy.Handler().ServeHTTP(w, fromHere("GET", path))
		if w.Code != 200 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %.300s", path, w.Code, w.Body)
		}
	}
}

// fromHere is a request that comes over loopback.
func fromHere(method, path string) *http.Request {
	r := httptest.NewRequest(method, path, nil)
	r.RemoteAddr = "127.0.0.1:40000"
	return r
}

func TestAdminPagesForThisMachineOnly(t *testing.T) {
	client, _ := pair(t)
	for _, path := range []string{"POST /drain", "POST /drain_listeners", "POST /quitquitquit", "POST /logging", "GET /debug/pprof/heap"} {
		method, path, _ := strings.Cut(path, " ")
		w := httptest.NewRecorder()
		client.proxy.Handler().ServeHTTP(w, httptest.NewRequest(method, path, nil)) // from 192.0.2.1
		if w.Code != http.StatusForbidden {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if why := client.proxy.Unready(); why != "" {
		t.Error(why)
	}
}

func TestDrainOfInboundOnly(t *testing.T) {
	client, server := pair(t)
	server.serve(9080, hello("reviews"))
	for _, path := range []string{"/drain_listeners?inboundonl", "/drain?inboundonly", "/quitquitquit?now", "/drain_listeners?inbound%"} {
		w := httptest.NewRecorder()
		client.proxy.Handler().ServeHTTP(w, fromHere("POST", path))
		if w.Code != 400 || client.proxy.closing(true) || client.proxy.closing(false) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	for _, path := range []string{"/drain_listeners?inboundonly", "/drain_listeners"} {
		w := httptest.NewRecorder()
		client.proxy.Handler().ServeHTTP(w, fromHere("POST", path))
		if w.Code != 200 || client.proxy.Unready() != "draining" {
			t.Fatalf("%s: %d, %q", path, w.Code, client.proxy.Unready())
		}
		if closes, want := client.proxy.closing(true), path == "/drain_listeners"; closes != want || !client.proxy.closing(false) {
			t.Errorf("%s: outbound connections end: %v, want %v", path, closes, want)
		}
		if status, _, _ := client.get(client.client(), "http://reviews:9080/"); status != 200 {
			t.Errorf("%s: a call while draining: %d", path, status)
		}
	}
}

func TestQuitEndsTheProxy(t *testing.T) {
	client, _ := pair(t)
	client.proxy.Handler().ServeHTTP(httptest.NewRecorder(), fromHere("POST", "/quitquitquit"))
	eventually(t, "the listener is closed", func() bool {
		c, err := client.DialDirect(t.Context(), netip.MustParseAddrPort("10.0.0.1:15001"))
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	client.stop() // checks that Run gave no error
}
