package balance

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// cause is why a host was ejected.
type cause uint32

const (
	by5xx cause = iota
	byGatewayErrors
	byLocalFailures
	bySuccessRate
	byFailurePercentage
	byLocalSuccessRate
	byLocalFailurePercentage
)

// String gives the cause in words.
func (c cause) String() string {
	return [...]string{"server errors in a row", "gateway errors in a row", "connections failed in a row", "success rate below the others'",
		"too large a part of its answers are errors", "connections fail more often than the others'", "too large a part of its connections fail"}[c]
}

// detect counts failures, and ejects for those in a row. Source: Envoy's outlier detection. A local failure counts as a gateway
// error unless the two are told apart.
func (c *Cluster) detect(h *Host, o Outcome, out *conf.Outlier) {
	local := o == ConnectFailed || o == Broken
	if out.SplitLocalOrigin {
		h.local.count(!local)
		if count(&h.errorsLocal, local, out.ConsecutiveLocalOrigin.Count) {
			c.eject(h, byLocalFailures, out.ConsecutiveLocalOrigin.Enforce)
		}
		if local {
			return
		}
	}
	h.external.count(o == Answered)
	if count(&h.errors5xx, o != Answered, out.Consecutive5xx.Count) {
		c.eject(h, by5xx, out.Consecutive5xx.Enforce)
	}
	if count(&h.errorsGateway, local || o == GatewayError, out.ConsecutiveGatewayError.Count) {
		c.eject(h, byGatewayErrors, out.ConsecutiveGatewayError.Enforce)
	}
}

func (s *score) count(good bool) {
	s.all.Add(1)
	if good {
		s.good.Add(1)
	}
}

// count counts a failure and reports whether the threshold (0: none) is reached; a success starts anew.
func count(n *atomic.Uint32, failed bool, threshold uint32) bool {
	if !failed {
		reset(n)
		return false
	}
	if v := n.Add(1); threshold == 0 || v < threshold {
		return false
	}
	n.Store(0)
	return true
}

// reset writes only when it must: the line is shared by all who report.
func reset(n *atomic.Uint32) {
	if n.Load() != 0 {
		n.Store(0)
	}
}

// eject keeps h out for a time that grows with how often that happened, unless too many are out already; one may always go.
// enforce is in how many of a hundred cases.
func (c *Cluster) eject(h *Host, why cause, enforce uint32) {
	if enforce == 0 || enforce < 100 && uint32(c.opt.Rand()%100) >= enforce {
		return
	}
	out, s := c.conf.Outlier, c.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.ejected.Load() != 0 || s.ejected > 0 && (s.ejected+1)*100 > int(out.MaxEjectionPercent)*len(c.hosts) {
		return
	}
	n := h.ejections.Add(1)
	d := min(time.Duration(n)*out.BaseEjection, max(out.MaxEjection, out.BaseEjection))
	if out.EjectionJitter > 0 {
		d += time.Duration(c.opt.Rand() % uint64(out.EjectionJitter))
	}
	h.cause.Store(uint32(why))
	h.ejected.Store(c.opt.Now().Add(d).UnixNano())
	s.ejected++
	s.ejections.Add(1)
	s.changes.Add(1)
}

// Tick does what is due at intervals: it takes ejected hosts back whose time has passed, and compares the hosts' results. The
// cluster's owner calls it a few times a second.
func (c *Cluster) Tick() {
	out := c.conf.Outlier
	if out == nil {
		return
	}
	now := c.opt.Now()
	s := c.shared
	s.mu.Lock()
	due := s.judged.IsZero() || now.Sub(s.judged) >= out.Interval
	first := s.judged.IsZero()
	if due {
		s.judged = now
	}
	s.mu.Unlock()
	if !due || first {
		return
	}
	c.readmit(now)
	if out.SuccessRate.Enforce > 0 || out.FailurePercentage.Enforce > 0 {
		c.compare(func(h *Host) *score { return &h.external }, out.SuccessRate, out.FailurePercentage, bySuccessRate)
	}
	if out.SplitLocalOrigin && (out.LocalSuccessRate.Enforce > 0 || out.LocalFailurePercentage.Enforce > 0) {
		c.compare(func(h *Host) *score { return &h.local }, out.LocalSuccessRate, out.LocalFailurePercentage, byLocalSuccessRate)
	}
	for _, h := range c.hosts {
		for _, n := range []*atomic.Uint32{&h.external.good, &h.external.all, &h.local.good, &h.local.all} {
			reset(n)
		}
	}
}

// readmit takes hosts back; the others are forgiven one ejection.
func (c *Cluster) readmit(now time.Time) {
	s := c.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range c.hosts {
		until := h.ejected.Load()
		switch {
		case until == 0:
			if n := h.ejections.Load(); n > 0 {
				h.ejections.Store(n - 1)
			}
		case now.UnixNano() >= until:
			h.ejected.Store(0)
			for _, n := range []*atomic.Uint32{&h.errors5xx, &h.errorsGateway, &h.errorsLocal} {
				reset(n)
			}
			s.ejected = max(s.ejected-1, 0)
			s.changes.Add(1)
		}
	}
}

// compare ejects hosts whose success rate is far below the average, or whose failures are too large a part. first is the cause
// for the former; the one for the latter follows it.
func (c *Cluster) compare(of func(*Host) *score, rate, failures conf.RateThreshold, first cause) {
	type result struct {
		host *Host
		good float64 // percent
	}
	gather := func(t conf.RateThreshold) (rs []result) {
		for _, h := range c.hosts {
			s := of(h)
			if all := s.all.Load(); all > 0 && all >= t.MinVolume && h.ejected.Load() == 0 {
				rs = append(rs, result{h, 100 * float64(s.good.Load()) / float64(all)})
			}
		}
		if len(rs) < int(t.MinHosts) {
			return nil
		}
		return rs
	}
	if rate.Enforce > 0 {
		rs := gather(rate)
		mean, deviation := 0.0, 0.0
		for _, r := range rs {
			mean += r.good / float64(len(rs))
		}
		for _, r := range rs {
			deviation += (r.good - mean) * (r.good - mean) / float64(len(rs))
		}
		limit := mean - float64(rate.Limit)/1000*math.Sqrt(deviation)
		for _, r := range rs {
			if r.good < limit {
				c.eject(r.host, first, rate.Enforce)
			}
		}
	}
	if failures.Enforce > 0 {
		for _, r := range gather(failures) {
			if 100-r.good >= float64(failures.Limit) {
				c.eject(r.host, first+1, failures.Enforce)
			}
		}
	}
}
