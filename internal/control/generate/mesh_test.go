package generate

import (
	"net/netip"
	"time"

	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

const domain = ".svc.cluster.local"

// reviewsHost and the like are canonical hosts of the test mesh.
const (
	reviewsHost = "reviews.default" + domain
	ratingsHost = "ratings.default" + domain
	mysqlHost   = "mysql.default" + domain
)

// testMesh is Bookinfo's shape: HTTP services with versions, a TCP one, a headless one, one of undeclared protocol, one of another
// namespace that is private, and external ones.
func testMesh() *model.Mesh {
	m := &model.Mesh{
		Settings: model.Settings{TrustDomain: "cluster.local", ClusterDomain: "cluster.local", RootNamespace: "istio-system"},
	}
	reviews := service(m, "reviews", "default", "10.78.0.2", model.Port{Number: 9080, Name: "http", Protocol: model.HTTP})
	reviews.Endpoints = []*model.Endpoint{
		endpoint("reviews", "v1", "10.77.0.11", 9080), endpoint("reviews", "v2", "10.77.0.12", 9080), endpoint("reviews", "v3", "10.77.0.13", 9080),
	}
	ratings := service(m, "ratings", "default", "10.78.0.3", model.Port{Number: 9080, Name: "http", Protocol: model.HTTP},
		model.Port{Number: 9090, Name: "grpc", Protocol: model.GRPC}, model.Port{Number: 7070, Protocol: model.Auto})
	ratings.Endpoints = []*model.Endpoint{endpoint("ratings", "v1", "10.77.0.21", 9080)}
	mysql := service(m, "mysql", "default", "10.78.0.4", model.Port{Number: 3306, Name: "tcp", Protocol: model.TCP})
	mysql.Endpoints = []*model.Endpoint{endpoint("mysql", "v1", "10.77.0.31", 3306)}
	hidden := service(m, "hidden", "other", "10.78.0.5", model.Port{Number: 80, Protocol: model.HTTP})
	hidden.ExportTo = model.Visibility{Private: true}
	headless := service(m, "db", "default", "", model.Port{Number: 5432, Protocol: model.TCP})
	headless.Headless = true
	headless.Endpoints = []*model.Endpoint{endpoint("db", "v1", "10.77.0.41", 5432), endpoint("db", "v1", "10.77.0.42", 5432)}
	headless.Endpoints[1].Ready = false
	for _, e := range headless.Endpoints {
		a := netip.MustParseAddr(e.Address)
		m.ByAddress.Put(a, append(m.ByAddress.Get(a), headless.Host))
	}
	external(m, "www.googleapis.com", model.DNS, model.Port{Number: 443, Protocol: model.TLS}, model.Port{Number: 80, Protocol: model.HTTP})
	external(m, "*.example.com", model.None, model.Port{Number: 80, Protocol: model.HTTP})
	return m
}

func service(m *model.Mesh, name, namespace, vip string, ports ...model.Port) *model.Service {
	s := &model.Service{Ref: model.Ref{Kind: "Service", Namespace: namespace, Name: name}, Host: name + "." + namespace + domain,
		Namespace: namespace, Name: name, Ports: ports}
	if vip != "" {
		a := netip.MustParseAddr(vip)
		s.Addresses = []netip.Addr{a}
		m.ByAddress.Put(a, []string{s.Host})
	}
	m.Services.Put(s.Host, s)
	return s
}

func external(m *model.Mesh, host string, r model.Resolution, ports ...model.Port) *model.Service {
	s := &model.Service{Ref: model.Ref{Kind: "ServiceEntry", Namespace: "default", Name: "ext"}, Host: host, Namespace: "default",
		Name: host, External: true, Resolution: r, Ports: ports}
	m.Services.Put(host, s)
	return s
}

func endpoint(app, version, address string, port uint16) *model.Endpoint {
	return &model.Endpoint{Address: address, Ports: map[uint16]uint16{port: port}, Namespace: "default", ServiceAccount: "bookinfo-" + app,
		Labels: map[string]string{"app": app, "version": version}, Workload: app + "-" + version, Instance: app + "-" + version + "-0",
		Ready: true, Mesh: true}
}

// age gives creation times: the higher, the younger.
func age(n int) time.Time { return time.Unix(1_700_000_000+int64(n), 0) }

func virtualService(m *model.Mesh, name string, hosts []string, routes ...model.HTTPRoute) *model.RouteSet {
	s := &model.RouteSet{Ref: model.Ref{Kind: "VirtualService", Namespace: "default", Name: name}, Namespace: "default",
		Hosts: hosts, Mesh: true, HTTP: routes, Created: age(len(m.RouteSets))}
	for i := range s.HTTP {
		if s.HTTP[i].Field == "" {
			s.HTTP[i].Field = "spec.http[" + string(rune('0'+i)) + "]"
		}
	}
	m.RouteSets = append(m.RouteSets, s)
	return s
}

func to(host, subset string, weight uint32) model.WeightedDestination {
	return model.WeightedDestination{Host: host, Subset: subset, Weight: weight}
}

func rule(m *model.Mesh, namespace, host string, subsets ...model.Subset) *model.Destination {
	d := &model.Destination{Ref: model.Ref{Kind: "DestinationRule", Namespace: namespace, Name: "dr-" + host}, Host: host, Subsets: subsets}
	m.Destinations.Put(host, append(m.Destinations.Get(host), d))
	return d
}

func version(v string) model.Subset {
	return model.Subset{Name: v, Labels: map[string]string{"version": v}}
}

// productpage is the node that most tests generate for.
func productpage() view.Node {
	return view.Node{Role: wire.Sidecar, Name: "productpage-v1-0", Namespace: "default", ServiceAccount: "bookinfo-productpage",
		Labels: map[string]string{"app": "productpage", "version": "v1"},
		Ports:  []model.WorkloadPort{{Number: 9080, Protocol: model.HTTP, ServiceHost: "productpage.default" + domain, ServicePort: 9080}}}
}

func ingress() view.Node {
	return view.Node{Role: wire.Gateway, Name: "ingress-0", Namespace: "istio-system", ServiceAccount: "ingress",
		Labels: map[string]string{"istio": "ingressgateway"}}
}
