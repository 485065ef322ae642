package diff

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/explain"
	"github.com/weftmesh/weft/internal/explain/diff/scope"
	"github.com/weftmesh/weft/internal/explain/fields"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode"
	"github.com/weftmesh/weft/internal/wire"
)

// place is where workloads send requests to.
type place struct {
	asked
	name string // as people call it
}

// unknown stands for all that neither side knows.
var unknown = place{asked{scheme: "http", host: "not-in-the-mesh.example", port: 80}, "what the mesh does not know"}

// destinations are those that either side knows. Unowned are ports that a service does not have, and that no rule names, at which rules
// for it count all the same.
func (c *comparison) destinations() (own, unowned []place) {
	all := map[place]bool{unknown: true} // with whether the host has the port, or a rule names it
	for _, s := range []*side{c.before, c.after} {
		add := func(host string, port uint16, owned bool, schemes ...string) {
			for _, scheme := range schemes {
				to := asked{scheme: scheme, host: strings.Replace(host, "*", "any", 1), port: port}
				p := place{to, c.short(host) + ":" + strconv.Itoa(int(port))}
				all[p] = all[p] || owned
				c.asking[to] = true
			}
		}
		var starred []*model.Service
		for _, svc := range s.mesh.Services.All() {
			if strings.HasPrefix(svc.Host, "*") {
				starred = append(starred, svc)
			}
			for _, host := range scope.Aliases(s.mesh, svc.Host) { // an alias has the ports of its service
				portsOf(s.mesh.Services.Get(host), func(p *model.Port) { add(svc.Host, p.Number, true, schemes(p.Protocol)...) })
			}
		}
		for _, sc := range s.mesh.Sidecars {
			for _, e := range sc.Egress {
				if e.Bind.IsValid() && !e.Protocol.IsHTTP() { // of requests, those to the hosts tell
					scheme := schemes(e.Protocol)
					at := asked{scheme: scheme[len(scheme)-1], host: e.Bind.String(), port: e.Port}
					all[place{at, at.address()}] = true
					c.asking[at] = true
				}
			}
		}
		for _, rs := range s.mesh.RouteSets {
			if rs.Mesh {
				besideServices(s.mesh, rs, starred, add)
			}
		}
	}
	for p, owned := range all {
		if owned {
			own = append(own, p)
		} else {
			unowned = append(unowned, p)
		}
	}
	for _, list := range [][]place{own, unowned} {
		slices.SortFunc(list, func(a, b place) int { return strings.Compare(a.name+a.scheme, b.name+b.scheme) })
	}
	return own, unowned
}

// portsOf goes through the ports of a service and of those that share its host.
func portsOf(svc *model.Service, each func(*model.Port)) {
	for one := range svc.All() {
		for i := range one.Ports {
			each(&one.Ports[i])
		}
	}
}

// besideServices adds where the hosts of a route set are to be found beside the ports of their own services: where it has rules for
// hosts that are no service, and at the ports of services that cover them.
func besideServices(m *model.Mesh, rs *model.RouteSet, starred []*model.Service, add func(host string, port uint16, owned bool, schemes ...string)) {
	places := stand(m, rs)
	for _, host := range named(rs) {
		svc := m.Services.Get(host)
		for at, named := range places {
			if svc == nil || svc.Port(at.port) == nil {
				add(host, at.port, named || svc == nil, at.scheme)
			}
		}
		for _, over := range starred {
			if over.Host != host && strings.HasSuffix(host, over.Host[1:]) {
				portsOf(over, func(p *model.Port) { add(host, p.Number, true, schemes(p.Protocol)...) })
			}
		}
	}
}

// named are a route set's hosts, and the server names that its rules tell apart among them. The host "*" makes no destination.
func named(rs *model.RouteSet) []string {
	hosts := map[string]bool{}
	for _, h := range rs.Hosts {
		hosts[h] = true
	}
	for i := range rs.TLS {
		for j := range rs.TLS[i].Matches {
			for _, n := range rs.TLS[i].Matches[j].SNIHosts {
				hosts[n] = true
			}
		}
	}
	delete(hosts, "*")
	return sortedKeys(hosts)
}

