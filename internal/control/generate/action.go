package generate

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	previousprioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// forward completes a route that has destinations. The share of those that cannot be (a reference that does not resolve, in the
// Gateway API) is answered with 500 by a route of its own, which stands first and takes that share at random.
func (g *Generator) forward(out *routev3.Route, c candidate, host string, at place) []*routev3.Route {
	good, refused := split(c.rule.Destinations)
	if len(good) == 0 {
		out.Action = direct(500, nil)
		return []*routev3.Route{out}
	}
	action := g.routeAction(out, c, good, host, at)
	out.Action = &routev3.Route_Route{Route: action}
	out.Decorator = &routev3.Decorator{Operation: operation(out, c.set, at.port)}
	share := percent(refused)
	if share.Numerator == 0 { // of what is smaller than a millionth, nothing is left
		return []*routev3.Route{out}
	}
	broken := &routev3.Route{Name: out.Name + "/invalid", Metadata: out.Metadata, Action: direct(500, nil)}
	broken.Match, _ = proto.Clone(out.Match).(*routev3.RouteMatch)
	broken.Match.RuntimeFraction = &corev3.RuntimeFractionalPercent{DefaultValue: share}
	return []*routev3.Route{broken, out}
}

// split gives the destinations that get requests, and the percentage of the requests that get none. A single destination gets all,
// whatever its weight.
func split(all []model.WeightedDestination) (good []model.WeightedDestination, refused float64) {
	if len(all) == 1 {
		if all[0].Invalid != "" {
			return nil, 100
		}
		return all, 0
	}
	var total, invalid uint64
	for _, d := range all {
		total += uint64(d.Weight)
		switch {
		case d.Weight == 0:
		case d.Invalid != "":
			invalid += uint64(d.Weight)
		default:
			good = append(good, d)
		}
	}
	if total == 0 {
		return nil, 100
	}
	return good, 100 * float64(invalid) / float64(total)
}

func (g *Generator) routeAction(out *routev3.Route, c candidate, destinations []model.WeightedDestination, host string, at place) *routev3.RouteAction {
	r := c.rule
	action := &routev3.RouteAction{Timeout: durationpb.New(r.Timeout), RetryPolicy: retryPolicy(g.retries(r.Retries))}
	if g.node.Proxyless {
		action.MaxStreamDuration = &routev3.RouteAction_MaxStreamDuration{MaxStreamDuration: durationpb.New(r.Timeout)}
	}
	if r.Rewrite != nil {
		rewritePath(action, r.Rewrite, c.match)
		if r.Rewrite.Authority != "" {
			host = r.Rewrite.Authority
		}
	}
	if len(destinations) == 1 {
		d := destinations[0]
		action.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: g.destinationCluster(d, at.port)}
		if h := applyHeaders(out, d.Request, d.Response); host == "" {
			host = h
		}
	} else {
		action.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: g.weighted(destinations, at)}
	}
	if host != "" {
		action.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: host}
	}
	action.HashPolicy = g.hashPolicies(destinations, at.port)
	for _, m := range r.Mirrors {
		if m.Percent <= 0 || m.Destination.Invalid != "" {
			continue
		}
		action.RequestMirrorPolicies = append(action.RequestMirrorPolicies, &routev3.RouteAction_RequestMirrorPolicy{
			Cluster:         g.destinationCluster(m.Destination, at.port),
			RuntimeFraction: &corev3.RuntimeFractionalPercent{DefaultValue: percent(m.Percent)},
			TraceSampled:    wrapperspb.Bool(false),
		})
	}
	return action
}

func (g *Generator) weighted(destinations []model.WeightedDestination, at place) *routev3.WeightedCluster {
	out := &routev3.WeightedCluster{}
	for _, d := range destinations {
		w := &routev3.WeightedCluster_ClusterWeight{Name: g.destinationCluster(d, at.port), Weight: wrapperspb.UInt32(d.Weight)}
		var host string
		w.RequestHeadersToAdd, w.RequestHeadersToRemove, host = headers(d.Request)
		w.ResponseHeadersToAdd, w.ResponseHeadersToRemove, _ = headers(d.Response)
		if host != "" {
			// The authority of one choice of a split travels as a field that is set, which is how the proxy reads it.
			w.RequestHeadersToAdd = append(w.RequestHeadersToAdd, &corev3.HeaderValueOption{
				Header:       &corev3.HeaderValue{Key: "Host", Value: host},
				AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
			})
		}
		out.Clusters = append(out.Clusters, w)
	}
	return out
}

