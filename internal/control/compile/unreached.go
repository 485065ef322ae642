package compile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// checkReached reports rules of a VirtualService with hosts that nothing can come to: those for hosts that the cluster does not have, those
// whose ports nobody opens, and those for gateways whose servers speak something else.
func (c *compiler) checkReached(p *part) {
	c.checkHosts(p)
	for _, r := range p.Routes.HTTP {
		for _, m := range r.Matches {
			c.checkPort(p, m.Port, m.Gateways, m.Mesh, m.Field+".port")
		}
	}
	l4 := func(matches []model.L4Match, field string) {
		for i, m := range matches {
			c.checkPort(p, m.Port, m.Gateways, m.Mesh, parts.At(field+".match", i)+".port")
		}
	}
	for _, r := range p.Routes.TCP {
		l4(r.Matches, r.Field)
	}
	for _, r := range p.Routes.TLS {
		l4(r.Matches, r.Field)
	}
	if !p.Routes.Mesh {
		c.checkServers(p, len(p.Routes.HTTP), "spec.http", "is read as HTTP", carriesRequests)
		c.checkServers(p, len(p.Routes.TLS), "spec.tls", "passes TLS through", passesTLS)
		c.checkServers(p, len(p.Routes.TCP), "spec.tcp", "relays connections", func(s *model.Server) bool { return !carriesRequests(s) && !passesTLS(s) })
	}
}

// checkHosts reports hosts of sidecars' rules that are names of the cluster's and no service's: nobody can call them by these. A name from
// outside the cluster may well be one that clients resolve.
func (c *compiler) checkHosts(p *part) {
	if !p.Routes.Mesh {
		return
	}
	own := ".svc." + c.settings.ClusterDomain
	for i, host := range p.Routes.Hosts {
		if strings.HasPrefix(host, "*") || c.serviceFor(host, p.GetNamespace()) != nil || c.wildcardService(host).For(p.GetNamespace(), nil) != nil {
			continue
		}
		if strings.HasSuffix(host, own) || c.service(host+own) != nil {
			p.Warn("HostNotFound", parts.At("spec.hosts", i), c.hostHint(host, p.GetNamespace()), "there is no service %s: no request is made for it", host)
		}
	}
}

// checkPort reports a condition on a port that is none of the places for which the match is; nothing while one of them is not known.
func (c *compiler) checkPort(p *part, port uint16, gateways []model.GatewayRef, mesh bool, field string) {
	if port == 0 {
		return
	}
	if len(gateways) == 0 && !mesh {
		gateways, mesh = p.Routes.Gateways, p.Routes.Mesh
	}
	var open []model.Port
	for _, ref := range gateways {
		g := c.gateway(ref)
		if g == nil || !takesHost(g, p.GetNamespace(), p.Routes.Hosts...) {
			return
		}
		for i := range g.Servers {
			if s := &g.Servers[i]; ref.Names(g, s) && serverTakes(s, p.GetNamespace(), p.Routes.Hosts...) {
				open = append(open, model.Port{Number: s.Port})
			}
		}
	}
	for i := 0; mesh && i < len(p.Routes.Hosts); i++ {
		s := c.serviceFor(p.Routes.Hosts[i], p.GetNamespace())
		if s == nil {
			return
		}
		open = append(open, s.Ports...)
	}
	if !slices.ContainsFunc(open, func(o model.Port) bool { return o.Number == port }) {
		slices.SortFunc(open, func(a, b model.Port) int { return int(a.Number) - int(b.Number) })
		open = slices.CompactFunc(open, func(a, b model.Port) bool { return a.Number == b.Number })
		p.Warn("PortNotFound", field, "write a port of the services or Gateways that the rules are for, not that of a workload",
			"it never matches: nothing comes to these hosts at port %d (they have %s)", port, listPorts(open))
	}
}

// checkServers reports rules of a sort where none of the servers that take the hosts is one for them. Gateways that are not there, or take
// none of the hosts, are told of elsewhere.
func (c *compiler) checkServers(p *part, rules int, field, what string, is func(*model.Server) bool) {
	if rules == 0 || len(p.Routes.Gateways) == 0 {
		return
	}
	var names []string
	for _, ref := range p.Routes.Gateways {
		g := c.gateway(ref)
		if g == nil || !takesHost(g, p.GetNamespace(), p.Routes.Hosts...) {
			return
		}
		names = append(names, ref.Namespace+"/"+ref.Name)
		for i := range g.Servers {
			if s := &g.Servers[i]; ref.Names(g, s) && serverTakes(s, p.GetNamespace(), p.Routes.Hosts...) && is(s) {
				return
			}
		}
	}
	of := "Gateway " + names[0]
	if n := len(names) - 1; n > 0 {
		of = fmt.Sprintf("Gateway %s and %d others", names[0], n)
	}
	p.Warn("NoEffect", field, "add such a server for the hosts to the Gateway, or write rules for those that it has",
		"no server of %s that takes the hosts %s: these rules decide about nothing", of, what)
}

// passesTLS reports whether a server's connections are relayed by the name that their TLS asks for, without ending it.
func passesTLS(s *model.Server) bool {
	return s.TLS != nil && (s.TLS.Mode == model.TLSPassthrough || s.TLS.Mode == model.TLSAutoPassthrough)
}
