package generate

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/control/generate/routing"
	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// forward completes a route that has destinations. The share of those that cannot be (a reference that does not resolve, in the
// Gateway API) is answered with 500 by a route of its own, which stands first and takes that share at random.
func (g *Generator) forward(out *routev3.Route, c candidate, host string, at view.Place) []*routev3.Route {
	good, refused := split(c.rule.Destinations)
	if len(good) == 0 {
		out.Action = routing.Direct(500, nil)
		return []*routev3.Route{out}
	}
	action := g.routeAction(out, c, good, host, at)
	out.Action = &routev3.Route_Route{Route: action}
	out.Decorator = &routev3.Decorator{Operation: operation(out, c.set, at.Port)}
	share := routing.Percent(refused)
	if share.Numerator == 0 { // of what is smaller than a millionth, nothing is left
		return []*routev3.Route{out}
	}
	broken := &routev3.Route{Name: out.Name + "/invalid", Metadata: out.Metadata, Action: routing.Direct(500, nil)}
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

func (g *Generator) routeAction(out *routev3.Route, c candidate, destinations []model.WeightedDestination, host string, at view.Place) *routev3.RouteAction {
	r := c.rule
	action := &routev3.RouteAction{Timeout: durationpb.New(r.Timeout), RetryPolicy: routing.Retries(g.view.Retries(r.Retries))}
	if g.node.Proxyless {
		action.MaxStreamDuration = &routev3.RouteAction_MaxStreamDuration{MaxStreamDuration: durationpb.New(r.Timeout)}
	}
	if r.Rewrite != nil {
		routing.RewritePath(action, r.Rewrite, c.match)
		if r.Rewrite.Authority != "" {
			host = r.Rewrite.Authority
		}
	}
	if len(destinations) == 1 {
		d := destinations[0]
		action.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: g.destinationCluster(d, at.Port)}
		if h := routing.ApplyHeaders(out, d.Request, d.Response); host == "" {
			host = h
		}
	} else {
		action.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: g.weighted(destinations, at)}
	}
	if host != "" {
		action.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: host}
	}
	action.HashPolicy = g.hashPolicies(destinations, at.Port)
	for _, m := range r.Mirrors {
		if m.Percent <= 0 || m.Destination.Invalid != "" {
			continue
		}
		action.RequestMirrorPolicies = append(action.RequestMirrorPolicies, &routev3.RouteAction_RequestMirrorPolicy{
			Cluster:         g.destinationCluster(m.Destination, at.Port),
			RuntimeFraction: &corev3.RuntimeFractionalPercent{DefaultValue: routing.Percent(m.Percent)},
			TraceSampled:    wrapperspb.Bool(false),
		})
	}
	return action
}

func (g *Generator) weighted(destinations []model.WeightedDestination, at view.Place) *routev3.WeightedCluster {
	out := &routev3.WeightedCluster{}
	for _, d := range destinations {
		w := &routev3.WeightedCluster_ClusterWeight{Name: g.destinationCluster(d, at.Port), Weight: wrapperspb.UInt32(d.Weight)}
		var host string
		w.RequestHeadersToAdd, w.RequestHeadersToRemove, host = routing.Headers(d.Request)
		w.ResponseHeadersToAdd, w.ResponseHeadersToRemove, _ = routing.Headers(d.Response)
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
	s := g.view.Service(d.Host)
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

func redirect(c candidate, at view.Place) *routev3.RedirectAction {
	r := c.rule.Redirect
	out := &routev3.RedirectAction{HostRedirect: r.Authority, ResponseCode: routing.RedirectCodes[r.Code]}
	switch {
	case r.Prefix != nil:
		if rx := routing.JoinedRewrite(c.match, routing.OrSlash(*r.Prefix)); rx != nil {
			out.PathRewriteSpecifier = &routev3.RedirectAction_RegexRewrite{RegexRewrite: rx}
		} else {
			out.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: *r.Prefix}
		}
	case r.URI != "":
		out.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: r.URI}
	}
	scheme := "http"
	if at.Server != nil && at.Server.Protocol == model.HTTPS {
		scheme = "https"
	}
	if r.Scheme != "" {
		scheme = r.Scheme
		out.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: r.Scheme}
	}
	out.PortRedirect = redirectPort(r, at, scheme)
	return out
}

// redirectPort is 0 where the port that the client has named, if any, is to stay: that of the request may be mapped to another.
func redirectPort(r *model.Redirect, at view.Place, scheme string) uint32 {
	usual := uint32(80)
	if scheme == "https" {
		usual = 443
	}
	switch {
	case r.Port != 0:
		return uint32(r.Port)
	case r.DerivePort == "FROM_PROTOCOL_DEFAULT":
		return usual
	case r.DerivePort == "FROM_REQUEST_PORT" && uint32(at.Port) != usual:
		return uint32(at.Port)
	}
	return 0
}
