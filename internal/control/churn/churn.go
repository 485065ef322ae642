// Package churn changes meshes at random and says exactly what changed, to test that what follows a mesh is never stale; and makes
// random objects, to test that what follows objects is not either.
package churn

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/weftmesh/weft/internal/control/model"
)

const domain = ".svc.cluster.local"

// reviews is the service that most things are about.
const reviews = "reviews.default" + domain

// Hosts are the hosts of services that come and go, and one that only routes know.
var Hosts = []string{reviews, "ratings.default" + domain, "mysql.default" + domain, "db.default" + domain, "hidden.other" + domain,
	"new.default" + domain, "alias.default" + domain, "www.googleapis.com", "a.example.com", "b.a.example.com", "routed.test"}

// Churn changes a mesh at random, each time making a new one that shares what did not change.
type Churn struct {
	*rand.Rand
	// Mesh is the newest; those before stay as they were.
	Mesh *model.Mesh
	n    int
}

// New begins with a mesh that has some of the services.
func New(seed uint64) *Churn {
	c := &Churn{Rand: rand.New(rand.NewPCG(seed, 1)), Mesh: &model.Mesh{
		Settings: model.Settings{TrustDomain: "cluster.local", ClusterDomain: "cluster.local", RootNamespace: "istio-system"}}}
	for _, h := range Hosts[:8] {
		c.Edit(func(m *model.Mesh) { c.toggle(m, h); c.Service(m, h, c.endpoints) })
	}
	return c
}

// endpoint is one of the namespace default, in the mesh.
func endpoint(app, version, address string, port uint16) *model.Endpoint {
	return &model.Endpoint{Address: address, Ports: map[uint16]uint16{port: port}, Namespace: "default", ServiceAccount: "bookinfo-" + app,
		Labels: map[string]string{"app": app, "version": version}, Workload: app + "-" + version, Instance: app + "-" + version + "-0",
		Ready: true, Mesh: true}
}

// age gives creation times: the higher, the younger.
func age(n int) time.Time { return time.Unix(1_700_000_000+int64(n), 0) }

func to(host, subset string, weight uint32) model.WeightedDestination {
	return model.WeightedDestination{Host: host, Subset: subset, Weight: weight}
}

func version(v string) model.Subset {
	return model.Subset{Name: v, Labels: map[string]string{"version": v}}
}

// Edit makes a copy of the mesh, changes that, and makes it the newest.
func (c *Churn) Edit(f func(*model.Mesh)) {
	m := *c.Mesh
	m.Services, m.ByAddress, m.Destinations, m.Workloads = m.Services.Copy(), m.ByAddress.Copy(), m.Destinations.Copy(), m.Workloads.Copy()
	m.RouteSets, m.Gateways = slices.Clone(m.RouteSets), slices.Clone(m.Gateways)
	m.Sidecars, m.ProxyConfigs = slices.Clone(m.Sidecars), slices.Clone(m.ProxyConfigs)
	m.PeerAuthentications, m.AuthorizationPolicies, m.RateLimits = slices.Clone(m.PeerAuthentications), slices.Clone(m.AuthorizationPolicies), slices.Clone(m.RateLimits)
	f(&m)
	readdress(&m)
	c.Mesh = &m
}

// readdress makes addresses lead to the services as they are now.
func readdress(m *model.Mesh) {
	m.ByAddress, m.ByNetwork = model.Table[netip.Addr, []string]{}, model.Table[netip.Prefix, []string]{}
	for _, h := range slices.Sorted(m.Services.Keys()) {
		s := m.Services.Get(h)
		addresses := slices.Clone(s.VirtualAddresses())
		for _, e := range s.Endpoints {
			if a, err := netip.ParseAddr(e.Address); err == nil && s.Headless && !slices.Contains(addresses, a) {
				addresses = append(addresses, a)
			}
		}
		for _, n := range s.Networks {
			m.ByNetwork.Put(n, append(slices.Clone(m.ByNetwork.Get(n)), h))
		}
		for _, a := range addresses {
			m.ByAddress.Put(a, append(slices.Clone(m.ByAddress.Get(a)), h))
		}
	}
}

// Service replaces a service, if it is there, by a changed copy.
func (c *Churn) Service(m *model.Mesh, host string, f func(*model.Service)) {
	if s := m.Services.Get(host); s != nil {
		changed := *s
		f(&changed)
		m.Services.Put(host, &changed)
	}
}

func pick[T any](c *Churn, of ...T) T { return of[c.IntN(len(of))] }

// drop takes one out, if there is one.
func drop[T any](c *Churn, list []T) []T {
	if len(list) == 0 {
		return list
	}
	i := c.IntN(len(list))
	return slices.Delete(list, i, i+1)
}

// Change does one random thing and says what.
func (c *Churn) Change() string {
	c.n++
	host, wild := pick(c, Hosts...), pick(c, "*", "*.example.com", "*.a.example.com", "*.default"+domain, "*.test")
	either := pick(c, host, wild)
	namespace := pick(c, "default", "other", "istio-system")
	changes := []struct {
		what string
		edit func(*model.Mesh)
	}{
		{"a service comes or goes: " + host, func(m *model.Mesh) { c.toggle(m, host) }},
		{"a wildcard service comes or goes: " + wild, func(m *model.Mesh) { c.toggle(m, wild) }},
		{"endpoints of " + host, func(m *model.Mesh) { c.Service(m, host, c.endpoints) }},
		{"endpoints again of " + host, func(m *model.Mesh) { c.Service(m, host, c.endpoints) }},
		{"the definition of " + host, func(m *model.Mesh) { c.Service(m, host, c.define) }},
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
	c.Edit(x.edit)
	return x.what
}

func (c *Churn) toggle(m *model.Mesh, host string) {
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
		s.ExternalName = pick(c, reviews, "outside.test")
	}
	m.Services.Put(host, s)
}

