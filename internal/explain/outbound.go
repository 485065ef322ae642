package explain

import (
	"cmp"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/proxy/balance"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode"
	"github.com/weftmesh/weft/internal/proxy/filter/authz"
	"github.com/weftmesh/weft/internal/proxy/filter/cors"
	"github.com/weftmesh/weft/internal/proxy/filter/grpcweb"
	"github.com/weftmesh/weft/internal/proxy/filter/retry"
	"github.com/weftmesh/weft/internal/proxy/grpc"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/route"
	"github.com/weftmesh/weft/internal/wire"
)

// talk is the request as the client's proxy sees it.
type talk struct {
	scheme  string // "http", "https", "tcp" or "udp"
	host    string
	port    uint16
	request *message.Request
	// named is the server name of a TLS client.
	named string
}

// lastDraw is the random number of an explanation: routes that take a share of the requests are named and passed over.
const lastDraw = 999_999

// Schemes are those that the URL of a request may have.
func Schemes() []string { return []string{"http", "https", "grpc", "tcp", "udp"} }

// Check says what is wrong with a request whoever sends it.
func (r Request) Check() error {
	_, err := parse(r)
	return err
}

func parse(req Request) (*talk, error) {
	raw := req.URL
	if !strings.Contains(raw, "://") {
		raw = "http://" + raw
	}
	if strings.ContainsFunc(raw, unicode.IsSpace) {
		return nil, fmt.Errorf("url %q: has a space in it; write %%20 for one that is part of it", req.URL)
	}
	if req.Method != "" && !message.IsToken(req.Method) {
		return nil, fmt.Errorf("method %q: is no token, as GET is", req.Method)
	}
	before, target := CutTarget(raw)
	u, err := url.Parse(before)
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	if !message.TargetChars.All(target) {
		return nil, fmt.Errorf("url %q: proxies answer it with 400, for characters that a request has percent-encoded only, as browsers and most clients do", req.URL)
	}
	if !slices.Contains(Schemes(), u.Scheme) {
		return nil, fmt.Errorf("url %q: scheme %q is none of %s", req.URL, u.Scheme, strings.Join(Schemes(), ", "))
	}
	t := &talk{scheme: u.Scheme}
	grpc := t.scheme == "grpc"
	if grpc {
		t.scheme = "http"
	}
	if t.host, t.port, err = hostPort(u, req.URL); err != nil {
		return nil, err
	}
	if t.named = cmp.Or(req.ServerName, t.host); req.ServerName != "" && t.scheme != "https" {
		return nil, fmt.Errorf("server name %q: goes with https alone, TLS that the client makes itself; the url is %q", req.ServerName, req.URL)
	}
	t.request = &message.Request{Proto: message.HTTP11, Method: strings.ToUpper(req.Method), Scheme: "http", Authority: u.Host, Path: target}
	if t.request.Method == "" {
		t.request.Method = "GET"
	}
	for _, f := range req.Headers {
		if message.EqualFold(f.Name, "host") {
			t.request.Authority = f.Value
			continue
		}
		t.request.Header.Add(f.Name, f.Value)
	}
	if grpc {
		t.call()
	}
	return t, nil
}

// CutTarget splits a URL before its path or query, and gives what of it a request has: as it was typed, without encoding anything or
// judging what is encoded, and without fragment, as clients send it that are given a URL by hand.
func CutTarget(raw string) (before, target string) {
	from := 0
	if i := strings.IndexAny(raw, "/?#"); i > 0 && strings.HasPrefix(raw[i-1:], "://") {
		from = i + len("//")
	}
	end := len(raw)
	if i := strings.IndexAny(raw[from:], "/?#"); i >= 0 {
		end = from + i
	}
	target, _, _ = strings.Cut(raw[end:], "#")
	if !strings.HasPrefix(target, "/") {
		target = "/" + target
	}
	return raw[:end], target
}

