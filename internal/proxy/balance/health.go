package balance

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// state is what requests and health checks have shown of a host. It is shared by the versions of its cluster.
type state struct {
	active atomic.Int64 // requests on their way

	// suspect is not zero after a failure to connect: the time, in Unix nanoseconds, from which one request may try again.
	// Success clears it.
	suspect atomic.Int64
	strikes atomic.Int32 // failures to connect in a row

	failing atomic.Bool // active health checks say so

	ejected   atomic.Int64  // Unix nanoseconds until which outlier detection keeps the host out; 0: it does not
	cause     atomic.Uint32 // a cause
	ejections atomic.Int32  // how often it did, less one for each interval of good conduct

	errors5xx, errorsGateway, errorsLocal atomic.Uint32 // in a row
	external, local                       score

	latency  atomic.Uint64 // recent, float64 bits of nanoseconds
	observed atomic.Int64  // when, in Unix nanoseconds
	since    atomic.Int64  // Unix nanoseconds at which a slow start began; 0 for none

	last atomic.Pointer[Failure]
}

// score counts the results of an interval.
type score struct{ good, all atomic.Uint32 }

// Failure is the last thing that went wrong on a host.
type Failure struct {
	At   time.Time
	Text string
}

// Outcome is how an attempt on a host ended.
type Outcome uint8

// The outcomes.
const (
	// Answered is any response below 500, or none of those that are named as errors; the next two are for others.
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
func (c *Cluster) OutcomeOf(status int) Outcome {
	if codes := c.conf.ErrorCodes; len(codes) > 0 {
		if _, bad := slices.BinarySearch(codes, status); !bad {
			return Answered
		}
		status = max(status, 500)
	}
	switch {
	case status < 500:
		return Answered
	case status >= 502 && status <= 504:
		return GatewayError
	}
	return ServerError
}

// standing is how far a host may be used.
type standing uint8

const (
	sound standing = iota
	degraded
	suspected // it could not be connected to lately
	ejected
	down
)

func (h *Host) standing() standing {
	switch {
	case !h.Endpoint.Healthy || h.failing.Load():
		return down
	case h.ejected.Load() != 0:
		return ejected
	case h.suspect.Load() != 0:
		return suspected
	case h.Endpoint.Degraded:
		return degraded
	}
	return sound
}

// How long a host that refused a connection is left alone before one request tries it again.
const (
	firstProbe = time.Second
	lastProbe  = 10 * time.Second
)

// trial reports whether a suspect may be tried: when its time has come, by one caller.
func (s *state) trial(now int64) bool {
	at := s.suspect.Load()
	return at == 0 || now >= at && s.suspect.CompareAndSwap(at, now+int64(s.probeAfter()))
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

// Healthy reports whether the host is thought fit for requests, Ejected whether outlier detection keeps it out.
func (h *Host) Healthy() bool {
	st := h.standing()
	return (st == sound || st == degraded) && !h.Endpoint.Draining
}

// Ejected reports whether outlier detection keeps the host out.
func (h *Host) Ejected() bool { return h.standing() == ejected }

// Failing reports whether health checks find the host unfit.
func (h *Host) Failing() bool { return h.failing.Load() }

// Ejections counts those of outlier detection.
func (c *Cluster) Ejections() int64 { return c.shared.ejections.Load() }

// Condition says in words whether the host is used now.
func (h *Host) Condition() string {
	switch st := h.standing(); {
	case h.Endpoint.Draining:
		return "draining"
	case st == down && h.failing.Load():
		return "failing its health checks"
	case st == ejected:
		return "ejected (" + cause(h.cause.Load()).String() + ")"
	default:
		return [...]string{"healthy", "degraded", "unreachable", "", "unhealthy"}[st]
	}
}

// Report tells how an attempt on h ended; err says what failed, for outcomes without a response. took is the time until the
// response began, 0 where that is not known.
func (c *Cluster) Report(h *Host, o Outcome, took time.Duration, err error) {
	if err != nil {
		h.last.Store(&Failure{At: c.opt.Now(), Text: err.Error()})
	}
	if o == ConnectFailed {
		c.suspect(h)
	} else {
		c.Reached(h)
	}
	if p := c.conf.Policy; (p == conf.PeakEWMA || p == conf.Probing) && (took > 0 || o != Answered) {
		c.observe(h, o, took)
	}
	if out := c.conf.Outlier; out != nil {
		c.detect(h, o, out)
	}
}

// Reached tells that h took a connection. Of relayed connections and datagrams, which end with no outcome to report, it is all that
// clears a host of having been out of reach.
func (c *Cluster) Reached(h *Host) {
	if h.suspect.Load() == 0 {
		return
	}
	h.strikes.Store(0)
	h.suspect.Store(0)
	c.shared.changes.Add(1)
}

// suspect leaves a host alone that could not be reached.
func (c *Cluster) suspect(h *Host) {
	h.strikes.Add(1)
	due := c.opt.Now().UnixNano() + int64(h.probeAfter())
	if h.suspect.Swap(due) == 0 {
		c.shared.changes.Add(1)
	}
	if next := c.shared.nextProbe.Load(); next == 0 || due < next || next < due-int64(lastProbe) {
		c.shared.nextProbe.Store(due)
	}
}

// Check takes the verdict of active health checks. A host that recovers starts slowly if the cluster wants that.
func (c *Cluster) Check(h *Host, well bool, err error) {
	if err != nil {
		h.last.Store(&Failure{At: c.opt.Now(), Text: err.Error()})
	}
	if h.failing.Swap(!well) == !well {
		return
	}
	if well {
		h.strikes.Store(0)
		h.suspect.Store(0)
		c.warm(h, c.opt.Now())
	}
	c.shared.changes.Add(1)
}
