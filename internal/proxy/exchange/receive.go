package exchange

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/weftmesh/weft/internal/proxy/failure"
	http1 "github.com/weftmesh/weft/internal/proxy/http"
	"github.com/weftmesh/weft/internal/proxy/relay"
)

// receive reads the response's head.
func (x *Exchange) receive() bool {
	var err error
	if x.hedges() {
		err = x.race()
	} else {
		err = x.hear()
	}
	if err != nil {
		return x.unreceived(err)
	}
	now := x.p.Now()
	if x.watching && x.down.Awaited(now) {
		x.watching = false
		return x.gone("receive", errHungUp)
	}
	x.watching = false
	x.upstreamTime = now.Sub(x.Start)
	x.disbelieve()
	if !x.call.Stale() {
		x.learnIdle()
	}
	if code := x.grpcStatus(); !x.isGRPC || code >= 0 || x.res.Status != 200 { // else the trailers will say how it went
		x.cluster.Balancer.Report(x.to.Host, x.cluster.Balancer.OutcomeOf(x.meaning(code)), now.Sub(x.tried), nil)
	}
	x.answering()
	if x.declined(x.res.Status) {
		return x.fail(failure.NotUpgraded, "receive", fmt.Errorf("the endpoint answered %d, not 101, to the upgrade to %s", x.res.Status, x.Req.Upgrade))
	}
	x.err = nil
	return true
}

// declined reports whether a status that does not change the protocol would say to a client that it was changed: any 2xx does to one
// that has asked by extended CONNECT (RFC 9110 section 9.3.6, RFC 8441 section 5).
func (x *Exchange) declined(status int) bool {
	return x.down.Shared() && x.Req.Upgrade != "" && status >= 200 && status < 300
}

// learnIdle takes note of how long the server says that it keeps idle connections ("Keep-Alive: timeout=5", as Node.js and
// Apache send it).
func (x *Exchange) learnIdle() {
	v, ok := x.res.Header.Get("Keep-Alive")
	if !ok {
		return
	}
	if _, v, ok = strings.Cut(v, "timeout="); !ok {
		return
	}
	v, _, _ = strings.Cut(v, ",")
	if n, err := strconv.Atoi(strings.TrimSpace(v)); err == nil && n > 0 && n < 3600 {
		x.pool().Learn(time.Duration(n) * time.Second)
	}
}

var errHungUp = errors.New("the client closed the connection before it was answered")

// hear reads up to the final response's head, passing informational ones on.
func (x *Exchange) hear() error {
	x.watching = x.down.Await(x.call, x.Start, x.pumping != nil)
	for {
		if err := x.call.ReadResponse(&x.res); err != nil {
			return err
		}
		if x.res.Status >= 200 || x.res.Status == 101 {
			return nil
		}
		if err := x.passOn(); err != nil {
			return err
		}
	}
}

// passOn passes an informational response on. A 100 is for a client that waits for it: others have not asked, or know it already.
func (x *Exchange) passOn() error {
	http1.StripHopByHop(&x.res.Header)
	if x.res.Status == 100 {
		return x.goOn(&x.res.Header)
	}
	return x.down.WriteInformational(x.res.Status, &x.res.Header)
}

func (x *Exchange) unreceived(err error) bool {
	if x.watching {
		x.watching = false
		if x.down.Awaited(x.p.Now()) {
			return x.gone("receive", errHungUp)
		}
	}
	if x.down.Left() {
		return x.gone("receive", errHungUp)
	}
	if x.pumping != nil {
		x.pumping.stop(x)
		var e *relay.Error
		if x.pumping.stood && !x.expired() {
			return x.fail(failure.Stalled, "request body", failure.ErrStalled)
		}
		if errors.As(x.pumping.err, &e) && e.Side == relay.Downstream && !errors.Is(e.Err, os.ErrDeadlineExceeded) {
			return x.clientFailed(e.Err)
		}
	}
	return x.broken("receive", err)
}
