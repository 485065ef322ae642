package generate

import (
	"slices"
	"strconv"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/index"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// portTable gives the routes of a port: a virtual host for each host that has requests there, and those for all others.
func (g *Generator) portTable(name string, port uint16, others ...*routev3.VirtualHost) *routev3.RouteConfiguration {
	out := &routev3.RouteConfiguration{Name: name, ValidateClusters: wrapperspb.Bool(false)}
	taken := map[string]bool{"*": true}
	for _, t := range g.portTargets(port) {
		routes := g.targetRoutes(t)
		if len(routes) == 0 {
			continue
		}
		// Of two hosts with one name, the first has it: Envoy refuses a table with a name twice.
		var domains []string
		for _, d := range g.classicDomains(t) {
			if !taken[d] {
				taken[d] = true
				domains = append(domains, d)
			}
		}
		if len(domains) > 0 {
			out.VirtualHosts = append(out.VirtualHosts, &routev3.VirtualHost{Name: wire.RouteName(t.Host, port), Domains: domains, Routes: routes,
				IncludeRequestAttemptCount: true})
		}
	}
	out.VirtualHosts = append(out.VirtualHosts, others...)
	return out
}

// portTargets are the hosts with requests at a port, services first, each by its name.
func (g *Generator) portTargets(port uint16) []*view.Target {
	var out []*view.Target
	services := map[string]bool{}
	for named := range g.mesh.AllServices() {
		if !g.view.Visible(named) {
			continue
		}
		s := g.view.Behind(named)
		if p := s.Port(port); p != nil && p.Protocol.IsHTTP() && g.view.Reaches(s, port) {
			services[named.Host] = true
			out = append(out, g.view.As(named.Host, port, s))
		}
	}
	for host := range g.mesh.AllRouteSets() {
		if host == "*" || services[host] {
			continue
		}
		if t, ok := g.view.Find(host, port); ok && t.Protocol().IsHTTP() {
			out = append(out, t)
		}
	}
	return out
}

// routedPorts are the ports at which hosts that are no service there have routes.
func (g *Generator) routedPorts() []uint16 {
	var out []uint16
	for host, sets := range g.mesh.AllRouteSets() {
		if host == "*" {
			continue
		}
		for _, port := range g.portsOf(sets) {
			if slices.Contains(out, port) {
				continue
			}
			if t, ok := g.view.Find(host, port); ok && t.Service == nil && t.Protocol().IsHTTP() {
				out = append(out, port)
			}
		}
	}
	slices.Sort(out)
	return out
}

// portsOf are those at which sets for requests may stand for hosts that are no service: 80, what matches name, and those of the
// services that they name besides.
func (g *Generator) portsOf(sets []*model.RouteSet) []uint16 {
	ports := []uint16{80}
	for _, set := range sets {
		for _, r := range set.HTTP {
			for _, m := range r.Matches {
				if m.Port != 0 {
					ports = append(ports, m.Port)
				}
			}
		}
		for _, host := range set.Hosts {
			if s := g.mesh.Service(host); s != nil {
				for _, p := range g.view.Behind(s).Ports {
					ports = append(ports, p.Number)
				}
			}
		}
	}
	return ports
}

// classicDomains are the authorities of a host; one with a wildcard stands for those that it covers.
func (g *Generator) classicDomains(t *view.Target) []string {
	if index.IsWildcard(t.Host) {
		return []string{t.Host, t.Host + ":" + strconv.Itoa(int(t.Port))}
	}
	return slices.DeleteFunc(g.domains(t), func(d string) bool { return d == "*" })
}

// otherHosts takes requests to hosts that the mesh does not know, as Istio names it.
func (g *Generator) otherHosts() *routev3.VirtualHost {
	r := &routev3.Route{Name: "allow_any", Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}}
	cluster := g.unknownCluster()
	if cluster == wire.BlackHoleCluster {
		r.Name, r.Action = "block_all", &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 502}}
	} else {
		r.Action = &routev3.Route_Route{Route: &routev3.RouteAction{Timeout: durationpb.New(0),
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster}}}
	}
	return &routev3.VirtualHost{Name: r.Name, Domains: []string{"*"}, Routes: []*routev3.Route{r}, IncludeRequestAttemptCount: true}
}
