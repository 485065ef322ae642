package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// pair is a client pod that knows the service of a server pod.
func pair(t testing.TB) (client, server *pod) {
	m := newMesh(t)
	client, server = m.pod("productpage", "10.0.0.1", nil), m.pod("reviews", "10.0.0.2", nil)
	client.cluster("reviews", 9080, server)
	r := forwardTo("reviews")
	r.Forward.Retry = istioRetries()
	client.knows("reviews", 9080, r)
	return client, server
}

func TestRequestThroughAPairOfSidecars(t *testing.T) {
	client, server := pair(t)
	var got http.Header
	server.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Clone()
		w.Header().Set("X-App", "1")
		io.WriteString(w, "hello "+r.Host+r.URL.String())
	}))
	status, body, header := client.get(client.client(), "http://reviews:9080/a?b=c", "traceparent", "00-1-2-01",
		"X-Forwarded-Client-Cert", "URI=spiffe://cluster.local/ns/default/sa/admin") // which nobody may say of himself
	if status != 200 || body != "hello reviews:9080/a?b=c" || header.Get("X-App") != "1" {
		t.Fatalf("%d %q %v", status, body, header)
	}
	if header.Get("Server") != "istio-envoy" || header.Get("Date") == "" || header.Get("X-Envoy-Upstream-Service-Time") == "" {
		t.Errorf("response header %v", header)
	}
	if got.Get("Traceparent") != "00-1-2-01" || len(got.Get("X-Request-Id")) != 36 || got.Get("X-Forwarded-Proto") != "http" {
		t.Errorf("request header %v", got)
	}
	if x := got.Get("X-Forwarded-Client-Cert"); !strings.Contains(x, "URI=spiffe://cluster.local/ns/default/sa/productpage") || strings.Contains(x, "sa/admin") ||
		!strings.Contains(x, "By=spiffe://cluster.local/ns/default/sa/reviews") {
		t.Errorf("x-forwarded-client-cert %q", x)
	}
	eventually(t, "metrics of both sides", func() bool {
		return metric(client, `istio_requests_total`, `reporter="source"`, `source_workload="productpage-v1"`, `destination_workload="reviews-v1"`,
			`destination_service="reviews.default.svc.cluster.local"`, `response_code="200"`, `response_flags="-"`, `connection_security_policy="mutual_tls"`,
			`destination_principal="spiffe://cluster.local/ns/default/sa/reviews"`) &&
			metric(server, `istio_requests_total`, `reporter="destination"`, `source_workload="productpage-v1"`, `destination_workload="reviews-v1"`,
				`source_principal="spiffe://cluster.local/ns/default/sa/productpage"`, `connection_security_policy="mutual_tls"`)
	})
	eventually(t, "access log", func() bool { return client.logged(`"GET /a?b=c HTTP/1.1" 200 - via_upstream`, "10.0.0.2:9080") })
}

// TestNobodySaysWhoHeIs: neither in a head nor in trailers, nor in a spelling that applications take for the same.
func TestNobodySaysWhoHeIs(t *testing.T) {
	client, server := pair(t)
	var head, trailers http.Header
	server.serveOf(1, 9080, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		head, trailers = r.Header.Clone(), r.Trailer
	}))
	forged := func() http.Header {
		h := http.Header{"X-Other_field": {"kept"}}
		for _, name := range []string{"X-Forwarded-Client-Cert", "X_Forwarded_Client_Cert", "x-forwarded_client-CERT"} {
			h[name] = []string{"URI=spiffe://cluster.local/ns/default/sa/admin"}
		}
		return h
	}
	for _, version := range []int{1, 2} {
		r, err := http.NewRequestWithContext(t.Context(), "POST", "http://reviews:9080/", io.MultiReader(strings.NewReader("hello")))
		if err != nil {
			t.Fatal(err)
		}
		r.Header, r.Trailer = forged(), forged()
		res, err := client.clientOf(version).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		for _, part := range []http.Header{head, trailers} {
			for name, values := range part {
				if strings.Contains(strings.Join(values, ","), "sa/admin") {
					t.Errorf("HTTP/%d: a field %s says who calls", version, name)
				}
			}
			if part.Get("X-Other_field") != "kept" {
				t.Errorf("HTTP/%d: the application gets %v", version, part)
			}
		}
		if head.Get("X-Forwarded-Client-Cert") == "" {
			t.Errorf("HTTP/%d: nobody says who calls", version)
		}
	}
}

