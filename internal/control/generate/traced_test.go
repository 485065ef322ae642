package generate

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/weftmesh/weft/internal/control/churn"
	"github.com/weftmesh/weft/internal/control/generate/cluster"
	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/index"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// kept is a resource that was made once, with what it was made from.
type kept struct {
	node          int
	typeURL, name string
	class         string
	body          []byte
	reads         index.Reads[*kept]
}

// keeper keeps every resource of some nodes through changes of the mesh, and makes again only what a delta touches.
type keeper struct {
	t       *testing.T
	nodes   []view.Node
	index   Index
	all     []*kept
	readers index.Readers[*kept]
}

func newKeeper(t *testing.T, mesh *model.Mesh, nodes []view.Node, names map[string][]string) *keeper {
	k := &keeper{t: t, nodes: nodes, index: NewIndex(mesh)}
	for i := range nodes {
		for _, typeURL := range []string{ListenerType, RouteType, ClusterType, EndpointsType, DNSType} {
			for _, n := range append(names[typeURL], "*") {
				r := &kept{node: i, typeURL: typeURL, name: n}
				k.all = append(k.all, r)
				k.remake(r)
			}
		}
	}
	return k
}

func (k *keeper) remake(r *kept) {
	g := k.index.For(k.nodes[r.node])
	body, seen := bodyOf(k.t, g, r.typeURL, r.name)
	r.body, r.class = body, g.Class(r.typeURL, r.name)
	k.readers.Set(r, &r.reads, seen)
}

func bodyOf(t *testing.T, g *Generator, typeURL, name string) ([]byte, []index.Key) {
	t.Helper()
	if name == "*" {
		names, seen := g.TracedNames(typeURL)
		return []byte(strings.Join(names, "\n")), seen
	}
	m, ok, seen := g.Traced(typeURL, name)
	if !ok {
		return nil, seen
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte("+"), body...), seen
}

// follow takes the next mesh and tells how many resources had to be made again, and how many of them changed.
func (k *keeper) follow(mesh *model.Mesh, d model.Delta) (remade, changed int) {
	before := k.index
	k.index = k.index.Next(mesh, d)
	touched := map[*kept]bool{}
	for r := range k.readers.Touched(d) {
		touched[r] = true
	}
	if !k.index.SameClasses(before.Index) {
		for _, r := range k.all {
			r.class = k.index.For(k.nodes[r.node]).Class(r.typeURL, r.name)
		}
	}
	for r := range touched {
		old := r.body
		k.remake(r)
		if !bytes.Equal(old, r.body) {
			changed++
		}
	}
	return len(touched), changed
}

// check compares all with what a new index gives, and nodes of one class with each other.
func (k *keeper) check(mesh *model.Mesh, what string) {
	k.t.Helper()
	fresh := NewIndex(mesh)
	if !fresh.SameClasses(k.index.Index) {
		k.t.Fatalf("%s: the classes of the index that was derived are others than a new one's", what)
	}
	type key struct{ typeURL, name, class string }
	first := map[key]*kept{}
	for _, r := range k.all {
		g := fresh.For(k.nodes[r.node])
		want, _ := bodyOf(k.t, g, r.typeURL, r.name)
		if !bytes.Equal(r.body, want) {
			k.t.Fatalf("%s: %s %q of node %d is stale:\n%q\nwant\n%q", what, r.typeURL, r.name, r.node, r.body, want)
		}
		if class := g.Class(r.typeURL, r.name); class != r.class {
			k.t.Fatalf("%s: node %d is of class %q, want %q", what, r.node, r.class, class)
		}
		if r.class == "" {
			continue
		}
		same := first[key{r.typeURL, r.name, r.class}]
		if same == nil {
			first[key{r.typeURL, r.name, r.class}] = r
		} else if !bytes.Equal(same.body, r.body) {
			k.t.Fatalf("%s: %s %q differs between nodes %d and %d of class %q", what, r.typeURL, r.name, same.node, r.node, r.class)
		}
	}
}

