package generate

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/generate/routing"
	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/index"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// Route gives the route table of that name. A sidecar's table is for one host and port and has one virtual host, which takes any
// authority: the listener that led here has chosen the host already.
func (g *Generator) Route(name string) (proto.Message, bool) {
	if g.node.Role == wire.Gateway {
		if r, ok := g.gatewayRoute(name); ok {
			return r, true
		}
	}
	host, port, err := wire.SplitListenerName(name)
	if err != nil {
		return nil, false
	}
	t, ok := g.view.Resolve(host, port)
	if p := protocolOf(t, ok); !p.IsHTTP() && p != model.Auto {
		return nil, false
	}
	vhost := &routev3.VirtualHost{Name: name, Domains: g.domains(t), Routes: g.targetRoutes(t), IncludeRequestAttemptCount: true}
	return &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{vhost},
		ValidateClusters: wrapperspb.Bool(false)}, true
}

func protocolOf(t *view.Target, ok bool) model.Protocol {
	if !ok {
		return ""
	}
	return t.Protocol()
}

func (g *Generator) targetRoutes(t *view.Target) []*routev3.Route {
	if routes := g.routes(t.Sets, view.Place{Port: t.Port}); len(routes) > 0 {
		return routes
	}
	if t.Service == nil {
		return nil
	}
	host := t.Host
	return []*routev3.Route{{
		Name:      "default",
		Match:     &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
		Decorator: &routev3.Decorator{Operation: host + ":" + strconv.Itoa(int(t.Port)) + "/*"},
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: t.Cluster()},
			Timeout:          durationpb.New(0),
			RetryPolicy:      routing.Retries(g.view.Retries(nil)),
			HashPolicy:       g.hashPolicies(t.Itself(), t.Port),
		}},
	}}
}

// domains lists the authorities by which the target is known, and "*" for all others that lead here.
func (g *Generator) domains(t *view.Target) []string {
	names := []string{t.Host}
	if t.Service != nil {
		names = g.view.ShortNames(t.Host)
	}
	if t.Service != nil && !t.Renamed() {
		for _, a := range t.Service.VirtualAddresses() {
			names = append(names, a.String())
		}
	}
	port := ":" + strconv.Itoa(int(t.Port))
	var out []string
	for i, n := range names {
		if index.IsWildcard(n) || slices.Contains(names[:i], n) {
			continue
		}
		if a, err := netip.ParseAddr(n); err == nil && a.Is6() {
			n = "[" + n + "]"
		}
		out = append(out, n, n+port)
	}
	return append(out, "*")
}

// candidate is one match of one rule, to become a route at a place.
type candidate struct {
	set   *model.RouteSet
	rule  *model.HTTPRoute
	match *model.HTTPMatch // nil matches everything
	at    view.Place
}

// routes gives the routes of the sets, which are in the order in which they count, in order of precedence.
func (g *Generator) routes(sets []*model.RouteSet, at view.Place) []*routev3.Route {
	var all []candidate
	for _, s := range sets {
		all = append(all, g.candidates(s, at)...)
	}
	return g.inOrder(all)
}

// inOrder gives routes in order of precedence, up to the first that takes every request.
func (g *Generator) inOrder(all []candidate) []*routev3.Route {
	var ordered, byPrecedence []candidate
	for _, c := range all {
		if c.set.ByPrecedence {
			byPrecedence = append(byPrecedence, c)
		} else {
			ordered = append(ordered, c)
		}
	}
	// A rule of one object that takes everything must not hide those of the next.
	slices.SortStableFunc(ordered, func(a, b candidate) int { return cmp.Compare(catchAll(a.match), catchAll(b.match)) })
	slices.SortStableFunc(byPrecedence, moreSpecific)
	var out []*routev3.Route
	for _, c := range append(ordered, byPrecedence...) {
		out = append(out, g.translate(c)...)
		g.bound.done()
		if catchAll(c.match) == 1 {
			break
		}
	}
	return out
}

// candidates gives the matches that this node gets. Where the order is the user's, none follows one that takes every request.
func (g *Generator) candidates(s *model.RouteSet, at view.Place) []candidate {
	var out []candidate
	for i := range s.HTTP {
		r := &s.HTTP[i]
		if len(r.Matches) == 0 {
			if !g.bound.part() {
				return nil
			}
			out = append(out, candidate{s, r, nil, at})
			if !s.ByPrecedence {
				return out
			}
		}
		for j := range r.Matches {
			m := &r.Matches[j]
			if !g.view.Takes(m, at) {
				continue
			}
			if !g.bound.part() {
				return nil
			}
			out = append(out, candidate{s, r, m, at})
			if !s.ByPrecedence && m.TakesAll() {
				return out
			}
		}
	}
	return out
}

// catchAll is 1 for a match that takes every request.
func catchAll(m *model.HTTPMatch) int {
	if m.TakesAll() {
		return 1
	}
	return 0
}