// call makes the request one of gRPC: a POST of its media type, by HTTP/2 (PROTOCOL-HTTP2.md of gRPC).
func (t *talk) call() {
	t.request.Proto, t.request.Method = message.HTTP2, "POST"
	if _, ok := t.request.Header.Get("Content-Type"); !ok {
		t.request.Header.Add("Content-Type", grpc.Media)
	}
}

// evaluation is one explanation under way.
type evaluation struct {
	view   View
	talk   *talk
	report *Report
	route  *conf.Route // chosen; nil before
	lost   float64     // share of such requests that other routes take
	fault  *conf.Fault // that applies to it
	table  *conf.RouteTable
	host   *conf.VirtualHost
	split  *conf.WeightedCluster // that is being looked at

	retries *conf.Retry // the route's policy with what the request asks for; nil for none

	brief    bool // as in Request
	discreet bool // the listener's proxy does not say what it rewrites
}

func (e *evaluation) problem(format string, args ...any) {
	e.report.Problems = append(e.report.Problems, fmt.Sprintf(format, args...))
}

// refuse ends the evaluation with an answer of the proxy.
func (e *evaluation) refuse(status int, flag, format string, args ...any) {
	e.report.Outcome, e.report.Status, e.report.Flag = "refuse", status, flag
	e.report.Summary = fmt.Sprintf(format, args...)
}

// outbound follows the request from the client to the destinations.
func (e *evaluation) outbound() {
	if e.talk.scheme == "udp" {
		e.datagrams()
		return
	}
	ln := e.listener()
	if ln == nil {
		return
	}
	conn := e.conn()
	ch, step := route.Chain(ln, conn)
	if ch != nil && ch.TLS != nil {
		e.report.TLS = serverText(ch.TLS)
	}
	switch {
	case ch == nil:
		e.rules(ln, nil, conn)
		e.refuse(0, "NR", "the connection is closed: no filter chain of %s takes it (%s)", ln.Name, step)
	case e.talk.scheme == "http" && ch.HTTP != nil:
		e.report.Chain = ch.Name
		e.http(ln, ch.HTTP)
	case ch.TCP != nil:
		e.report.Chain, e.report.Protocol = ch.Name, protocolName(e.talk.scheme)
		e.report.Outcome = "forward"
		e.rules(ln, ch, conn)
		if t := ch.TCP.Tunnel; t != nil {
			e.report.Tunnel = "to " + t.Target + ", which the destination is asked for by " + t.Method()
		}
		e.destinations(ch.TCP.Clusters, ch.TCP.TotalWeight)
	case ch.HTTP != nil && ch.TLS != nil: // a gateway that terminates
		e.report.Chain = ch.Name
		e.talk.request.Scheme = "https"
		e.http(ln, ch.HTTP)
	default:
		e.refuse(400, "DPE", "%s takes HTTP, and this is not", ln.Name)
	}
}

// rules reports which rule for TCP or TLS took the connection, nil for none, and why those before it did not.
func (e *evaluation) rules(ln *conf.Listener, taken *conf.Chain, conn *route.ConnInfo) {
	if taken != nil && taken.Object != "" {
		e.report.Route = &Route{Name: taken.Name, Object: taken.Object, Field: taken.Field, Conf: &conf.Route{Name: taken.Name}}
	}
	if e.brief {
		return
	}
	for _, ch := range ln.Chains {
		if ch.Object == "" {
			continue
		}
		t := Try{Name: ch.Name, Object: ch.Object, Field: ch.Field, Matched: ch == taken}
		if t.Matched {
			e.report.Tried = append(e.report.Tried, t)
			return
		}
		step := route.Excluded(&ch.Match, conn)
		t.Condition = step.String()
		switch step {
		case route.ByServerName:
			t.Want, t.Got = strings.Join(ch.Match.ServerNames, " or "), cmp.Or(conn.ServerName, "none")
		case route.ByDestination:
			t.Want, t.Got = rangeList(ch.Match.Destination), conn.Destination.Addr().String()
		case route.ChainFound:
			t.Condition, t.Want, t.Got = "precedence", "no rule that is more specific", taken.Name
		default: // rules have no other conditions
			t.Want, t.Got = "another", "this"
		}
		e.report.Tried = append(e.report.Tried, t)
	}
}

