package exchange

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/weftmesh/weft/internal/proxy/failure"
	http1 "github.com/weftmesh/weft/internal/proxy/http"
	"github.com/weftmesh/weft/internal/proxy/http2"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/relay"
	"github.com/weftmesh/weft/internal/proxy/side"
)

// MaxReplay bounds the bodies that are read ahead, to be sent again or to a mirror.
const MaxReplay = 64 << 10

var replayBuffers = sync.Pool{New: func() any { b := make([]byte, MaxReplay); return &b }}

// patience is how long a small body that has not all arrived is waited for, before it is sent on as it comes.
const patience = 3 * time.Millisecond

// readAhead reads a small body where it may be needed more than once, or has not arrived yet, as most do a moment after their heads: so
// one write carries the request on, and one that its client cuts off then never reaches an endpoint. What does not come at once follows by
// a pump, so that an endpoint can answer early; a body is awaited whole only where every endpoint is to get it at the same time, or has a
// time to answer in. Of bodies without a declared length it takes those that are all there, as the one message of an ordinary call of gRPC is.
func (x *Exchange) readAhead() bool {
	b, again, whole, most := x.Req.Body, x.atOnce() || x.retries != nil, x.down.BodyWhole(), MaxReplay
	hasty := !whole && !x.atOnce()
	switch {
	case hasty && (x.Req.ExpectContinue || !x.down.Interruptible()):
		return true
	case b.Kind == message.Sized && b.Length > 0 && b.Length <= MaxReplay && (again || !whole):
		most = int(b.Length)
	case b.Kind == message.Chunked && again && whole && x.down.BodyBuffered() < MaxReplay:
	default:
		return true
	}
	if !whole && !x.welcomeBody() {
		return false
	}
	if hasty {
		x.down.SetReadDeadline(time.Now().Add(patience))
		defer x.down.SetReadDeadline(time.Time{})
	}
	x.held = replayBuffers.Get().(*[]byte)
	n := 0
	for err := error(nil); err == nil && (n < most || b.Kind == message.Chunked) && !x.partial; {
		var m int
		m, err = x.down.ReadBody((*x.held)[n:most])
		switch n += m; {
		case hasty && errors.Is(err, os.ErrDeadlineExceeded):
			x.down.Resume()
			x.partial = true
		case err != nil && err != io.EOF:
			return x.clientFailed(err)
		}
	}
	x.body, x.received = (*x.held)[:n], int64(n)
	if x.isGRPC {
		x.asked.See(x.body)
	}
	return true
}

// atOnce reports whether a body is sent when all of it is there: a mirror gets it too, or an attempt has a time of its own.
func (x *Exchange) atOnce() bool {
	return len(x.matched.Route.Forward.Mirrors) > 0 || x.retries != nil && (x.retries.PerTry > 0 || x.retries.PerTryIdle > 0)
}

// welcomeBody tells a client that waits for it to send its body, where no endpoint is asked first.
func (x *Exchange) welcomeBody() bool {
	if !x.Req.ExpectContinue {
		return true
	}
	x.Req.Header.Del("Expect")
	if err := x.goOn(&message.Header{}); err != nil {
		return x.gone("request body", err)
	}
	return true
}

// goOn tells a client that waits for it to send its body, once.
func (x *Exchange) goOn(h *message.Header) error {
	if !x.Req.ExpectContinue {
		return nil
	}
	x.Req.ExpectContinue = false
	return x.down.WriteInformational(100, h)
}

// clientFailed ends the exchange because the request's body did not come as it should.
func (x *Exchange) clientFailed(err error) bool {
	var bad *http1.Error
	if errors.As(err, &bad) {
		x.err = failure.New(failure.Malformed, "request body", bad)
		x.err.Code = bad.Status
		return false
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && !x.expired() {
		return x.fail(failure.Stalled, "request body", failure.ErrStalled)
	}
	return x.gone("request body", err)
}

// send writes the request. A body that is not in memory follows from a goroutine of its own, so that a response may come
// before its end.
func (x *Exchange) send() bool {
	streams := x.streams()
	whole := streams && !x.partial && x.down.BodyWhole()
	if whole && x.retries != nil { // what had not all come for readAhead is here now
		if !x.readAhead() {
			return false
		}
		streams = x.streams()
	}
	if err := x.call.WriteRequest(&x.Req); err != nil {
		switch {
		case errors.Is(err, http1.ErrBadHead), errors.Is(err, http2.ErrBadHead):
			return x.fail(failure.Unwritable, "send", err)
		case errors.Is(err, http2.ErrNoUpgrade):
			return x.fail(failure.RefusedUpgrade, "send", err)
		}
		x.unsent = false
		return x.broken("send", err)
	}
	x.unsent = false
	switch {
	case streams && !whole:
		x.pumping = startPump(x)
		return true
	case streams:
		x.spent = true
		n, err := relay.CopyPaced(x.call, x.down, relay.Downstream, x.counting(&x.asked), x.pace(&x.sending, x.down, x.call))
		x.received += n
		return x.copied(err)
	case x.body != nil:
		if err := x.call.WriteBody(x.body); err != nil {
			return true // as in copied
		}
	}
	if x.Req.Upgrade != "" {
		if err := side.OpenTunnel(x.call, x.call.Shared()); err != nil {
			return x.broken("send", err)
		}
		return true
	}
	if err := x.call.FinishBody(x.down.Trailers()); err != nil && x.body == nil {
		return x.broken("send", err)
	}
	return true
}

// streams reports whether the client's body, or the rest of it, is not in memory.
func (x *Exchange) streams() bool {
	return x.Req.Body.Kind != message.NoBody && (x.body == nil || x.partial) && !x.down.BodyDone()
}

// defaultStall is Envoy's stream idle time-out.
const defaultStall = 5 * time.Minute

// pace prepares the bound on the standstill of a body: the route's, else the listener's, else Envoy's default, from which streams of
// gRPC are free: they are idle by their nature.
func (x *Exchange) pace(p *relay.Pace, from reading, to writing) *relay.Pace {
	*p = relay.Pace{Source: from, Sink: to, Until: x.until}
	if x.http != nil {
		p.Idle = x.http.StreamIdle
	}
	if rt := x.matched.Route; rt != nil && rt.Forward != nil && rt.Forward.IdleTimeout > 0 {
		p.Idle = rt.Forward.IdleTimeout
	}
	if p.Idle == 0 && !x.isGRPC {
		p.Idle = defaultStall
	}
	return p
}

// reading and writing are the halves of a side that a pace concerns.
type (
	reading interface{ SetReadDeadline(time.Time) error }
	writing interface{ SetWriteDeadline(time.Time) error }
)

// copied takes the error of a body's copying. Where the endpoint did not take the body it may have answered early; if not,
// reading will tell.
func (x *Exchange) copied(err error) bool {
	var e *relay.Error
	switch {
	case err == nil:
		return true
	case errors.As(err, &e) && e.Side == relay.Downstream:
		return x.clientFailed(e.Err)
	}
	return true
}