// TestTracedIsNeverStale changes a mesh at random, many times. What is kept by what it looked at must always equal what is made anew.
func TestTracedIsNeverStale(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			c := churn.New(seed)
			k := newKeeper(t, c.Mesh, churnNodes(), churnNames())
			var remade, changed int
			const rounds = 100
			for i := range rounds {
				before := c.Mesh
				what := fmt.Sprintf("round %d, %s", i, c.Change())
				d := churn.Delta(before, c.Mesh)
				a, b := k.follow(c.Mesh, d)
				remade, changed = remade+a, changed+b
				k.check(c.Mesh, what)
			}
			t.Logf("%d resources: %.1f made again at a change, %.1f of them differ", len(k.all),
				float64(remade)/rounds, float64(changed)/rounds)
			if share := float64(remade) / rounds / float64(len(k.all)); share > 0.25 {
				t.Errorf("%.0f %% of the resources are made again at a change", share*100)
			}
		})
	}
}

// TestTouchedIsLittle: one thing changes in a large mesh.
func TestTouchedIsLittle(t *testing.T) {
	m := testMesh()
	names := churnNames()
	for i := range 300 {
		n := fmt.Sprintf("s%d", i)
		s := service(m, n, "default", fmt.Sprintf("10.79.%d.%d", i/256, i%256), model.Port{Number: 80, Protocol: model.HTTP})
		s.Endpoints = []*model.Endpoint{endpoint(n, "v1", fmt.Sprintf("10.80.%d.%d", i/256, i%256), 80)}
		names[ListenerType] = append(names[ListenerType], n+":80", s.Addresses[0].String()+":80")
		names[RouteType] = append(names[RouteType], s.Host+":80")
		names[ClusterType] = append(names[ClusterType], wire.OutboundCluster(80, "", s.Host))
		names[EndpointsType] = append(names[EndpointsType], wire.OutboundCluster(80, "", s.Host))
		names[DNSType] = append(names[DNSType], n)
	}
	k := newKeeper(t, m, churnNodes()[:1], names)
	c := churn.New(1)
	c.Mesh = m
	host := "s7.default" + domain
	for _, step := range []struct {
		name string
		most int // resources made again; "*" are two of them
		edit func(*model.Mesh)
	}{
		{"an endpoint", 1, func(m *model.Mesh) {
			c.Service(m, host, func(s *model.Service) { s.Endpoints = []*model.Endpoint{endpoint("s7", "v1", "10.81.0.1", 80)} })
		}},
		{"an account", 2, func(m *model.Mesh) {
			c.Service(m, host, func(s *model.Service) {
				e := *s.Endpoints[0]
				e.ServiceAccount = "another"
				s.Endpoints = []*model.Endpoint{&e}
			})
		}},
		{"a route", 5, func(m *model.Mesh) {
			virtualService(m, "s7", []string{host}, model.HTTPRoute{Redirect: &model.Redirect{Code: 301}})
		}},
		{"a destination", 6, func(m *model.Mesh) { rule(m, "default", host, version("v1")) }},
		{"a label of a service", 9, func(m *model.Mesh) {
			c.Service(m, host, func(s *model.Service) { s.Labels = map[string]string{"a": "b"} })
		}},
		{"a policy elsewhere", 0, func(m *model.Mesh) {
			m.PeerAuthentications = append(m.PeerAuthentications, &model.PeerAuthentication{Namespace: "elsewhere", Mode: model.MTLSStrict})
		}},
		{"a workload", 0, func(m *model.Mesh) { m.Workloads.Put("default/x", &model.Workload{Name: "x"}) }},
	} {
		before := c.Mesh
		c.Edit(step.edit)
		remade, _ := k.follow(c.Mesh, churn.Delta(before, c.Mesh))
		if remade > step.most {
			t.Errorf("%s: %d resources are made again, more than %d", step.name, remade, step.most)
		}
		k.check(c.Mesh, step.name)
	}
}