// rangeList lists address ranges.
func rangeList(ranges []netip.Prefix) string {
	var out []string
	for _, r := range ranges {
		out = append(out, r.String())
	}
	return strings.Join(out, " or ")
}

func protocolName(scheme string) string {
	if scheme == "https" {
		return "tls"
	}
	return "tcp"
}

// listener gets what the destination is resolved by; nil when the evaluation has ended.
func (e *evaluation) listener() *conf.Listener {
	names := e.listenerNames()
	e.report.Listener, e.report.Protocol = names[0], e.talk.scheme
	for _, name := range names {
		ln, found, err := get[*conf.Listener](&e.view.Client, decode.ListenerType, name)
		if err != nil {
			e.problem("the proxy refuses its configuration: %v", err)
			e.refuse(503, "", "there is no valid configuration for %s", name)
			return nil
		}
		if found {
			e.report.Listener = name
			return ln
		}
	}
	e.unknown(names[0])
	return nil
}

// listenerNames are the names that the client's proxy tries: the host that the request names, with the port that the client
// connects to, and then the address itself.
func (e *evaluation) listenerNames() []string {
	t := e.talk
	switch {
	case e.view.Client.Role == wire.Gateway && t.scheme == "udp":
		return []string{wire.GatewayUDPListenerName(e.arrives())}
	case e.view.Client.Role == wire.Gateway:
		return []string{wire.GatewayListenerName(e.arrives())}
	}
	direct := wire.ListenerName(t.host, t.port)
	if t.scheme != "http" {
		return []string{direct}
	}
	u := url.URL{Host: t.request.Authority}
	if named := wire.ListenerName(strings.TrimSuffix(u.Hostname(), "."), t.port); u.Hostname() != "" && named != direct {
		return []string{named, direct}
	}
	return []string{direct}
}

// arrives is the port at which the client's proxy gets what was sent to the request's: a gateway's may be another than its Service's.
func (e *evaluation) arrives() uint16 {
	if e.view.Client.Role != wire.Gateway {
		return e.talk.port
	}
	return model.TargetPort(e.view.Client.Targets, e.talk.port, e.talk.scheme == "udp")
}

// unknown concludes for a destination that the mesh does not have.
func (e *evaluation) unknown(name string) {
	switch {
	case e.view.Client.Role == wire.Gateway && e.talk.scheme == "udp":
		e.refuse(0, "", "the gateway does not listen on port %d of UDP", e.talk.port)
	case e.view.Client.Role == wire.Gateway:
		e.refuse(0, "", "the gateway does not listen on port %d", e.talk.port)
	case e.unresolved() != "":
		e.refuse(0, "", "the name %s does not resolve for this workload: %s", e.talk.host, e.unresolved())
	case e.unknownGoes() == wire.BlackHoleCluster:
		e.refuse(502, "NR", "the mesh does not know %s, and destinations that it does not know are refused (REGISTRY_ONLY)%s", name, e.unruled(name))
	case e.unknownGoes() != wire.PassthroughCluster:
		e.report.Outcome = "pass through"
		e.report.Summary = fmt.Sprintf("the mesh does not know %s: the connection is passed on to %s, as the client's Sidecar says", name, e.unknownGoes())
	default:
		e.report.Outcome = "pass through"
		e.report.Summary = fmt.Sprintf("the mesh does not know %s: the connection is passed through as it is%s", name, e.unruled(name))
		e.hidden(name)
	}
}

