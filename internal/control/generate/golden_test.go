package generate

import (
	"bytes"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weftmesh/weft/internal/control/generate/generatetest"
	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

var update = flag.Bool("update", false, "write the golden files")

func ptr[T any](v T) *T { return &v }

// goldens are pairs of a mesh and the resources that it gives.
var goldens = []struct {
	name  string
	mesh  func(*model.Mesh)
	node  view.Node
	names [][2]string // short type and name
}{
	{"plain", nil, productpage(), [][2]string{{"lds", "reviews:9080"}, {"rds", reviewsHost + ":9080"},
		{"cds", "outbound|9080||" + reviewsHost}, {"eds", "outbound|9080||" + reviewsHost}, {"dns", "reviews"}}},
	{"tcp", nil, productpage(), [][2]string{{"lds", "mysql:3306"}, {"cds", "outbound|3306||" + mysqlHost}}},
	{"auto", nil, productpage(), [][2]string{{"lds", "ratings:7070"}, {"lds", "ratings:9090"}, {"cds", "outbound|9090||" + ratingsHost}}},
	{"headless", nil, productpage(), [][2]string{{"lds", "10.77.0.41:5432"}, {"eds", "outbound|5432||10-77-0-41.db.default" + domain}, {"dns", "db.default"}}},
	{"external", nil, productpage(), [][2]string{{"lds", "www.googleapis.com:443"}, {"cds", "outbound|443||www.googleapis.com"},
		{"rds", "api.example.com:80"}, {"cds", "outbound|80||*.example.com"}}},
	{"actions", actions, productpage(), [][2]string{{"rds", reviewsHost + ":9080"}}},
	{"destinationrule", destinationRule, productpage(), [][2]string{{"cds", "outbound|9080|v2|" + reviewsHost}, {"eds", "outbound|9080|v2|" + reviewsHost},
		{"cds", "outbound|443||www.googleapis.com"}, {"cds", "outbound|3306||" + mysqlHost}}},
	{"keephttp1", keepHTTP1, productpage(), [][2]string{{"cds", "outbound|9080||" + reviewsHost}, {"cds", "outbound|9090||" + ratingsHost}}},
	{"loadbalancing", loadBalancing, productpage(), [][2]string{{"rds", reviewsHost + ":9080"}, {"cds", "outbound|9080||" + reviewsHost},
		{"cds", "outbound|9080|v2|" + reviewsHost}, {"lds", "mysql:3306"}, {"cds", "outbound|3306||" + mysqlHost}, {"cds", "outbound|9090||" + ratingsHost}}},
	{"inbound-permissive", nil, productpage(), [][2]string{{"lds", wire.InboundListener}, {"cds", "inbound|9080||"}}},
	{"inbound-strict", strict, productpage(), [][2]string{{"lds", wire.InboundListener}}},
	{"gateway", bookinfoGateway, ingress(), [][2]string{{"lds", wire.GatewayListenerName(8080)}, {"lds", wire.GatewayListenerName(8443)},
		{"rds", wire.GatewayRouteName(8080)}, {"rds", "https.8443.https.bookinfo.default"}}},
	{"http3", http3Gateway, ingress(), [][2]string{{"lds", wire.GatewayQUICListenerName(8443)}}},
	{"proxyprotocol", proxyProtocol, ingress(), [][2]string{{"lds", wire.GatewayListenerName(8443)}, {"cds", "outbound|3306||" + mysqlHost},
		{"cds", "outbound|9080||" + reviewsHost}}},
	{"tunnel", tunnels, productpage(), [][2]string{{"lds", "mysql:3306"}, {"cds", "outbound|3306||" + mysqlHost}}},
	{"gateway-tls", gatewayTLS, ingress(), [][2]string{{"lds", wire.GatewayListenerName(15443)}, {"lds", wire.GatewayListenerName(8443)},
		{"cds", "outbound_.9080_.v1_." + reviewsHost}}},
	{"l4routes", l4Routes, ingress(), [][2]string{{"lds", wire.GatewayListenerName(9443)}, {"lds", wire.GatewayListenerName(9444)}, {"lds", wire.GatewayListenerName(3306)}}},
	{"udproutes", udpRoutes, ingress(), [][2]string{{"lds", wire.GatewayUDPListenerName(53)}, {"lds", wire.GatewayUDPListenerName(5353)},
		{"cds", "udp|53||dns.default" + domain}, {"eds", "udp|53||dns.default" + domain}}},
	{"l4mesh", l4Routes, productpage(), [][2]string{{"lds", "www.googleapis.com:443"}, {"lds", "mysql:3306"}}},
	{"ratelimit", rateLimits, productpage(), [][2]string{{"lds", wire.InboundListener}}},
	{"grpc-client", grpcClient, proxylessNode(), [][2]string{{"lds", "reviews:9080"}, {"rds", reviewsHost + ":9080"}, {"cds", "outbound|9080||" + reviewsHost},
		{"cds", "outbound|9090||" + ratingsHost}, {"eds", "outbound|9080||" + reviewsHost}}},
	{"grpc-server", strict, proxylessNode(), [][2]string{{"lds", wire.GRPCServerListenerPrefix + "[::]:9080"}}},
	{"envoy", envoyMesh, envoyNode(), [][2]string{{"lds", "virtualOutbound"}, {"lds", wire.InboundListener}, {"lds", "0.0.0.0_9080"}, {"lds", "0.0.0.0_443"},
		{"lds", "10.78.0.4_3306"}, {"rds", "9080"}, {"rds", "80"}, {"cds", "outbound|9080|v2|" + reviewsHost}, {"cds", "inbound|9080||"}}},
	{"networks", networks, productpage(), [][2]string{{"lds", "10.20.1.2:5432"}, {"lds", "10.30.1.2:5432"}}},
	{"networks-envoy", networks, envoyNode(), [][2]string{{"lds", "0.0.0.0_5432"}}},
	{"byhost-envoy", byHosts, envoyNode(), [][2]string{{"lds", "0.0.0.0_8443"}, {"lds", "0.0.0.0_8081"}, {"cds", "outbound|8081||*.example.net"}}},
	{"sessions-envoy", sessions, envoyNode(), [][2]string{{"lds", "0.0.0.0_9080"}, {"rds", "9080"}}},
	{"sidecar", sidecarBinds, productpage(), [][2]string{{"lds", wire.OutboundListener}, {"lds", "127.0.0.1:9080"}, {"lds", "127.0.0.1:3306"}}},
	{"sidecar-envoy", sidecarBinds, envoyNode(), [][2]string{{"lds", "127.0.0.1_9080"}, {"rds", "127.0.0.1_9080"}, {"lds", "127.0.0.1_3306"},
		{"lds", "10.99.0.1_9090"}, {"lds", "inbound_10.77.0.9_9080"}}},
	{"accesslog", accessLog, productpage(), [][2]string{{"lds", "mysql:3306"}, {"lds", wire.OutboundListener}, {"lds", "reviews:9080"}}},
	{"accesslog-envoy", accessLogText, envoyNode(), [][2]string{{"lds", "10.78.0.4_3306"}}},
	{"special", nil, productpage(), [][2]string{{"cds", wire.PassthroughCluster}, {"cds", wire.BlackHoleCluster}}},
}

// sidecarBinds has a Sidecar with addresses of its own: requests and connections that the proxy listens for, connections of any protocol
// that are captured, and a port of the workload.
func sidecarBinds(m *model.Mesh) {
	local := netip.MustParseAddr("127.0.0.1")
	all := []model.EgressHost{{Namespace: "*", Host: "*"}}
	m.Sidecars = []*model.Sidecar{{Ref: model.Ref{Kind: "Sidecar", Namespace: "default", Name: "productpage"}, Namespace: "default",
		Egress: []model.Egress{
			{Port: 9080, Protocol: model.HTTP, Bind: local, Open: true, Hosts: []model.EgressHost{{Namespace: ".", Host: reviewsHost}}},
			{Port: 3306, Protocol: model.TCP, Bind: local, Open: true, Hosts: all},
			{Port: 9090, Protocol: model.Auto, Bind: netip.MustParseAddr("10.99.0.1"), Hosts: all},
			{Hosts: all},
		},
		Ingress: []model.Ingress{{Port: 9080, Protocol: model.HTTP, Endpoint: "127.0.0.1:8080", Open: true, Bind: netip.MustParseAddr("10.77.0.9")}},
	}}
}

func accessLog(m *model.Mesh) {
	m.Settings.Log = &model.AccessLogging{File: "/dev/stdout", JSON: true}
}

func accessLogText(m *model.Mesh) {
	envoyMesh(m)
	m.Settings.Log = &model.AccessLogging{File: "/var/log/mesh", Text: "%DURATION% %WEFT_REASON%\n"}
}

func actions(m *model.Mesh) {
	prefix := "/new"
	full := "/whole"
	virtualService(m, "reviews", []string{reviewsHost},
		model.HTTPRoute{
			Name: "jason",
			Matches: []model.HTTPMatch{{Field: "spec.http[0].match[0]", Path: model.StringMatch{Prefix: "/reviews"},
				Headers:        []model.NamedMatch{{Name: "end-user", Match: model.StringMatch{Exact: "jason"}}},
				WithoutHeaders: []model.NamedMatch{{Name: "x-test", Match: model.StringMatch{Prefix: "a"}}, {Name: "x-none", Match: model.StringMatch{Present: true}}},
				Query:          []model.NamedMatch{{Name: "q", Match: model.StringMatch{Regex: "[a-z]+"}}},
				Method:         model.StringMatch{Exact: "GET"}}},
			Destinations: []model.WeightedDestination{to(reviewsHost, "v2", 0)},
			Timeout:      10 * time.Second,
			Retries:      &model.Retries{Attempts: 3, PerTryTimeout: 2 * time.Second, RetryOn: "5xx,503"},
			Fault:        &model.Fault{Delay: 7 * time.Second, DelayPercent: 100, AbortStatus: 555, AbortPercent: 0.1},
			Request:      model.HeaderChange{Set: map[string]string{"x-a": "1", "Host": "other"}, Add: map[string]string{"x-b": "2"}, Remove: []string{"x-c"}},
			Response:     model.HeaderChange{Set: map[string]string{"x-r": "1"}},
			Rewrite:      &model.Rewrite{URI: "/v2"},
			Mirrors:      []model.Mirror{{Destination: to(reviewsHost, "v3", 0), Percent: 12.5}},
		},
		model.HTTPRoute{
			Matches:  []model.HTTPMatch{{Field: "spec.http[1].match[0]", Path: model.StringMatch{Exact: "/old"}}, {Field: "spec.http[1].match[1]", Path: model.StringMatch{Regex: "/o.*", IgnoreCase: true}}},
			Redirect: &model.Redirect{Authority: "new.example", URI: "/there", Code: 302, Scheme: "https", Port: 8443},
		},
		model.HTTPRoute{Matches: []model.HTTPMatch{{Path: model.StringMatch{Prefix: "/seg/", SegmentPrefix: true}}},
			Redirect: &model.Redirect{Prefix: &prefix, DerivePort: "FROM_REQUEST_PORT"}},
		model.HTTPRoute{Name: "delegated", Field: "spec.http[0]", Object: model.Ref{Kind: "VirtualService", Namespace: "other", Name: "page"},
			Matches:      []model.HTTPMatch{{Path: model.StringMatch{Prefix: "/page"}, StatPrefix: "page"}},
			Destinations: []model.WeightedDestination{to(reviewsHost, "v1", 0)},
			Retries:      &model.Retries{Attempts: 1, SameHosts: true, RemoteLocalities: true},
			CORS: &model.CORS{Origins: []model.StringMatch{{Exact: "*", IsExact: true}, {Regex: "https://[a-z]+"}}, Methods: []string{"GET", "PUT"},
				Headers: []string{"x-a"}, Expose: []string{"x-b"}, MaxAge: ptr(time.Hour), Credentials: true, AnswerUnmatched: true}},
		model.HTTPRoute{Matches: []model.HTTPMatch{{Path: model.StringMatch{Prefix: "/direct"}}}, Direct: &model.DirectResponse{Status: 418, Body: []byte("tea")}},
		model.HTTPRoute{Matches: []model.HTTPMatch{{Path: model.StringMatch{Prefix: "/full", SegmentPrefix: true}}}, Rewrite: &model.Rewrite{FullPath: &full},
			Destinations: []model.WeightedDestination{{Host: "missing.default" + domain, Port: 80}}, Retries: &model.Retries{}},
		model.HTTPRoute{Matches: []model.HTTPMatch{{Path: model.StringMatch{Prefix: "/strip", SegmentPrefix: true}}}, Rewrite: &model.Rewrite{URI: "/"},
			Destinations: []model.WeightedDestination{{Host: ratingsHost, Port: 9080, Weight: 1}, {Host: "x", Weight: 3, Invalid: "no such Service"}}},
		model.HTTPRoute{Destinations: []model.WeightedDestination{to(reviewsHost, "v1", 80), to(reviewsHost, "v2", 0),
			{Host: reviewsHost, Subset: "v3", Weight: 20, Request: model.HeaderChange{Set: map[string]string{"host": "v3.example"}}}}},
		model.HTTPRoute{Destinations: []model.WeightedDestination{to(reviewsHost, "unreachable", 0)}},
	)
}

func destinationRule(m *model.Mesh) {
	v2 := version("v2")
	v2.Policy = &model.TrafficPolicy{Balancing: &model.Balancing{Simple: "RANDOM"}}
	d := rule(m, "default", reviewsHost, version("v1"), v2)
	d.Policy = model.TrafficPolicy{
		Balancing: &model.Balancing{Simple: "ROUND_ROBIN"},
		Pool:      &model.ConnectionPool{MaxConnections: 10, ConnectTimeout: time.Second, MaxPending: 1, MaxRequestsPerConnection: 5, MaxRetries: ptr(uint32(0)), IdleTimeout: time.Minute},
		Outlier:   &model.Outlier{Consecutive5xx: ptr(uint32(7)), ConsecutiveGateway: ptr(uint32(0)), Interval: 5 * time.Second, BaseEjection: time.Minute, MaxEjectionPercent: 50, MinHealthPercent: 30, ErrorCodes: []uint32{429, 503}},
	}
	rule(m, "default", "www.googleapis.com").Policy.TLS = &model.ClientTLS{Mode: model.TLSSimple}
	rule(m, "default", mysqlHost).Policy.Ports = map[uint16]*model.TrafficPolicy{3306: {TLS: &model.ClientTLS{Mode: model.TLSIstioMutual}}}
}

// keepHTTP1 counts for a port of HTTP, and not for one of which nobody has said what it speaks.
func keepHTTP1(m *model.Mesh) {
	for _, host := range []string{reviewsHost, ratingsHost} {
		rule(m, "default", host).Policy.Pool = &model.ConnectionPool{KeepHTTP1: true}
	}
}

func strict(m *model.Mesh) {
	m.PeerAuthentications = []*model.PeerAuthentication{{Mode: model.MTLSStrict}}
	m.AuthorizationPolicies = []*model.AuthorizationPolicy{
		{Ref: model.Ref{Kind: "AuthorizationPolicy", Namespace: "default", Name: "viewer"}, Namespace: "default",
			Selector: map[string]string{"app": "productpage"}, Action: model.AuthAllow,
			Rules: []model.AuthRule{{
				From: []model.AuthSource{{Principals: []string{"cluster.local/ns/istio-system/sa/ingress"}}, {Namespaces: []string{"default"}, NotIPBlocks: nil}},
				To:   []model.AuthOperation{{Methods: []string{"GET"}, Paths: []string{"/productpage", "/api/*", "/x/{*}/y"}, Ports: []uint16{9080}}},
				When: []model.AuthCondition{{Key: "request.headers[x-token]", Values: []string{"*"}}},
			}}},
		{Ref: model.Ref{Kind: "AuthorizationPolicy", Namespace: "istio-system", Name: "deny"}, Action: model.AuthDeny, DryRun: true,
			Rules: []model.AuthRule{{To: []model.AuthOperation{{NotPaths: []string{"/ok*"}, Hosts: []string{"*.internal"}}}}}},
	}
}

func bookinfoGateway(m *model.Mesh) {
	g := &model.Gateway{Ref: model.Ref{Kind: "Gateway", Namespace: "default", Name: "bookinfo"}, Selector: map[string]string{"istio": "ingressgateway"},
		Servers: []model.Server{
			{Port: 8080, Name: "http", Protocol: model.HTTP, Hosts: []model.GatewayHost{{Host: "*"}}},
			{Port: 8080, Name: "redirect", Protocol: model.HTTP, Hosts: []model.GatewayHost{{Host: "secure.example"}}, HTTPSRedirect: true},
			{Port: 8443, Name: "https", Protocol: model.HTTPS, Hosts: []model.GatewayHost{{Host: "*.example"}},
				TLS: &model.ServerTLS{Mode: model.TLSSimple, Certificate: []byte("certificate"), Key: []byte("key"), MinVersion: 0x0303}},
		}}
	m.Gateways = []*model.Gateway{g}
	s := virtualService(m, "bookinfo", []string{"*", "shop.example"}, model.HTTPRoute{
		Matches:      []model.HTTPMatch{{Path: model.StringMatch{Exact: "/productpage"}}, {Path: model.StringMatch{Prefix: "/static"}, Port: 8443}},
		Destinations: []model.WeightedDestination{{Host: reviewsHost, Port: 9080}}})
	s.Mesh = false
	s.Gateways = []model.GatewayRef{{Kind: "Gateway.istio", Namespace: "default", Name: "bookinfo"}}
}

func http3Gateway(m *model.Mesh) {
	bookinfoGateway(m)
	m.Gateways[0].HTTP3 = true
}

func rateLimits(m *model.Mesh) {
	m.PeerAuthentications = []*model.PeerAuthentication{{Mode: model.MTLSStrict}}
	m.RateLimits = []*model.RateLimit{
		{Ref: model.Ref{Kind: "RateLimit", Namespace: "default", Name: "productpage"}, Namespace: "default", Selector: map[string]string{"app": "productpage"},
			Status: 503, Report: true, Rules: []model.RateLimitRule{{Name: "per-user", Methods: []string{"GET"}, Paths: []string{"/api/*", "/a.b"},
				Headers: []model.NamedMatch{{Name: "x-a", Match: model.StringMatch{Present: true}}, {Name: "x-b", Match: model.StringMatch{Regex: "b+"}}},
				Keys:    []model.RateLimitKey{{Header: "x-user"}, {Query: "q"}, {}, {V4: 24}}, Requests: 5, Burst: 10, Per: time.Minute, DryRun: true}}},
		{Ref: model.Ref{Kind: "RateLimit", Namespace: "default", Name: "other"}, Namespace: "default", Selector: map[string]string{"app": "other"},
			Rules: []model.RateLimitRule{{Name: "all"}}},
		{Ref: model.Ref{Kind: "RateLimit", Namespace: "default", Name: "shared"}, Namespace: "default", Status: 429, Report: true,
			Service: &model.RateLimitService{Host: "limits.default" + domain, Port: 8081, Domain: "shop", Timeout: time.Second, Deny: true},
			Rules: []model.RateLimitRule{{Name: "logins", Methods: []string{"POST"}, Entries: []model.RateLimitEntry{
				{Key: "user", From: model.RateLimitKey{Header: "x-user"}}, {Key: "do", Value: "login"}, {Key: "a", Value: "b"}, {From: model.RateLimitKey{V6: 64}}}}}},
	}
}

func gatewayTLS(m *model.Mesh) {
	bookinfoGateway(m)
	rule(m, "default", reviewsHost, version("v1"))
	g := m.Gateways[0]
	g.Servers = append(g.Servers, model.Server{Port: 15443, Name: "tls", Protocol: model.TLS, Hosts: []model.GatewayHost{{Host: reviewsHost}},
		TLS: &model.ServerTLS{Mode: model.TLSAutoPassthrough}})
	t := g.Servers[2].TLS
	t.Mode, t.CA, t.CRL, t.SANs = model.TLSOptionalMutual, []byte("authority"), []byte("revoked"), []string{"client.example"}
	t.CipherSuites = []string{"ECDHE-RSA-AES128-GCM-SHA256"}
}

// l4Routes is what TLSRoutes and TCPRoutes become at a listener that passes TLS through, one that ends it, one of TCP, and for services.
func l4Routes(m *model.Mesh) {
	ref := model.Ref{Kind: "Gateway.k8s", Namespace: "default", Name: "edge"}
	any := []model.GatewayHost{{Host: "*"}}
	m.Gateways = append(m.Gateways, &model.Gateway{Ref: ref, Selector: map[string]string{"istio": "ingressgateway"}, Servers: []model.Server{
		{Port: 9443, Name: "pass", Protocol: model.TLS, Hosts: any, TLS: &model.ServerTLS{Mode: model.TLSPassthrough}},
		{Port: 9444, Name: "ends", Protocol: model.TLS, Hosts: any, TLS: &model.ServerTLS{Mode: model.TLSSimple, Certificate: []byte("c"), Key: []byte("k")}},
		{Port: 3306, Name: "tcp", Protocol: model.TCP, Hosts: any},
	}})
	mysql := []model.WeightedDestination{{Host: mysqlHost, Port: 3306, Weight: 3}, {Host: "absent", Port: 1, Weight: 1, Invalid: "BackendNotFound"}}
	at := func(section string) model.RouteSet {
		s := model.RouteSet{Ref: model.Ref{Kind: "TLSRoute", Namespace: "default", Name: "r"}, Namespace: "default", ByPrecedence: true,
			Gateways: []model.GatewayRef{{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name, Section: section}}}
		return s
	}
	add := func(s model.RouteSet, hosts ...string) { s.Hosts = hosts; m.RouteSets = append(m.RouteSets, &s) }
	for _, section := range []string{"pass", "ends"} {
		s := at(section)
		s.TLS = []model.TLSRoute{{Field: "spec.rules[0]", Matches: []model.L4Match{{SNIHosts: []string{"a.example", "*.b.example"}}}, Destinations: mysql}}
		add(s, "a.example", "*.b.example")
	}
	for _, section := range []string{"ends", "tcp"} {
		s := at(section)
		s.Ref.Kind, s.TCP = "TCPRoute", []model.TCPRoute{{Field: "spec.rules[0]", Destinations: mysql[:1]}}
		add(s, "*")
	}
	s := at("")
	s.Gateways, s.Mesh = nil, true
	s.TLS = []model.TLSRoute{{Field: "spec.rules[0]", Matches: []model.L4Match{{SNIHosts: []string{"a.example"}, Port: 443}}, Destinations: mysql}}
	add(s, "www.googleapis.com")
	s.TLS, s.TCP = nil, []model.TCPRoute{{Field: "spec.rules[0]", Matches: []model.L4Match{{Port: 3306}}, Destinations: mysql}}
	add(s, mysqlHost)
}

// udpRoutes has one route to a single backend, and one that divides, at a gateway whose policies name who may come.
func udpRoutes(m *model.Mesh) {
	ref := model.Ref{Kind: "Gateway.k8s", Namespace: "default", Name: "edge"}
	any := []model.GatewayHost{{Host: "*"}}
	m.Gateways = append(m.Gateways, &model.Gateway{Ref: ref, Selector: map[string]string{"istio": "ingressgateway"}, Servers: []model.Server{
		{Port: 53, Name: "dns", Protocol: model.UDP, Hosts: any}, {Port: 53, Name: "dns-tcp", Protocol: model.TCP, Hosts: any},
		{Port: 5353, Name: "split", Protocol: model.UDP, Hosts: any},
	}})
	host := "dns.default" + domain
	m.Services.Put(host, &model.Service{Ref: model.Ref{Kind: "Service", Namespace: "default", Name: "dns"}, Host: host, Namespace: "default", Name: "dns",
		Ports: []model.Port{{Number: 53, Name: "dns-tcp", Protocol: model.TCP}}, UDP: []model.Port{{Number: 53, Name: "dns", Protocol: model.UDP}},
		Endpoints: []*model.Endpoint{{Address: "10.77.0.53", Ports: map[uint16]uint16{53: 10054}, UDP: map[uint16]uint16{53: 10053}, Namespace: "default", Ready: true, Mesh: true, Workload: "dns"}}})
	add := func(section, name string, to ...model.WeightedDestination) {
		m.RouteSets = append(m.RouteSets, &model.RouteSet{Ref: model.Ref{Kind: "UDPRoute", Namespace: "default", Name: name}, Namespace: "default", ByPrecedence: true,
			Hosts: []string{"*"}, Gateways: []model.GatewayRef{{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name, Section: section}},
			UDP: []model.UDPRoute{{Field: "spec.rules[0]", Destinations: to}}})
	}
	dns := model.WeightedDestination{Host: host, Port: 53, Weight: 3}
	add("dns", "one", dns)
	add("split", "divided", model.WeightedDestination{Host: "absent", Port: 1, Weight: 1, Invalid: "BackendNotFound"}, dns)
}

func loadBalancing(m *model.Mesh) {
	v2 := version("v2")
	v2.Policy = &model.TrafficPolicy{Balancing: &model.Balancing{Simple: "ROUND_ROBIN", Warmup: &model.Warmup{Duration: time.Minute, Aggression: 2, MinimumPercent: 5}}}
	rule(m, "default", reviewsHost, v2).Policy = model.TrafficPolicy{
		Balancing:   &model.Balancing{Hash: &model.ConsistentHash{Cookie: "user", CookieTTL: ptr(time.Hour), CookiePath: "/", CookieAttributes: [][2]string{{"SameSite", "Lax"}}}},
		Pool:        &model.ConnectionPool{KeepAlive: &model.KeepAlive{Probes: 3, Idle: time.Minute, Interval: time.Second}, MaxConnectionDuration: time.Hour, MaxStreams: 50, PingAfter: time.Minute, PingTimeout: time.Second},
		RetryBudget: &model.RetryBudget{Percent: ptr(12.5), Min: ptr(uint32(4))},
	}
	rule(m, "default", mysqlHost).Policy = model.TrafficPolicy{
		Balancing: &model.Balancing{Hash: &model.ConsistentHash{SourceIP: true, Maglev: true, TableSize: 1009}},
		Pool:      &model.ConnectionPool{TCPIdleTimeout: 5 * time.Minute, MaxConnectionDuration: time.Hour}}
	ewma := rule(m, "default", ratingsHost)
	ewma.Policy.Balancing = &model.Balancing{Simple: "PEAK_EWMA"}
	ewma.HealthCheck = &model.HealthCheck{Path: "/healthz", Interval: 2 * time.Second}
}

func grpcClient(m *model.Mesh) {
	actions(m)
	routes := &m.RouteSets[0].HTTP
	(*routes)[0].Matches[0].Query, (*routes)[0].Matches[0].Method = nil, model.StringMatch{Exact: "POST"}
	(*routes)[0].Retries.RetryOn = "unavailable,5xx,503"
	strict(m)
	rule(m, "default", reviewsHost, version("v1")).Policy = model.TrafficPolicy{Balancing: &model.Balancing{Hash: &model.ConsistentHash{SourceIP: true, Maglev: true}},
		Outlier: &model.Outlier{Consecutive5xx: ptr(uint32(7)), Interval: 5 * time.Second}}
}

func envoyMesh(m *model.Mesh) {
	destinationRule(m)
	m.Services.Get("*.example.com").Resolution = model.DNS
	virtualService(m, "reviews", []string{reviewsHost}, model.HTTPRoute{Destinations: []model.WeightedDestination{to(reviewsHost, "v2", 0)}})
	virtualService(m, "routed", []string{"routed.test"}, model.HTTPRoute{Destinations: []model.WeightedDestination{to(reviewsHost, "v1", 0)}})
}

func envoyNode() view.Node {
	n := productpage()
	n.Classic, n.SecretsDir = true, "/run/secrets"
	return n
}

func proxylessNode() view.Node {
	n := productpage()
	n.Proxyless = true
	return n
}

func proxyProtocol(m *model.Mesh) {
	bookinfoGateway(m)
	m.Gateways[0].ProxyProtocol = model.OptionalProxyProtocol
	rule(m, "default", reviewsHost).Policy.ProxyProtocol = 2
	rule(m, "default", mysqlHost).Policy = model.TrafficPolicy{ProxyProtocol: 1, TLS: &model.ClientTLS{Mode: model.TLSDisable}}
}

func sessions(m *model.Mesh) {
	virtualService(m, "reviews", []string{reviewsHost},
		model.HTTPRoute{Matches: []model.HTTPMatch{{Path: model.StringMatch{Prefix: "/a"}}}, Destinations: []model.WeightedDestination{to(reviewsHost, "", 0)},
			Session: &model.Session{Name: "kept", TTL: time.Hour}},
		model.HTTPRoute{Destinations: []model.WeightedDestination{to(reviewsHost, "", 0)}, Session: &model.Session{Name: "x-kept", Header: true}})
}

func byHosts(m *model.Mesh) {
	const host = "*.example.net"
	m.Services.Put(host, &model.Service{Ref: model.Ref{Kind: "ServiceEntry", Namespace: "default", Name: "all"}, Host: host, Namespace: "default", Name: host,
		External: true, Resolution: model.ByHost, Ports: []model.Port{{Number: 8081, Protocol: model.HTTP}, {Number: 8443, Protocol: model.TLS}}})
	rule(m, "default", host).Policy.Ports = map[uint16]*model.TrafficPolicy{8081: {TLS: &model.ClientTLS{Mode: model.TLSSimple}}}
}

func networks(m *model.Mesh) {
	for host, ranges := range map[string]string{"wide.example.com": "10.0.0.0/8", "narrow.example.com": "10.20.0.0/16"} {
		s := &model.Service{Ref: model.Ref{Kind: "ServiceEntry", Namespace: "default", Name: host}, Host: host, Namespace: "default", Name: host, External: true,
			Resolution: model.None, Networks: []netip.Prefix{netip.MustParsePrefix(ranges)}, Ports: []model.Port{{Number: 5432, Protocol: model.TCP}}}
		m.Services.Put(host, s)
		m.ByNetwork.Put(s.Networks[0], []string{host})
	}
}

func tunnels(m *model.Mesh) {
	rule(m, "default", mysqlHost).Policy.Tunnel = &model.Tunnel{Target: "db.example.com:3306", Post: true}
}

var longTypes = map[string]string{"lds": ListenerType, "rds": RouteType, "cds": ClusterType, "eds": EndpointsType, "dns": DNSType}

func TestGolden(t *testing.T) {
	for _, c := range goldens {
		t.Run(c.name, func(t *testing.T) {
			mesh := testMesh()
			if c.mesh != nil {
				c.mesh(mesh)
			}
			g := New(mesh, c.node)
			var got bytes.Buffer
			for _, n := range c.names {
				m, ok := g.Resource(longTypes[n[0]], n[1])
				if !ok {
					t.Fatalf("%s %s: there is none", n[0], n[1])
				}
				generatetest.Validate(t, n[1], m)
				fmt.Fprintf(&got, "# %s %s\n%s\n", n[0], n[1], generatetest.Text(t, m))
			}
			file := filepath.Join("testdata", c.name+".txtpb")
			if *update {
				if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got.String()); d != "" {
				t.Errorf("%s differs (go test -update writes it):\n%s", file, d)
			}
		})
	}
}
