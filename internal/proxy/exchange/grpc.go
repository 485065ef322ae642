package exchange

import (
	"strconv"
	"time"
	"unsafe"

	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/grpc"
)

// meaning is the HTTP status that the response means, which has that code of gRPC; -1 for none.
func (x *Exchange) meaning(code int) int { return grpc.Meaning(code, x.res.Status) }

// grpcStatus gives the status of a trailers-only response, -1 when there is none.
func (x *Exchange) grpcStatus() int { return grpc.StatusOf(&x.res.Header, -1) }

// answerGRPC sends a response without messages: x.res, which may have fields already, with a status of gRPC.
func (x *Exchange) answerGRPC(code int, text string) {
	r := &x.res
	r.Status = 200
	r.Header.Set("Content-Type", grpc.Media)
	r.Header.Set("Grpc-Status", strconv.Itoa(code))
	if text != "" {
		r.Header.Set("Grpc-Message", grpc.PercentEncoded(text))
	}
	x.grpc = grpc.Text(code)
	x.answer(nil)
}

// grpcFailure is the code that tells a client of gRPC about x.err.
func (x *Exchange) grpcFailure() int {
	switch {
	case x.err.Kind == failure.Injected && x.fault.GRPC != 0:
		return x.fault.GRPC
	case (x.err.Kind == failure.OverLimit || x.err.Kind == failure.OverGlobalLimit) && x.limitExhausted:
		return grpc.ResourceExhausted
	case (x.err.Kind == failure.UpstreamTimeout || x.err.Kind == failure.UpstreamReset) && x.limited && x.expired():
		return grpc.DeadlineExceeded // it was the client's own limit, which servers keep by resets
	}
	return grpc.OfHTTP(x.err.Status())
}

// limit ends the exchange no later than the client wants it, where that is one of gRPC.
func (x *Exchange) limit() {
	v, ok := x.Req.Header.Get(grpc.TimeoutHeader)
	if !ok {
		return
	}
	d, ok := grpc.ParseTimeout(v)
	if !ok {
		return // the server will say so
	}
	if f := x.matched.Route.Forward; d > f.GRPCTimeoutOffset {
		if d -= f.GRPCTimeoutOffset; f.MaxGRPCTimeout > 0 {
			d = min(d, f.MaxGRPCTimeout)
		}
	}
	if at := x.Start.Add(d); d < maxLimit && (x.deadline.IsZero() || at.Before(x.deadline)) {
		x.deadline, x.limited = at, true
	}
}

// maxLimit is when a time-out is as good as none, and near what a time cannot hold.
const maxLimit = 10 * 365 * 24 * time.Hour

// attemptHeader tells which attempt a request is, and a response how many there were.
const attemptHeader = "X-Envoy-Attempt-Count"

// announce tells the next hop which attempt it sees, where it wants to know, and how much time is left for this attempt: gRPC's time-out less what has passed, and Envoy's header,
// by which a service can give up in time.
func (x *Exchange) announce(deadline time.Time) {
	if h := x.matched.Host; h != nil && h.AttemptCount {
		x.Req.Header.Set(attemptHeader, strconv.Itoa(x.attempt))
	}
	if deadline.IsZero() {
		return
	}
	left := max(deadline.Sub(x.p.Now()), time.Microsecond)
	if !x.discreet() {
		b := strconv.AppendInt(x.left[:0], max(left.Milliseconds(), 1), 10)
		x.Req.Header.Set("X-Envoy-Expected-Rq-Timeout-Ms", unsafe.String(unsafe.SliceData(b), len(b)))
	}
	if _, ok := x.Req.Header.Get(grpc.TimeoutHeader); ok {
		b := grpc.AppendTimeout(x.leftGRPC[:0], left)
		x.Req.Header.Set(grpc.TimeoutHeader, unsafe.String(unsafe.SliceData(b), len(b)))
	}
}

// discreet reports whether fields of Envoy's that say what was done are left out.
func (x *Exchange) discreet() bool { return x.http != nil && x.http.Discreet }