// unruled adds which object names the destination and has no rule for the client there.
func (e *evaluation) unruled(name string) string {
	host, port, err := wire.SplitListenerName(name)
	if err != nil || e.view.Unruled == nil {
		return ""
	}
	if by := e.view.Unruled(host, port); by != "" {
		return "; " + by + " names the host, and none of its rules is for this client at this port"
	}
	return ""
}

// unresolved says why a name of the mesh gives the client no address: where the mesh alone knows the addresses, what is hidden from a
// client has none.
func (e *evaluation) unresolved() string {
	if !e.view.Virtual || e.view.Service == nil || e.view.Hidden == nil {
		return ""
	}
	s := e.view.Service(e.talk.host)
	if s == nil || s.External || s.ExternalName != "" {
		return "" // somebody else may know the name
	}
	return e.view.Hidden(s)
}

// hidden concludes for a service of the mesh that has no such port, or that the client's Sidecar hides at this port: the name leads to
// the service's address nonetheless.
func (e *evaluation) hidden(name string) {
	if e.view.Service == nil {
		return
	}
	s := e.view.Service(e.talk.host)
	if s == nil || s.External || s.Headless || s.ExternalName != "" {
		return
	}
	var ports []string
	for _, p := range s.Ports {
		if ports = append(ports, strconv.Itoa(int(p.Number))); p.Number == e.talk.port && !e.view.Virtual {
			e.report.Summary = fmt.Sprintf("the client's Sidecar hides %s: the connection is passed through as it is, to the address of the service", name)
			return
		} else if p.Number == e.talk.port {
			e.nothing("the client's Sidecar hides %s: the address of the service leads nowhere without it", name)
			return
		}
	}
	e.nothing("%s is a service of the mesh, and nothing listens on its port %d: it has %s", s.Host, e.talk.port, cmp.Or(strings.Join(ports, ", "), "none"))
}

// nothing ends the evaluation where no connection comes about.
func (e *evaluation) nothing(format string, args ...any) {
	status := http.StatusServiceUnavailable
	if e.talk.scheme != "http" {
		status = 0
	}
	e.refuse(status, "UF", format, args...)
}

// unknownGoes is the cluster for destinations that the mesh does not have.
func (e *evaluation) unknownGoes() string {
	ln, found, err := get[*conf.Listener](&e.view.Client, decode.ListenerType, wire.OutboundListener)
	switch {
	case err != nil:
		e.problem("%s: %s", wire.OutboundListener, err)
	case found && ln.Default != nil && ln.Default.TCP != nil && len(ln.Default.TCP.Clusters) > 0:
		return ln.Default.TCP.Clusters[0].Cluster
	case e.view.RegistryOnly:
		return wire.BlackHoleCluster
	}
	return wire.PassthroughCluster
}

// conn describes the connection to the client's proxy.
func (e *evaluation) conn() *route.ConnInfo {
	c := &route.ConnInfo{Source: e.view.Client.Address, Transport: conf.RawTransport}
	a, _ := netip.ParseAddr(e.talk.host)
	c.Destination = netip.AddrPortFrom(a, e.arrives())
	switch e.talk.scheme {
	case "https":
		c.Transport, c.ServerName, c.ALPN = conf.TLSTransport, e.talk.named, []string{"http/1.1"}
	case "http":
		c.ALPN = []string{"http/1.1"}
	}
	return c
}

// http routes the request.
func (e *evaluation) http(ln *conf.Listener, h *conf.HTTP) {
	e.report.Protocol, e.discreet = "http", h.Discreet
	if h.GRPCWeb {
		grpcweb.Enter(e.talk.request)
	}
	p, elsewhere, ok := route.Canonical(h, e.talk.request.Path)
	if !ok {
		e.refuse(400, "DPE", "the path leads out of the root, or has escaped slashes, which are refused")
		return
	}
	if e.talk.request.Path = p; elsewhere {
		e.refuse(307, "", "the path has escaped slashes: the client is sent to %s", p)
		return
	}
	if e.table = e.routes(ln, h); e.table == nil {
		return
	}
	res, tried := e.find()
	e.host = res.Host
	e.shares(res)
	switch {
	case !e.permitted(h):
	case res.Host == nil:
		e.refuse(404, "NR", "no virtual host of %s has the authority %q", e.table.Name, e.talk.request.Authority)
	case res.Route == nil:
		e.refuse(404, "NR", "none of the %d routes matches", tried)
	default:
		e.report.Limits = e.limits(h, res.Route, e.talk.request, e.view.Client.Address)
		e.chosen(res.Route, h)
	}
}

