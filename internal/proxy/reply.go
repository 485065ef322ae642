package proxy

import (
	"errors"
	"hash/maphash"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/filter/headers"
	"github.com/weftmesh/weft/internal/proxy/filter/rewrite"
	http1 "github.com/weftmesh/weft/internal/proxy/http"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/relay"
)

// reply delivers the upstream's response, or an answer of our own.
func (x *exchange) reply(ok bool) {
	if x.p.closing(x.d.direction) {
		x.down.CloseAfter()
	}
	switch {
	case ok && x.res.Status == 101:
		x.upgrade()
	case ok:
		x.deliver()
	case x.err == nil:
		x.answerByRoute()
	default:
		x.answerError()
	}
	x.end = x.p.opt.Now()
}

// deliver relays the response as it comes.
func (x *exchange) deliver() {
	http1.StripHopByHop(&x.res.Header)
	if x.meshMade() {
		return
	}
	x.dressResponse()
	x.status = x.res.Status
	x.grpc = grpcText(x.grpcStatus())
	if err := x.down.WriteResponse(&x.res); err != nil {
		x.undeliverable(err)
		return
	}
	if x.res.Body.Kind == message.NoBody {
		// The upstream's codec wants its end read, the client's its end written.
		var none [1]byte
		x.call.ReadBody(none[:])
		if err := x.down.FinishBody(nil); err != nil {
			x.fail(clientGone, "reply", err)
		}
		return
	}
	n, err := relay.Copy(x.down, x.call, relay.Upstream)
	x.sent = n
	if err == nil {
		if x.grpc != "" {
			x.grpc = grpcText(grpcOf(x.call.Trailers(), x.grpcStatus()))
		}
		return
	}
	var e *relay.Error
	if errors.As(err, &e) && e.Side == relay.Upstream {
		// The head has gone: that the body is not whole can be said only by breaking off.
		x.broken("response body", e.Err)
		return
	}
	x.fail(clientGone, "response body", err)
}

// Headers between our own proxies: why an answer was made by the mesh, that the workload behind never saw the request, and that
// it saw it and broke off without a byte of an answer.
const (
	reasonHeader     = "X-Weft-Reason"
	unsentHeader     = "X-Weft-Unsent"
	unansweredHeader = "X-Weft-Unanswered"
)

// meshMade takes note of an error answer that another proxy of the mesh has made. To the outside it says no more than ours
// would: then it is answered here, and meshMade reports true.
func (x *exchange) meshMade() bool {
	if x.res.Status < 400 {
		return false
	}
	reason, ok := x.res.Header.Get(reasonHeader)
	if !ok {
		return false
	}
	x.told = strings.Clone(reason)
	x.res.Header.Del(unsentHeader)
	x.res.Header.Del(unansweredHeader)
	if x.d.inMesh() {
		return false
	}
	status := x.res.Status
	x.dropResponse()
	x.res.Reset()
	x.res.Status = status
	x.answer([]byte(publicText(status)))
	return true
}

// publicText is what our own failures of that status say to the outside.
func publicText(status int) string {
	switch status {
	case 403:
		return kinds[denied].public
	case 404:
		return kinds[noRoute].public
	case 504:
		return kinds[upstreamTimeout].public
	case 503:
		return "the service is unavailable"
	}
	return http.StatusText(status)
}

// toldBy reports whether the response is that of a proxy of the mesh, known by mutual TLS, with one of the headers above.
func (x *exchange) toldBy(header string) bool {
	_, ok := x.res.Header.Get(header)
	return ok && x.to.raw.Source != nil
}

// neverSent are the failures of a proxy that has not passed a byte of the request on.
func (e *Error) neverSent() bool {
	switch e.kind {
	case connectFailed, tlsFailed, noHealthy, noCluster, noConfig, overflow:
		return true
	}
	return false
}

// undeliverable is for a response that cannot be written. If that is the response's own fault, another one can.
func (x *exchange) undeliverable(err error) {
	if errors.Is(err, http1.ErrBadHead) {
		x.fail(upstreamMalformed, "reply", err)
		x.answerError()
		return
	}
	x.fail(clientGone, "reply", err)
}

// dressResponse makes the response's head ours: dates, names, and what the route changes.
func (x *exchange) dressResponse() {
	h := &x.res.Header
	if x.http != nil && x.http.ServerName != "" && x.d.direction != inbound {
		h.Set("Server", x.http.ServerName)
	}
	if _, ok := h.Get("Date"); !ok {
		h.Add("Date", x.p.date(x.start))
	}
	if x.upstreamTime >= 0 {
		h.Set("X-Envoy-Upstream-Service-Time", x.number(x.upstreamTime.Milliseconds()))
	}
	if x.matched.Route == nil {
		return
	}
	if x.split != nil {
		x.applyResponse()
	}
}

