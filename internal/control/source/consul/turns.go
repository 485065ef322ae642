package consul

import (
	"context"
	"sync/atomic"
	"time"
)

// Of the questions about services, so many wait at Consul at once: by default it lets an address have 200 connections
// (limits.http_max_conns_per_client), and there are other clients than this. Where there are more services they take turns, of turnTime
// each, which comes to some 190 questions a second. A turn is shorter when registrations have changed since the service was asked, and the nodes
// are not looked through for what changed (nodes.go): roundTime, which comes to 500 a second. Beside them there are mostHurried for those that
// something is known to have changed of, for hurryTime each: 1,000 a second. The nodes share these, with half of them at most.
const (
	mostWaiting = 48
	turnTime    = 250 * time.Millisecond
	roundTime   = mostWaiting * time.Second / 500
	mostHurried = 16
	hurryTime   = mostHurried * time.Second / 1000
)

// mostConnections is how many there are: for the above, the list of services, and what tells of changes.
const mostConnections = mostWaiting + mostHurried + 5

// turns are those of the questions that may wait at Consul. Until they have to share, each may wait as long as it likes.
type turns struct {
	free   chan struct{}
	fast   chan struct{}   // those of hurried services
	shared context.Context // ended when they have to share
	share  context.CancelFunc
	round  atomic.Uint64 // counts how often registrations changed
	swept  atomic.Bool   // what changed is found by looking through the nodes, without a quicker round
}

func newTurns(ctx context.Context) *turns {
	t := &turns{free: make(chan struct{}, mostWaiting), fast: make(chan struct{}, mostHurried)}
	t.shared, t.share = context.WithCancel(ctx)
	return t
}

// take waits for the turn of a service, or until it is to be asked at once. It gives what a turn gives.
func (t *turns) take(ctx context.Context, one *service) (wait time.Duration, during context.Context, end func()) {
	select {
	case <-one.hurry: // before a turn, if there are both
		return t.takeFast(ctx, one)
	default:
	}
	select {
	case t.free <- struct{}{}:
	case <-one.hurry:
		return t.takeFast(ctx, one)
	case <-ctx.Done():
		return 0, ctx, nil
	}
	round := t.round.Load()
	behind := one.asked != round
	one.asked = round
	during, cancel := context.WithCancel(ctx)
	switch {
	case t.shared.Err() == nil:
		stop := context.AfterFunc(t.shared, cancel)
		return waitTime, during, func() { stop(); cancel(); <-t.free }
	case behind && !t.swept.Load():
		return 0, during, release(t.free, roundTime, cancel)
	}
	return turnTime, during, func() { cancel(); <-t.free }
}

func (t *turns) takeFast(ctx context.Context, one *service) (wait time.Duration, during context.Context, end func()) {
	select {
	case t.fast <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx, nil
	}
	one.asked = t.round.Load()
	during, cancel := context.WithCancel(ctx)
	return 0, during, release(t.fast, hurryTime, cancel)
}

// takeForNode waits until a node may be asked, and gives what ends that; nil when the context has ended.
func (t *turns) takeForNode(ctx context.Context) (end func()) {
	select {
	case t.fast <- struct{}{}:
		return release(t.fast, hurryTime, func() {})
	case <-ctx.Done():
		return nil
	}
}

// release gives what ends a turn, and leaves its place to another when so long has passed from now.
func release(places <-chan struct{}, after time.Duration, cancel context.CancelFunc) func() {
	began := time.Now()
	return func() {
		cancel()
		if rest := after - time.Since(began); rest > 0 {
			time.AfterFunc(rest, func() { <-places })
			return
		}
		<-places
	}
}
