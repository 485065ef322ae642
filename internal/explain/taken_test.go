package explain_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/proxy/conf"
	proxydecode "github.com/weftmesh/weft/internal/proxy/decode"
	"github.com/weftmesh/weft/internal/wire"
)

// istioSample holds the configuration of Istio's Bookinfo sample, where it is at hand.
const istioSample = "../../../shared/fixtures/istio-bookinfo"

// TestProxyTakesWhatIsAccepted compiles what the compiler's own tests compile, and what lies at the edge of what it accepts: a proxy
// may refuse nothing that was made of what the compiler did not refuse.
func TestProxyTakesWhatIsAccepted(t *testing.T) {
	files, err := filepath.Glob("../control/compile/testdata/*/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no inputs: %v", err)
	}
	for _, file := range append(files, "testdata/edges/edges.txtar") {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var objects []*source.Object
			for _, f := range a.Files {
				if filepath.Ext(f.Name) == ".yaml" {
					o, _ := source.Decode(source.LayerFile, f.Name, f.Data)
					objects = append(objects, o...)
				}
			}
			m, findings := compile.Compile(compile.Input{Objects: objects})
			if filepath.Base(file) == "edges.txtar" && source.HasErrors(findings) {
				t.Errorf("what is refused tells nothing here: %v", findings)
			}
			settings := !slices.ContainsFunc(objects, func(o *source.Object) bool { return o.Kind.Name != "ConfigMap" })
			if taken(t, m) == 0 && !settings {
				t.Error("nothing was generated")
			}
		})
	}
}

func TestProxyTakesIstiosSample(t *testing.T) {
	var files []string
	for _, dir := range []string{"networking", "gateway-api", "platform/kube", "policy"} {
		more, err := filepath.Glob(filepath.Join(istioSample, dir, "*.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, more...)
	}
	if len(files) == 0 {
		t.Skipf("Istio's sample is not at hand in %s", istioSample)
	}
	base := []string{filepath.Join(istioSample, "platform/kube/bookinfo.yaml"), filepath.Join(istioSample, "platform/kube/bookinfo-versions.yaml"),
		filepath.Join(istioSample, "networking/destination-rule-all.yaml"), filepath.Join(istioSample, "networking/bookinfo-gateway.yaml")}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			objects := decode(t, "pods", pods(examplePods))
			for _, f := range append(base, file) {
				data, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				objects = append(objects, decode(t, f, data)...)
			}
			if taken(t, mesh(t, objects)) == 0 {
				t.Error("nothing was generated")
			}
		})
	}
}

// taken has the proxy's decoder read everything that any node may ask for, and counts it.
func taken(t *testing.T, m *model.Mesh) (resources int) {
	t.Helper()
	ix := generate.NewIndex(m)
	for _, node := range nodes(m) {
		r := reader{t: t, g: ix.For(node), node: string(node.Role) + " " + node.Namespace + "/" + node.Name, seen: map[[2]string]bool{}}
		for _, name := range append(r.g.Names(generate.ListenerType), destinations(m)...) {
			r.read(generate.ListenerType, name)
		}
		for _, name := range r.g.Names(generate.ClusterType) {
			r.read(generate.ClusterType, name)
		}
		for host := range m.Services.All() {
			r.read(generate.DNSType, host)
		}
		resources += r.count
	}
	return resources
}