// destinationCluster names the cluster of a destination. One that does not exist has a name all the same, so that requests to it
// are answered as unavailable rather than by another route.
func (g *Generator) destinationCluster(d model.WeightedDestination, port uint16) string {
	host := d.Host
	s := g.service(d.Host)
	if s != nil {
		host = s.Host // under a wildcard, hosts have no clusters of their own
	}
	if d.Port != 0 {
		port = d.Port
	} else if s != nil && len(s.Ports) == 1 {
		port = s.Ports[0].Number
	}
	return wire.OutboundCluster(port, d.Subset, host)
}

func rewritePath(action *routev3.RouteAction, r *model.Rewrite, m *model.HTTPMatch) {
	switch {
	case r.Regex != nil:
		action.RegexRewrite = substitute(r.Regex.Match, r.Regex.Rewrite)
	case r.FullPath != nil:
		action.RegexRewrite = substitute("^/.*$", literal(orSlash(*r.FullPath)))
	case r.URI != "":
		if rx := joinedRewrite(m, r.URI); rx != nil {
			action.RegexRewrite = rx
		} else {
			action.PrefixRewrite = r.URI
		}
	}
}

// joinedRewrite replaces a prefix that ends at a segment's end so that exactly one slash follows what replaces it; nil where plain
// replacement does that.
func joinedRewrite(m *model.HTTPMatch, uri string) *matcherv3.RegexMatchAndSubstitute {
	if m == nil || !m.Path.SegmentPrefix || !strings.HasSuffix(uri, "/") {
		return nil
	}
	prefix := strings.TrimRight(m.Path.Prefix, "/")
	return substitute("^"+regexp.QuoteMeta(prefix)+"/*(.*)$", literal(uri)+`\1`)
}

func substitute(pattern, by string) *matcherv3.RegexMatchAndSubstitute {
	return &matcherv3.RegexMatchAndSubstitute{Pattern: regex(pattern), Substitution: by}
}