// metric reports whether the pod's page has a line of the metric with all labels.
func metric(p *pod, parts ...string) bool {
	var b bytes.Buffer
	if err := p.proxy.Metrics(&b); err != nil {
		return false
	}
	for _, line := range strings.Split(b.String(), "\n") {
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

func TestBodiesBothWays(t *testing.T) {
	client, server := pair(t)
	server.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("reading: %v", err)
		}
		w.Header().Set("X-Length", fmt.Sprint(r.ContentLength))
		w.Write(b)
	}))
	c := client.client()
	for _, n := range []int{0, 1, 5000, 70_000, 3 << 20} {
		for _, method := range []string{"POST", "PUT"} {
			want := bytes.Repeat([]byte("0123456789"), n/10+1)[:n]
			for _, body := range []io.Reader{bytes.NewReader(want), io.MultiReader(bytes.NewReader(want))} {
				status, got, _ := client.do(c, method, "http://reviews:9080/", body)
				if status != 200 || got != string(want) {
					t.Fatalf("%s of %d bytes: %d, %d bytes (%.60s)", method, n, status, len(got), got)
				}
			}
		}
	}
	status, got, header := client.do(c, "POST", "http://reviews:9080/", strings.NewReader("wait for it"), "Expect", "100-continue")
	if status != 200 || got != "wait for it" || header.Get("X-Length") != "11" {
		t.Fatalf("expect: %d %q", status, got)
	}
	if status, got, _ := client.do(c, "HEAD", "http://reviews:9080/", nil); status != 200 || got != "" {
		t.Fatalf("head: %d %q", status, got)
	}
}

func TestWeights(t *testing.T) {
	m := newMesh(t)
	client := m.pod("productpage", "10.0.0.1", nil)
	r := forwardTo()
	for i, w := range []uint32{80, 20, 0} {
		name := fmt.Sprintf("v%d", i+1)
		p := m.pod(name, fmt.Sprintf("10.0.0.%d", i+2), nil)
		p.serve(9080, hello(name))
		client.cluster(name, 9080, p)
		r.Forward.Clusters = append(r.Forward.Clusters, conf.WeightedCluster{Cluster: name, Weight: w})
		r.Forward.TotalWeight += w
	}
	client.knows("reviews", 9080, r)
	c, count := client.client(), map[string]int{}
	const n = 1000
	for range n {
		_, body, _ := client.get(c, "http://reviews:9080/")
		count[body]++
	}
	if v1, v2 := count["v1 /"], count["v2 /"]; v1+v2 != n || v2 < n/8 || v2 > n/3 {
		t.Fatalf("got %v", count)
	}
}

func TestUnknownHostPassesThrough(t *testing.T) {
	m := newMesh(t)
	client := m.pod("productpage", "10.0.0.1", nil)
	outside := &pod{Host: m.net.Host(client.Addr().Next()), m: m}
	outside.serve(8080, hello("outside"))
	c := client.client()
	c.Transport.(*http.Transport).DialContext = dialTo(client, outside, 8080)
	status, body, _ := client.get(c, "http://example.org:8080/x")
	if status != 200 || body != "outside /x" {
		t.Fatalf("%d %q", status, body)
	}
	client.proxy.carrier.RegistryOnly = true
	c.CloseIdleConnections()
	if status, body, _ := client.get(c, "http://example.org:8080/x"); status != 502 || !strings.Contains(body, "does not know") {
		t.Fatalf("%d %q", status, body)
	}
}

func TestNoRouteNoClusterNoEndpoint(t *testing.T) {
	client, _ := pair(t)
	only := forwardTo("reviews")
	only.Match.Path = conf.StringMatch{Kind: conf.Exact, Value: "/only"}
	missing := forwardTo("missing")
	missing.Match.Path = conf.StringMatch{Kind: conf.Exact, Value: "/missing"}
	empty := forwardTo("empty")
	empty.Match.Path = conf.StringMatch{Kind: conf.Exact, Value: "/empty"}
	client.cluster("empty", 9080)
	client.knows("reviews", 9080, only, missing, empty)
	c := client.client()
	for path, want := range map[string]struct {
		status int
		flag   string
	}{"/x": {404, "NR route_not_found"}, "/missing": {503, "NC cluster_not_found"}, "/empty": {503, "UH no_healthy_upstream"}} {
		if status, body, h := client.get(c, "http://reviews:9080"+path); status != want.status || h.Get("X-Weft-Reason") == "" {
			t.Errorf("%s: %d %q %v", path, status, body, h)
		}
		eventually(t, path+" in the log", func() bool { return client.logged(path, want.flag) })
	}
	// Nobody listens at the endpoint's application.
	status, body, _ := client.get(c, "http://reviews:9080/only")
	if status != 503 || body == "" {
		t.Errorf("no application: %d %q", status, body)
	}
}

