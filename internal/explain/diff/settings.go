package diff

import (
	"cmp"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/explain/fields"
	"github.com/weftmesh/weft/internal/proxy/decode"
	"github.com/weftmesh/weft/internal/wire"
)

// Setting is something that proxies are told otherwise, of which no request that was tried tells.
type Setting struct {
	// Where is what it is about: a cluster as "reviews.default:9080", a listener, "the proxy's own side" of a workload.
	Where string `json:"where"`
	// From names the clients, gateways or workloads whose proxies are told; "every workload" where it is all of them.
	From   string `json:"from"`
	Field  string `json:"field"` // of the message, in the terms of Envoy's API
	Before string `json:"before"`
	After  string `json:"after"`
}

// lookedAt is a resource as two classes of clients get it.
type lookedAt struct {
	resource
	before, after string // sums
	shown         bool
}

// settings files what differs among all that decides about requests to a listener. Shown says that a request to it was treated
// differently: what such requests tell is left out then.
func (c *comparison) settings(k *class, listener string, from []string, shown bool) {
	b, a := reach(c.before, k.before, listener), reach(c.after, k.after, listener)
	for _, pair := range paired(b, a) {
		c.look(k.before, k.after, pair[0], pair[1], from, shown)
	}
}

// paired joins the resources of both sides: those of one name, then clusters of one port of a host whose subsets are called otherwise.
// An empty one stands for what a side does not have.
func paired(b, a []resource) (out [][2]resource) {
	var gone, come []resource
	for _, r := range b {
		if slices.Contains(a, r) {
			out = append(out, [2]resource{r, r})
		} else {
			gone = append(gone, r)
		}
	}
	for _, r := range a {
		if !slices.Contains(b, r) {
			come = append(come, r)
		}
	}
	for _, r := range gone {
		i := slices.IndexFunc(come, func(o resource) bool { return o.typeURL == r.typeURL && kindOf(o) == kindOf(r) })
		if i < 0 {
			out = append(out, [2]resource{r, {}})
			continue
		}
		out, come = append(out, [2]resource{r, come[i]}), slices.Delete(come, i, i+1)
	}
	for _, r := range come {
		out = append(out, [2]resource{{}, r})
	}
	return out
}

// kindOf is a resource's name without its subset.
func kindOf(r resource) string {
	_, port, _, host, ok := wire.ParseCluster(r.name)
	if !ok {
		return r.name
	}
	return fmt.Sprint(host, ":", port)
}

// look compares one resource.
func (c *comparison) look(bw, aw *model.Workload, b, a resource, from []string, shown bool) {
	r := b
	if r == (resource{}) {
		r = a
	}
	if b != a && (shown || r.typeURL != decode.ListenerType) && (b == (resource{}) || a == (resource{})) {
		return // requests tell of it, or another resource of what it is for
	}
	sb, sa := c.before.asker.Sum(bw, b.typeURL, b.name), c.after.asker.Sum(aw, a.typeURL, a.name)
	if sb == sa {
		return
	}
	key := lookedAt{r, string(sb[:]), string(sa[:]), shown}
	list, known := c.looked[key]
	if !known {
		for _, ch := range c.compared(bw, aw, b, a, shown) {
			list = append(list, Setting{Where: about(r, bw), Field: tidy(ch.Path), Before: ch.Before, After: ch.After})
		}
		c.looked[key] = list
	}
	for _, s := range list {
		c.differs(s, from...)
	}
}

// differs notes that a setting is another one for clients or workloads of these names.
func (c *comparison) differs(s Setting, names ...string) {
	if c.differ[s] == nil {
		c.differ[s] = map[string]bool{}
	}
	for _, name := range names {
		c.differ[s][name] = true
	}
}

// compared gives the fields of a resource that differ and that no request tells of.
func (c *comparison) compared(bw, aw *model.Workload, b, a resource, shown bool) []fields.Change {
	mb, ok1 := c.before.asker.Message(bw, b.typeURL, b.name)
	ma, ok2 := c.after.asker.Message(aw, a.typeURL, a.name)
	switch {
	case !ok1 && !ok2:
		return nil
	case !ok1:
		return []fields.Change{{Path: "", Before: "is not there", After: "is there"}}
	case !ok2:
		return []fields.Change{{Path: "", Before: "is there", After: "is not there"}}
	}
	ignore := func(path string) bool {
		if shown && policies.MatchString(path) || b != a && strings.HasSuffix(path, ".sni") {
			return true
		}
		path = element.ReplaceAllString(path, "")
		return nameless(path) || shown && told[b.typeURL] != nil && told[b.typeURL].MatchString(path)
	}
	switch one := mb.(type) {
	case *endpointv3.ClusterLoadAssignment:
		return endpoints(one, ma.(*endpointv3.ClusterLoadAssignment), shown)
	default:
		if b.typeURL == decode.RoutesType {
			return fields.Gather(mb, ma, func(path string) bool {
				return nameless(path) || filtered.MatchString(path) || routed.MatchString(element.ReplaceAllString(path, ""))
			})
		}
	}
	return slices.DeleteFunc(fields.Compare(mb, ma, ignore), func(ch fields.Change) bool {
		return shown && chain.MatchString(ch.Path) && (ch.Before == fields.None || ch.After == fields.None)
	})
}

