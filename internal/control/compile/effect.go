package compile

import (
	"slices"
	"strings"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// checkEffect reports parts of a VirtualService with hosts to which nothing comes, whatever is sent.
func (c *compiler) checkEffect(p *part) {
	c.checkHosts(p)
	c.checkSorts(p)
	c.checkExported(p)
	for i := range p.Routes.HTTP {
		r := &p.Routes.HTTP[i]
		for j := range r.Matches {
			if m := &r.Matches[j]; r.Object == (model.Ref{}) {
				c.checkMatch(p, l4Match(m), m.Field)
			}
		}
	}
	for _, r := range p.Routes.TCP {
		for j, m := range r.Matches {
			c.checkMatch(p, m, parts.At(r.Field+".match", j))
		}
	}
	for _, r := range p.Routes.TLS {
		for j, m := range r.Matches {
			c.checkMatch(p, m, parts.At(r.Field+".match", j))
		}
	}
}

// checkHosts reports names of services that are not there, but those that the rules lead to: of these linkDestination says it. Other hosts need
// no service.
func (c *compiler) checkHosts(p *part) {
	if !p.Routes.Mesh {
		return
	}
	led := map[string]bool{}
	for i := range p.Routes.HTTP {
		for _, d := range p.Routes.HTTP[i].Destinations {
			led[d.Host] = true
		}
	}
	domain := ".svc." + c.settings.ClusterDomain
	for i, host := range p.Routes.Hosts {
		if strings.HasPrefix(host, "*") || led[host] || c.service(host) != nil || c.wildcardService(host) != nil {
			continue
		}
		if !strings.HasSuffix(host, domain) && c.service(host+domain) == nil { // the latter is a name with its namespace
			continue
		}
		p.Warn("HostNotFound", parts.At("spec.hosts", i), c.hostHint(host, p.GetNamespace()), "there is no service %s: in sidecars these rules are for requests to that name alone", host)
	}
}

// checkMatch reports a condition on the client, the gateway or the port that nothing fulfils.
func (c *compiler) checkMatch(p *part, m model.L4Match, field string) {
	if ns := m.SourceNamespace; ns != "" && !seenFrom(p.Routes, ns) {
		p.Warn("NoEffect", field+".sourceNamespace", "name it in spec.exportTo", "it never matches: the rules are not exported to namespace %s", ns)
	}
	mesh, gateways := p.Routes.Mesh, p.Routes.Gateways
	if m.Mesh || len(m.Gateways) > 0 {
		mesh = mesh && m.Mesh
		gateways = slices.DeleteFunc(slices.Clone(m.Gateways), func(ref model.GatewayRef) bool { return !slices.Contains(p.Routes.Gateways, ref) })
		if !mesh && len(gateways) == 0 {
			if slices.ContainsFunc(m.Gateways, func(ref model.GatewayRef) bool { return !c.hasGateway(ref) }) {
				return // which is said
			}
			p.Warn("NoEffect", field+".gateways", "name them in spec.gateways", "it never matches: spec.gateways names none of these")
			return
		}
	}
	if m.Port != 0 && !c.hasEntry(p, mesh, gateways, func(s *model.Server) bool { return s.Port == m.Port }, func(port model.Port) bool { return port.Number == m.Port }) {
		p.Warn("PortNotFound", field+".port", "write the port that clients connect to", "it never matches: nothing that the rules are for has port %d", m.Port)
	}
}

// hasEntry reports whether there is a server or a port, of what the rules are for, that some condition holds for; where it is not known what
// there is, there may be one.
func (c *compiler) hasEntry(p *part, mesh bool, gateways []model.GatewayRef, server func(*model.Server) bool, port func(model.Port) bool) bool {
	for _, ref := range gateways {
		g := c.gateway(ref)
		if g == nil || !takesHost(g, p.GetNamespace(), p.Routes.Hosts...) {
			return true // which is said
		}
		for i := range g.Servers {
			if s := &g.Servers[i]; server(s) && serverTakes(s, p.GetNamespace(), p.Routes.Hosts...) {
				return true
			}
		}
	}
	return mesh && slices.ContainsFunc(p.Routes.Hosts, func(host string) bool {
		s := c.serviceFor(host, p.GetNamespace())
		return s == nil || len(s.Ports) == 0 || slices.ContainsFunc(s.Ports, port)
	})
}

// checkSorts reports rules of a sort that no server and no port is for.
func (c *compiler) checkSorts(p *part) {
	check := func(sort string, n int, hint string, server func(*model.Server) bool, port func(model.Port) bool) {
		if n > 0 && !c.hasEntry(p, p.Routes.Mesh, p.Routes.Gateways, server, port) {
			p.Warn("NoEffect", "spec."+sort, hint, "nothing comes to these rules: no port of what they are for is declared as one for them")
		}
	}
	ends := func(s *model.Server) bool {
		return s.TLS == nil || s.TLS.Mode != model.TLSPassthrough && s.TLS.Mode != model.TLSAutoPassthrough
	}
	if len(p.Routes.Gateways) > 0 { // else checkProtocols says it
		check("http", len(p.Routes.HTTP), "have a server with protocol HTTP, or HTTPS that ends TLS", carriesRequests,
			func(port model.Port) bool { return port.Protocol.IsHTTP() || port.Protocol == model.Auto })
	}
	check("tls", len(p.Routes.TLS), "write http rules where TLS is ended, or have it passed through", func(s *model.Server) bool { return !ends(s) },
		func(port model.Port) bool { return !port.Protocol.IsHTTP() })
	check("tcp", len(p.Routes.TCP), `write http rules, or declare the port as "tcp"`, func(s *model.Server) bool { return !carriesRequests(s) && ends(s) },
		func(port model.Port) bool { return !port.Protocol.IsHTTP() })
}

// checkExported reports gateways all of whose workloads are in namespaces to which the rules are not exported.
func (c *compiler) checkExported(p *part) {
	for _, ref := range p.Routes.Gateways {
		if c.gateway(ref) == nil {
			continue
		}
		homes := c.state.homes[model.Ref{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name}]
		if len(homes) > 0 && !slices.ContainsFunc(homes, func(ns string) bool { return seenFrom(p.Routes, ns) }) {
			p.Warn("NoEffect", "spec.exportTo", "name "+strings.Join(homes, ", ")+" in it", "the rules have no effect at Gateway %s/%s: its workloads are in %s %s, to which they are not exported",
				ref.Namespace, ref.Name, noun("namespace", homes), enumerate(homes))
		}
	}
}
