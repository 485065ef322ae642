package proxy

import (
	"context"
	"runtime/debug"
	"time"
)

// tidyAfter is how long nothing must have happened before memory is given back.
const tidyAfter = 5 * time.Second

// tidy gives memory back whenever a time of work is over: garbage, pooled buffers, and the stacks that goroutines of idle connections
// have grown. The collector would do it by and by, but it has no reason to run in a process that does nothing.
func (p *Proxy) tidy(ctx context.Context) {
	tick := time.NewTicker(tidyAfter)
	defer tick.Stop()
	for worked := true; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		switch idle := p.tracker.quietSince(p.opt.Now().Add(-tidyAfter)); {
		case !idle:
			worked = true
		case worked:
			worked = false
			p.giveBack()
		}
	}
}

// collections is how many empty the pools (two, of package sync) and shrink stacks, by half each, from what a request takes.
const collections = 3

func (p *Proxy) giveBack() {
	for range collections {
		debug.FreeOSMemory()
	}
	if err := dropProgram(); err != nil {
		p.log.Debug("pages of the program stay in memory", "error", err)
	}
}

// quietSince reports whether no tracked connection has done anything since then.
func (t *tracker) quietSince(then time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.open {
		if ph, since := c.since(); ph != idle || since.After(then) {
			return false
		}
	}
	return true
}
