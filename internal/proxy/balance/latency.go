package balance

import (
	"math"
	"time"
)

// memory is the time constant by which older latencies fade.
const memory = 10 * time.Second

// A failed attempt counts as a slow one, however fast it came: otherwise endpoints that fail at once would attract the load.
const (
	leastPenalty = 50 * time.Millisecond
	mostPenalty  = 10 * time.Second
)

// observe takes the latency of an attempt. Races between observers lose a sample and nothing else.
func (c *Cluster) observe(h *Host, o Outcome, took time.Duration) {
	now := c.opt.Now().UnixNano()
	own := h.latencyAt(now)
	sample := float64(took)
	if o != Answered {
		mean := math.Float64frombits(c.shared.mean.Load())
		sample = min(max(sample, 2*own, 4*mean, float64(leastPenalty)), float64(max(mostPenalty, took)))
	} else {
		c.shared.mean.Store(math.Float64bits(blend(math.Float64frombits(c.shared.mean.Load()), sample, 0.99)))
	}
	if own > 0 && sample < own {
		// Peaks count at once, and are forgotten slowly.
		w := math.Exp(-float64(now-h.observed.Load()) / float64(memory))
		sample = blend(own, sample, min(w, 0.95))
	}
	h.latency.Store(math.Float64bits(sample))
	h.observed.Store(now)
}

func blend(old, sample, weight float64) float64 {
	if old == 0 {
		return sample
	}
	return old*weight + sample*(1-weight)
}

// latencyAt is the latency in nanoseconds, 0 when nothing is known. It fades, so that an endpoint that was slow is tried again.
func (s *state) latencyAt(now int64) float64 {
	l := math.Float64frombits(s.latency.Load())
	if l == 0 {
		return 0
	}
	return l * math.Exp(-float64(now-s.observed.Load())/float64(memory))
}

// cost is what a further request would meet. An endpoint of which nothing is known gets one request, and waits for its answer.
func (h *Host) cost(now int64) float64 {
	active := float64(h.active.Load())
	l := h.latencyAt(now)
	if l == 0 && active > 0 {
		l = float64(mostPenalty)
	}
	return l * (active + 1) / float64(h.weight)
}

// cheaper prefers the host with the lower cost; the first one when equal.
func cheaper(a, b *Host, now int64) *Host {
	if b.cost(now) < a.cost(now) {
		return b
	}
	return a
}

// Probing looks at several endpoints. One is hot when it has far more requests under way than most; of the cold ones the fastest
// is chosen, of hot ones the least loaded. Source: Wydrowski et al., "Load is not what you should balance: Introducing Prequal",
// section 4. Here the signals are this proxy's own, and what most have is the median of those looked at, which is followed in
// small steps.
const (
	probes  = 5
	hotStep = 0.025
)

func (c *Cluster) coldest(l *list) *Host {
	now := c.opt.Now().UnixNano()
	busy := math.Float64frombits(c.shared.busy.Load())
	var best *Host
	var bestHot bool
	var bestLoad, bestLatency float64
	for range probes {
		h := c.lot(l)
		load := float64(h.active.Load())
		if load > busy {
			busy += hotStep
		} else {
			busy -= hotStep
		}
		hot, latency := load > 2*max(busy, 0)+1, h.latencyAt(now)
		better := best == nil || bestHot && !hot || bestHot == hot && (hot && load < bestLoad || !hot && latency < bestLatency)
		if better {
			best, bestHot, bestLoad, bestLatency = h, hot, load, latency
		}
	}
	c.shared.busy.Store(math.Float64bits(max(busy, 0)))
	return best
}