// stand is where a route set may have rules for hosts that are no service, and whether it names the port: at the ports that its matches
// name, at those of requests and of TLS, and at the HTTP ports of services among its hosts. It may say too much.
func stand(m *model.Mesh, rs *model.RouteSet) map[asked]bool {
	out := map[asked]bool{}
	add := func(scheme string, port uint16, named bool) {
		if at := (asked{scheme: scheme, port: port}); port != 0 {
			out[at] = out[at] || named
		}
	}
	if len(rs.HTTP) > 0 {
		add("http", 80, false)
		for _, h := range rs.Hosts {
			portsOf(m.Services.Get(h), func(p *model.Port) {
				if p.Protocol.IsHTTP() || p.Protocol == model.Auto {
					add("http", p.Number, false)
				}
			})
		}
	}
	for i := range rs.HTTP {
		for j := range rs.HTTP[i].Matches {
			add("http", rs.HTTP[i].Matches[j].Port, true)
		}
	}
	ofL4 := func(scheme string, matches []model.L4Match) {
		for i := range matches {
			add(scheme, matches[i].Port, true)
		}
	}
	for i := range rs.TLS {
		add("https", 443, false)
		ofL4("https", rs.TLS[i].Matches)
	}
	for i := range rs.TCP {
		ofL4("tcp", rs.TCP[i].Matches)
	}
	return out
}

func schemes(p model.Protocol) []string {
	switch p {
	case model.GRPC, model.GRPCWeb:
		return []string{"grpc"}
	case model.HTTPS, model.TLS:
		return []string{"https"}
	case model.TCP:
		return []string{"tcp"}
	case model.Auto:
		return []string{"http", "tcp"}
	}
	return []string{"http"}
}

// short leaves out what all hosts of Kubernetes end in.
func (c *comparison) short(host string) string {
	return strings.TrimSuffix(host, ".svc."+c.after.mesh.Settings.ClusterDomain)
}

// outbound compares what a class of workloads gets from a destination. Clients of namespaces that are not told apart there count as
// one.
func (c *comparison) outbound(k *class, d place, apart map[string]bool) {
	name := wire.ListenerName(d.host, d.port)
	key := k.routes + "|" + d.address() + d.scheme
	if apart == nil || apart[k.namespace] {
		key = k.namespace + "|" + key
	}
	guarded, known := c.leading[key]
	if !known {
		guarded = c.guards(k, name)
		c.leading[key] = guarded
	}
	if len(guarded) == 0 {
		equal, known := c.trails[key]
		if !known {
			equal = c.trail(c.before, k.before, name) == c.trail(c.after, k.after, name)
			c.trails[key] = equal
		}
		if equal {
			return
		}
	} else {
		key += "|" + k.signature
	}
	shown, part := false, false
	for _, to := range c.spoken(k, d.asked, name, guarded) {
		key := key + "|" + to.scheme + to.server
		var asked *differing
		if _, known := c.done[key]; !known {
			asked = both(c.rulesAt(c.before, k.before, name, d.host, to), c.rulesAt(c.after, k.after, name, d.host, to))
		}
		c.put(k, d.name, key, asked, to)
		shown = shown || len(c.done[key]) > 0
		part = part || c.part[key]
	}
	if shown {
		c.showed(guarded)
	} else if part && (len(guarded) > 0 || c.decisive(k, name)) {
		c.undecided[d.name] = true
	}
	c.settings(k, name, k.names, shown)
}

// spoken is what is asked for at a place: where TLS is told apart by its server name, connections with those that rules name, and with another; where
// connections are relayed that may be of HTTP, requests as well if policies or limits behind it look at them.
func (c *comparison) spoken(k *class, to asked, listener string, guarded []string) []asked {
	out := []asked{to}
	servers := map[string]bool{}
	namedServers(c.before, k.before, listener, servers)
	namedServers(c.after, k.after, listener, servers)
	if to.scheme == "https" && len(servers) > 0 {
		for _, name := range sortedKeys(servers) {
			if another := strings.Replace(name, "*", "any", 1); another != to.host {
				to.server, to.kind = another, "connections for the server name "+name
				out = append(out, to)
			}
		}
		to.server = ""
		to.scheme, to.kind = "tcp", "connections with another server name, or none"
		out = append(out, to)
	}
	if to.scheme != "tcp" {
		return out
	}
	to.scheme, to.kind = "http", ""
	if !c.asking[to] && slices.ContainsFunc(guarded, func(h string) bool { return len(c.behind(c.before, h).rules)+len(c.behind(c.after, h).rules) > 0 }) {
		out = append(out, to)
	}
	return out
}