// permitted asks the policies of the client's own proxy; only gateways have any. They come before the route, or that there is none.
func (e *evaluation) permitted(h *conf.HTTP) bool {
	if len(h.RBAC) == 0 {
		return true
	}
	v := verdict(h.RBAC, &authz.Input{Request: e.talk.request, Port: e.arrives(), SNI: e.conn().ServerName})
	if e.report.Policy = &v; !v.Allowed {
		e.refuse(403, "", "refused by %s: %s", e.report.From.Workload, v.text())
	}
	return v.Allowed
}

// shares reports what becomes of the share of such requests that other routes take.
func (e *evaluation) shares(res route.Result) {
	for _, s := range route.Before(res, e.drawn()) {
		p := Portion{Share: s.Of, Route: s.Route.Name}
		if s.Route.Direct != nil {
			p.Status = s.Route.Direct.Status
		}
		e.report.Before, e.lost = append(e.report.Before, p), e.lost+s.Of
	}
}

func (e *evaluation) drawn() *route.Request {
	return &route.Request{Request: e.talk.request, Random: lastDraw, GRPC: grpc.Typed(e.talk.request)}
}

// find finds the route and reports which were tried.
func (e *evaluation) find() (res route.Result, tried int) {
	e.report.RouteTable = e.table.Name
	r := e.drawn()
	if e.brief {
		if res = route.Find(e.table, r); res.Host != nil {
			tried = len(res.Host.Routes)
		}
		return res, tried
	}
	res, trace := route.FindTrace(e.table, r)
	e.report.Domain = trace.Domain
	for _, a := range trace.Attempts {
		e.report.Tried = append(e.report.Tried, Try{Name: a.Route.Name, Object: a.Route.Object, Field: a.Route.Field,
			Matched: a.Matched, Condition: a.Condition, Want: a.Want, Got: a.Got})
	}
	return res, len(trace.Attempts)
}

func (e *evaluation) routes(ln *conf.Listener, h *conf.HTTP) *conf.RouteTable {
	if h.Routes != nil {
		return h.Routes
	}
	t, found, err := get[*conf.RouteTable](&e.view.Client, decode.RoutesType, h.RouteName)
	switch {
	case err != nil:
		e.problem("the proxy refuses its configuration: %v", err)
		e.refuse(503, "", "there is no valid route table for %s", ln.Name)
	case !found:
		e.refuse(404, "NR", "the route table %s does not exist", h.RouteName)
	default:
		return t
	}
	return nil
}