func TestRedirectDirectRewriteHeaders(t *testing.T) {
	client, server := pair(t)
	server.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Gone", "1")
		fmt.Fprintf(w, "%s %s %s %s", r.Host, r.URL, r.Header.Get("X-Set"), r.Header.Get("X-Dropped"))
	}))
	exact := func(p string, r *conf.Route) *conf.Route {
		r.Match.Path = conf.StringMatch{Kind: conf.PrefixOf, Value: p}
		return r
	}
	change := exact("/rewrite", forwardTo("reviews"))
	change.Forward.PrefixRewrite, change.Forward.HostRewrite = "/new", "other.example"
	change.Request = conf.HeaderChange{Set: []conf.HeaderValue{{Name: "X-Set", Value: "%REQ(:method)%"}}, Remove: []string{"x-dropped"}}
	change.Response = conf.HeaderChange{Remove: []string{"x-gone"}, Add: []conf.HeaderValue{{Name: "X-New", Value: "v"}}}
	client.knows("reviews", 9080,
		exact("/redirect", &conf.Route{Redirect: &conf.Redirect{Status: 302, Path: "/there"}}),
		exact("/direct", &conf.Route{Direct: &conf.Direct{Status: 418, Body: []byte("teapot")}}), change)
	c := client.client()
	if status, _, h := client.get(c, "http://reviews:9080/redirect?q"); status != 302 || h.Get("Location") != "http://reviews:9080/there?q" {
		t.Errorf("redirect: %d %v", status, h)
	}
	if status, body, _ := client.get(c, "http://reviews:9080/direct"); status != 418 || body != "teapot" {
		t.Errorf("direct: %d %q", status, body)
	}
	status, body, h := client.get(c, "http://reviews:9080/rewrite/x?y", "X-Dropped", "1")
	if status != 200 || body != "other.example /new/x?y GET " || h.Get("X-Gone") != "" || h.Get("X-New") != "v" {
		t.Errorf("rewrite: %d %q %v", status, body, h)
	}
}

func TestFaults(t *testing.T) {
	client, server := pair(t)
	server.serve(9080, hello("reviews"))
	abort := forwardTo("reviews")
	abort.Match.Headers = []conf.HeaderMatch{{Name: "end-user", Value: conf.StringMatch{Kind: conf.Exact, Value: "jason"}}}
	abort.Fault = &conf.Fault{AbortStatus: 555, AbortFraction: 1e6}
	delay := forwardTo("reviews")
	delay.Fault = &conf.Fault{Delay: 50 * time.Millisecond, DelayFraction: 1e6}
	client.knows("reviews", 9080, abort, delay)
	c := client.client()
	if status, body, _ := client.get(c, "http://reviews:9080/", "end-user", "jason"); status != 555 || body != "fault filter abort" {
		t.Errorf("abort: %d %q", status, body)
	}
	start := time.Now()
	if status, body, _ := client.get(c, "http://reviews:9080/"); status != 200 || time.Since(start) < 50*time.Millisecond {
		t.Errorf("delay: %d %q after %v", status, body, time.Since(start))
	}
	eventually(t, "flags", func() bool {
		return client.logged(" 555 FI fault_filter_abort") && client.logged(" 200 DI via_upstream")
	})
}

func TestTimeouts(t *testing.T) {
	client, server := pair(t)
	block := make(chan struct{})
	server.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-block:
		case <-r.Context().Done():
		}
	}))
	defer close(block)
	r := forwardTo("reviews")
	r.Forward.Timeout = 30 * time.Millisecond
	client.knows("reviews", 9080, r)
	status, body, _ := client.get(client.client(), "http://reviews:9080/")
	if status != 504 || !strings.HasPrefix(body, "upstream request timeout") {
		t.Fatalf("%d %q", status, body)
	}
	eventually(t, "flag", func() bool { return client.logged(" 504 UT response_timeout") })
}

func TestMirror(t *testing.T) {
	m := newMesh(t)
	client, server, shadow := m.pod("productpage", "10.0.0.1", nil), m.pod("reviews", "10.0.0.2", nil), m.pod("shadow", "10.0.0.3", nil)
	server.serve(9080, hello("reviews"))
	seen := make(chan string, 10)
	shadow.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		seen <- r.Method + " " + r.Host + " " + string(b)
		w.WriteHeader(500)
	}))
	client.cluster("reviews", 9080, server)
	client.cluster("shadow", 9080, shadow)
	r := forwardTo("reviews")
	r.Forward.Mirrors = []conf.Mirror{{Cluster: "shadow", Fraction: 1e6}}
	client.knows("reviews", 9080, r)
	c := client.client()
	if status, body, _ := client.do(c, "POST", "http://reviews:9080/x", strings.NewReader("body")); status != 200 || body != "reviews /x" {
		t.Fatalf("%d %q", status, body)
	}
	if got := <-seen; got != "POST reviews-shadow:9080 body" {
		t.Fatalf("mirrored %q", got)
	}
	r = forwardTo("reviews")
	r.Forward.Mirrors = []conf.Mirror{{Cluster: "shadow", Fraction: 1e6, KeepHost: true}}
	client.knows("reviews", 9080, r)
	client.get(c, "http://reviews:9080/x")
	if got := <-seen; got != "GET reviews:9080 " {
		t.Fatalf("mirrored with its own host: %q", got)
	}
}
