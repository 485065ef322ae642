package diff

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/explain"
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
var unknown = place{asked{"http", "not-in-the-mesh.example", 80}, "what the mesh does not know"}

// destinations are those that either side knows.
func (c *comparison) destinations() []place {
	all := map[place]bool{unknown: true}
	for _, s := range []*side{c.before, c.after} {
		for _, svc := range s.mesh.Services.All() {
			for one := range svc.All() {
				for _, p := range one.Ports {
					for _, scheme := range schemes(p.Protocol) {
						host := strings.Replace(svc.Host, "*", "any", 1)
						all[place{asked{scheme, host, p.Number}, c.short(svc.Host) + ":" + strconv.Itoa(int(p.Number))}] = true
					}
				}
			}
		}
		for _, sc := range s.mesh.Sidecars {
			for _, e := range sc.Egress {
				if e.Bind.IsValid() && !e.Protocol.IsHTTP() { // of requests, those to the hosts tell
					scheme := schemes(e.Protocol)
					at := asked{scheme[len(scheme)-1], e.Bind.String(), e.Port}
					all[place{at, at.address()}] = true
				}
			}
		}
		for _, rs := range s.mesh.RouteSets {
			for _, h := range rs.Hosts {
				if rs.Mesh && s.mesh.Services.Get(h) == nil {
					all[place{asked{"http", strings.Replace(h, "*", "any", 1), 80}, c.short(h) + ":80"}] = true
				}
			}
		}
	}
	return slices.SortedFunc(maps.Keys(all), func(a, b place) int {
		return strings.Compare(a.name+a.scheme, b.name+b.scheme)
	})
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
	guarded := c.guarded[d.host]
	key := k.routes + "|" + d.address() + d.scheme
	if apart == nil || apart[k.namespace] {
		key = k.namespace + "|" + key
	}
	if !guarded {
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
	if _, known := c.done[key]; known {
		c.put(k, d.name, key, nil, d.asked)
		c.settings(k, name, k.names, len(c.done[key]) > 0)
		return
	}
	before, after := c.rulesAt(c.before, k.before, name, d.host, d.asked), c.rulesAt(c.after, k.after, name, d.host, d.asked)
	c.put(k, d.name, key, both(before, after), d.asked)
	if guarded && len(c.done[key]) > 0 {
		c.showed(d.host)
	}
	c.settings(k, name, k.names, len(c.done[key]) > 0)
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
		switch {
		case ch == nil:
		case ch.HTTP != nil:
			if ch.HTTP.RouteName != "" {
				list = append(list, resource{decode.RoutesType, ch.HTTP.RouteName})
			}
			for _, l := range ch.HTTP.GlobalLimits {
				follow(l.Cluster)
			}
		case ch.TCP != nil:
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
			for _, r := range vh.Routes {
				out.rules = append(out.rules, ofMatch(&r.Match))
				if r.Forward == nil {
					continue
				}
				for i := range r.Forward.Clusters {
					if _, _, _, h, ok := wire.ParseCluster(r.Forward.Clusters[i].Cluster); ok {
						hosts[h] = true
					}
				}
			}
		}
	}
	for _, ch := range append(slices.Clip(ln.Chains), ln.Default) {
		switch {
		case ch == nil:
			continue
		case ch.HTTP != nil:
			out.add(asks{ofHTTP(ch.HTTP), rangesOfPolicies(ch.HTTP.RBAC)})
		case ch.TCP != nil:
			out.ranges = append(out.ranges, rangesOfPolicies(ch.TCP.RBAC)...)
		}
		out.ranges = append(out.ranges, rangesOfChain(ch)...)
	}
	for _, h := range sortedKeys(hosts) {
		if c.guarded[h] {
			out.add(c.behind(s, h))
		}
	}
	return out
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
		if c.trail(c.before, k.before, name) == c.trail(c.after, k.after, name) && !c.guards(k, name) {
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
			shown = shown || len(c.done[key]) > 0
		}
		c.settings(k, name, k.names, shown)
	}
}

// guards reports whether the gateway leads to workloads whose own proxies have changed.
func (c *comparison) guards(k *class, listener string) bool {
	for _, s := range []struct {
		side *side
		w    *model.Workload
	}{{c.before, k.before}, {c.after, k.after}} {
		_, tables, _ := s.side.asker.Listener(s.w, listener)
		for _, t := range tables {
			for cluster := range clustersOf(t) {
				if _, _, _, h, ok := wire.ParseCluster(cluster); ok && c.guarded[h] {
					return true
				}
			}
		}
	}
	return false
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
		into[asked{scheme, host, port}] = domain
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
			to := asked{"http", "direct.invalid", port.Number}
			if !port.Protocol.IsHTTP() && port.Protocol != model.Auto {
				to.scheme = "tcp"
			}
			changes := c.changes(both(c.inboundRules(c.before, b), c.inboundRules(c.after, a)), to, func(s *side, req explain.Request) (effect, bool) {
				w := b
				if s == c.after {
					w = a
				}
				in, err := s.asker.Direct(w, port.Number, req)
				return directEffect(in), err == nil
			})
			c.shown[name] = c.shown[name] || len(changes) > 0
			c.keep(fmt.Sprintf("%s port %d", name, port.Number), []string{"outside the mesh, in plaintext"}, changes)
		}
	}
}

// addressOf is a workload's address, if it has one.
func addressOf(w *model.Workload) netip.Addr {
	if len(w.Addresses) == 0 {
		return netip.Addr{}
	}
	return w.Addresses[0]
}
