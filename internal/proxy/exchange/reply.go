package exchange

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/downstream"
	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/filter/headers"
	"github.com/weftmesh/weft/internal/proxy/filter/retry"
	"github.com/weftmesh/weft/internal/proxy/grpc"
	http1 "github.com/weftmesh/weft/internal/proxy/http"
	"github.com/weftmesh/weft/internal/proxy/http2"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/relay"
	"github.com/weftmesh/weft/internal/proxy/side"
)

// reply delivers the upstream's response, or an answer of our own.
func (x *Exchange) reply(ok bool) {
	if x.p.Closing(x.d.Direction == downstream.Outbound) {
		x.down.CloseAfter()
	}
	switch {
	case ok && x.res.Status == 101:
		x.upgrade()
	case ok:
		x.deliver()
	case x.err == nil && x.matched.Route == nil:
		x.answerSelf()
	case x.err == nil:
		x.answerByRoute()
	case x.err.Kind == failure.NotTaken:
		x.turnBack()
	default:
		x.answerError()
	}
	x.End = x.p.Now()
}

// turnBack has the client come again on a new connection. Clients repeat by themselves what a closed connection or a refused stream
// has left unanswered, and seldom what was answered.
func (x *Exchange) turnBack() {
	x.down.CloseAfter()
	if x.down.Shared() || retry.Repeatable(&x.Req) {
		x.down.Break(uint32(http2.RefusedStream))
		return
	}
	x.answerError()
}

// deliver relays the response as it comes.
func (x *Exchange) deliver() {
	if x.res.Proto != message.HTTP2 {
		http1.StripHopByHop(&x.res.Header)
	}
	if x.meshMade() {
		return
	}
	if !x.d.InMesh() {
		deletePrefixed(&x.res.Header, MeshPrefix)
	}
	if x.res.Body.Kind == message.Sized && x.res.Proto >= message.HTTP2 {
		x.res.Body = withTrailers(x.res.Body, &x.res.Header)
	}
	x.dressResponse()
	x.status = x.res.Status
	x.grpc = grpc.Text(x.grpcStatus())
	if err := x.down.WriteResponse(&x.res); err != nil {
		x.undeliverable(err)
		return
	}
	if x.res.Body.Kind == message.NoBody {
		// The upstream's codec wants its end read, the client's its end written.
		var none [1]byte
		x.call.ReadBody(none[:])
		if err := x.down.FinishBody(nil); err != nil {
			x.gone("reply", err)
		}
		return
	}
	if !x.atHand() {
		x.watching = x.down.Await(x.call, x.Start, x.pumping != nil)
	}
	n, err := relay.CopyPaced(x.down, x.call, relay.Upstream, x.counting(&x.answered), x.pace(&x.receiving, x.call, x.down))
	x.sent = n
	left := x.watching && x.down.Awaited(x.p.Now())
	x.watching = false
	if err == nil {
		x.ended()
		return
	}
	var e *relay.Error
	if errors.Is(err, os.ErrDeadlineExceeded) && !left && !x.abandoned() && !x.expired() {
		x.fail(failure.Stalled, "response body", failure.ErrStalled)
		x.down.Break(uint32(http2.Cancel))
		return
	}
	if errors.As(err, &e) && e.Side == relay.Upstream && !left && !x.abandoned() {
		// The head has gone: that the body is not whole can be said only by breaking off.
		x.broken("response body", e.Err)
		x.down.Break(side.CodeOf(e.Err))
		return
	}
	x.gone("response body", err)
}

// atHand reports whether the whole body of the response lies in memory.
func (x *Exchange) atHand() bool {
	b := x.res.Body
	return b.Kind == message.Sized && int64(x.call.BodyBuffered()) >= b.Length
}

// abandoned reports whether the client has given the exchange up, which ends the call too.
func (x *Exchange) abandoned() bool {
	if x.down.Left() {
		return true
	}
	if x.pumping == nil {
		return false
	}
	select {
	case <-x.pumping.done:
		var e *relay.Error
		return errors.As(x.pumping.err, &e) && e.Side == relay.Downstream
	default:
		return false
	}
}

// counting gives the counter of messages for bodies that have any.
func (x *Exchange) counting(m *relay.Messages) *relay.Messages {
	if !x.isGRPC {
		return nil
	}
	return m
}

// ended takes note of the status in the trailers of a call of gRPC, by which the endpoint is judged too.
func (x *Exchange) ended() {
	if !x.isGRPC && x.grpc == "" {
		return
	}
	code := grpc.StatusOf(x.call.Trailers(), x.grpcStatus())
	if x.grpc == "" {
		x.cluster.Balancer.Report(x.to.Host, x.cluster.Balancer.OutcomeOf(x.meaning(code)), x.Start.Add(x.upstreamTime).Sub(x.tried), nil)
	}
	x.grpc = grpc.Text(code)
}

