package generate

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/data/dns/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	networkrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"

	"github.com/weftmesh/weft/internal/control/generate/generatetest"
	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// apiRoutes gives the route table that a listener of an outbound HTTP destination leads to.
func apiRoutes(t *testing.T, g *Generator, listener string) (name string, ok bool) {
	t.Helper()
	m, ok := g.Listener(listener)
	if !ok {
		return "", false
	}
	l, _ := m.(*listenerv3.Listener)
	h := &hcmv3.HttpConnectionManager{}
	if err := l.GetApiListener().GetApiListener().UnmarshalTo(h); err != nil {
		t.Fatal(err)
	}
	return h.GetRds().GetRouteConfigName(), true
}

func table(t *testing.T, g *Generator, name string) *routev3.RouteConfiguration {
	t.Helper()
	m, ok := g.Route(name)
	if !ok {
		t.Fatalf("route table %s: there is none", name)
	}
	r, _ := m.(*routev3.RouteConfiguration)
	return r
}

// leads gives, by virtual host, where each route of a table goes.
func leads(r *routev3.RouteConfiguration) map[string][]string {
	out := map[string][]string{}
	for _, v := range r.GetVirtualHosts() {
		for _, route := range v.GetRoutes() {
			where := route.GetRoute().GetCluster()
			switch {
			case route.GetRedirect() != nil:
				where = "redirect"
			case route.GetDirectResponse() != nil:
				where = "direct"
			case route.GetRoute().GetWeightedClusters() != nil:
				where = "split"
			}
			out[v.GetName()] = append(out[v.GetName()], where)
		}
	}
	return out
}

func TestResolve(t *testing.T) {
	m := testMesh()
	virtualService(m, "local", []string{"bookinfo.local"}, model.HTTPRoute{Destinations: []model.WeightedDestination{{Host: reviewsHost, Port: 9080}}})
	virtualService(m, "everything", []string{"*"}, model.HTTPRoute{Matches: []model.HTTPMatch{{Path: model.StringMatch{Exact: "/x"}}}})
	g := New(m, productpage())
	elsewhere := productpage()
	elsewhere.Namespace = "other"
	far := New(m, elsewhere)
	for _, c := range []struct {
		g    *Generator
		name string
		want string // route table; empty when the name is unknown
	}{
		{g, "reviews:9080", reviewsHost + ":9080"},
		{g, "REVIEWS:9080", reviewsHost + ":9080"},
		{g, "reviews.default:9080", reviewsHost + ":9080"},
		{g, "reviews.default.svc:9080", reviewsHost + ":9080"},
		{g, "reviews.default.svc.cluster.local:9080", reviewsHost + ":9080"},
		{g, "reviews.default.svc.cluster.local.:9080", reviewsHost + ":9080"},
		{g, "10.78.0.2:9080", reviewsHost + ":9080"},
		{g, "reviews:9081", ""},
		{g, "reviews:0", ""},
		{g, "reviews", ""},
		{g, "10.78.0.99:9080", ""},
		{g, "10.77.0.11:9080", ""}, // an instance of a service with a virtual address is not the service
		{g, "hidden.other:80", ""},
		{g, "unknown.example:80", ""},
		{g, "api.example.com:80", "api.example.com:80"},
		{g, "example.com:80", ""},
		{g, "bookinfo.local:80", "bookinfo.local:80"},
		{g, "bookinfo.local:81", ""},
		{far, "reviews:9080", ""},
		{far, "reviews.default:9080", reviewsHost + ":9080"},
		{far, "hidden:80", "hidden.other" + domain + ":80"},
	} {
		got, ok := apiRoutes(t, c.g, c.name)
		if got != c.want || ok != (c.want != "") {
			t.Errorf("%s from %s: got %q, want %q", c.name, c.g.node.Namespace, got, c.want)
		}
	}
}