// namedServers adds the names of servers by which a listener tells connections apart.
func namedServers(s *side, w *model.Workload, listener string, into map[string]bool) {
	ln, _, _ := s.asker.Listener(w, listener)
	if ln == nil {
		return
	}
	for _, ch := range ln.Chains {
		for _, name := range ch.Match.ServerNames {
			into[name] = true
		}
	}
}

// trail is a sum of everything that decides about requests to a listener. It is empty where there is none.
func (c *comparison) trail(s *side, w *model.Workload, name string) string {
	var b strings.Builder
	list := reach(s, w, name)
	if len(list) == 1 {
		fmt.Fprint(&b, s.mesh.Settings.RegistryOnly)
	}
	for _, r := range list {
		sum := s.asker.Sum(w, r.typeURL, r.name)
		b.Write(sum[:])
	}
	return b.String()
}

// resource names a message that a proxy gets.
type resource struct{ typeURL, name string }

// reach names everything that decides about requests to a listener: where there is none, what is done with the unknown.
func reach(s *side, w *model.Workload, name string) []resource {
	ln, tables, _ := s.asker.Listener(w, name)
	if ln == nil {
		return []resource{{decode.ListenerType, wire.OutboundListener}}
	}
	list := []resource{{decode.ListenerType, name}}
	if i := strings.LastIndexByte(name, ':'); !w.Gateway && i > 0 {
		list = append(list, resource{decode.NamesType, name[:i]})
	}
	seen := map[string]bool{}
	follow := func(cluster string) {
		if cluster == "" || seen[cluster] {
			return
		}
		seen[cluster] = true
		list = append(list, resource{decode.ClusterType, cluster}, resource{decode.EndpointsType, cluster})
	}
	if ln.Datagrams != nil {
		for _, cl := range ln.Datagrams.Clusters {
			follow(cl.Cluster)
		}
	}
	for _, ch := range append(slices.Clip(ln.Chains), ln.Default) {
		if ch == nil {
			continue
		}
		if ch.HTTP != nil {
			if ch.HTTP.RouteName != "" {
				list = append(list, resource{decode.RoutesType, ch.HTTP.RouteName})
			}
			for _, l := range ch.HTTP.GlobalLimits {
				follow(l.Cluster)
			}
		}
		if ch.TCP != nil { // besides, where a port says neither
			for _, cl := range ch.TCP.Clusters {
				follow(cl.Cluster)
			}
		}
	}
	for _, t := range tables {
		for cluster := range clustersOf(t) {
			follow(cluster)
		}
	}
	return list
}

// clustersOf names the clusters of a table in the order of its routes.
func clustersOf(t *conf.RouteTable) func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, h := range t.Hosts {
			for _, r := range h.Routes {
				if r.Forward == nil {
					continue
				}
				for i := range r.Forward.Clusters {
					if !yield(r.Forward.Clusters[i].Cluster) {
						return
					}
				}
				for i := range r.Forward.Mirrors {
					if !yield(r.Forward.Mirrors[i].Cluster) {
						return
					}
				}
			}
		}
	}
}