// chosen describes the route and follows it.
func (e *evaluation) chosen(rt *conf.Route, h *conf.HTTP) {
	r := &Route{Name: rt.Name, Object: rt.Object, Field: rt.Field, Conf: rt}
	e.report.Route, e.route = r, rt
	for _, c := range e.changes(nil) {
		r.Changes = append(r.Changes, headerChanges("", *c)...)
	}
	for _, c := range e.responseChanges(nil) {
		r.Changes = append(r.Changes, headerChanges("response ", *c)...)
	}
	if h.Fault && rt.Fault != nil {
		e.fault = rt.Fault
		r.Fault = describeFault(rt.Fault)
	}
	if h.CORS && e.crossOrigin(rt) {
		return
	}
	switch {
	case rt.Redirect != nil:
		e.report.Outcome, e.report.Status = "redirect", rt.Redirect.Status
		e.report.Location = e.location(rt)
		e.report.Summary = fmt.Sprintf("redirected with %d to %s", rt.Redirect.Status, e.report.Location)
	case rt.Direct != nil:
		e.report.Outcome, e.report.Status = "respond", rt.Direct.Status
		e.report.Summary = fmt.Sprintf("answered with %d by the route itself", rt.Direct.Status)
	default:
		f := rt.Forward
		e.report.Outcome = "forward"
		w := retry.Wanting(f.Retry, e.talk.request, !e.report.From.Gateway)
		e.retries = w.Policy
		if r.Timeout, r.Retries = duration(f.Timeout), describeRetry(w.Policy); w.Timed {
			r.Timeout = duration(w.Timeout) + " (asked for)"
		}
		r.Changes = append(r.Changes, rewrites(f)...)
		if f.PrefixRewrite != "" || f.RegexRewrite != nil {
			r.path = e.forwarded().Path
		}
		if s := rt.Session; s != nil && h.Sessions {
			r.Changes = append(r.Changes, session(s))
		}
		for _, m := range f.Mirrors {
			r.Mirrors = append(r.Mirrors, fmt.Sprintf("%s of requests to %s", share(float64(m.Fraction)/1e6), m.Cluster))
		}
		e.destinations(f.Clusters, f.TotalWeight)
	}
}

// crossOrigin tells what the route's policy makes of a page's request; true when the proxy answers it.
func (e *evaluation) crossOrigin(rt *conf.Route) bool {
	switch cors.Decide(rt.CORS, e.talk.request, lastDraw) {
	case cors.Actual:
		e.report.Route.Changes = append(e.report.Route.Changes, "response marked for the origin (CORS)")
	case cors.Preflight:
		e.report.Outcome, e.report.Status = "respond", http.StatusOK
		e.report.Summary = "the origin's preflight is answered by the route's CORS policy: permitted"
		return true
	case cors.Unmatched:
		e.report.Outcome, e.report.Status = "respond", http.StatusOK
		e.report.Summary = "the preflight is answered by the route's CORS policy: not permitted, for the origin is not allowed"
		return true
	}
	return false
}

// session says how clients are kept at their endpoints.
func session(s *conf.Session) string {
	if s.Header != "" {
		return "client kept at its endpoint by header " + s.Header
	}
	if s.TTL > 0 {
		return "client kept at its endpoint by cookie " + s.Cookie + " for " + s.TTL.String()
	}
	return "client kept at its endpoint by cookie " + s.Cookie
}

// destinations looks at each cluster of a split.
func (e *evaluation) destinations(clusters []conf.WeightedCluster, total uint32) {
	for i := range clusters {
		w := &clusters[i]
		d := Destination{Cluster: w.Cluster, Share: 1}
		if total > 0 && len(clusters) > 1 {
			d.Share = float64(w.Weight) / float64(total)
		}
		d.Share *= 1 - e.lost
		d.Changes = append(headerChanges("", w.HeaderChange), headerChanges("response ", w.Response)...)
		e.split = w
		if e.route != nil && e.route.Forward != nil {
			d.Sent = sent(e.forwarded())
		}
		e.destination(&d)
		e.report.Destinations = append(e.report.Destinations, d)
	}
}

// named gives the service of a cluster's host, if the client may know it.
func (e *evaluation) named(host string) *model.Service {
	if e.view.Service == nil {
		return nil
	}
	s := e.view.Service(host)
	if s != nil && e.view.Hidden != nil && e.view.Hidden(s) != "" {
		return nil
	}
	return s
}