// TestEndpointsAreReadThroughTheReader watches what of a service generation must not read by itself.
func TestEndpointsAreReadThroughTheReader(t *testing.T) {
	// Variables that are messages, and generators themselves.
	messages := map[string]bool{"out": true, "g": true}
	files := map[string]*ast.File{}
	for _, name := range []string{"generate", "view", "cluster"} {
		dir := strings.TrimPrefix(name, "generate")
		pkgs, err := parser.ParseDir(token.NewFileSet(), "./"+dir, func(f fs.FileInfo) bool { return !strings.HasSuffix(f.Name(), "_test.go") }, 0)
		if err != nil {
			t.Fatal(err)
		}
		if pkgs[name] == nil {
			t.Fatalf("package %s is not where it was", name)
		}
		maps.Copy(files, pkgs[name].Files)
	}
	for name, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok || s.Sel.Name != "Endpoints" && s.Sel.Name != "Accounts" {
				return true
			}
			switch x := s.X.(type) {
			case *ast.SelectorExpr:
				ok = x.Sel.Name == "mesh" || x.Sel.Name == "clusters"
			case *ast.Ident:
				ok = messages[x.Name]
			default:
				ok = false
			}
			if !ok {
				t.Errorf("%s reads %s of %v: use g.mesh.%[2]s, or name the message out", name, s.Sel.Name, s.X)
			}
			return true
		})
	}
}

func churnNodes() []view.Node {
	far, unlabelled, other, grpc, classic := productpage(), productpage(), productpage(), productpage(), productpage()
	far.Locality = "r1/z2"
	unlabelled.Labels = nil
	other.Namespace = "other"
	grpc.Proxyless, classic.Classic = true, true
	gateway := ingress()
	// Those of one kind differ by name, and by what is not said to decide.
	classicTwin, gatewayTwin, otherGateway := classic, gateway, gateway
	classicTwin.Name, classicTwin.Labels = "twin", map[string]string{"app": "twin"}
	gatewayTwin.Name, otherGateway.Labels = "twin", maps.Clone(gateway.Labels)
	otherGateway.Labels["other"] = "yes"
	return []view.Node{productpage(), far, unlabelled, other, grpc, classic, gateway, classicTwin, gatewayTwin, otherGateway}
}

func churnNames() map[string][]string {
	names := map[string][]string{
		ListenerType: {wire.InboundListener, wire.OutboundListener, "0.0.0.0_80", "0.0.0.0_443", "0.0.0.0_15443", "10.78.0.2:9080", "10.77.0.41:5432", "10.77.0.42:5432", "10.9.9.9:80",
			"127.0.0.1:9080", "127.0.0.1:3306", "127.0.0.1_9080", "127.0.0.1_3306", "10.78.0.4_3306", "10.77.0.41_5432", "0.0.0.0_9080"},
		ClusterType: {wire.BlackHoleCluster, wire.PassthroughCluster, "inbound|9080||"},
		RouteType:   {"http.80", "https.443.web.g.istio-system", "80", "9080", "127.0.0.1_9080"},
	}
	for _, h := range churn.Hosts {
		short := strings.TrimSuffix(strings.TrimSuffix(h, domain), ".default")
		for _, port := range []uint16{80, 443, 3306, 5432, 7070, 9080} {
			names[ListenerType] = append(names[ListenerType], wire.ListenerName(short, port))
			names[RouteType] = append(names[RouteType], wire.RouteName(h, port))
			for _, subset := range []string{"", "v1", "v2"} {
				names[ClusterType] = append(names[ClusterType], wire.OutboundCluster(port, subset, h))
				names[EndpointsType] = append(names[EndpointsType], wire.OutboundCluster(port, subset, h))
			}
			names[ClusterType] = append(names[ClusterType], cluster.SNIName(port, "", h))
		}
		names[DNSType] = append(names[DNSType], short, h)
	}
	names[ClusterType] = append(names[ClusterType], wire.OutboundCluster(5432, "", "10-77-0-41.db.default"+domain))
	names[EndpointsType] = append(names[EndpointsType], wire.OutboundCluster(5432, "", "10-77-0-41.db.default"+domain))
	return names
}