// Headers between our own proxies: why an answer was made by the mesh, that the workload behind never saw the request, and that
// it saw it and broke off without a byte of an answer.
const (
	ReasonHeader     = "X-Weft-Reason"
	UnsentHeader     = "X-Weft-Unsent"
	UnansweredHeader = "X-Weft-Unanswered"

	// MeshPrefix begins the names that only proxies of the mesh give to fields of responses.
	MeshPrefix = "X-Weft-"
)

// disbelieve removes what an endpoint that is no proxy of the mesh says in the mesh's name: retries depend on it.
func (x *Exchange) disbelieve() {
	if x.d.Direction == downstream.Inbound || x.to.Raw.Source == nil {
		deletePrefixed(&x.res.Header, MeshPrefix)
	}
}

// deletePrefixed deletes the fields whose names begin with one of the prefixes, in any case.
func deletePrefixed(h *message.Header, prefixes ...string) {
	if !slices.ContainsFunc(prefixes, h.MayBegin) {
		return
	}
	for i := h.Len() - 1; i >= 0; i-- {
		name := h.Name(i)
		for _, p := range prefixes {
			if len(name) >= len(p) && message.EqualFold(name[:len(p)], p) {
				h.Del(name)
				i = min(i, h.Len())
				break
			}
		}
	}
}

// meshMade takes note of an error answer that another proxy of the mesh has made. To the outside it says no more than ours
// would, but for fields that configuration has added, such as what is left of a limit: then it is answered here, and meshMade
// reports true.
func (x *Exchange) meshMade() bool {
	code := x.grpcStatus()
	if x.res.Status < 400 && (!x.isGRPC || code <= 0) {
		return false
	}
	reason, ok := x.res.Header.Get(ReasonHeader)
	if !ok {
		return false
	}
	x.told = strings.Clone(reason)
	x.res.Header.Del(UnsentHeader)
	x.res.Header.Del(UnansweredHeader)
	if x.d.InMesh() {
		return false
	}
	status := x.res.Status
	x.dropResponse()
	x.res = message.Response{Header: x.res.Header}
	deletePrefixed(&x.res.Header, MeshPrefix, "X-Envoy-", "Content-", "Grpc-")
	if x.isGRPC {
		x.answerGRPC(code, failure.PublicText(x.meaning(code)))
		return true
	}
	x.res.Status = status
	x.answer([]byte(failure.PublicText(status)))
	return true
}

// toldBy reports whether the response is that of a proxy of the mesh, known by mutual TLS, with one of the headers above.
func (x *Exchange) toldBy(header string) bool {
	if x.to.Raw.Source == nil {
		return false
	}
	_, ok := x.res.Header.Get(header)
	return ok
}

// undeliverable is for a response that cannot be written. If that is the response's own fault, another one can.
func (x *Exchange) undeliverable(err error) {
	if errors.Is(err, http1.ErrBadHead) {
		x.fail(failure.UpstreamMalformed, "reply", err)
		x.answerError()
		return
	}
	x.gone("reply", err)
}

// dressResponse makes the response's head ours: dates, names, and what the route changes.
func (x *Exchange) dressResponse() {
	h := &x.res.Header
	if x.http != nil && x.http.ServerName != "" && x.d.Direction != downstream.Inbound {
		h.Set("Server", x.http.ServerName)
	}
	if _, ok := h.Get("Date"); !ok {
		h.Add("Date", x.p.date(x.Start))
	}
	if x.upstreamTime >= 0 && !x.discreet() {
		h.Set("X-Envoy-Upstream-Service-Time", x.number(x.upstreamTime.Milliseconds()))
	}
	if x.sticky != "" {
		h.Add("Set-Cookie", x.sticky)
	}
	x.remember()
	if x.matched.Route != nil && x.split != nil {
		x.tellAttempts()
		x.applyResponse()
	}
	x.markOrigin()
	x.markLimits()
	x.advertise()
}

// tellAttempts tells the client how many attempts there were, where the virtual host wants that.
func (x *Exchange) tellAttempts() {
	if x.attempt > 0 && x.matched.Host != nil && x.matched.Host.AttemptCountBack {
		x.res.Header.Set(attemptHeader, strconv.Itoa(x.attempt))
	}
}

func (x *Exchange) applyResponse() {
	changes := [...]*conf.HeaderChange{nil, &x.matched.Route.Response, &x.matched.Host.Response, &x.table.Response}
	if x.split != nil {
		changes[0] = &x.split.Response
	}
	if x.table.SpecificLast {
		slices.Reverse(changes[:])
	}
	for _, c := range changes {
		if c != nil && c.Fields() {
			headers.Apply(&x.res.Header, c, x.operator)
		}
	}
}

// number writes n into storage that lives as long as the exchange.
func (x *Exchange) number(n int64) string {
	b := strconv.AppendInt(x.digits[:0], n, 10)
	return unsafe.String(unsafe.SliceData(b), len(b))
}
