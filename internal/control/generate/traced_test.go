package generate

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

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
	nodes   []Node
	index   Index
	all     []*kept
	readers index.Readers[*kept]
}

func newKeeper(t *testing.T, mesh *model.Mesh, nodes []Node, names map[string][]string) *keeper {
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
			r := rand.New(rand.NewPCG(seed, 1))
			c := &churn{Rand: r, mesh: testMesh()}
			k := newKeeper(t, c.mesh, churnNodes(), churnNames())
			var remade, changed int
			const rounds = 100
			for i := range rounds {
				before := c.mesh
				what := fmt.Sprintf("round %d, %s", i, c.change())
				d := deltaOf(before, c.mesh)
				a, b := k.follow(c.mesh, d)
				remade, changed = remade+a, changed+b
				k.check(c.mesh, what)
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
	c := &churn{Rand: rand.New(rand.NewPCG(1, 1)), mesh: m}
	host := "s7.default" + domain
	for _, step := range []struct {
		name string
		most int // resources made again; "*" are two of them
		edit func(*model.Mesh)
	}{
		{"an endpoint", 2, func(m *model.Mesh) {
			c.service(m, host, func(s *model.Service) { s.Endpoints = []*model.Endpoint{endpoint("s7", "v1", "10.81.0.1", 80)} })
		}},
		{"a route", 5, func(m *model.Mesh) {
			virtualService(m, "s7", []string{host}, model.HTTPRoute{Redirect: &model.Redirect{Code: 301}})
		}},
		{"a destination", 6, func(m *model.Mesh) { rule(m, "default", host, version("v1")) }},
		{"a label of a service", 9, func(m *model.Mesh) {
			c.service(m, host, func(s *model.Service) { s.Labels = map[string]string{"a": "b"} })
		}},
		{"a policy elsewhere", 0, func(m *model.Mesh) {
			m.PeerAuthentications = append(m.PeerAuthentications, &model.PeerAuthentication{Namespace: "elsewhere", Mode: model.MTLSStrict})
		}},
		{"a workload", 0, func(m *model.Mesh) { m.Workloads.Put("default/x", &model.Workload{Name: "x"}) }},
	} {
		before := c.mesh
		c.edit(step.edit)
		remade, _ := k.follow(c.mesh, deltaOf(before, c.mesh))
		if remade > step.most {
			t.Errorf("%s: %d resources are made again, more than %d", step.name, remade, step.most)
		}
		k.check(c.mesh, step.name)
	}
}

// TestEndpointsAreReadThroughTheReader watches the one field that generation must not read by itself.
func TestEndpointsAreReadThroughTheReader(t *testing.T) {
	// Variables that are messages, and the generator itself.
	messages := map[string]bool{"out": true, "g": true}
	pkgs, err := parser.ParseDir(token.NewFileSet(), ".", func(f fs.FileInfo) bool { return !strings.HasSuffix(f.Name(), "_test.go") }, 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range pkgs["generate"].Files {
		ast.Inspect(file, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok || s.Sel.Name != "Endpoints" {
				return true
			}
			switch x := s.X.(type) {
			case *ast.SelectorExpr:
				ok = x.Sel.Name == "mesh"
			case *ast.Ident:
				ok = messages[x.Name]
			default:
				ok = false
			}
			if !ok {
				t.Errorf("%s reads Endpoints of %v: use g.mesh.Endpoints, or name the message out", name, s.X)
			}
			return true
		})
	}
}

func churnNodes() []Node {
	far, unlabelled, other, grpc, classic := productpage(), productpage(), productpage(), productpage(), productpage()
	far.Locality = "r1/z2"
	unlabelled.Labels = nil
	other.Namespace = "other"
	grpc.Proxyless, classic.Classic = true, true
	gateway := ingress()
	return []Node{productpage(), far, unlabelled, other, grpc, classic, gateway}
}

func churnNames() map[string][]string {
	names := map[string][]string{
		ListenerType: {wire.InboundListener, wire.OutboundListener, "0.0.0.0_80", "0.0.0.0_443", "0.0.0.0_15443", "10.78.0.2:9080", "10.77.0.41:5432", "10.77.0.42:5432", "10.9.9.9:80",
			"virtualOutbound", "10.78.0.4_3306", "10.77.0.41_5432", "0.0.0.0_9080"},
		ClusterType: {wire.BlackHoleCluster, wire.PassthroughCluster, "inbound|9080||"},
		RouteType:   {"http.80", "https.443.web.g.istio-system", "80", "9080"},
	}
	for _, h := range churnHosts {
		short := strings.TrimSuffix(strings.TrimSuffix(h, domain), ".default")
		for _, port := range []uint16{80, 443, 3306, 5432, 7070, 9080} {
			names[ListenerType] = append(names[ListenerType], wire.ListenerName(short, port))
			names[RouteType] = append(names[RouteType], wire.RouteName(h, port))
			for _, subset := range []string{"", "v1", "v2"} {
				names[ClusterType] = append(names[ClusterType], wire.OutboundCluster(port, subset, h))
				names[EndpointsType] = append(names[EndpointsType], wire.OutboundCluster(port, subset, h))
			}
			names[ClusterType] = append(names[ClusterType], sniCluster(port, "", h))
		}
		names[DNSType] = append(names[DNSType], short, h)
	}
	names[ClusterType] = append(names[ClusterType], wire.OutboundCluster(5432, "", "10-77-0-41.db.default"+domain))
	names[EndpointsType] = append(names[EndpointsType], wire.OutboundCluster(5432, "", "10-77-0-41.db.default"+domain))
	return names
}

var churnHosts = []string{reviewsHost, ratingsHost, mysqlHost, "db.default" + domain, "hidden.other" + domain, "new.default" + domain,
	"alias.default" + domain, "www.googleapis.com", "a.example.com", "b.a.example.com", "routed.test"}

// churn changes a mesh at random, each time making a new one that shares what did not change.
type churn struct {
	*rand.Rand
	mesh *model.Mesh
	n    int
}

func (c *churn) edit(f func(*model.Mesh)) {
	m := *c.mesh
	m.Services, m.ByAddress, m.Destinations, m.Workloads = m.Services.Copy(), m.ByAddress.Copy(), m.Destinations.Copy(), m.Workloads.Copy()
	m.RouteSets, m.Gateways = slices.Clone(m.RouteSets), slices.Clone(m.Gateways)
	m.Sidecars, m.ProxyConfigs = slices.Clone(m.Sidecars), slices.Clone(m.ProxyConfigs)
	m.PeerAuthentications, m.AuthorizationPolicies, m.RateLimits = slices.Clone(m.PeerAuthentications), slices.Clone(m.AuthorizationPolicies), slices.Clone(m.RateLimits)
	f(&m)
	readdress(&m)
	c.mesh = &m
}

// readdress makes addresses lead to the services as they are now.
func readdress(m *model.Mesh) {
	m.ByAddress = model.Table[netip.Addr, []string]{}
	for _, h := range slices.Sorted(m.Services.Keys()) {
		s := m.Services.Get(h)
		addresses := slices.Clone(s.Addresses)
		for _, e := range s.Endpoints {
			if a, err := netip.ParseAddr(e.Address); err == nil && s.Headless && !slices.Contains(addresses, a) {
				addresses = append(addresses, a)
			}
		}
		for _, a := range addresses {
			m.ByAddress.Put(a, append(slices.Clone(m.ByAddress.Get(a)), h))
		}
	}
}

func (c *churn) service(m *model.Mesh, host string, f func(*model.Service)) {
	if s := m.Services.Get(host); s != nil {
		changed := *s
		f(&changed)
		m.Services.Put(host, &changed)
	}
}

func pick[T any](c *churn, of ...T) T { return of[c.IntN(len(of))] }

// drop takes one out, if there is one.
func drop[T any](c *churn, list []T) []T {
	if len(list) == 0 {
		return list
	}
	i := c.IntN(len(list))
	return slices.Delete(list, i, i+1)
}

// change does one random thing and says what.
func (c *churn) change() string {
	c.n++
	host, wild := pick(c, churnHosts...), pick(c, "*", "*.example.com", "*.a.example.com", "*.default"+domain, "*.test")
	either := pick(c, host, wild)
	namespace := pick(c, "default", "other", "istio-system")
	changes := []struct {
		what string
		edit func(*model.Mesh)
	}{
		{"a service comes or goes: " + host, func(m *model.Mesh) { c.toggle(m, host) }},
		{"a wildcard service comes or goes: " + wild, func(m *model.Mesh) { c.toggle(m, wild) }},
		{"endpoints of " + host, func(m *model.Mesh) { c.service(m, host, c.endpoints) }},
		{"endpoints again of " + host, func(m *model.Mesh) { c.service(m, host, c.endpoints) }},
		{"the definition of " + host, func(m *model.Mesh) { c.service(m, host, c.define) }},
		{"a route set for " + either, func(m *model.Mesh) { c.routeSet(m, either, host, namespace) }},
		{"a route set goes", func(m *model.Mesh) { m.RouteSets = drop(c, m.RouteSets) }},
		{"a destination for " + either, func(m *model.Mesh) { c.destination(m, either, namespace) }},
		{"destinations go for " + either, func(m *model.Mesh) { m.Destinations.Delete(either) }},
		{"a gateway", func(m *model.Mesh) { c.gateway(m) }},
		{"a gateway goes", func(m *model.Mesh) { m.Gateways = drop(c, m.Gateways) }},
		{"a policy of " + namespace, func(m *model.Mesh) { c.policy(m, namespace) }},
		{"a sidecar of " + namespace, func(m *model.Mesh) { c.sidecar(m, namespace, host) }},
		{"a sidecar goes", func(m *model.Mesh) { m.Sidecars = drop(c, m.Sidecars) }},
		{"policies go", func(m *model.Mesh) {
			m.ProxyConfigs = drop(c, m.ProxyConfigs)
			m.PeerAuthentications, m.AuthorizationPolicies, m.RateLimits = drop(c, m.PeerAuthentications), drop(c, m.AuthorizationPolicies), drop(c, m.RateLimits)
		}},
	}
	x := changes[c.IntN(len(changes))]
	c.edit(x.edit)
	return x.what
}

func (c *churn) toggle(m *model.Mesh, host string) {
	if m.Services.Get(host) != nil {
		m.Services.Delete(host)
		return
	}
	s := &model.Service{Host: host, Name: host, Namespace: "default", Ports: []model.Port{{Number: 9080, Protocol: model.HTTP}, {Number: 80, Protocol: model.HTTP}}}
	if short, cluster := strings.CutSuffix(host, domain); cluster {
		s.Name, s.Namespace, _ = strings.Cut(short, ".")
		s.Addresses = []netip.Addr{netip.MustParseAddr(fmt.Sprintf("10.78.1.%d", len(s.Name)))}
	}
	if strings.HasPrefix(host, "alias") {
		s.ExternalName = pick(c, reviewsHost, "outside.test")
	}
	m.Services.Put(host, s)
}

func (c *churn) endpoints(s *model.Service) {
	s.Endpoints = nil
	for i := range c.IntN(4) {
		e := endpoint("app", pick(c, "v1", "v2"), fmt.Sprintf("10.77.0.%d", 40+i), pick(c, uint16(9080), 8080))
		e.Ready, e.Namespace, e.Locality = c.IntN(3) > 0, pick(c, "default", "other"), pick(c, "", "r1/z1", "r1/z2", "r2/z1")
		s.Endpoints = append(s.Endpoints, e)
	}
}

func (c *churn) define(s *model.Service) {
	switch c.IntN(6) {
	case 0:
		s.Ports = []model.Port{{Number: pick(c, uint16(9080), 80, 443), Protocol: pick(c, model.HTTP, model.TCP, model.TLS, model.Auto, model.GRPC)}}
	case 1:
		s.ExportTo = pick(c, model.Visibility{}, model.Visibility{Private: true}, model.Visibility{Namespaces: []string{"other"}})
	case 2:
		s.Near = !s.Near
	case 3:
		s.Headless = !s.Headless
	case 4:
		s.Resolution = pick(c, model.Static, model.DNS, model.None)
	case 5:
		s.Addresses = []netip.Addr{netip.MustParseAddr(pick(c, "10.78.0.2", "10.78.0.3", "10.9.9.9"))}
	}
}

func (c *churn) routeSet(m *model.Mesh, host, backend, namespace string) {
	s := virtualService(m, fmt.Sprintf("r%d", c.n), []string{host, pick(c, host, "routed.test")}, model.HTTPRoute{
		Matches: []model.HTTPMatch{{Field: "spec.http[0].match[0]", Path: model.StringMatch{Prefix: pick(c, "/", "/a")},
			SourceLabels: pick(c, nil, map[string]string{"app": "productpage"}, map[string]string{"tier": "x"})}},
		Destinations: []model.WeightedDestination{to(backend, pick(c, "", "v1"), 1), to(reviewsHost, "", 1)}})
	s.Namespace, s.Created = namespace, age(c.n)
	s.ExportTo = pick(c, model.Visibility{}, model.Visibility{Private: true})
	s.ByPrecedence = c.IntN(3) == 0
	if c.IntN(2) == 0 {
		s.Gateways = []model.GatewayRef{{Kind: "Gateway.istio", Namespace: "istio-system", Name: "g"}}
		s.Mesh = c.IntN(2) == 0
	}
	if c.IntN(3) == 0 {
		s.TCP = []model.TCPRoute{{Field: "spec.tcp[0]", Destinations: []model.WeightedDestination{to(backend, "", 1)}}}
	}
}

func (c *churn) destination(m *model.Mesh, host, namespace string) {
	d := &model.Destination{Ref: model.Ref{Kind: "DestinationRule", Namespace: namespace, Name: fmt.Sprintf("d%d", c.n)}, Host: host}
	switch c.IntN(4) {
	case 0:
		d.Subsets = []model.Subset{version("v1"), version("v2")}
	case 1:
		d.Selector = map[string]string{"app": "productpage"}
		d.Policy.Balancing = &model.Balancing{Simple: "RANDOM"}
	case 2:
		d.Policy.Outlier = &model.Outlier{}
		d.Policy.Balancing = &model.Balancing{Locality: &model.LocalitySetting{FailoverPriority: []string{"app"}}}
	case 3:
		d.Policy.TLS = &model.ClientTLS{Mode: model.TLSIstioMutual}
		d.ExportTo = model.Visibility{Private: true}
	}
	m.Destinations.Put(host, append(slices.Clone(m.Destinations.Get(host)), d))
}

func (c *churn) gateway(m *model.Mesh) {
	name := pick(c, "g", "h")
	m.Gateways = slices.DeleteFunc(m.Gateways, func(g *model.Gateway) bool { return g.Ref.Name == name })
	hosts := []model.GatewayHost{{Host: pick(c, "*", "*.example.com", "routed.test")}}
	m.Gateways = append(m.Gateways, &model.Gateway{Ref: model.Ref{Kind: "Gateway", Namespace: "istio-system", Name: name}, Created: age(c.n),
		Selector: map[string]string{"istio": pick(c, "ingressgateway", "another")},
		Servers: []model.Server{{Port: 80, Name: "http", Protocol: model.HTTP, Hosts: hosts}, {Port: 443, Name: "web", Protocol: model.HTTPS, Hosts: hosts,
			TLS: &model.ServerTLS{Mode: model.TLSSimple, Certificate: []byte("c"), Key: []byte("k")}},
			{Port: 15443, Name: "auto", Protocol: model.TLS, Hosts: []model.GatewayHost{{Host: "*"}}, TLS: &model.ServerTLS{Mode: model.TLSAutoPassthrough}}}})
}

func (c *churn) sidecar(m *model.Mesh, namespace, host string) {
	of := namespace
	if namespace == "istio-system" {
		of = ""
	}
	n := uint32(c.n)
	m.ProxyConfigs = append(m.ProxyConfigs, &model.ProxyConfig{Namespace: of, Concurrency: &n})
	s := &model.Sidecar{Ref: model.Ref{Kind: "Sidecar", Namespace: namespace, Name: fmt.Sprintf("s%d", c.n)}, Namespace: of, Created: age(c.n),
		Egress: []model.Egress{{Port: pick(c, uint16(0), 9080), Hosts: []model.EgressHost{{Namespace: pick(c, "*", "."), Host: pick(c, "*", host, "*.example.com")}}}}}
	if c.IntN(2) == 0 && of != "" {
		s.Selector = map[string]string{"app": "productpage"}
	}
	switch c.IntN(4) {
	case 0:
		s.Outbound = &model.OutboundPolicy{RegistryOnly: true}
	case 1:
		s.Outbound = &model.OutboundPolicy{Proxy: &model.WeightedDestination{Host: host, Port: 9080}}
	case 2:
		s.Ingress = []model.Ingress{{Port: 9080, Protocol: model.HTTP, Endpoint: pick(c, "127.0.0.1:8080", ":8080")}}
	}
	m.Sidecars = append(m.Sidecars, s)
}

func (c *churn) policy(m *model.Mesh, namespace string) {
	if namespace == "istio-system" {
		namespace = ""
	}
	ref := model.Ref{Namespace: namespace, Name: fmt.Sprintf("p%d", c.n)}
	selector := pick(c, nil, map[string]string{"app": "productpage"}, map[string]string{"version": "v1"})
	switch c.IntN(3) {
	case 0:
		m.PeerAuthentications = append(m.PeerAuthentications, &model.PeerAuthentication{Ref: ref, Namespace: namespace, Selector: selector,
			Mode: pick(c, model.MTLSStrict, model.MTLSDisable), Created: age(c.n)})
	case 1:
		m.AuthorizationPolicies = append(m.AuthorizationPolicies, &model.AuthorizationPolicy{Ref: ref, Namespace: namespace, Selector: selector,
			Action: pick(c, model.AuthAllow, model.AuthDeny), Rules: []model.AuthRule{{To: []model.AuthOperation{{Methods: []string{"GET"}}}}}, Created: age(c.n)})
	case 2:
		m.RateLimits = append(m.RateLimits, &model.RateLimit{Ref: ref, Namespace: namespace, Selector: selector, Created: age(c.n),
			Service: &model.RateLimitService{Host: reviewsHost, Port: 9080}, Rules: []model.RateLimitRule{{Name: "r", Requests: 1}}})
	}
}

// deltaOf compares two meshes, part by part.
func deltaOf(a, b *model.Mesh) model.Delta {
	d := model.Delta{All: !a.Settings.Equal(&b.Settings)}
	without := func(s *model.Service) *model.Service {
		if s == nil {
			return nil
		}
		bare := *s
		bare.Endpoints = nil
		return &bare
	}
	endpoints := func(s *model.Service) []*model.Endpoint {
		if s == nil {
			return nil
		}
		return s.Endpoints
	}
	d.Services = differing(a.Services.Entries(), b.Services.Entries(), func(x, y *model.Service) bool { return reflect.DeepEqual(without(x), without(y)) })
	d.Endpoints = differing(a.Services.Entries(), b.Services.Entries(), func(x, y *model.Service) bool {
		return len(endpoints(x))+len(endpoints(y)) == 0 || reflect.DeepEqual(endpoints(x), endpoints(y))
	})
	d.Addresses = differing(a.ByAddress.Entries(), b.ByAddress.Entries(), slices.Equal[[]string])
	d.Destinations = differing(a.Destinations.Entries(), b.Destinations.Entries(), equal)
	d.Workloads = differing(a.Workloads.Entries(), b.Workloads.Entries(), equal)
	routes := func(m *model.Mesh) map[string][]*model.RouteSet {
		out := map[string][]*model.RouteSet{}
		for _, s := range m.RouteSets {
			for _, h := range s.Hosts {
				if s.Mesh {
					out[h] = append(out[h], s)
				}
			}
		}
		return out
	}
	d.Routes = differing(routes(a), routes(b), equal)
	d.Gateways = differing(gatewaysOf(a), gatewaysOf(b), equal)
	d.Policies = differing(policiesOf(a), policiesOf(b), equal)
	d.Sidecars = differing(sidecarsOf(a), sidecarsOf(b), equal)
	return d
}

func gatewaysOf(m *model.Mesh) map[model.Ref][]any {
	out := map[model.Ref][]any{}
	for _, g := range m.Gateways {
		out[g.Ref] = append(out[g.Ref], g)
	}
	for _, s := range m.RouteSets {
		for _, r := range s.Gateways {
			ref := model.Ref{Kind: "Gateway", Namespace: r.Namespace, Name: r.Name}
			out[ref] = append(out[ref], s)
		}
	}
	return out
}

func sidecarsOf(m *model.Mesh) map[string][]any {
	out := map[string][]any{}
	for _, s := range m.Sidecars {
		out[s.Namespace] = append(out[s.Namespace], s)
	}
	return out
}

func policiesOf(m *model.Mesh) map[string][]any {
	out := map[string][]any{}
	for _, p := range m.ProxyConfigs {
		out[p.Namespace] = append(out[p.Namespace], p)
	}
	for _, p := range m.PeerAuthentications {
		out[p.Namespace] = append(out[p.Namespace], p)
	}
	for _, p := range m.AuthorizationPolicies {
		out[p.Namespace] = append(out[p.Namespace], p)
	}
	for _, p := range m.RateLimits {
		out[p.Namespace] = append(out[p.Namespace], p)
	}
	return out
}

func equal[T any](x, y T) bool { return reflect.DeepEqual(x, y) }

func differing[K comparable, V any](a, b map[K]V, same func(x, y V) bool) map[K]bool {
	out := map[K]bool{}
	for k := range a {
		if _, ok := b[k]; !ok || !same(a[k], b[k]) {
			out[k] = true
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			out[k] = true
		}
	}
	return out
}