// moreSpecific is the Gateway API's precedence of matches (HTTPRouteRule.matches): exact path, longest prefix, method, most
// headers, most query parameters; then the older object, then its name. Regular expressions come after prefixes, as in Istio, and
// what an Ingress has for the rest after everything.
func moreSpecific(a, b candidate) int {
	x, y := a.match, b.match
	if x == nil {
		x = &model.HTTPMatch{}
	}
	if y == nil {
		y = &model.HTTPMatch{}
	}
	return cmp.Or(
		cmp.Compare(isLast(a.rule), isLast(b.rule)),
		cmp.Compare(pathRank(y.Path), pathRank(x.Path)),
		cmp.Compare(pathLength(y.Path), pathLength(x.Path)),
		cmp.Compare(given(y.Method), given(x.Method)),
		cmp.Compare(len(y.Headers), len(x.Headers)),
		cmp.Compare(len(y.Query), len(x.Query)),
		a.set.CompareAge(b.set),
	)
}

func pathRank(m model.StringMatch) int {
	switch {
	case m.Exact != "":
		return 3
	case m.Prefix != "" && m.Prefix != "/":
		return 2
	case m.Regex != "":
		return 1
	}
	return 0
}

func pathLength(m model.StringMatch) int { return len(m.Exact) + len(m.Prefix) + len(m.Regex) }

func isLast(r *model.HTTPRoute) int {
	if r.Last {
		return 1
	}
	return 0
}

func given(m model.StringMatch) int {
	if m.IsZero() {
		return 0
	}
	return 1
}

// translate makes the routes of one match: one, or two where a share of the requests goes to a backend that cannot be.
func (g *Generator) translate(c candidate) []*routev3.Route {
	out := &routev3.Route{
		Name:     c.name(),
		Match:    message.RouteMatch(c.match),
		Metadata: c.metadata(),
	}
	if c.match != nil {
		out.StatPrefix = c.match.StatPrefix
	}
	out.TypedPerFilterConfig = g.perFilter(c.rule)
	host := routing.ApplyHeaders(out, c.rule.Request, c.rule.Response)
	switch {
	case c.rule.Redirect != nil:
		out.Action = &routev3.Route_Redirect{Redirect: redirect(c, c.at)}
	case c.rule.Direct != nil:
		out.Action = routing.Direct(c.rule.Direct.Status, c.rule.Direct.Body)
	default:
		return g.forward(out, c, host, c.at)
	}
	out.Decorator = &routev3.Decorator{Operation: operation(out, c.set, c.at.Port)}
	return []*routev3.Route{out}
}

// name is the user's, or says which part of which object it is: "reviews.default/http[0]/match[1]".
func (c candidate) name() string {
	if c.rule.Name != "" {
		if c.match != nil && c.match.Name != "" {
			return c.rule.Name + "." + c.match.Name
		}
		return c.rule.Name
	}
	if c.match != nil && len(c.rule.Matches) > 1 && c.match.Field != "" {
		return routeName(c.object(), c.match.Field)
	}
	return routeName(c.object(), c.rule.Field)
}

// object is where the rule is written.
func (c candidate) object() model.Ref {
	if c.rule.Object != (model.Ref{}) {
		return c.rule.Object
	}
	return c.set.Ref
}

func routeName(o model.Ref, field string) string {
	return o.Name + "." + o.Namespace + "/" + strings.ReplaceAll(strings.TrimPrefix(field, "spec."), ".", "/")
}

func (c candidate) metadata() *corev3.Metadata {
	field := c.rule.Field
	if c.match != nil && c.match.Field != "" {
		field = c.match.Field
	}
	return originMetadata(c.object(), field)
}

// originMetadata says which field of an object something was made of, for explanations.
func originMetadata(object model.Ref, field string) *corev3.Metadata {
	return message.IstioMetadata(map[string]*structpb.Value{
		"config": structpb.NewStringValue(object.String()),
		"field":  structpb.NewStringValue(field),
	})
}

// operation names the route for traces as Istio does: the destination, or the object where there are several, with the path.
func operation(r *routev3.Route, s *model.RouteSet, port uint16) string {
	path := "/*"
	switch p := r.GetMatch().GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		path = p.Prefix + "*"
	case *routev3.RouteMatch_PathSeparatedPrefix:
		path = p.PathSeparatedPrefix + "/*"
	case *routev3.RouteMatch_Path:
		path = p.Path
	case *routev3.RouteMatch_SafeRegex:
		path = p.SafeRegex.GetRegex()
	}
	if _, port, _, host, ok := wire.ParseCluster(r.GetRoute().GetCluster()); ok {
		return host + ":" + strconv.Itoa(int(port)) + path
	}
	return s.Ref.Name + ":" + strconv.Itoa(int(port)) + path
}
