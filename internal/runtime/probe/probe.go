// Package probe decides from repeated checks whether a container has started, lives and is ready, with the counting of
// Kubernetes' kubelet. How a check reaches the container is the caller's.
package probe

import (
	"context"
	"time"
)

// Timing is when to check and how many results in a row change the verdict. Check once decoded: every field is positive, but
// InitialDelay may be 0.
type Timing struct {
	InitialDelay     time.Duration
	Period           time.Duration
	Timeout          time.Duration
	FailureThreshold int
	SuccessThreshold int
}

// Check tries once, within the context's deadline; nil is success.
type Check func(ctx context.Context) error

// Probe is a check and its timing.
type Probe struct {
	Timing
	Check Check
}

// Set is a container's probes; nil ones always succeed.
type Set struct {
	Startup, Liveness, Readiness *Probe
}

// Verdict receives what the probes found. Its functions are called from several goroutines.
type Verdict struct {
	// Ready hears each change of readiness, with the last failure when it is lost.
	Ready func(ready bool, why error)
	// Dead hears once that the startup or the liveness probe failed too often: the container must be restarted.
	Dead func(why error)
}

// eager bounds how soon a check that never yet succeeded is repeated. Kubernetes waits a whole period (10 s by default), which
// a user at a terminal feels; the extra checks only look for success, their failures do not count.
const (
	eagerFirst = 20 * time.Millisecond
	eagerLast  = 500 * time.Millisecond
)

// Run probes a container from its start until the context ends.
func Run(ctx context.Context, s Set, v Verdict) {
	if s.Startup != nil && !s.Startup.await(ctx, v.Dead) {
		return
	}
	live := make(chan struct{})
	go func() { // ends with the context, or when the container is dead
		defer close(live)
		if s.Liveness != nil {
			s.Liveness.watch(ctx, v.Dead)
		}
	}()
	if s.Readiness == nil {
		v.Ready(true, nil)
	} else {
		s.Readiness.follow(ctx, v.Ready)
	}
	<-live
}

func (p *Probe) try(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	return p.Check(ctx)
}

// sleep reports whether the context still runs after d.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// first checks until the first success, eagerly between the periods; counted hears the result of each check that a period asks
// for, and false from it ends the wait.
func (p *Probe) first(ctx context.Context, counted func(err error) bool) bool {
	next := time.Now().Add(p.InitialDelay)
	if !sleep(ctx, p.InitialDelay) {
		return false
	}
	for gap := eagerFirst; ; gap = min(2*gap, eagerLast) {
		due := !time.Now().Before(next)
		err := p.try(ctx)
		if ctx.Err() != nil {
			return false
		}
		if err == nil {
			return true
		}
		if due {
			next = next.Add(p.Period)
			if !counted(err) {
				return false
			}
		}
		if !sleep(ctx, max(0, min(gap, time.Until(next)))) {
			return false
		}
	}
}

// await waits for the startup probe's success.
func (p *Probe) await(ctx context.Context, dead func(error)) bool {
	failures := 0
	return p.first(ctx, func(err error) bool {
		if failures++; failures < p.FailureThreshold {
			return true
		}
		dead(err)
		return false
	})
}

// watch is the liveness probe.
func (p *Probe) watch(ctx context.Context, dead func(error)) {
	if !sleep(ctx, p.InitialDelay) {
		return
	}
	for failures := 0; ; {
		err := p.try(ctx)
		if ctx.Err() != nil {
			return
		}
		if failures++; err == nil {
			failures = 0
		}
		if failures >= p.FailureThreshold {
			dead(err)
			return
		}
		if !sleep(ctx, p.Period) {
			return
		}
	}
}

// follow is the readiness probe: not ready at first.
func (p *Probe) follow(ctx context.Context, ready func(bool, error)) {
	if !p.first(ctx, func(err error) bool { ready(false, err); return true }) {
		return
	}
	now, row := false, 1 // row counts results against now
	var err error
	for {
		limit := p.FailureThreshold
		if !now {
			limit = p.SuccessThreshold
		}
		if row >= limit {
			now, row = !now, 0
			ready(now, err)
		}
		if !sleep(ctx, p.Period) {
			return
		}
		if err = p.try(ctx); ctx.Err() != nil {
			return
		}
		if row++; (err == nil) == now {
			row = 0
		}
	}
}
