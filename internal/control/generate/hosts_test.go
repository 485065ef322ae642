package generate

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/index"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// asked gives where a sidecar of ours leads requests to a host and port; nothing where it does not know them.
func asked(t *testing.T, g *Generator, host string, port uint16) []string {
	t.Helper()
	name, ok := apiRoutes(t, g, wire.ListenerName(host, port))
	if !ok {
		return nil
	}
	return leads(table(t, g, name))[name]
}

// told gives where an Envoy leads them: by the most specific domain of the port's table, if something listens on the port.
func told(g *Generator, host string, port uint16) []string {
	if !slices.Contains(g.classicNames(), wire.GatewayListenerName(port)) {
		return nil
	}
	r := g.portTable("port", port)
	found, domain := "", ""
	for _, v := range r.GetVirtualHosts() {
		for _, d := range v.GetDomains() {
			if d == host || d != "*" && index.IsWildcard(d) && index.Covers(d, host) && len(d) > len(domain) && domain != host {
				found, domain = v.GetName(), d
			}
		}
	}
	return leads(r)[found]
}

// TestHostsOfBothDataPlanes: which rules requests meet depends on the client and the port, and is the same whether a proxy asks for the
// host or gets all of them.
func TestHostsOfBothDataPlanes(t *testing.T) {
	m := testMesh()
	here := map[string]string{"app": "productpage"}
	add := func(name string, match model.HTTPMatch, hosts ...string) *model.RouteSet {
		return virtualService(m, name, hosts, model.HTTPRoute{Matches: []model.HTTPMatch{match}, Destinations: []model.WeightedDestination{to(ratingsHost, name, 0)}})
	}
	others := model.HTTPMatch{SourceLabels: map[string]string{"app": "other"}}
	edge := model.HTTPMatch{Gateways: []model.GatewayRef{{Kind: "Gateway.istio", Name: "edge", Namespace: "default"}}}
	add("labels", others, "labels.test", "reviews.default"+domain)
	add("namespace", model.HTTPMatch{SourceNamespace: "other"}, "namespace.test")
	add("gateway", edge, "gateway.test")
	add("port", model.HTTPMatch{Port: 8080}, "port.test")
	add("old", others, "next.test", "under.example.com", "x.wild.test", mysqlHost)
	add("young", model.HTTPMatch{SourceLabels: here}, "next.test")
	add("wild", model.HTTPMatch{}, "*.wild.test")
	add("all", model.HTTPMatch{}, "*.default"+domain)
	add("beside", model.HTTPMatch{}, "beside.test", ratingsHost, mysqlHost)
	add("entry", model.HTTPMatch{}, "exact.example.com")
	add("seen", model.HTTPMatch{}, "*.seen.test")
	external(m, "x.seen.test", model.None, model.Port{Number: 80, Protocol: model.HTTP}).ExportTo = model.Visibility{Namespaces: []string{"other"}}
	m.Sidecars = []*model.Sidecar{{Ref: model.Ref{Kind: "Sidecar", Namespace: "default", Name: "own"}, Namespace: "default",
		Egress: []model.Egress{{Hosts: []model.EgressHost{{Namespace: "*", Host: "*"}, {Namespace: "*", Host: "left.example.com", Excluded: true}}}}}}
	external(m, "left.example.com", model.None, model.Port{Number: 80, Protocol: model.HTTP})
	external(m, "port.example.com", model.None, model.Port{Number: 443, Protocol: model.TLS})

	x := NewIndex(m)
	own, envoy := productpage(), envoyNode()
	own.Labels, envoy.Labels = here, here
	by := func(subset string) string { return wire.OutboundCluster(80, subset, ratingsHost) }
	for _, c := range []struct {
		host string
		port uint16
		want string
	}{
		{"labels.test", 80, ""},
		{"namespace.test", 80, ""},
		{"gateway.test", 80, ""},
		{"port.test", 80, ""},
		{"port.test", 8080, "port"},
		{"next.test", 80, "young"},
		{"next.test", 8080, ""},
		{"x.wild.test", 80, "wild"},
		{"y.wild.test", 80, "wild"},
		{"y.wild.test", 9080, ""},
		{"beside.test", 80, "beside"},
		{"beside.test", 9080, "beside"},
		{"beside.test", 7070, "beside"}, // undeclared, and so perhaps requests
		{"beside.test", 3306, ""},
		{"x.seen.test", 80, "seen"},
		{"exact.example.com", 80, "entry"},
		{"under.example.com", 80, "*.example.com"},
		{"left.example.com", 80, "*.example.com"},
		{"port.example.com", 80, "*.example.com"},
		{reviewsHost, 9080, reviewsHost},
		{ratingsHost, 9080, "beside"},
	} {
		var want []string
		switch {
		case strings.Contains(c.want, "."):
			want = []string{wire.OutboundCluster(c.port, "", c.want)}
		case c.want != "":
			want = []string{strings.Replace(by(c.want), "|80|", "|"+strconv.Itoa(int(c.port))+"|", 1)}
		}
		if got := asked(t, x.For(own), c.host, c.port); !slices.Equal(got, want) {
			t.Errorf("%s:%d in a proxy that asks: %v, want %v", c.host, c.port, got, want)
		}
		if got := told(x.For(envoy), c.host, c.port); !slices.Equal(got, want) {
			t.Errorf("%s:%d in an Envoy: %v, want %v", c.host, c.port, got, want)
		}
	}
	if a, b := x.For(own), x.For(view.Node{Role: wire.Sidecar, Namespace: "default"}); a.Class(ListenerType, "next.test:80") == b.Class(ListenerType, "next.test:80") {
		t.Error("clients of different labels share listeners although labels decide whether there are any")
	}
}