func (e *evaluation) destination(d *Destination) {
	_, d.Port, d.Subset, d.Service, _ = wire.ParseCluster(d.Cluster)
	c, found, err := get[*conf.Cluster](&e.view.Client, decode.ClusterType, d.Cluster)
	if err != nil {
		e.problem("the proxy refuses its configuration: %v", err)
	}
	if err != nil || !found {
		d.Missing = true
		if s := e.named(d.Service); err == nil && s != nil {
			d.noPort = s.Port(d.Port) == nil
		}
		return
	}
	d.Policy, d.panic, d.Conf = balancings[c.Policy], c.PanicThreshold > 0, c
	if e.talk.scheme == "http" && (c.Speaks == conf.HTTP2 || c.Speaks == conf.AsClient && e.talk.request.Proto == message.HTTP2) {
		d.HTTP = message.HTTP2.String()
	}
	if d.Dynamic = c.Discovery == conf.OriginalDst || c.Discovery == conf.ByHost; d.Dynamic {
		d.Policy, d.Transport, d.MTLS = "", "what the client speaks", false
		if t := transportOf(c, &conf.Endpoint{}); t != nil {
			d.Transport, d.MTLS = transportText(c, t), t.Workload
		}
		return
	}
	localities := c.Localities
	if c.Discovery == conf.EDS {
		a, _, err := get[*conf.Assignment](&e.view.Client, decode.EndpointsType, c.EndpointsName)
		if err != nil {
			e.problem("the proxy refuses its configuration: %v", err)
		} else if a != nil {
			localities = a.Localities
		}
	}
	var out map[Ejected]string
	if c.Outlier != nil && e.view.Ejected != nil {
		out = e.view.Ejected()
	}
	list := e.endpoints(d, c, without(localities, c, out), out)
	d.Ejects = c.Outlier != nil && out == nil && len(list) > 0
	switch {
	case len(list) == 0:
	case e.talk.scheme == "udp":
		d.Transport = "datagrams as they came, past the sidecar"
	default:
		e.ways(d, c, list)
	}
}

// without gives endpoints as they are balanced while some are ejected, which is as if they were not healthy.
func without(localities []conf.Locality, c *conf.Cluster, out map[Ejected]string) []conf.Locality {
	if len(out) == 0 {
		return localities
	}
	localities = slices.Clone(localities)
	for i := range localities {
		l := &localities[i]
		l.Endpoints = slices.Clone(l.Endpoints)
		for j, ep := range l.Endpoints {
			if _, is := out[ejectedOf(c, ep)]; is && ep.Healthy {
				unfit := *ep
				unfit.Healthy = false
				l.Endpoints[j] = &unfit
			}
		}
	}
	return localities
}

func ejectedOf(c *conf.Cluster, ep *conf.Endpoint) Ejected {
	return Ejected{c.Name, wire.EndpointName(ep.Address, ep.Port)}
}

// endpoints lists them, and gives them as the proxy has them, with those that it ejected and why.
func (e *evaluation) endpoints(d *Destination, c *conf.Cluster, localities []conf.Locality, out map[Ejected]string) (list []*conf.Endpoint) {
	at := *c
	at.Localities = localities
	shares := balance.New(&at, nil, balance.Options{}).Shares()
	for _, l := range localities {
		for _, ep := range l.Endpoints {
			state := "not ready"
			switch _, err := netip.ParseAddr(ep.Address); {
			case ep.Healthy && err != nil && (c.Discovery == conf.StrictDNS || c.Discovery == conf.LogicalDNS):
				state = LookedUp
				d.Ready++
				d.named++
			case ep.Healthy:
				state = "ready"
				d.Ready++
			case ep.Draining:
				state = "draining"
			}
			why, is := out[ejectedOf(c, ep)]
			if is {
				state = "ejected"
			}
			d.Endpoints = append(d.Endpoints, Endpoint{Address: wire.EndpointName(ep.Address, ep.Port), Workload: ep.Workload,
				Instance: ep.Instance, State: state, Why: why, Mesh: ep.TLSMode != "",
				Priority: l.Priority, Locality: localityName(&l), Share: shares[len(d.Endpoints)]})
			list = append(list, ep)
		}
	}
	return list
}