func (c *Churn) endpoints(s *model.Service) {
	s.Endpoints = nil
	for i := range c.IntN(4) {
		e := endpoint("app", pick(c, "v1", "v2"), fmt.Sprintf("10.77.0.%d", 40+i), pick(c, uint16(9080), 8080))
		e.Ready, e.Namespace, e.Locality = c.IntN(3) > 0, pick(c, "default", "other"), pick(c, "", "r1/z1", "r1/z2", "r2/z1")
		s.Endpoints = append(s.Endpoints, e)
	}
}

func (c *Churn) define(s *model.Service) {
	switch c.IntN(7) {
	case 6:
		s.Networks = pick(c, nil, []netip.Prefix{netip.MustParsePrefix("10.78.0.0/16")}, []netip.Prefix{netip.MustParsePrefix("10.78.0.0/24"), netip.MustParsePrefix("10.9.0.0/16")})
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

func (c *Churn) routeSet(m *model.Mesh, host, backend, namespace string) {
	s := &model.RouteSet{Ref: model.Ref{Kind: "VirtualService", Namespace: namespace, Name: fmt.Sprintf("r%d", c.n)}, Namespace: namespace,
		Hosts: []string{host, pick(c, host, "routed.test")}, Mesh: true, Created: age(c.n)}
	s.HTTP = []model.HTTPRoute{{Field: "spec.http[0]",
		Matches: []model.HTTPMatch{{Field: "spec.http[0].match[0]", Path: model.StringMatch{Prefix: pick(c, "/", "/a")},
			SourceLabels: pick(c, nil, map[string]string{"app": "productpage"}, map[string]string{"tier": "x"})}},
		Destinations: []model.WeightedDestination{to(backend, pick(c, "", "v1"), 1), to(reviews, "", 1)}}}
	m.RouteSets = append(m.RouteSets, s)
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

func (c *Churn) destination(m *model.Mesh, host, namespace string) {
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

func (c *Churn) gateway(m *model.Mesh) {
	name := pick(c, "g", "h")
	m.Gateways = slices.DeleteFunc(m.Gateways, func(g *model.Gateway) bool { return g.Ref.Name == name })
	hosts := []model.GatewayHost{{Host: pick(c, "*", "*.example.com", "routed.test")}}
	m.Gateways = append(m.Gateways, &model.Gateway{Ref: model.Ref{Kind: "Gateway", Namespace: "istio-system", Name: name}, Created: age(c.n),
		Selector: map[string]string{"istio": pick(c, "ingressgateway", "another")},
		Servers: []model.Server{{Port: 80, Name: "http", Protocol: model.HTTP, Hosts: hosts}, {Port: 443, Name: "web", Protocol: model.HTTPS, Hosts: hosts,
			TLS: &model.ServerTLS{Mode: model.TLSSimple, Certificate: []byte("c"), Key: []byte("k")}},
			{Port: 15443, Name: "auto", Protocol: model.TLS, Hosts: []model.GatewayHost{{Host: "*"}}, TLS: &model.ServerTLS{Mode: model.TLSAutoPassthrough}}}})
}

func (c *Churn) sidecar(m *model.Mesh, namespace, host string) {
	of := namespace
	if namespace == "istio-system" {
		of = ""
	}
	n := uint32(c.n)
	m.ProxyConfigs = append(m.ProxyConfigs, &model.ProxyConfig{Namespace: of, Concurrency: &n})
	s := &model.Sidecar{Ref: model.Ref{Kind: "Sidecar", Namespace: namespace, Name: fmt.Sprintf("s%d", c.n)}, Namespace: of, Created: age(c.n),
		Egress: []model.Egress{{Port: pick(c, uint16(0), 9080), Hosts: []model.EgressHost{{Namespace: pick(c, "*", "."), Host: pick(c, "*", host, "*.example.com")}}}}}
	if c.IntN(2) == 0 {
		s.Egress = append(s.Egress, model.Egress{Port: pick(c, uint16(9080), 3306), Protocol: pick(c, model.HTTP, model.TCP, model.Auto), Hosts: s.Egress[0].Hosts,
			Bind: netip.AddrFrom4([4]byte{127, 0, 0, 1}), Open: c.IntN(2) == 0})
	}
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

func (c *Churn) policy(m *model.Mesh, namespace string) {
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
			Service: &model.RateLimitService{Host: reviews, Port: 9080}, Rules: []model.RateLimitRule{{Name: "r", Requests: 1}}})
	}
}

// Delta compares two meshes, part by part.
func Delta(a, b *model.Mesh) model.Delta {
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
	accounts := func(s *model.Service) []model.Account {
		if s == nil {
			return nil
		}
		return s.Accounts()
	}
	d.Accounts = differing(a.Services.Entries(), b.Services.Entries(), func(x, y *model.Service) bool { return slices.Equal(accounts(x), accounts(y)) })
	d.Networks = differing(a.ByNetwork.Entries(), b.ByNetwork.Entries(), slices.Equal[[]string])
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