func TestListenerKinds(t *testing.T) {
	g := New(testMesh(), productpage())
	for name, want := range map[string]struct{ http, chains bool }{
		"reviews:9080": {true, false}, "ratings:9090": {true, false}, "ratings:7070": {true, true}, "mysql:3306": {false, true},
		"www.googleapis.com:443": {false, true},
	} {
		m, ok := g.Listener(name)
		l, _ := m.(*listenerv3.Listener)
		if !ok || (l.GetApiListener() != nil) != want.http || (len(l.GetFilterChains()) > 0) != want.chains {
			t.Errorf("%s: %v", name, l)
		}
	}
	proxyless := productpage()
	proxyless.Proxyless = true
	if m, _ := New(testMesh(), proxyless).Listener("ratings:9090"); len(m.(*listenerv3.Listener).GetFilterChains()) > 0 {
		t.Error("gRPC's own client is given filter chains")
	}
}

func TestFirstVirtualServiceRules(t *testing.T) {
	m := testMesh()
	virtualService(m, "wild", []string{"*.default" + domain}, model.HTTPRoute{Destinations: []model.WeightedDestination{{Host: mysqlHost, Port: 1}}})
	virtualService(m, "old", []string{reviewsHost}, model.HTTPRoute{Destinations: []model.WeightedDestination{{Host: ratingsHost, Port: 9080}}})
	virtualService(m, "young", []string{reviewsHost}, model.HTTPRoute{Destinations: []model.WeightedDestination{{Host: reviewsHost}}})
	private := virtualService(m, "foreign", []string{mysqlHost})
	private.Namespace, private.ExportTo = "other", model.Visibility{Private: true}
	g := New(m, productpage())
	if got := leads(table(t, g, reviewsHost+":9080"))[reviewsHost+":9080"]; !slices.Equal(got, []string{"outbound|9080||" + ratingsHost}) {
		t.Errorf("reviews: %v", got)
	}
	if got := leads(table(t, g, ratingsHost+":9080"))[ratingsHost+":9080"]; !slices.Equal(got, []string{"outbound|1||" + mysqlHost}) {
		t.Errorf("ratings, by wildcard: %v", got)
	}
}

func TestMatchesOfTheSource(t *testing.T) {
	m := testMesh()
	dest := func(subset string) []model.WeightedDestination {
		return []model.WeightedDestination{to(reviewsHost, subset, 0)}
	}
	virtualService(m, "reviews", []string{reviewsHost},
		model.HTTPRoute{Matches: []model.HTTPMatch{{SourceLabels: map[string]string{"app": "productpage"}, Path: model.StringMatch{Exact: "/a"}}}, Destinations: dest("labels")},
		model.HTTPRoute{Matches: []model.HTTPMatch{{SourceNamespace: "other", Path: model.StringMatch{Exact: "/b"}}}, Destinations: dest("namespace")},
		model.HTTPRoute{Matches: []model.HTTPMatch{{Port: 1, Path: model.StringMatch{Exact: "/c"}}}, Destinations: dest("port")},
		model.HTTPRoute{Matches: []model.HTTPMatch{{Gateways: []model.GatewayRef{{Kind: "Gateway.istio", Name: "g", Namespace: "default"}}}}, Destinations: dest("gateway")},
		model.HTTPRoute{Matches: []model.HTTPMatch{{Mesh: true, Path: model.StringMatch{Exact: "/d"}}}, Destinations: dest("mesh")},
		model.HTTPRoute{Destinations: dest("all")},
		model.HTTPRoute{Destinations: dest("never")},
	)
	index := NewIndex(m)
	of := func(subset string) string { return wire.OutboundCluster(9080, subset, reviewsHost) }
	other := productpage()
	other.Labels, other.Namespace = map[string]string{"app": "ratings"}, "other"
	for _, c := range []struct {
		node view.Node
		want []string
	}{
		{productpage(), []string{of("labels"), of("mesh"), of("all")}},
		{other, []string{of("namespace"), of("mesh"), of("all")}},
	} {
		if got := leads(table(t, index.For(c.node), reviewsHost+":9080"))[reviewsHost+":9080"]; !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.node.Namespace, got, c.want)
		}
	}
	if a, b := index.For(productpage()).Class(RouteType, "x"), index.For(view.Node{Namespace: "default", Labels: map[string]string{"app": "x"}}).Class(RouteType, "x"); a == b {
		t.Error("nodes of different labels share routes although labels decide")
	}
}

