package balance

import (
	"hash/maphash"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// state is what requests have shown of a host. It is shared by the versions of its cluster.
type state struct {
	active atomic.Int64 // requests on their way

	// suspect is not zero after a failure to connect: the time, in Unix nanoseconds, from which one request may try again.
	// Success clears it.
	suspect atomic.Int64
	strikes atomic.Int32 // failures to connect in a row

	ejected   atomic.Int64 // Unix nanoseconds until which outlier detection keeps the host out
	ejections atomic.Int32 // how often it did

	errors5xx, errorsGateway, errorsLocal atomic.Uint32 // in a row

	last   atomic.Pointer[Failure]
	hashed atomic.Uint64
}

// Failure is the last thing that went wrong on a host.
type Failure struct {
	At   time.Time
	Text string
}

// Outcome is how an attempt on a host ended.
type Outcome uint8

// The outcomes.
const (
	// Answered is any response below 500.
	Answered Outcome = iota
	// ServerError is a response of 500 and above other than 502, 503, 504.
	ServerError
	// GatewayError is a response of 502, 503 or 504.
	GatewayError
	// ConnectFailed means that no connection came about.
	ConnectFailed
	// Broken means that the connection failed or timed out before the response was complete.
	Broken
)

// OutcomeOf is the outcome of a response.
func OutcomeOf(status int) Outcome {
	switch {
	case status < 500:
		return Answered
	case status >= 502 && status <= 504:
		return GatewayError
	}
	return ServerError
}

// How long a host that refused a connection is left alone before one request tries it again.
const (
	firstProbe = time.Second
	lastProbe  = 10 * time.Second
)

// trust reports whether the host may be chosen without doubt. A suspect whose time has come is given to one caller.
func (s *state) trust(now int64) bool {
	at := s.suspect.Load()
	if at == 0 {
		return true
	}
	return now >= at && s.suspect.CompareAndSwap(at, now+int64(s.probeAfter()))
}

func (s *state) probeAfter() time.Duration {
	return min(firstProbe<<min(max(s.strikes.Load()-1, 0), 8), lastProbe)
}

// Begin and End bracket a request that uses the host.
func (h *Host) Begin() { h.active.Add(1) }

// End is called once for each Begin.
func (h *Host) End() { h.active.Add(-1) }

// Active is the number of requests on their way.
func (h *Host) Active() int { return int(h.active.Load()) }

// LastFailure gives the last failure, or nil.
func (h *Host) LastFailure() *Failure { return h.last.Load() }

// Condition says in words whether the host is used now.
func (h *Host) Condition(now time.Time) string {
	switch {
	case !h.Endpoint.Healthy:
		return "unhealthy"
	case h.ejected.Load() > now.UnixNano():
		return "ejected"
	case h.suspect.Load() != 0:
		return "unreachable"
	}
	return "healthy"
}

// hash is that of the host's address, the same for a host wherever it is listed. It differs between processes; affinity is a
// matter of one proxy.
func (s *state) hash(e *conf.Endpoint) uint64 {
	if v := s.hashed.Load(); v != 0 {
		return v
	}
	v := maphash.String(seed, e.Address) ^ mix(uint64(e.Port)+1) | 1
	s.hashed.Store(v)
	return v
}

var seed = maphash.MakeSeed()

// Report tells how an attempt on h ended; err says what failed, for outcomes without a response.
func (c *Cluster) Report(h *Host, o Outcome, err error) {
	if err != nil {
		h.last.Store(&Failure{At: c.opt.Now(), Text: err.Error()})
	}
	if o == ConnectFailed {
		h.strikes.Add(1)
		h.suspect.Store(c.opt.Now().UnixNano() + int64(h.probeAfter()))
		c.flagged.Store(true)
	} else if h.suspect.Load() != 0 {
		h.strikes.Store(0)
		h.suspect.Store(0)
	}
	if out := c.conf.Outlier; out != nil {
		c.detect(h, o, out)
	}
}

// detect counts consecutive failures and ejects. Source: Envoy's outlier detection, "consecutive" kinds. A local failure counts
// as a gateway error unless the two are told apart.
func (c *Cluster) detect(h *Host, o Outcome, out *conf.Outlier) {
	local := o == ConnectFailed || o == Broken
	over := false
	if local && out.SplitLocalOrigin {
		over = count(&h.errorsLocal, true, out.ConsecutiveLocalOrigin)
	} else {
		reset(&h.errorsLocal)
		over = count(&h.errors5xx, o != Answered, out.Consecutive5xx)
		over = count(&h.errorsGateway, local || o == GatewayError, out.ConsecutiveGatewayError) || over
	}
	if over {
		c.eject(h, out)
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

// Envoy's defaults of outlier detection.
const (
	baseEjection   = 30 * time.Second
	maxEjection    = 300 * time.Second
	ejectedPercent = 10
)

// eject keeps h out for a time that grows with how often that happened, unless too many are out already; one may always go.
func (c *Cluster) eject(h *Host, out *conf.Outlier) {
	now := c.opt.Now()
	gone := 0
	for _, o := range c.hosts {
		if o.ejected.Load() > now.UnixNano() {
			gone++
		}
	}
	percent := out.MaxEjectionPercent
	if percent == 0 {
		percent = ejectedPercent
	}
	if h.ejected.Load() > now.UnixNano() || gone > 0 && (gone+1)*100 > int(percent)*len(c.hosts) {
		return
	}
	base := out.BaseEjection
	if base == 0 {
		base = baseEjection
	}
	n := h.ejections.Add(1)
	if last := h.ejected.Load(); last != 0 && now.Sub(time.Unix(0, last)) > time.Duration(n)*base {
		h.ejections.Store(1) // it has behaved for long enough since
		n = 1
	}
	h.ejected.Store(now.Add(min(time.Duration(n)*base, max(maxEjection, base))).UnixNano())
	c.flagged.Store(true)
}