// Of policies, limits and whole chains requests tell.
var (
	policies = regexp.MustCompile(`filters\[[^\]]*(rbac|ratelimit)[^\]]*\]`)
	chain    = regexp.MustCompile(`^(default_filter_chain|filter_chains\[[^\]]*\])$`)
)

// element is the part of a path that says which one of a list it is, unless it is a filter.
var element = regexp.MustCompile(`\[[^\]]*\]`)

// meaningless are fields that only name things, for people, logs and metrics.
var meaningless = regexp.MustCompile(`(^|\.)(cluster_name|service_name|metadata|stat_prefix|alt_stat_name|decorator|observability_name|operation)$`)

func nameless(path string) bool { return path == "name" || meaningless.MatchString(path) }

// told are the fields of which requests tell, where any of them is treated differently; routed those of routes, each of which a request
// was made for.
var (
	told = map[string]*regexp.Regexp{
		decode.ListenerType: regexp.MustCompile(`(^|\.)(filter_chain_match|route_config|rds|typed_config\.rules|typed_config\.route_config|transport_socket|tcp_proxy|weighted_clusters|cluster)$`),
		decode.ClusterType: regexp.MustCompile(`^(name|type|lb_policy|connect_timeout|eds_cluster_config|transport_socket|load_assignment|metadata` +
			`|circuit_breakers\.thresholds\.(max_connections|max_pending_requests|max_requests|max_retries|retry_budget)` +
			`|outlier_detection\.(consecutive_5xx|consecutive_gateway_failure|consecutive_local_origin_failure|interval|base_ejection_time|max_ejection_percent))$`),
	}
	routed = regexp.MustCompile(`(^name$|\.name$|\.domains$|\.match$|\.redirect$|\.direct_response$|_to_add$|_to_remove$|\.cluster$|\.weight$|\.total_weight$|\.timeout$|_rewrite$|rewrite_\w+$` +
		`|\.request_mirror_policies$|\.retry_policy\.(retry_on|num_retries|per_try_timeout|retriable_status_codes|retry_priority|retry_host_predicate|host_selection_retry_max_attempts|retry_back_off)$` +
		`|\.hash_policy\.(header|query_parameter|connection_properties|terminal|cookie\.name)$)`)
	filtered = regexp.MustCompile(`\.typed_per_filter_config\[envoy\.filters\.http\.(cors|fault)\]`)
)

// tidy leaves out of a path what only wraps things.
func tidy(path string) string {
	for _, s := range []string{".typed_config", ".common_tls_context", ".transport_socket", "virtual_hosts.routes.route."} {
		path = strings.ReplaceAll(path, s, "")
	}
	path = strings.ReplaceAll(path, "filters[envoy.filters.network.http_connection_manager].", "")
	return strings.TrimPrefix(chainName.ReplaceAllString(path, "port $1 "), ".")
}

// chainName is a filter chain of a workload's own side, of which there are several for a port.
var chainName = regexp.MustCompile(`filter_chains\[inbound\|([a-z0-9]+)\|[^\]]*\]\.`)

// about says what a resource is about.
func about(r resource, w *model.Workload) string {
	switch {
	case r.name == wire.InboundListener:
		return "the proxy's own side"
	case r.name == wire.OutboundListener:
		return unknown.name
	case r.typeURL == decode.ClusterType || r.typeURL == decode.EndpointsType:
		return clusterName(r.name)
	case r.typeURL == decode.NamesType:
		return "addresses of " + r.name
	case w.Gateway:
		return "the gateway's listener " + r.name
	case r.typeURL == decode.RoutesType:
		return "routes of " + r.name
	}
	return r.name
}

// endpoints compares where endpoints stand. Which there are is told by requests, unless nothing was shown.
func endpoints(b, a *endpointv3.ClusterLoadAssignment, shown bool) (out []fields.Change) {
	before, after := standing(b), standing(a)
	for _, address := range sortedKeys(before) {
		switch now, both := after[address]; {
		case !both && !shown:
			out = append(out, fields.Change{Path: "endpoint " + address, Before: before[address], After: fields.None})
		case both && now != before[address]:
			out = append(out, fields.Change{Path: "endpoint " + address, Before: before[address], After: now})
		}
	}
	for _, address := range sortedKeys(after) {
		if _, both := before[address]; !both && !shown {
			out = append(out, fields.Change{Path: "endpoint " + address, Before: fields.None, After: after[address]})
		}
	}
	rest := func(path string) bool { return path == "endpoints" || nameless(path) }
	return append(out, fields.Compare(b, a, rest)...)
}

