package compile

import (
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"

	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

var asked = map[string]string{"lds": generate.ListenerType, "rds": generate.RouteType, "cds": generate.ClusterType,
	"eds": generate.EndpointsType, "dns": generate.DNSType}

// messages gives what proxies get of a mesh. A line of ask is a workload, NAMESPACE/NAME, or a type and a name to ask for as the
// last workload.
func messages(t *testing.T, mesh *model.Mesh, ask string) string {
	t.Helper()
	var b strings.Builder
	var g *generate.Generator
	for line := range strings.Lines(ask) {
		kind, name, resource := strings.Cut(strings.TrimSpace(line), " ")
		if !resource {
			w := mesh.Workloads.Get(kind)
			if w == nil {
				t.Fatalf("ask: there is no workload %q", kind)
			}
			g = generate.New(mesh, nodeOf(w))
			b.WriteString("# for " + kind + "\n")
			continue
		}
		m, ok := g.Resource(asked[kind], name)
		if !ok {
			b.WriteString("# " + kind + " " + name + ": none\n")
			continue
		}
		text, err := prototext.MarshalOptions{Multiline: true, Indent: "  "}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString("# " + kind + " " + name + "\n" + afterName.ReplaceAllString(string(text), "$1 "))
	}
	return b.String()
}

// afterName is where prototext puts one space or two, at random so that nobody relies on it.
var afterName = regexp.MustCompile(`(?m)^(\s*[\w.\[\]/]+:) +`)

func nodeOf(w *model.Workload) generate.Node {
	role := wire.Sidecar
	if w.Gateway {
		role = wire.Gateway
	}
	return generate.Node{Role: role, Name: w.Name, Namespace: w.Namespace, ServiceAccount: w.ServiceAccount, Labels: w.Labels,
		Locality: w.Locality, Ports: w.Ports, ProxyProtocol: w.ProxyProtocol}
}
