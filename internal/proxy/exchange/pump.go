package exchange

import (
	"errors"
	"os"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/relay"
)

// pump sends a request's body while the response is awaited. Its goroutine uses the reading half of the client's connection
// and the writing half of the endpoint's; the exchange keeps to the other halves until stop has returned.
type pump struct {
	done  chan struct{}
	n     int64 // valid after done, as the next ones
	err   error
	kept  keeper
	small bool // its declared length can be kept; set once
	// stood is set when the body stood still for too long.
	stood bool

	down     reading
	stopping atomic.Bool
}

// SetReadDeadline sets that of the client, unless stop interrupts its reading.
func (p *pump) SetReadDeadline(t time.Time) error {
	err := p.down.SetReadDeadline(t)
	if p.stopping.Load() {
		return p.down.SetReadDeadline(conn.LongAgo)
	}
	return err
}

// keeper is a call's writing half that keeps what passes, up to maxReplay, so that it can be sent again.
type keeper struct {
	relay.Sink
	held *[]byte // nil when nothing is to be kept, or it was too much
	much atomic.Bool
	any  atomic.Bool // something of the body came
	n    int
}

// WriteBody implements relay.Sink.
func (k *keeper) WriteBody(p []byte) error {
	if !k.any.Load() {
		k.any.Store(true)
	}
	if k.held != nil && k.n+len(p) > MaxReplay {
		k.drop()
		k.much.Store(true)
	}
	if k.held != nil {
		k.n += copy((*k.held)[k.n:], p)
	}
	return k.Sink.WriteBody(p)
}

func (k *keeper) drop() {
	if k.held != nil {
		replayBuffers.Put(k.held)
		k.held = nil
	}
}

// dropped reports whether there was too much to be kept.
func (p *pump) dropped() bool { return p.kept.much.Load() }

// cause is what a pump that has ended failed by.
func (p *pump) cause() error {
	var e *relay.Error
	if errors.As(p.err, &e) {
		return e.Err
	}
	return p.err
}

// whole reports whether the pump has ended and kept all that the client had to send.
func (p *pump) whole() bool {
	select {
	case <-p.done:
		return p.err == nil && p.kept.held != nil
	default:
		return false
	}
}

// resumable reports whether the pump has ended with all kept that it has read, so that another may go on from there. interruptible says
// that an interrupted read has harmed nothing.
func (p *pump) resumable(interruptible bool) bool {
	select {
	case <-p.done:
	default:
		return false
	}
	var e *relay.Error
	if p.kept.held == nil || p.stood || !errors.As(p.err, &e) {
		return false
	}
	return e.Side == relay.Upstream || interruptible && p.stopping.Load() && errors.Is(e.Err, os.ErrDeadlineExceeded)
}

// startPump sends the body, after what an earlier attempt has kept of it.
func startPump(x *Exchange) *pump {
	p := &pump{done: make(chan struct{}), small: x.Req.Body.Kind == message.Sized && x.Req.Body.Length <= MaxReplay}
	p.kept.Sink = x.call
	first := x.body
	if x.partial {
		p.kept.held, p.kept.n = x.held, len(first)
		x.held, x.body, x.partial = nil, nil, false
	} else if rt := x.matched.Route; p.small || rt != nil && rt.Forward.Retry != nil {
		p.kept.held = replayBuffers.Get().(*[]byte)
	}
	call, down, messages, pace := x.call, x.down, x.counting(&x.asked), x.pace(&x.sending, p, x.call)
	p.down = down
	go func() { // ends with the body, or by stop
		defer close(p.done)
		if len(first) > 0 {
			if err := call.WriteBody(first); err != nil {
				p.err = &relay.Error{Side: relay.Upstream, Op: "write", Err: err}
				return
			}
		}
		p.n, p.err = relay.CopyPaced(&p.kept, down, relay.Downstream, messages, pace)
		p.stood = errors.Is(p.err, os.ErrDeadlineExceeded) && !p.stopping.Load()
		var e *relay.Error
		if errors.As(p.err, &e) && (e.Side == relay.Downstream || p.stood) {
			call.Cut() // the endpoint must not take the cut-off body for a whole one, nor wait for the rest
		}
	}()
	return p
}

// settleTime is how long a pump may take to notice that it has sent everything.
const settleTime = 250 * time.Millisecond

// waits reports whether the client has sent nothing yet, and waits to be told that it should.
func (p *pump) waits(x *Exchange) bool { return x.Req.ExpectContinue && !p.kept.any.Load() }

// settle lets a pump come to its end by itself once the response is there: an endpoint that has answered has as a rule taken the
// whole body, and only the pump's goroutine has not run since. Interrupting it then would cost two good connections.
func (p *pump) settle() {
	t := time.NewTimer(settleTime)
	defer t.Stop()
	select {
	case <-p.done:
	case <-t.C:
	}
}

// stop interrupts a pump that runs still and waits for its end.
func (p *pump) stop(x *Exchange) {
	select {
	case <-p.done:
		return
	default:
	}
	x.call.Cut()
	p.stopping.Store(true)
	x.down.SetReadDeadline(conn.LongAgo)
	<-p.done
	x.down.SetReadDeadline(time.Time{})
	x.down.Resume()
}