// sum is the weight of a locality that has none of its own.
func sum(l *endpointv3.LocalityLbEndpoints) (n uint32) {
	for _, e := range l.GetLbEndpoints() {
		n += max(1, e.GetLoadBalancingWeight().GetValue())
	}
	return n
}

func standing(cla *endpointv3.ClusterLoadAssignment) map[string]string {
	out := map[string]string{}
	for _, l := range cla.GetEndpoints() {
		where := strings.TrimRight(l.GetLocality().GetRegion()+"/"+l.GetLocality().GetZone()+"/"+l.GetLocality().GetSubZone(), "/")
		for _, e := range l.GetLbEndpoints() {
			at := e.GetEndpoint().GetAddress()
			name := cmp.Or(at.GetPipe().GetPath(), wire.EndpointName(at.GetSocketAddress().GetAddress(), uint16(at.GetSocketAddress().GetPortValue())))
			text := fmt.Sprintf("priority %d, weight %d, %s", l.GetPriority(), max(1, e.GetLoadBalancingWeight().GetValue()), strings.ToLower(e.GetHealthStatus().String()))
			if w := l.GetLoadBalancingWeight().GetValue(); w != sum(l) {
				text += fmt.Sprintf(", of which all together have %d", w)
			}
			if where != "" {
				text += ", in " + where
			}
			out[name] = text
		}
	}
	return out
}

// showed marks the workloads behind hosts about which requests told something.
func (c *comparison) showed(hosts []string) {
	for _, s := range []*side{c.before, c.after} {
		for _, host := range hosts {
			for svc := range s.mesh.Services.Get(host).All() {
				for _, e := range svc.Endpoints {
					c.shown[e.Workload+"."+e.Namespace] = true
				}
			}
		}
	}
}

// inward compares the own sides of the workloads' proxies.
func (c *comparison) inward() {
	for _, name := range sortedKeys(c.before.clients) {
		b, a := c.before.clients[name], c.after.clients[name]
		if a == nil || b.Gateway || a.Gateway || b.Bare || a.Bare {
			continue
		}
		for _, pair := range paired(own(c.before, b), own(c.after, a)) {
			c.look(b, a, pair[0], pair[1], []string{name}, c.shown[name])
		}
		if was, is := opens(c.before, b), opens(c.after, a); was != is {
			c.differs(Setting{Where: "the proxy's own side", Field: "what it listens at besides (Sidecar)", Before: was, After: is}, name)
		}
	}
}

// opens lists the addresses at which a workload's Sidecar has the proxy listen.
func opens(s *side, w *model.Workload) string {
	var list []string
	if len(s.mesh.Sidecars) > 0 {
		if ln, _, _ := s.asker.Listener(w, wire.OutboundListener); ln != nil {
			for _, l := range ln.Opens {
				at := l.Address.String()
				if l.Address.Addr() == w.Address() {
					at = fmt.Sprintf("its own address, port %d", l.Address.Port()) // which may differ without anybody's doing
				}
				list = append(list, map[string]string{"outbound": at + " for what it calls", "inbound": at + " for what calls it"}[l.Direction])
			}
		}
	}
	return cmp.Or(strings.Join(list, ", "), "nothing")
}

// own are the resources of a workload's own side.
func own(s *side, w *model.Workload) []resource {
	list := []resource{{decode.ListenerType, wire.InboundListener}}
	for _, p := range w.Ports {
		list = append(list, resource{decode.ClusterType, wire.InboundCluster(p.Number)})
	}
	return list
}

// proxies compares what proxies are started with.
func (c *comparison) proxies() {
	b, a := c.before.mesh, c.after.mesh
	if !reflect.DeepEqual(b.ProxyConfigs, a.ProxyConfigs) || !reflect.DeepEqual(b.Settings.Concurrency, a.Settings.Concurrency) {
		c.differ[Setting{Where: "proxies", Field: "what they are started with (ProxyConfig)", Before: "another", After: "another"}] = map[string]bool{}
	}
}

// maxSettings bounds what is listed of them.
const maxSettings = 200

// settled gives the settings, sorted.
func (c *comparison) settled() (out []Setting) {
	for s, from := range c.differ {
		names := sortedKeys(from)
		if s.From = "every workload"; len(names) != c.every || c.every < 2 {
			s.From = ""
			if len(names) > 0 {
				s.From = some(names)
			}
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Setting) int {
		return cmp.Or(cmp.Compare(a.Where, b.Where), cmp.Compare(a.From, b.From), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Before, b.Before), cmp.Compare(a.After, b.After))
	})
	if len(out) > maxSettings {
		c.note("%d settings differ; %d of them are listed", len(out), maxSettings)
		out = out[:maxSettings]
	}
	return out
}
