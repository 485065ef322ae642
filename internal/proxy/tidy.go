package proxy

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// tidyAfter is how long nothing must have happened before memory is given back.
const tidyAfter = 5 * time.Second

// tidy gives memory back whenever a time of work is over: garbage, pooled buffers, and the stacks that goroutines of idle connections
// have grown. The collector would do it by and by, but it has no reason to run in a process that does nothing.
func (p *Proxy) tidy(ctx context.Context) {
	tick := time.NewTicker(tidyAfter)
	defer tick.Stop()
	var pace collectorPace
	for worked := true; ; {
		pace.set()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		switch idle := p.tracker.QuietSince(p.opt.Now().Add(-tidyAfter)); {
		case !idle:
			worked = true
		case worked:
			worked = false
			p.giveBack()
		}
	}
}

// collectorPace lets garbage come to some megabytes before it is collected, as much as it may lie between what is kept: more would
// spare handshakes up to 4 % of their CPU, and leave a quarter more memory behind for each connection. Large heaps keep the default.
type collectorPace struct{ percent int }

const (
	defaultPercent = 100
	minGarbage     = 5 << 20
	leastHeap      = 4 << 20 // that the runtime counts with
	liveBytes      = "/gc/heap/live:bytes"
)

func (p *collectorPace) set() {
	live := []metrics.Sample{{Name: liveBytes}}
	metrics.Read(live)
	kept := max(live[0].Value.Uint64(), leastHeap) // there is none before the first collection
	percent := max(defaultPercent, int(minGarbage*100/kept))
	// Setting it stops the world for a moment: not for small changes.
	if d := percent - p.percent; d > p.percent/4 || -d > p.percent/4 {
		debug.SetGCPercent(percent)
		p.percent = percent
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