// rulesAt are those of the routes that a listener has for an authority, and of the proxies behind the host.
func (c *comparison) rulesAt(s *side, w *model.Workload, listener, host string, to asked) (out asks) {
	ln, tables, err := s.asker.Listener(w, listener)
	if err != nil {
		c.note("%s: %v", listener, err)
	}
	if ln == nil {
		return out
	}
	hosts := map[string]bool{host: true}
	for _, t := range tables {
		for _, vh := range t.Hosts {
			if !serves(vh, to) {
				continue
			}
			var routes []step
			for _, r := range vh.Routes {
				m := ofMatch(&r.Match)
				for _, name := range sortedKeys(r.RBAC) {
					out.add(ofPolicies(r.RBAC[name]))
				}
				routes = append(routes, step{m, r.Match.Never || r.Match.Fraction != 0 || r.Match.Presented != nil || r.Match.Validated != nil, r})
				out.rules = append(out.rules, m)
				if r.Forward != nil {
					hostsOf(r.Forward.Clusters, hosts)
				}
			}
			out.routes = append(out.routes, routes)
		}
	}
	for _, ch := range append(slices.Clip(ln.Chains), ln.Default) {
		if ch == nil {
			continue
		}
		if ch.HTTP != nil {
			out.add(ofHTTP(ch.HTTP))
			out.ranges = append(out.ranges, rangesOfPolicies(ch.HTTP.RBAC)...)
		}
		if ch.TCP != nil {
			out.ranges = append(out.ranges, rangesOfPolicies(ch.TCP.RBAC)...)
			hostsOf(ch.TCP.Clusters, hosts)
		}
		out.ranges = append(out.ranges, rangesOfChain(ch)...)
	}
	for _, h := range sortedKeys(hosts) {
		out.add(c.behind(s, h))
	}
	return out
}

func hostsOf(clusters []conf.WeightedCluster, into map[string]bool) {
	for i := range clusters {
		if _, _, _, h, ok := wire.ParseCluster(clusters[i].Cluster); ok {
			into[h] = true
		}
	}
}

// serves reports whether a virtual host may be asked for by the authority.
func serves(vh *conf.VirtualHost, to asked) bool {
	for _, d := range vh.Domains {
		switch {
		case strings.HasPrefix(d, "*"):
			if strings.HasSuffix(to.host, d[1:]) || strings.HasSuffix(to.address(), d[1:]) {
				return true
			}
		case d == to.host || d == to.address():
			return true
		case strings.HasSuffix(d, "*") && strings.HasPrefix(to.address(), d[:len(d)-1]):
			return true
		}
	}
	return false
}

// gateway compares what a gateway does at each of its ports and for each host.
func (c *comparison) gateway(k *class) {
	names := map[string]bool{}
	for _, n := range append(c.before.asker.Listeners(k.before), c.after.asker.Listeners(k.after)...) {
		names[n] = true
	}
	for _, name := range sortedKeys(names) {
		port, err := strconv.ParseUint(name[strings.LastIndexByte(name, '_')+1:], 10, 16)
		if err != nil || name != wire.GatewayListenerName(uint16(port)) {
			c.settings(k, name, k.names, false) // of datagrams, HTTP/3's among them, no request tells
			continue
		}
		if c.trail(c.before, k.before, name) == c.trail(c.after, k.after, name) && len(c.guards(k, name)) == 0 {
			continue
		}
		entrances, shown := map[asked]string{}, false
		c.entrances(c.before, k.before, name, uint16(port), entrances)
		c.entrances(c.after, k.after, name, uint16(port), entrances)
		for _, to := range slices.SortedFunc(maps.Keys(entrances), func(a, b asked) int { return strings.Compare(a.host+a.scheme, b.host+b.scheme) }) {
			asked := both(c.rulesAt(c.before, k.before, name, to.host, to), c.rulesAt(c.after, k.after, name, to.host, to))
			destination := fmt.Sprintf("%s://%s:%d at %s", to.scheme, entrances[to], port, strings.Join(k.names, ", "))
			key := k.routes + "|" + destination + to.scheme
			c.put(&class{before: k.before, after: k.after, names: []string{"outside"}}, destination, key, asked, to)
			if shown = shown || len(c.done[key]) > 0; c.part[key] && (len(c.guards(k, name)) > 0 || c.decisive(k, name)) {
				c.undecided[destination] = true
			}
		}
		c.settings(k, name, k.names, shown)
	}
}