func TestGatewayAPIPrecedence(t *testing.T) {
	m := testMesh()
	add := func(name string, n int, matches ...model.HTTPMatch) {
		s := virtualService(m, name, []string{reviewsHost}, model.HTTPRoute{Name: name, Matches: matches, Destinations: []model.WeightedDestination{to(reviewsHost, "", 0)}})
		s.ByPrecedence, s.Created, s.Ref.Kind = true, age(n), "HTTPRoute"
	}
	path := func(m model.StringMatch) model.HTTPMatch { return model.HTTPMatch{Path: m} }
	prefix := func(p string) model.StringMatch { return model.StringMatch{Prefix: p, SegmentPrefix: true} }
	header := path(prefix("/a"))
	header.Headers = []model.NamedMatch{{Name: "h", Match: model.StringMatch{Exact: "1"}}}
	query := path(prefix("/a"))
	query.Query = []model.NamedMatch{{Name: "q", Match: model.StringMatch{Exact: "1"}}}
	method := path(prefix("/a"))
	method.Method = model.StringMatch{Exact: "GET"}
	add("root", 0, path(prefix("/")))
	add("young", 9, path(prefix("/a")))
	add("query", 1, query)
	add("old", 2, path(prefix("/a")))
	add("header", 3, header)
	add("method", 4, method)
	add("long", 5, path(prefix("/a/b")))
	add("exact", 6, path(model.StringMatch{Exact: "/a"}))
	var got []string
	for _, r := range table(t, New(m, productpage()), reviewsHost+":9080").VirtualHosts[0].Routes {
		got = append(got, r.GetName())
	}
	if want := strings.Fields("exact long method header query old young root"); !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestGatewayMergesRouteSets(t *testing.T) {
	m := testMesh()
	bookinfoGateway(m)
	second := virtualService(m, "second", []string{"shop.example"},
		model.HTTPRoute{Destinations: []model.WeightedDestination{{Host: ratingsHost, Port: 9080}}},
		model.HTTPRoute{Destinations: []model.WeightedDestination{{Host: mysqlHost, Port: 1}}})
	second.Mesh, second.Gateways = false, m.RouteSets[0].Gateways
	third := virtualService(m, "third", []string{"shop.example"},
		model.HTTPRoute{Matches: []model.HTTPMatch{{Path: model.StringMatch{Prefix: "/third"}}}, Destinations: []model.WeightedDestination{{Host: mysqlHost, Port: 2}}})
	third.Mesh, third.Gateways = false, m.RouteSets[0].Gateways
	g := New(m, ingress())
	got := leads(table(t, g, wire.GatewayRouteName(8080)))
	want := []string{"outbound|9080||" + reviewsHost, "outbound|2||" + mysqlHost, "outbound|9080||" + ratingsHost}
	if !slices.Equal(got["shop.example"], want) {
		t.Errorf("shop.example: got %v, want %v", got["shop.example"], want)
	}
	if !slices.Equal(got["secure.example"], []string{"redirect"}) {
		t.Errorf("secure.example: %v", got["secure.example"])
	}
	for name, n := range map[string]view.Node{"sidecar": productpage(), "other labels": {Role: wire.Gateway, Namespace: "x", Labels: map[string]string{"istio": "egress"}}} {
		if l := New(m, n).GatewayListeners(); len(l) != 0 {
			t.Errorf("%s gets %d listeners of the gateway", name, len(l))
		}
	}
}

// TestNamesOfAliases: a further name of a service has its addresses, that of a host outside the mesh has the host's name.
func TestNamesOfAliases(t *testing.T) {
	m := testMesh()
	service(m, "inside", "default", "").ExternalName = reviewsHost
	service(m, "outside", "default", "").ExternalName = "www.example.org"
	service(m, "none", "default", "")
	g := New(m, productpage())
	for name, want := range map[string]string{"inside": "", "outside.default.svc.cluster.local": "www.example.org", "outside": "www.example.org"} {
		r, _ := g.Resource(DNSType, name)
		table, ok := r.(*dnsv3.DnsTable)
		if !ok {
			t.Errorf("%s has no table", name)
		} else if got := table.GetVirtualDomains()[0].GetEndpoint().GetClusterName(); got != want {
			t.Errorf("%s is a further name of %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"none", "www.googleapis.com"} {
		if _, ok := g.Resource(DNSType, name); ok {
			t.Errorf("%s has a table", name)
		}
	}
}

// TestGatewayTargetPorts: a gateway listens where the Service before it leads, and servers that meet there share the port.
func TestGatewayTargetPorts(t *testing.T) {
	m := testMesh()
	bookinfoGateway(m)
	m.Gateways[0].Servers[0].Port = 80
	m.Gateways[0].Servers[2].Port = 443
	node := ingress()
	node.Targets = []model.Target{{Port: 80, Number: 8080}, {Port: 443, Number: 8443}, {Port: 443, UDP: true, Number: 9443}}
	g := New(m, node)
	ports := map[string]uint32{}
	for _, l := range g.GatewayListeners() {
		ports[l.Name] = l.GetAddress().GetSocketAddress().GetPortValue()
	}
	if want := map[string]uint32{"0.0.0.0_8080": 8080, "0.0.0.0_8443": 8443}; !maps.Equal(ports, want) {
		t.Errorf("got %v, want %v", ports, want)
	}
	got := leads(table(t, g, wire.GatewayRouteName(8080)))
	if !slices.Equal(got["shop.example"], []string{"outbound|9080||" + reviewsHost}) || !slices.Equal(got["secure.example"], []string{"redirect"}) {
		t.Errorf("port 8080 leads to %v", got)
	}
	if _, ok := g.Resource(RouteType, "https.443.https.bookinfo.default"); !ok {
		t.Error("no routes for HTTPS")
	}
}

func TestGatewayHostNamespace(t *testing.T) {
	m := testMesh()
	bookinfoGateway(m)
	m.Gateways[0].Servers[0].Hosts = []model.GatewayHost{{Namespace: "team", Host: "*"}}
	if got := leads(table(t, New(m, ingress()), wire.GatewayRouteName(8080))); len(got) != 1 || got["secure.example"] == nil {
		t.Errorf("routes of another namespace than the server's host: %v", got)
	}
}

func TestDestinationRuleLookup(t *testing.T) {
	for _, c := range []struct {
		name  string
		rules func(*model.Mesh)
		want  clusterv3.Cluster_LbPolicy
	}{
		{"none", func(*model.Mesh) {}, clusterv3.Cluster_LEAST_REQUEST},
		{"client before service", func(m *model.Mesh) {
			balanced(m, "other", reviewsHost, "RANDOM")
			balanced(m, "default", reviewsHost, "ROUND_ROBIN")
		}, clusterv3.Cluster_RANDOM},
		{"service before root", func(m *model.Mesh) {
			balanced(m, "istio-system", reviewsHost, "RANDOM")
			balanced(m, "default", reviewsHost, "ROUND_ROBIN")
		}, clusterv3.Cluster_ROUND_ROBIN},
		{"root", func(m *model.Mesh) { balanced(m, "istio-system", "*.local", "RANDOM") }, clusterv3.Cluster_RANDOM},
		{"exact before wildcard", func(m *model.Mesh) {
			balanced(m, "default", "*.local", "RANDOM")
			balanced(m, "default", reviewsHost, "ROUND_ROBIN")
		}, clusterv3.Cluster_ROUND_ROBIN},
		{"longest wildcard", func(m *model.Mesh) {
			balanced(m, "default", "*.local", "RANDOM")
			balanced(m, "default", "*.default"+domain, "ROUND_ROBIN")
		}, clusterv3.Cluster_ROUND_ROBIN},
		{"not exported", func(m *model.Mesh) { balanced(m, "default", reviewsHost, "RANDOM").ExportTo.Private = true }, clusterv3.Cluster_LEAST_REQUEST},
		{"third namespace", func(m *model.Mesh) { balanced(m, "third", reviewsHost, "RANDOM") }, clusterv3.Cluster_LEAST_REQUEST},
	} {
		m := testMesh()
		c.rules(m)
		n := productpage()
		n.Namespace = "other"
		msg, ok := New(m, n).clusters.Cluster("outbound|9080||" + reviewsHost)
		if got, _ := msg.(*clusterv3.Cluster); !ok || got.GetLbPolicy() != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got.GetLbPolicy(), c.want)
		}
	}
}

func balanced(m *model.Mesh, namespace, host, simple string) *model.Destination {
	d := rule(m, namespace, host)
	d.Policy.Balancing = &model.Balancing{Simple: simple}
	return d
}

func TestTrafficPolicyInheritance(t *testing.T) {
	pool, outlier := &model.ConnectionPool{MaxConnections: 1}, &model.Outlier{MaxEjectionPercent: 1}
	port := &model.TrafficPolicy{Outlier: outlier}
	base := &model.Destination{Policy: model.TrafficPolicy{Pool: pool, Balancing: &model.Balancing{Simple: "RANDOM"}, Ports: map[uint16]*model.TrafficPolicy{81: port}}}
	own := &model.Subset{Policy: &model.TrafficPolicy{Balancing: &model.Balancing{Simple: "ROUND_ROBIN"}, Ports: map[uint16]*model.TrafficPolicy{82: port}}}
	if p := view.TrafficPolicy(base, own, 80); p.Pool != pool || p.Balancing.Simple != "ROUND_ROBIN" {
		t.Errorf("a subset does not inherit: %+v", p)
	}
	if p := view.TrafficPolicy(base, nil, 81); p.Pool != nil || p.Balancing != nil || p.Outlier != outlier {
		t.Errorf("settings of a port do not replace: %+v", p)
	}
	if p := view.TrafficPolicy(base, own, 82); p.Pool != nil || p.Outlier != outlier {
		t.Errorf("settings of a subset's port do not replace: %+v", p)
	}
}

func TestClustersThatAreNot(t *testing.T) {
	g := New(testMesh(), productpage())
	for _, name := range []string{"", "outbound|9080|v1|" + reviewsHost, "outbound|1||" + reviewsHost, "outbound|80||hidden.other" + domain,
		"inbound|1||", "sideways|9080||" + reviewsHost, "outbound|09080||" + reviewsHost, "outbound|5432||10-77-9-9.db.default" + domain} {
		if _, ok := g.clusters.Cluster(name); ok {
			t.Errorf("cluster %q exists", name)
		}
		if _, ok := g.clusters.Endpoints(name); ok {
			t.Errorf("endpoints %q exist", name)
		}
	}
}

func TestMutualTLSByPeerAuthentication(t *testing.T) {
	m := testMesh()
	m.PeerAuthentications = []*model.PeerAuthentication{
		{Mode: model.MTLSStrict, Created: age(1)},
		{Mode: model.MTLSDisable, Created: age(2)}, // younger: without effect
		{Namespace: "default", Mode: model.MTLSPermissive},
		{Namespace: "default", Selector: map[string]string{"app": "reviews"}, Mode: model.MTLSUnset,
			Ports: map[uint16]model.MTLSMode{9080: model.MTLSDisable}},
	}
	g := New(m, productpage())
	reviews, ratings := map[string]string{"app": "reviews"}, map[string]string{"app": "ratings"}
	for _, c := range []struct {
		namespace string
		labels    map[string]string
		port      uint16
		want      model.MTLSMode
	}{
		{"other", reviews, 9080, model.MTLSStrict}, {"default", ratings, 9080, model.MTLSPermissive},
		{"default", reviews, 9080, model.MTLSDisable}, {"default", reviews, 9081, model.MTLSPermissive},
	} {
		if got := g.view.MTLSMode(c.namespace, c.labels, c.port); got != c.want {
			t.Errorf("%s %v %d: got %d, want %d", c.namespace, c.labels, c.port, got, c.want)
		}
	}
	msg, _ := g.clusters.Endpoints("outbound|9080||" + reviewsHost)
	for _, l := range msg.(*endpointv3.ClusterLoadAssignment).GetEndpoints() {
		for _, e := range l.GetLbEndpoints() {
			if e.GetMetadata().GetFilterMetadata()["envoy.transport_socket_match"] != nil {
				t.Errorf("%v is offered mutual TLS, which it does not take", e.GetEndpoint().GetAddress())
			}
		}
	}
}

func TestInboundModes(t *testing.T) {
	for modes, want := range map[[2]model.MTLSMode]struct{ terminated, plain, through int }{
		{model.MTLSStrict}:     {1, 0, 0},
		{model.MTLSPermissive}: {1, 1, 1},
		{model.MTLSDisable}:    {0, 1, 1},
		// on the way from one to the other
		{model.MTLSStrict, model.MTLSStrict}:      {1, 0, 0},
		{model.MTLSDisable, model.MTLSDisable}:    {0, 1, 1},
		{model.MTLSStrict, model.MTLSDisable}:     {1, 1, 0},
		{model.MTLSDisable, model.MTLSStrict}:     {1, 1, 0},
		{model.MTLSPermissive, model.MTLSStrict}:  {1, 1, 0},
		{model.MTLSDisable, model.MTLSPermissive}: {1, 1, 1},
	} {
		m, mode := testMesh(), modes
		m.PeerAuthentications = []*model.PeerAuthentication{{Mode: modes[0]}}
		if m.Changing = modes[1] != model.MTLSUnset; m.Changing {
			m.OtherPeers = []*model.PeerAuthentication{{Mode: modes[1]}}
		}
		msg, _ := New(m, productpage()).Listener(wire.InboundListener)
		var terminated, plain, through int
		for _, c := range msg.(*listenerv3.Listener).GetFilterChains() {
			if c.GetFilterChainMatch().GetDestinationPort().GetValue() != 9080 {
				continue
			}
			switch {
			case c.GetTransportSocket() != nil:
				terminated++
			case c.GetFilterChainMatch().GetTransportProtocol() == overPlain:
				plain++
			default:
				through++
			}
		}
		if terminated != want.terminated || plain != want.plain || through != want.through {
			t.Errorf("mode %d: %d terminated, %d plain, %d through; want %+v", mode, terminated, plain, through, want)
		}
	}
}

// networkPolicy gives the policies that a DENY or ALLOW of the rule becomes on TCP; nil when no filter was made.
func networkPolicy(t *testing.T, action model.AuthAction, rules ...model.AuthRule) *rbacv3.RBAC {
	t.Helper()
	m := testMesh()
	m.AuthorizationPolicies = []*model.AuthorizationPolicy{{Ref: model.Ref{Namespace: "default", Name: "p"}, Namespace: "default", Action: action, Rules: rules}}
	filters := New(m, productpage()).networkPolicies()
	if len(filters) == 0 {
		return nil
	}
	out := &networkrbacv3.RBAC{}
	if err := filters[0].GetTypedConfig().UnmarshalTo(out); err != nil {
		t.Fatal(err)
	}
	generatetest.Validate(t, "policy", out)
	return out.GetRules()
}

func TestRequestConditionsOnTCP(t *testing.T) {
	methods := model.AuthRule{To: []model.AuthOperation{{Methods: []string{"GET"}, Ports: []uint16{9080}}}}
	header := model.AuthRule{When: []model.AuthCondition{{Key: "request.headers[x]", Values: []string{"1"}}}}
	claim := model.AuthRule{When: []model.AuthCondition{{Key: "request.auth.claims[iss]", NotValues: []string{"1"}}}}
	known := model.AuthRule{From: []model.AuthSource{{Namespaces: []string{"default"}}}}

	allow := networkPolicy(t, model.AuthAllow, methods, header, claim, known)
	if len(allow.GetPolicies()) != 1 || allow.GetPolicies()["ns[default]-policy[p]-rule[3]"] == nil {
		t.Errorf("ALLOW keeps rules that cannot be evaluated: %v", allow)
	}
	if none := networkPolicy(t, model.AuthAllow, methods); none == nil || len(none.GetPolicies()) != 0 {
		t.Errorf("ALLOW of nothing that can match must allow nothing: %v", none)
	}
	deny := networkPolicy(t, model.AuthDeny, methods, header, claim)
	if len(deny.GetPolicies()) != 3 {
		t.Fatalf("DENY skips rules: %v", deny)
	}
	rest := deny.GetPolicies()["ns[default]-policy[p]-rule[0]"].GetPermissions()[0].GetAndRules().GetRules()
	if len(rest) != 1 || rest[0].GetOrRules().GetRules()[0].GetDestinationPort() != 9080 {
		t.Errorf("DENY on TCP must keep the port and drop the method: %v", rest)
	}
	if p := deny.GetPolicies()["ns[default]-policy[p]-rule[1]"]; !p.GetPrincipals()[0].GetAndIds().GetIds()[0].GetAny() {
		t.Errorf("DENY on TCP must match whatever the header: %v", p)
	}
}

func TestPoliciesBySelector(t *testing.T) {
	m := testMesh()
	m.AuthorizationPolicies = []*model.AuthorizationPolicy{
		{Ref: model.Ref{Name: "other namespace"}, Namespace: "other", Action: model.AuthDeny},
		{Ref: model.Ref{Name: "other app"}, Namespace: "default", Selector: map[string]string{"app": "ratings"}, Action: model.AuthDeny},
	}
	if f := New(m, productpage()).requestPolicies(); len(f) != 0 {
		t.Errorf("policies of others apply: %v", f)
	}
	m.AuthorizationPolicies = append(m.AuthorizationPolicies, &model.AuthorizationPolicy{Ref: model.Ref{Name: "all"}, Action: model.AuthAllow},
		&model.AuthorizationPolicy{Ref: model.Ref{Name: "deny"}, Namespace: "default", Action: model.AuthDeny})
	if f := New(m, productpage()).requestPolicies(); len(f) != 2 {
		t.Errorf("got %d filters, want one to deny and one to allow", len(f))
	}
}

func TestConditions(t *testing.T) {
	m := testMesh()
	m.Settings.TrustDomain = "corp"
	blocks := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	m.AuthorizationPolicies = []*model.AuthorizationPolicy{{Namespace: "default", Action: model.AuthDeny, Rules: []model.AuthRule{{
		From: []model.AuthSource{{Principals: []string{"*", "cluster.local/ns/a/sa/b", "corp/*", "*/sa/x"}, NotServiceAccounts: []string{"a/b"},
			IPBlocks: blocks, NotRemoteIPBlocks: blocks, NotNamespaces: []string{"a*"}, TrustDomains: []string{"cluster.local", "*.example"}}},
		To: []model.AuthOperation{{Hosts: []string{"a.*", "*"}, NotPorts: []uint16{1}, NotMethods: []string{"*"}, Paths: []string{"*", "/a/{**}", "*.js"}}},
		When: []model.AuthCondition{{Key: "source.ip", Values: []string{"1.2.3.4", "::1"}}, {Key: "remote.ip", NotValues: []string{"1.0.0.0/8"}},
			{Key: "destination.ip", Values: []string{"1.2.3.4"}}, {Key: "destination.port", Values: []string{"80"}}, {Key: "connection.sni", Values: []string{"*.example"}},
			{Key: "source.namespace", Values: []string{"x"}}, {Key: "source.principal", Values: []string{"*"}}, {Key: "source.serviceAccount", NotValues: []string{"x/y"}},
			{Key: "request.auth.principal", NotValues: []string{"x"}}, {Key: "request.headers[x]", NotValues: []string{"a*"}},
			{Key: "request.headers[:authority]", Values: []string{"a.example"}}, {Key: "source.trustDomain", NotValues: []string{"old"}}},
	}}}}
	msg, _ := New(m, productpage()).Listener(wire.InboundListener)
	generatetest.Validate(t, "policies", msg)
	text := generatetest.Text(t, msg)
	for _, want := range []string{`exact: "spiffe://corp/ns/a/sa/b"`, `"spiffe://corp/.+"`, `"spiffe://[^/]*\\.example/.+"`, `"spiffe://old/.+"`, `name: ":authority"`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in the policies", want)
		}
	}
	if strings.Contains(text, "cluster.local/ns") || strings.Contains(text, "spiffe://cluster") {
		t.Error("cluster.local does not stand for the mesh's trust domain")
	}
}

