package istio

import (
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// virtualService converts a VirtualService.
func (p converter) virtualService(vs *networking.VirtualService) {
	spec := &vs.Spec
	p.Only(spec, "spec", "hosts", "gateways", "http", "tls", "tcp", "exportTo")
	rs := &model.RouteSet{Ref: p.Ref(), Namespace: vs.Namespace, Created: p.Born, ExportTo: p.ExportTo(parts.DefaultExport(spec.ExportTo, p.Mesh.RouteExport), "spec.exportTo")}
	rs.Gateways, rs.Mesh = p.GatewayRefs(spec.Gateways)
	if len(spec.Gateways) == 0 {
		rs.Mesh = true
	}
	if len(spec.Hosts) == 0 {
		p.delegated(spec)
	}
	rs.Hosts = p.routeHosts(spec.Hosts, rs.Mesh)
	if len(spec.Http)+len(spec.Tcp)+len(spec.Tls) == 0 {
		p.Err("MissingField", "spec", "", "at least one of http, tls and tcp is needed")
	}
	rs.HTTP = slices.Grow(rs.HTTP, len(spec.Http))
	for i, r := range spec.Http {
		rs.HTTP = append(rs.HTTP, p.httpRoute(r, parts.At("spec.http", i)))
		p.delegate(r, i, len(spec.Hosts) == 0)
	}
	for i, r := range spec.Tls {
		rs.TLS = append(rs.TLS, p.tlsRoute(r, parts.At("spec.tls", i), rs.Hosts))
	}
	for i, r := range spec.Tcp {
		rs.TCP = append(rs.TCP, p.tcpRoute(r, parts.At("spec.tcp", i)))
	}
	p.SameNames(rs)
	if !p.Failed() { // what could not be read would seem to take everything
		p.Unreachable(rs)
	}
	p.Routes = rs
}

// routeHosts checks and completes the hosts of a VirtualService.
func (p converter) routeHosts(list []string, mesh bool) []string {
	seen := map[string]int{}
	var hosts []string
	for i, host := range list {
		field := parts.At("spec.hosts", i)
		if !p.ValidHost(host, field, true) {
			continue
		}
		if host == "*" && mesh {
			p.Err("InvalidHost", field, "name the hosts, or a gateway under spec.gateways", `"*" is not allowed for sidecars (gateway "mesh")`)
		}
		full := p.FullHost(host)
		if first, ok := seen[full]; ok {
			p.Err("DuplicateHost", field, "", "host %s is already that of spec.hosts[%d]", full, first)
			continue
		}
		seen[full] = i
		hosts = append(hosts, full)
	}
	if len(hosts) == len(list) {
		p.overlapping(list)
	}
	return hosts
}

// overlapping refuses hosts within a wildcard of the same object, as Istio does. They are compared as they are written: "reviews" is
// not within "*.default.svc.cluster.local".
func (p converter) overlapping(list []string) {
	wildcards := map[string]int{}
	for i, host := range list {
		if strings.HasPrefix(host, "*") {
			wildcards[parts.HostName(host)] = i
		}
	}
	for i, host := range list {
		labels := strings.Split(strings.TrimPrefix(parts.HostName(host), "*."), ".")
		for n := range labels {
			wider := strings.Join(append([]string{"*"}, labels[n+1:]...), ".")
			if first, ok := wildcards[wider]; ok && first != i {
				p.Err("DuplicateHost", parts.At("spec.hosts", i), "leave one of them out", "host %s is within %s of spec.hosts[%d]", host, wider, first)
				break
			}
		}
	}
}

// httpRoute converts one rule.
func (p converter) httpRoute(r *networkingapi.HTTPRoute, field string) model.HTTPRoute {
	p.Only(r, field, "name", "match", "route", "redirect", "directResponse", "rewrite", "timeout", "retries", "fault", "mirror",
		"mirrors", "mirrorPercent", "mirrorPercentage", "headers", "corsPolicy", "delegate")
	out := model.HTTPRoute{Name: r.Name, Field: field}
	out.Matches = slices.Grow(out.Matches, len(r.Match))
	for i, m := range r.Match {
		out.Matches = append(out.Matches, p.httpMatch(m, parts.At(field+".match", i)))
	}
	p.oneAction(r, field)
	for i, d := range r.Route {
		out.Destinations = append(out.Destinations, p.httpDestination(d, parts.At(field+".route", i)))
	}
	p.weights(out.Destinations, field+".route")
	out.Redirect = p.redirect(r.Redirect, field+".redirect")
	out.Direct = p.directResponse(r.DirectResponse, field+".directResponse")
	out.Rewrite = p.rewrite(r.Rewrite, field+".rewrite")
	out.Timeout = p.Timeout(r.Timeout, field+".timeout")
	out.Retries = p.retries(r.Retries, field+".retries")
	out.Fault = p.fault(r.Fault, field+".fault")
	out.CORS = p.cors(r.CorsPolicy, field+".corsPolicy")
	out.Mirrors = p.mirrors(r, field)
	out.Request, out.Response = p.headers(r.Headers, field+".headers")
	return out
}

// oneAction checks that a rule does one thing.
func (p converter) oneAction(r *networkingapi.HTTPRoute, field string) {
	var actions []string
	if len(r.Route) > 0 {
		actions = append(actions, "route")
	}
	if r.Redirect != nil {
		actions = append(actions, "redirect")
	}
	if r.DirectResponse != nil {
		actions = append(actions, "directResponse")
	}
	switch {
	case len(actions) == 0 && r.Delegate == nil:
		p.Err("MissingField", field, "", "one of route, redirect and directResponse is needed")
	case len(actions) > 1:
		p.Err("ConflictingFields", field+"."+actions[1], "", "only one of %s can be set", strings.Join(actions, " and "))
	case len(r.Route) == 0 && r.Delegate == nil && r.Rewrite != nil:
		p.Err("ConflictingFields", field+".rewrite", "", "a %s cannot be combined with a rewrite", actions[0])
	case len(r.Route) == 0 && r.Delegate == nil && r.Fault != nil:
		p.Err("ConflictingFields", field+".fault", "", "a %s cannot be combined with a fault", actions[0])
	}
	if r.Redirect.GetPrefixRewrite() != "" {
		for i, m := range r.Match {
			if _, prefix := m.GetUri().GetMatchType().(*networkingapi.StringMatch_Prefix); m.GetUri() != nil && !prefix {
				p.Err("ConflictingFields", field+".redirect.prefixRewrite", "match by prefix, or use uri", "%s has no prefix to replace", parts.At(field+".match", i))
			}
		}
	}
	p.oneAuthority(r, field)
	if len(r.Route) == 0 && (r.Mirror != nil || len(r.Mirrors) > 0) {
		p.Err("ConflictingFields", field, "", "only requests that are routed can be mirrored")
	}
}

// oneAuthority refuses a second word on the request's host.
func (p converter) oneAuthority(r *networkingapi.HTTPRoute, field string) {
	first := ""
	if r.Rewrite.GetAuthority() != "" {
		first = field + ".rewrite.authority"
	}
	for _, c := range []struct {
		name   string
		values map[string]string
	}{{"set", r.Headers.GetRequest().GetSet()}, {"add", r.Headers.GetRequest().GetAdd()}} {
		for _, name := range parts.SortedKeys(c.values) {
			if !strings.EqualFold(name, "host") && name != ":authority" {
				continue
			}
			at := parts.Key(field+".headers.request."+c.name, name)
			if first != "" {
				p.Err("ConflictingFields", at, "", "%s already changes the request's host", first)
			}
			first = at
		}
	}
}

func (p converter) httpDestination(d *networkingapi.HTTPRouteDestination, field string) model.WeightedDestination {
	p.Only(d, field, "destination", "weight", "headers")
	out := p.destination(d.Destination, field+".destination")
	out.Weight = p.Weight(d.Weight, field+".weight")
	out.Request, out.Response = p.headers(d.Headers, field+".headers")
	return out
}

// destination converts a host, subset and port.
func (p converter) destination(d *networkingapi.Destination, field string) model.WeightedDestination {
	if d == nil {
		p.Err("MissingField", field, "", "a destination is missing")
		return model.WeightedDestination{}
	}
	if d.Host == "*" || strings.HasPrefix(d.Host, "*.") {
		p.Err("InvalidHost", field+".host", "", "a destination cannot be a wildcard")
		return model.WeightedDestination{}
	}
	if !p.ValidHost(d.Host, field+".host", true) {
		return model.WeightedDestination{}
	}
	out := model.WeightedDestination{Host: p.FullHost(d.Host), Subset: d.Subset}
	if d.Port != nil {
		out.Port = p.ValidPort(d.Port.Number, field+".port.number")
	}
	return out
}

// weights checks that some destination gets something. The sum need not be 100.
func (p converter) weights(list []model.WeightedDestination, field string) {
	if len(list) < 2 {
		return
	}
	if p.WeightSum(list, field) == 0 {
		p.Err("InvalidWeight", field, "", "the weights of all destinations are 0")
	}
}

// tcpRoute converts a rule for opaque connections.
func (p converter) tcpRoute(r *networkingapi.TCPRoute, field string) model.TCPRoute {
	p.Only(r, field, "match", "route")
	out := model.TCPRoute{Field: field}
	for i, m := range r.Match {
		f := parts.At(field+".match", i)
		p.Only(m, f, "destinationSubnets", "port", "sourceLabels", "gateways", "sourceNamespace")
		out.Matches = append(out.Matches, p.l4Match(l4{nil, m.DestinationSubnets, m.Port, m.SourceLabels, m.Gateways, m.SourceNamespace}, f))
	}
	out.Destinations = p.l4Destinations(r.Route, field+".route")
	return out
}

// tlsRoute converts a rule for TLS connections; its server names must be among the object's hosts.
func (p converter) tlsRoute(r *networkingapi.TLSRoute, field string, hosts []string) model.TLSRoute {
	p.Only(r, field, "match", "route")
	out := model.TLSRoute{Field: field}
	if len(r.Match) == 0 {
		p.Err("MissingField", field+".match", "", "a TLS rule needs a match with sniHosts")
	}
	for i, m := range r.Match {
		f := parts.At(field+".match", i)
		p.Only(m, f, "sniHosts", "destinationSubnets", "port", "sourceLabels", "gateways", "sourceNamespace")
		if len(m.SniHosts) == 0 {
			p.Err("MissingField", f+".sniHosts", "", "at least one server name is needed")
		}
		for j, sni := range m.SniHosts {
			if p.ValidHost(sni, parts.At(f+".sniHosts", j), false) && !anyCovers(hosts, strings.ToLower(sni)) {
				p.Err("InvalidHost", parts.At(f+".sniHosts", j), "", "server name %q is not covered by spec.hosts", sni)
			}
		}
		out.Matches = append(out.Matches, p.l4Match(l4{m.SniHosts, m.DestinationSubnets, m.Port, m.SourceLabels, m.Gateways, m.SourceNamespace}, f))
	}
	out.Destinations = p.l4Destinations(r.Route, field+".route")
	return out
}

func anyCovers(patterns []string, host string) bool {
	for _, p := range patterns {
		if parts.HostCovers(p, host) {
			return true
		}
	}
	return false
}

// l4 is what TCP and TLS matches have in common.
type l4 struct {
	sni, subnets []string
	port         uint32
	labels       map[string]string
	gateways     []string
	namespace    string
}

func (p converter) l4Match(m l4, field string) model.L4Match {
	out := model.L4Match{DestinationSubnets: m.subnets, SourceLabels: p.ValidLabels(m.labels, field+".sourceLabels"),
		SourceNamespace: p.NamespaceName(m.namespace, field+".sourceNamespace")}
	for _, sni := range m.sni {
		out.SNIHosts = append(out.SNIHosts, strings.ToLower(sni))
	}
	for i, s := range m.subnets {
		p.Prefix(s, parts.At(field+".destinationSubnets", i))
	}
	if m.port != 0 {
		out.Port = p.ValidPort(m.port, field+".port")
	}
	out.Gateways, out.Mesh = p.GatewayRefs(m.gateways)
	return out
}

func (p converter) l4Destinations(list []*networkingapi.RouteDestination, field string) []model.WeightedDestination {
	if len(list) == 0 {
		p.Err("MissingField", field, "", "at least one destination is needed")
	}
	var out []model.WeightedDestination
	for i, d := range list {
		f := parts.At(field, i)
		p.Only(d, f, "destination", "weight")
		w := p.destination(d.Destination, f+".destination")
		w.Weight = p.Weight(d.Weight, f+".weight")
		out = append(out, w)
	}
	p.weights(out, field)
	return out
}