// decisive reports whether anything differs among what decides about requests to a listener, besides names.
func (c *comparison) decisive(k *class, listener string) bool {
	for _, pair := range paired(reach(c.before, k.before, listener), reach(c.after, k.after, listener)) {
		b, was := c.before.asker.Message(k.before, pair[0].typeURL, pair[0].name)
		a, is := c.after.asker.Message(k.after, pair[1].typeURL, pair[1].name)
		unread := func(path string) bool { return nameless(element.ReplaceAllString(path, "")) }
		if was != is || was && len(fields.Compare(b, a, unread)) > 0 {
			return true
		}
	}
	return false
}

// guards gives the hosts to which a listener leads and behind which are workloads whose own proxies have changed.
func (c *comparison) guards(k *class, listener string) (hosts []string) {
	if len(c.guarded) == 0 {
		return nil
	}
	for _, r := range append(reach(c.before, k.before, listener), reach(c.after, k.after, listener)...) {
		if _, _, _, h, ok := wire.ParseCluster(r.name); ok && c.guarded[h] {
			hosts = appendNew(hosts, h)
		}
	}
	return hosts
}

// entrances are the ways in at a gateway's port, with the domains by which people know them.
func (c *comparison) entrances(s *side, w *model.Workload, listener string, port uint16, into map[asked]string) {
	ln, tables, err := s.asker.Listener(w, listener)
	if err != nil {
		c.note("%s: %v", listener, err)
	}
	if ln == nil {
		return
	}
	add := func(scheme, domain string) {
		host := strings.Replace(domain, "*", "any", 1)
		if domain == "*" {
			host = "any.example"
		}
		into[asked{scheme: scheme, host: host, port: port}] = domain
	}
	for _, ch := range append(slices.Clip(ln.Chains), ln.Default) {
		switch {
		case ch == nil:
		case len(ch.Match.ServerNames) > 0:
			for _, n := range ch.Match.ServerNames {
				add("https", n)
			}
		case ch.HTTP == nil && ch.TLS == nil:
			add("tcp", "*")
		case ch.TLS != nil:
			add("https", "*")
		default:
			add("http", "*")
		}
	}
	secure := slices.ContainsFunc(ln.Chains, func(ch *conf.Chain) bool { return ch.TLS != nil })
	for _, t := range tables {
		for _, vh := range t.Hosts {
			for _, d := range vh.Domains {
				if host, p, err := splitPort(d); err == nil && p != port {
					continue
				} else if d = host; secure {
					add("https", d)
				} else {
					add("http", d)
				}
			}
		}
	}
}

func splitPort(domain string) (string, uint16, error) {
	i := strings.LastIndexByte(domain, ':')
	if i < 0 {
		return domain, 0, strconv.ErrSyntax
	}
	n, err := strconv.ParseUint(domain[i+1:], 10, 16)
	if err != nil {
		return domain, 0, err
	}
	return domain[:i], uint16(n), nil
}

// unique leaves out rules that read the same.
func unique(rules []rule) []rule {
	seen := map[string]bool{}
	return slices.DeleteFunc(rules, func(r rule) bool {
		text := describe(r)
		again := seen[text] || len(r) == 0
		seen[text] = true
		return again
	})
}

// outside compares what workloads' own proxies make of requests that come in plaintext, past all of the mesh.
func (c *comparison) outside() {
	for _, name := range sortedKeys(c.changed) {
		b, a := c.before.clients[name], c.after.clients[name]
		if b == nil || a == nil || b.Gateway {
			continue
		}
		for _, port := range b.Ports {
			to := asked{scheme: "http", host: "direct.invalid", port: port.Number}
			if !port.Protocol.IsHTTP() && port.Protocol != model.Auto {
				to.scheme = "tcp"
			}
			changes, part := c.changes(both(c.inboundRules(c.before, b), c.inboundRules(c.after, a)), to, func(s *side, req explain.Request) (effect, bool) {
				w := b
				if s == c.after {
					w = a
				}
				in, err := s.asker.Direct(w, port.Number, req)
				return directEffect(in), err == nil
			})
			c.shown[name] = c.shown[name] || len(changes) > 0
			if part {
				c.undecided[fmt.Sprintf("%s port %d", name, port.Number)] = true
			}
			c.keep(fmt.Sprintf("%s port %d", name, port.Number), []string{"outside the mesh, in plaintext"}, changes)
		}
	}
}
