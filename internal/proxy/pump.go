package proxy

import (
	"errors"
	"time"

	"github.com/weftmesh/weft/internal/proxy/relay"
)

// pump sends a request's body while the response is awaited. Its goroutine uses the reading half of the client's connection
// and the writing half of the endpoint's; the exchange keeps to the other halves until stop has returned.
type pump struct {
	done chan struct{}
	n    int64 // valid after done
	err  error
}

func startPump(x *exchange) *pump {
	p := &pump{done: make(chan struct{})}
	call, down, messages := x.call, x.down, x.counting(&x.asked)
	go func() { // ends with the body, or by stop
		defer close(p.done)
		p.n, p.err = relay.CopyMessages(call, down, relay.Downstream, messages)
		var e *relay.Error
		if errors.As(p.err, &e) && e.Side == relay.Downstream {
			call.Cut() // the endpoint must not take the cut-off body for a whole one, nor wait for the rest
		}
	}()
	return p
}

// settleTime is how long a pump may take to notice that it has sent everything.
const settleTime = 250 * time.Millisecond

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
func (p *pump) stop(x *exchange) {
	select {
	case <-p.done:
		return
	default:
	}
	x.call.Cut()
	x.down.SetReadDeadline(longAgo)
	<-p.done
	x.down.SetReadDeadline(time.Time{})
}