// literal escapes a text for RE2's substitution notation.
func literal(s string) string { return strings.ReplaceAll(s, `\`, `\\`) }

func orSlash(path string) string {
	if path == "" {
		return "/"
	}
	return path
}

func redirect(c candidate, at place) *routev3.RedirectAction {
	r := c.rule.Redirect
	out := &routev3.RedirectAction{HostRedirect: r.Authority, ResponseCode: redirectCodes[r.Code]}
	switch {
	case r.Prefix != nil:
		if rx := joinedRewrite(c.match, orSlash(*r.Prefix)); rx != nil {
			out.PathRewriteSpecifier = &routev3.RedirectAction_RegexRewrite{RegexRewrite: rx}
		} else {
			out.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: *r.Prefix}
		}
	case r.URI != "":
		out.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: r.URI}
	}
	scheme := "http"
	if at.server != nil && at.server.Protocol == model.HTTPS {
		scheme = "https"
	}
	if r.Scheme != "" {
		scheme = r.Scheme
		out.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: r.Scheme}
	}
	out.PortRedirect = uint32(r.Port)
	if r.DerivePort == "FROM_REQUEST_PORT" {
		out.PortRedirect = uint32(at.port)
	}
	if out.PortRedirect == 80 && scheme == "http" || out.PortRedirect == 443 && scheme == "https" {
		out.PortRedirect = 0
	}
	return out
}

// redirectCodes: the absent one, 0, is 301, as Istio has it.
var redirectCodes = map[int]routev3.RedirectAction_RedirectResponseCode{
	0:   routev3.RedirectAction_MOVED_PERMANENTLY,
	301: routev3.RedirectAction_MOVED_PERMANENTLY,
	302: routev3.RedirectAction_FOUND,
	303: routev3.RedirectAction_SEE_OTHER,
	307: routev3.RedirectAction_TEMPORARY_REDIRECT,
	308: routev3.RedirectAction_PERMANENT_REDIRECT,
}

func direct(status int, body []byte) *routev3.Route_DirectResponse {
	d := &routev3.DirectResponseAction{Status: uint32(status)}
	if len(body) > 0 {
		d.Body = inline(body)
	}
	return &routev3.Route_DirectResponse{DirectResponse: d}
}

func inline(b []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
}

// The retries of routes that do not speak of them: as Istio's, without the codes of gRPC, by which a call that may have been acted on
// would be repeated unasked, plus connections that the server closed before it saw the request.
const (
	defaultRetryOn      = "connect-failure,refused-stream,reset-before-request"
	defaultRetries      = 2
	hostSelectionTrials = 5
	triesOfPriority     = 2 // before the next one is preferred, as Istio has it
)

func retryPolicy(r *model.Retries) *routev3.RetryPolicy {
	if r == nil {
		r = &model.Retries{Attempts: defaultRetries}
	}
	if r.Attempts == 0 {
		return nil
	}
	out := &routev3.RetryPolicy{
		RetryOn:    defaultRetryOn,
		NumRetries: wrapperspb.UInt32(r.Attempts),
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{
			Name:       "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: pack(&previoushostsv3.PreviousHostsPredicate{})},
		}},
		HostSelectionRetryMaxAttempts: hostSelectionTrials,
	}
	if r.SameHosts {
		out.RetryHostPredicate, out.HostSelectionRetryMaxAttempts = nil, 0
	}
	if r.RetryOn != "" {
		out.RetryOn, out.RetriableStatusCodes = retryOn(r.RetryOn)
	}
	if r.PerTryTimeout > 0 {
		out.PerTryTimeout = durationpb.New(r.PerTryTimeout)
	}
	if r.BackOff > 0 {
		out.RetryBackOff = &routev3.RetryPolicy_RetryBackOff{BaseInterval: durationpb.New(r.BackOff)}
	}
	if r.RemoteLocalities {
		out.RetryPriority = &routev3.RetryPolicy_RetryPriority{
			Name: "envoy.retry_priorities.previous_priorities",
			ConfigType: &routev3.RetryPolicy_RetryPriority_TypedConfig{
				TypedConfig: pack(&previousprioritiesv3.PreviousPrioritiesConfig{UpdateFrequency: triesOfPriority})},
		}
	}
	return out
}

// retryOn takes the status codes out of the conditions; Envoy wants them in a list of their own.
func retryOn(conditions string) (string, []uint32) {
	var names []string
	var statuses []uint32
	for _, c := range strings.Split(conditions, ",") {
		c = strings.TrimSpace(c)
		if n, err := strconv.ParseUint(c, 10, 16); err == nil {
			statuses = append(statuses, uint32(n))
		} else if c != "" {
			names = append(names, c)
		}
	}
	const byStatus = "retriable-status-codes"
	if len(statuses) > 0 && !slices.Contains(names, byStatus) {
		names = append(names, byStatus)
	}
	return strings.Join(names, ","), statuses
}

// applyHeaders adds header changes to a route, and gives the authority that they set.
func applyHeaders(out *routev3.Route, request, response model.HeaderChange) (host string) {
	add, remove, host := headers(request)
	out.RequestHeadersToAdd = append(out.RequestHeadersToAdd, add...)
	out.RequestHeadersToRemove = append(out.RequestHeadersToRemove, remove...)
	add, remove, _ = headers(response)
	out.ResponseHeadersToAdd = append(out.ResponseHeadersToAdd, add...)
	out.ResponseHeadersToRemove = append(out.ResponseHeadersToRemove, remove...)
	return host
}

// headers translates header changes. Envoy changes neither pseudo-headers nor Host this way: setting Host becomes a rewrite of the
// authority, the rest is left out, as Istio does.
func headers(c model.HeaderChange) (add []*corev3.HeaderValueOption, remove []string, host string) {
	write := func(values map[string]string, how corev3.HeaderValueOption_HeaderAppendAction) (authority string) {
		for _, k := range slices.Sorted(maps.Keys(values)) {
			if strings.EqualFold(k, "host") || k == ":authority" {
				authority = values[k]
			}
			if internalHeader(k) {
				continue
			}
			add = append(add, &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: k, Value: values[k]}, AppendAction: how,
				KeepEmptyValue: values[k] == ""})
		}
		return authority
	}
	host = write(c.Set, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD)
	if added := write(c.Add, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD); host == "" {
		host = added
	}
	for _, k := range c.Remove {
		if !internalHeader(k) {
			remove = append(remove, k)
		}
	}
	return add, remove, host
}

func internalHeader(name string) bool {
	return strings.HasPrefix(name, ":") || strings.EqualFold(name, "host")
}
