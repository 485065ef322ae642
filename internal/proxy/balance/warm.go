package balance

import (
	"math"
	"time"
)

// warm lets a host start slowly from now on, if the cluster wants that.
func (c *Cluster) warm(h *Host, now time.Time) {
	s := c.conf.SlowStart
	if s == nil {
		return
	}
	h.since.Store(now.UnixNano())
	if end := now.Add(s.Window).UnixNano(); end > c.shared.warmUntil.Load() {
		c.shared.warmUntil.Store(end)
	}
}

// Source of the curve: Envoy's documentation of slow start.
func (c *Cluster) warmth(h *Host, now int64) float64 {
	since := h.since.Load()
	if since == 0 || c.conf.SlowStart == nil {
		return 1
	}
	s := c.conf.SlowStart
	part := float64(now-since) / float64(s.Window)
	if part >= 1 {
		h.since.CompareAndSwap(since, 0)
		return 1
	}
	part = max(part, float64(time.Second)/float64(max(s.Window, time.Second))) // counted from the first second
	return max(s.MinWeight, math.Pow(part, 1/s.Aggression))
}

// patience bounds how often hosts that start slowly are turned down.
const patience = 32

// patiently draws until the warmth of the host drawn accepts it.
func (c *Cluster) patiently(draw func() *Host) *Host {
	now := c.opt.Now().UnixNano()
	if end := c.shared.warmUntil.Load(); now >= end {
		c.shared.warmUntil.CompareAndSwap(end, 0)
		return draw()
	}
	h := draw()
	for range patience {
		w := c.warmth(h, now)
		if w >= 1 || float64(c.opt.Rand()>>11)/(1<<53) < w {
			return h
		}
		h = draw()
	}
	return h
}