// nodes are the workloads of a mesh, and those that its policies, gateways and rules are for whether they are there or not.
func nodes(m *model.Mesh) (all []generate.Node) {
	sidecar := func(namespace, name string, labels map[string]string, ports []model.WorkloadPort) {
		all = append(all, generate.Node{Role: wire.Sidecar, Name: name, Namespace: namespace, ServiceAccount: "x", Labels: labels, Ports: ports})
	}
	gateway := func(namespace, name string, labels map[string]string) {
		all = append(all, generate.Node{Role: wire.Gateway, Name: name, Namespace: namespace, ServiceAccount: "x", Labels: labels})
	}
	for _, w := range m.Workloads.All() {
		if w.Gateway {
			gateway(w.Namespace, w.Name, w.Labels)
		} else {
			sidecar(w.Namespace, w.Name, w.Labels, w.Ports)
		}
	}
	ports := []model.WorkloadPort{{Number: 80, Protocol: model.HTTP}, {Number: 81, Protocol: model.HTTP2}, {Number: 82, Protocol: model.TCP}, {Number: 83}}
	for _, s := range m.Services.All() {
		sidecar(s.Namespace, "client", nil, ports)
	}
	for _, p := range m.AuthorizationPolicies {
		sidecar(p.Ref.Namespace, "selected", p.Selector, ports)
		gateway(p.Ref.Namespace, "selected", map[string]string{"a": "b"})
	}
	for _, p := range m.PeerAuthentications {
		sidecar(p.Ref.Namespace, "selected", p.Selector, ports)
	}
	for _, rs := range m.RouteSets {
		sidecar(rs.Namespace, "client", nil, ports)
		for i := range rs.HTTP {
			for _, match := range rs.HTTP[i].Matches {
				sidecar(rs.Namespace, "matched", match.SourceLabels, nil)
			}
		}
	}
	for _, g := range m.Gateways {
		labels := maps.Clone(g.Selector)
		if len(labels) == 0 {
			labels = map[string]string{"a": "b"}
		}
		gateway(g.Ref.Namespace, "gateway", labels)
	}
	return all
}

// destinations are listener names beside those of services: addresses, and hosts that only routes know.
func destinations(m *model.Mesh) (names []string) {
	for a, hosts := range m.ByAddress.All() {
		for _, h := range hosts {
			for _, p := range m.Services.Get(h).Ports {
				names = append(names, wire.ListenerName(a.String(), p.Number))
			}
		}
	}
	for _, rs := range m.RouteSets {
		for _, h := range rs.Hosts {
			for _, port := range []uint16{80, 443, 8080} {
				names = append(names, wire.ListenerName(strings.Replace(h, "*", "any", 1), port))
			}
		}
	}
	for h, s := range m.Services.All() {
		for _, p := range s.Ports {
			names = append(names, wire.ListenerName(strings.Replace(h, "*", "any", 1), p.Number))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// reader reads resources as a proxy does, and follows them to what they name.
type reader struct {
	t     *testing.T
	g     *generate.Generator
	node  string
	seen  map[[2]string]bool
	count int
}

func (r *reader) read(typeURL, name string) {
	if r.seen[[2]string{typeURL, name}] {
		return
	}
	r.seen[[2]string{typeURL, name}] = true
	msg, ok := r.g.Resource(typeURL, name)
	if !ok {
		return
	}
	a, err := anypb.New(msg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.count++
	v, err := proxydecode.Resource(a)
	if err != nil {
		r.t.Errorf("%s: %v", r.node, err)
		return
	}
	switch v := v.(type) {
	case *conf.Listener:
		for _, c := range append(v.Chains, v.Default) {
			if c != nil && c.HTTP != nil && c.HTTP.RouteName != "" {
				r.read(generate.RouteType, c.HTTP.RouteName)
			}
			if c != nil && c.TCP != nil {
				r.clusters(c.TCP.Clusters)
			}
		}
	case *conf.RouteTable:
		for _, h := range v.Hosts {
			for _, route := range h.Routes {
				if route.Forward != nil {
					r.clusters(route.Forward.Clusters)
				}
			}
		}
	case *conf.Cluster:
		if v.Discovery == conf.EDS {
			r.read(generate.EndpointsType, v.EndpointsName)
		}
	}
}

func (r *reader) clusters(list []conf.WeightedCluster) {
	for _, c := range list {
		r.read(generate.ClusterType, c.Cluster)
	}
}