func (x *exchange) applyResponse() {
	for _, c := range [...]*conf.HeaderChange{&x.matched.Route.Response, &x.matched.Host.Response, &x.table.Response} {
		if len(c.Remove) > 0 || len(c.Set) > 0 || len(c.Add) > 0 {
			headers.Apply(&x.res.Header, c, x.operator)
		}
	}
}

// number writes n into storage that lives as long as the exchange.
func (x *exchange) number(n int64) string {
	b := strconv.AppendInt(x.digits[:0], n, 10)
	return unsafe.String(unsafe.SliceData(b), len(b))
}

// answerByRoute gives the redirect or direct response that the route asks for.
func (x *exchange) answerByRoute() {
	rt := x.matched.Route
	x.res.Reset()
	var body []byte
	switch {
	case rt.Redirect != nil:
		x.res.Status = rt.Redirect.Status
		x.res.Header.Add("Location", rewrite.Location(&x.req, rt.Redirect, &rt.Match, x.d.clientScheme(&x.req)))
	case rt.Direct != nil:
		x.res.Status, body = rt.Direct.Status, rt.Direct.Body
	}
	x.applyResponse()
	x.answer(body)
}

// clientScheme is what the client used towards the outermost proxy.
func (d *downstream) clientScheme(r *message.Request) string {
	if d.direction == gateway {
		return d.scheme()
	}
	if v, ok := r.Header.Get("X-Forwarded-Proto"); ok && v == "https" {
		return v
	}
	return r.Scheme
}

// answerError tells the client what failed: in full within the mesh, in general outside.
func (x *exchange) answerError() {
	x.res.Reset()
	if x.res.Status = x.err.Status(); x.res.Status == 0 {
		return // there is nobody to tell
	}
	text := x.err.public()
	if x.d.inMesh() {
		if x.err.kind != denied && x.err.kind != injected {
			text += ": " + x.err.Error()
		}
		x.res.Header.Add(reasonHeader, oneLine(x.reason()))
		switch {
		case x.d.direction != inbound:
		case x.err.neverSent():
			x.res.Header.Add(unsentHeader, "1")
		case x.err.kind == upstreamClosed && x.call != nil && !x.call.ResponseStarted():
			x.res.Header.Add(unansweredHeader, "1")
		}
	}
	if x.fault.GRPC != 0 && x.err.kind == injected {
		x.res.Header.Add("Content-Type", "application/grpc")
		x.res.Header.Add("Grpc-Status", strconv.Itoa(x.fault.GRPC))
		x.grpc = grpcText(x.fault.GRPC)
		x.answer(nil)
		return
	}
	x.res.Header.Add("Content-Type", "text/plain")
	x.answer([]byte(text))
}

// reason is the failure in plain words, for the log and for callers within the mesh.
func (x *exchange) reason() string {
	switch {
	case x.err == nil && x.told != "":
		return "upstream proxy: " + x.told
	case x.err == nil:
		return ""
	case x.err.kind == denied && x.err.policy != "":
		return "denied by policy " + x.err.policy + ": " + x.err.Error()
	}
	return x.err.Error()
}

// oneLine makes text fit for a header field: it may quote what a client or a server has sent.
func oneLine(s string) string {
	const most = 500
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	return s[:min(len(s), most)]
}

// answer sends x.res with a body of ours.
func (x *exchange) answer(body []byte) {
	r := &x.res
	r.Body = message.Body{Kind: message.Sized, Length: int64(len(body))}
	if x.http != nil && x.http.ServerName != "" {
		r.Header.Set("Server", x.http.ServerName)
	}
	r.Header.Set("Date", x.p.date(x.start))
	if len(body) > 0 {
		if _, ok := r.Header.Get("Content-Type"); !ok {
			r.Header.Add("Content-Type", "text/plain")
		}
	}
	x.status = r.Status
	err := x.down.WriteResponse(r)
	if err == nil {
		if err = x.down.WriteBody(body); err == nil {
			err = x.down.FinishBody(nil)
		}
	}
	if err == nil {
		x.sent = int64(len(body))
	} else if x.err == nil {
		x.fail(clientGone, "reply", err)
	}
}

// refuse answers a request that could not be read, and records it.
func (x *exchange) refuse(bad *http1.Error) {
	x.err = fail(malformed, "request", bad)
	x.err.status = bad.Status
	x.http = x.d.http
	x.answerError()
	x.end = x.p.opt.Now()
	x.record()
}

