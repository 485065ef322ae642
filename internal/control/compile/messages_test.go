package compile

import (
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/control/generate/generatetest"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

var asked = map[string]string{"lds": generate.ListenerType, "rds": generate.RouteType, "cds": generate.ClusterType,
	"eds": generate.EndpointsType, "dns": generate.DNSType}

// messages gives what proxies get of a mesh. A line of ask is a workload, NAMESPACE/NAME, or a type and a name to ask for as the
// last workload; the name "*" is for all that are had by wildcard, and "names" for their names alone. Of a listener with many filter
// chains, "chains LISTENER" gives the outline, and "chain LISTENER NAME" one of them.
func messages(t *testing.T, mesh *model.Mesh, ask string) string {
	t.Helper()
	var b strings.Builder
	var g *generate.Generator
	for line := range strings.Lines(ask) {
		kind, name, resource := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case !resource:
			w := mesh.Workloads.Get(kind)
			if w == nil {
				t.Fatalf("ask: there is no workload %q", kind)
			}
			g = generate.New(mesh, nodeOf(w))
			b.WriteString("# for " + kind + "\n")
		case kind == "chains" || kind == "chain":
			listener, name, _ := strings.Cut(name, " ")
			b.WriteString(chains(t, g, listener, name))
		case name == "names":
			b.WriteString("# " + kind + " " + name + ": " + strings.Join(g.Names(asked[kind]), " ") + "\n")
		case name == "*":
			for _, name := range g.Names(asked[kind]) {
				b.WriteString(message(t, g, kind, name))
			}
		default:
			b.WriteString(message(t, g, kind, name))
		}
	}
	return b.String()
}

func message(t *testing.T, g *generate.Generator, kind, name string) string {
	t.Helper()
	m, ok := g.Resource(asked[kind], name)
	if !ok {
		return "# " + kind + " " + name + ": none\n"
	}
	generatetest.Validate(t, kind+" "+name, m)
	return "# " + kind + " " + name + "\n" + generatetest.Text(t, m)
}

func chains(t *testing.T, g *generate.Generator, listener, name string) string {
	t.Helper()
	m, _ := g.Resource(generate.ListenerType, listener)
	l, ok := m.(*listenerv3.Listener)
	if !ok {
		t.Fatalf("ask: there is no listener %q", listener)
	}
	generatetest.Validate(t, "chains "+listener, l)
	var b strings.Builder
	if name == "" {
		b.WriteString("# chains " + listener + "\n")
	}
	for _, c := range l.FilterChains {
		switch name {
		case "":
			b.WriteString(c.Name + ":" + outline(t, c) + "\n")
		case c.Name:
			return "# chain " + listener + " " + name + "\n" + generatetest.Text(t, c)
		}
	}
	if name != "" {
		t.Fatalf("ask: listener %q has no chain %q", listener, name)
	}
	return b.String()
}

// outline gives the steps of a filter chain in a line: whether clients prove who they are, the network filters, and those of HTTP.
func outline(t *testing.T, c *listenerv3.FilterChain) string {
	t.Helper()
	var steps string
	if s := c.GetTransportSocket(); s != nil {
		d := &tlsv3.DownstreamTlsContext{}
		if err := s.GetTypedConfig().UnmarshalTo(d); err != nil {
			t.Fatal(err)
		}
		steps += " tls"
		if d.GetRequireClientCertificate().GetValue() {
			steps += "(client)"
		}
	}
	short := func(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }
	for _, f := range c.Filters {
		steps += " " + short(f.Name)
		h := &hcmv3.HttpConnectionManager{}
		if f.GetTypedConfig().UnmarshalTo(h) != nil {
			continue
		}
		var inner []string
		for _, f := range h.HttpFilters {
			inner = append(inner, short(f.Name))
		}
		steps += "(" + strings.Join(inner, " ") + ")"
	}
	return steps
}

func nodeOf(w *model.Workload) generate.Node {
	role := wire.Sidecar
	if w.Gateway {
		role = wire.Gateway
	}
	return generate.Node{Role: role, Name: w.Name, Namespace: w.Namespace, ServiceAccount: w.ServiceAccount, Labels: w.Labels,
		Locality: w.Locality, Ports: w.Ports, Targets: w.Targets, ProxyProtocol: w.ProxyProtocol}
}
