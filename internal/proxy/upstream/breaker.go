package upstream

import (
	"fmt"
	"math"
	"strings"
	"sync/atomic"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// Breaker counts what the requests of one priority have in use of a cluster, and refuses what is over its limits. It outlives the cluster's versions.
type Breaker struct {
	connections, pending, requests, retries gauge

	budget atomic.Pointer[conf.RetryBudget] // nil for none
}

// gauge is a count with a limit.
type gauge struct{ now, limit atomic.Int64 }

func (g *gauge) take() bool {
	if g.now.Add(1) <= g.limit.Load() {
		return true
	}
	g.now.Add(-1)
	return false
}

func (g *gauge) force() { g.now.Add(1) }
func (g *gauge) give()  { g.now.Add(-1) }
func (g *gauge) set(n uint32) {
	if n == 0 {
		g.limit.Store(math.MaxInt64)
		return
	}
	g.limit.Store(int64(n))
}

// NewBreaker makes a breaker of a cluster.
func NewBreaker(l *conf.Limits) *Breaker {
	b := &Breaker{}
	b.Update(l)
	return b
}

// Update takes the limits of a new version; what is in use stays counted.
func (b *Breaker) Update(l *conf.Limits) {
	b.connections.set(l.MaxConnections)
	b.pending.set(l.MaxPending)
	b.requests.set(l.MaxRequests)
	b.retries.set(l.MaxRetries)
	b.budget.Store(l.RetryBudget)
}

// Connection reports whether one more connection may be made outside pools; ConnectionDone follows it if so.
func (b *Breaker) Connection() bool { return b.connections.take() }

// ConnectionDone ends what Connection allowed.
func (b *Breaker) ConnectionDone() { b.connections.give() }

// Request reports whether one more request may be made; RequestDone follows it if so.
func (b *Breaker) Request() bool { return b.requests.take() }

// RequestDone ends what Request allowed.
func (b *Breaker) RequestDone() { b.requests.give() }

// Retry reports whether one more retry may run; RetryDone follows it if so.
func (b *Breaker) Retry() bool {
	t := b.budget.Load()
	if t == nil {
		return b.retries.take()
	}
	// Source: envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget.
	if b.retries.now.Add(1) <= max(int64(t.Share*float64(b.requests.now.Load()+b.pending.now.Load())), int64(t.Min)) {
		return true
	}
	b.retries.now.Add(-1)
	return false
}

// RetryDone ends what Retry allowed.
func (b *Breaker) RetryDone() { b.retries.give() }

// full tells of each limit that a caller may have met how much of it is in use.
func (b *Breaker) full() string {
	var told []string
	for _, l := range [...]struct {
		of string
		g  *gauge
	}{{"connections", &b.connections}, {"waiting requests", &b.pending}} {
		if most := l.g.limit.Load(); most != math.MaxInt64 {
			told = append(told, fmt.Sprintf("%d of %d %s", l.g.now.Load(), most, l.of))
		}
	}
	return strings.Join(told, ", ")
}

// InUse are the present counts, for dumps.
func (b *Breaker) InUse() (connections, pending, requests, retries int64) {
	return b.connections.now.Load(), b.pending.now.Load(), b.requests.now.Load(), b.retries.now.Load()
}
