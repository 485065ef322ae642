package compile

import (
	"fmt"
	"slices"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// connectionParent attaches a TLSRoute or TCPRoute to a Service, for the sidecars of its clients, as serviceParent does.
func (c *compiler) connectionParent(p *part, s *model.Service, port uint16, field string) []*model.RouteSet {
	if !slices.ContainsFunc(s.Ports, func(sp model.Port) bool { return (port == 0 || port == sp.Number) && relayed(p.Kind.Name, sp.Protocol) }) {
		p.Warn("NoEffect", field, `name the port "tcp" or "tls", or set its appProtocol`, "the route is not attached: no such port of %s is declared as what a %s is for (%s)",
			s.Host, p.Kind.Name, protocolList(s))
		return nil
	}
	rs := *p.Routes
	rs.Hosts, rs.Mesh = []string{s.Host}, true
	where := fmt.Sprintf("port %d of Service %s/%s", port, s.Namespace, s.Name)
	if port == 0 {
		where = "Service " + s.Namespace + "/" + s.Name
	}
	if s.Namespace != p.GetNamespace() {
		rs.ExportTo = model.Visibility{Private: true}
		where += " for clients of namespace " + p.GetNamespace()
	}
	names := p.Routes.Hosts
	if len(names) == 0 {
		names = []string{"*"}
	}
	if names = c.firstFor(p, names, where, field); len(names) == 0 {
		return nil
	}
	rs.TLS = forNames(rs.TLS, names, port)
	rs.TCP = slices.Clone(rs.TCP)
	for i := range rs.TCP {
		rs.TCP[i].Matches = []model.L4Match{{Port: port}}
	}
	c.rule(p, s.Host, &rs, reachOf(&rs), field)
	return []*model.RouteSet{&rs}
}

// relayed reports whether connections of a protocol are routed by routes of a kind in sidecars. A port that declares nothing is
// taken for TCP unless a client is seen to speak HTTP.
func relayed(kind string, protocol model.Protocol) bool {
	if kind == parts.TLSRoute {
		return protocol == model.TLS || protocol == model.HTTPS
	}
	return !protocol.IsHTTP()
}

// forNames narrows routes to server names, and to a port unless that is 0.
func forNames(routes []model.TLSRoute, names []string, port uint16) []model.TLSRoute {
	out := slices.Clone(routes)
	for i := range out {
		out[i].Matches = []model.L4Match{{SNIHosts: names, Port: port}}
	}
	return out
}

// firstFor gives those of the hosts for which no older route of the same kind has the place, and reports the others: a connection,
// unlike requests, is not shared between routes.
func (c *compiler) firstFor(p *part, hosts []string, place, field string) []string {
	if isHTTP(p.Kind.Name) {
		return hosts
	}
	var free []string
	for _, h := range hosts {
		list := c.claim(&bid{place: topic{onPlace, p.Kind.Name, h, place}})
		if len(list) == 0 {
			free = append(free, h)
		} else if older := list[0]; older.unit != c.unit {
			p.Warn("DuplicateHost", field, "put the backends into one object", "%s, which is %s, has the connections of %s for %s: the route gets none of them",
				older.object.Ref(), age(older.object, p.Object), place, h)
			c.about(older.object).Warn("DuplicateHost", "", "put the backends into one object", "%s also asks for the connections of %s for %s, and gets none of them",
				p.Ref(), place, h)
		}
	}
	return free
}