func TestWildcardNames(t *testing.T) {
	m := testMesh()
	destinationRule(m)
	g := New(m, productpage())
	clusters := g.Names(ClusterType)
	for _, want := range []string{"outbound|9080|v2|" + reviewsHost, "inbound|9080||", wire.PassthroughCluster} {
		if !slices.Contains(clusters, want) {
			t.Errorf("clusters lack %s", want)
		}
	}
	for _, typeURL := range []string{ClusterType, ListenerType} {
		for _, n := range g.Names(typeURL) {
			if msg, ok := g.Resource(typeURL, n); !ok {
				t.Errorf("%s is listed but not there", n)
			} else {
				generatetest.Validate(t, n, msg)
			}
		}
	}
	bookinfoGateway(m)
	if got := New(m, ingress()).Names(ListenerType); !slices.Equal(got, []string{"0.0.0.0_8080", "0.0.0.0_8443"}) {
		t.Errorf("gateway: %v", got)
	}
}

// TestRequestRulesFailClosedForBytes: chains that relay what is no HTTP let no connection in by a rule that asks about requests.
func TestRequestRulesFailClosedForBytes(t *testing.T) {
	m := testMesh()
	get := []model.AuthRule{{To: []model.AuthOperation{{Methods: []string{"GET"}}}}}
	m.AuthorizationPolicies = []*model.AuthorizationPolicy{
		{Ref: model.Ref{Namespace: "default", Name: "readers"}, Namespace: "default", Action: model.AuthAllow, Rules: get},
		{Ref: model.Ref{Namespace: "default", Name: "no-readers"}, Namespace: "default", Action: model.AuthDeny, Rules: get},
	}
	node := productpage()
	node.Ports = []model.WorkloadPort{{Number: 9090, Protocol: model.GRPC}}
	msg, ok := New(m, node).Listener(wire.InboundListener)
	l, isListener := msg.(*listenerv3.Listener)
	if !ok || !isListener {
		t.Fatalf("no listener: %v", msg)
	}
	relayed := 0
	for _, c := range l.FilterChains {
		if c.Filters[len(c.Filters)-1].Name != message.TCPFilter {
			continue
		}
		relayed++
		if len(c.Filters) != 3 {
			t.Fatalf("%s: %d filters, want those of both policies", c.Name, len(c.Filters))
		}
		rules := [2]*networkrbacv3.RBAC{{}, {}}
		for i := range rules {
			if err := c.Filters[i].GetTypedConfig().UnmarshalTo(rules[i]); err != nil {
				t.Fatal(err)
			}
		}
		deny, allow := rules[0].Rules, rules[1].Rules
		if deny.Action != rbacv3.RBAC_DENY || len(deny.Policies) != 1 || !deny.Policies["ns[default]-policy[no-readers]-rule[0]"].Permissions[0].GetAndRules().Rules[0].GetAny() {
			t.Errorf("%s: DENY does not refuse every connection: %v", c.Name, deny)
		}
		if allow.Action != rbacv3.RBAC_ALLOW || len(allow.Policies) != 0 {
			t.Errorf("%s: ALLOW lets connections in: %v", c.Name, allow)
		}
	}
	if relayed == 0 {
		t.Error("no chain relays")
	}
}