// upgrade passes a 101 on and relays what follows.
func (x *exchange) upgrade() {
	http1.StripHopByHop(&x.res.Header)
	x.dressResponse()
	x.status = 101
	err := x.down.WriteResponse(&x.res)
	if err == nil {
		err = x.down.FinishBody(nil)
	}
	if err != nil {
		x.fail(clientGone, "upgrade", err)
		return
	}
	x.prepareEntry() // the heads' strings die with the hijacking
	up, err1 := x.call.Hijack()
	down, err2 := x.down.Hijack()
	if err := errors.Join(err1, err2); err != nil {
		x.fail(clientGone, "upgrade", err)
	}
	x.hijacked = true
	idle := time.Duration(0)
	if x.matched.Route != nil {
		idle = x.matched.Route.Forward.IdleTimeout
	}
	if x.timed {
		x.up.SetReadDeadline(time.Time{})
		x.up.SetWriteDeadline(time.Time{})
	}
	n, err := relay.Tunnel(x.p.ctx, down, up, idle)
	x.sent, x.received = n.FromUpstream, n.FromDownstream
	x.tunnelEnded(err)
}

func (x *exchange) tunnelEnded(err error) {
	var e *relay.Error
	switch {
	case err == nil:
	case errors.As(err, &e) && e.Side == relay.Downstream:
		x.fail(clientGone, "tunnel", e.Err)
	case errors.As(err, &e):
		x.fail(upstreamClosed, "tunnel", plainCause(e.Err))
	}
}

// grpcStatus gives the status of a trailers-only response, -1 when there is none.
func (x *exchange) grpcStatus() int { return grpcOf(&x.res.Header, -1) }

func grpcOf(h *message.Header, otherwise int) int {
	if v, ok := h.Get("Grpc-Status"); ok {
		if n, err := strconv.Atoi(v); err == nil && n >= 0 {
			return n
		}
	}
	return otherwise
}

// grpcText gives gRPC's own codes as text that outlives the message, and "other" for any else: it becomes a label.
func grpcText(code int) string {
	switch {
	case code < 0:
		return ""
	case code < len(grpcCodes):
		return grpcCodes[code]
	}
	return "other"
}

var grpcCodes = [...]string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"}

// operator gives the values of Envoy's command operators.
func (x *exchange) operator(name, argument string) (string, bool) {
	switch name {
	case "REQ":
		for name := range strings.SplitSeq(argument, "?") {
			if v, ok := x.req.Lookup(name); ok {
				return v, true
			}
		}
		return "", true
	case "RESP":
		v, _ := x.res.Header.Get(argument)
		return v, true
	case "PROTOCOL":
		return x.req.Proto.String(), true
	case "DOWNSTREAM_REMOTE_ADDRESS":
		return x.d.remote.String(), true
	case "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT":
		return x.d.remote.Addr().String(), true
	case "DOWNSTREAM_LOCAL_ADDRESS":
		return x.d.destination.String(), true
	case "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT":
		return x.d.destination.Addr().String(), true
	case "DOWNSTREAM_LOCAL_PORT":
		return strconv.Itoa(int(x.d.destination.Port())), true
	case "DOWNSTREAM_PEER_URI_SAN":
		return x.d.peerURI, true
	case "REQUESTED_SERVER_NAME":
		return x.d.sni, true
	case "ROUTE_NAME":
		if x.matched.Route != nil {
			return x.matched.Route.Name, true
		}
		return "", true
	case "RESPONSE_CODE":
		return strconv.Itoa(x.res.Status), true
	case "UPSTREAM_HOST":
		if x.up != nil {
			return x.up.Address(), true
		}
		return "", true
	case "HOSTNAME":
		return x.p.opt.Bootstrap.Node.Name, true
	case "START_TIME":
		return x.start.UTC().Format("2006-01-02T15:04:05.000Z"), true
	}
	return "", false
}

var hashSeed = maphash.MakeSeed()

// hash is the key of consistent hashing.
func (x *exchange) hash() (uint64, bool) {
	if x.matched.Route == nil {
		return 0, false
	}
	key, has := uint64(0), false
	mix := func(s string) { key, has = key*31+maphash.String(hashSeed, s), true }
	policies := x.matched.Route.Forward.Hash
	for i := range policies {
		p := &policies[i]
		switch {
		case p.Header != "":
			if v, ok := x.req.Lookup(p.Header); ok {
				mix(v)
			}
		case p.Cookie != "":
			if v := cookie(&x.req.Header, p.Cookie); v != "" {
				mix(v)
			}
		case p.Query != "":
			if v, ok := queryValue(&x.req, p.Query); ok {
				mix(v)
			}
		case p.SourceIP:
			b := x.d.remote.Addr().As16()
			mix(string(b[:]))
		}
		if p.Terminal && has {
			break
		}
	}
	return key, has
}

func cookie(h *message.Header, name string) string {
	for line := range h.Values("Cookie") {
		for pair := range strings.SplitSeq(line, ";") {
			if k, v, ok := strings.Cut(strings.TrimSpace(pair), "="); ok && k == name {
				return v
			}
		}
	}
	return ""
}

func queryValue(r *message.Request, name string) (string, bool) {
	_, query := r.SplitPath()
	for pair := range strings.SplitSeq(query, "&") {
		if k, v, _ := strings.Cut(pair, "="); k == name {
			return v, true
		}
	}
	return "", false
}
