package live

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// await asks for a name that is not published and waits for the answer.
func (l *Live) await(ctx context.Context, kind rootKind, name string) (*answer, error) {
	start := l.clock()
	r, err := l.ask(kind, name)
	if err != nil {
		return nil, err
	}
	a, err := l.wait(ctx, r)
	l.leave(r, a, err, l.clock().Sub(start))
	if err != nil {
		return nil, fmt.Errorf("resolve %q: %w", name, err)
	}
	return a, nil
}

// ask finds or makes the root of a name and joins its waiters.
func (l *Live) ask(kind rootKind, name string) (*root, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	roots, typeURL := l.names, listenerType
	if kind == dnsRoot {
		roots, typeURL = l.dns, namesType
	}
	r := roots[name]
	if r == nil {
		switch full := len(roots) >= l.opts.MaxNames; {
		case full && l.link.isLost(): // what is evicted now could not be had again
			return nil, fmt.Errorf("resolve %q: %w", name, l.unreachable())
		case full && !l.evict(roots):
			return nil, fmt.Errorf("resolve %q: %d names are being resolved already: %w", name, len(roots), ErrTimeout)
		}
		r = l.addRoot(kind, key{typeURL, name})
		roots[name] = r
		l.publish()
	}
	r.used.Store(l.second.Load())
	r.waiting++
	return r, nil
}

// wait returns when the root is settled or a bound is reached.
func (l *Live) wait(ctx context.Context, r *root) (*answer, error) {
	limit := time.NewTimer(l.opts.AnswerWait)
	defer limit.Stop()
	for {
		a, settled, lost, err := l.outcome(r)
		if a != nil || err != nil {
			return a, err
		}
		select {
		case <-settled:
		case <-lost:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-limit.C:
			return nil, fmt.Errorf("%w within %s", ErrTimeout, l.opts.AnswerWait)
		}
	}
}

// outcome gives what a waiter gets now, or else the channels of which one is closed when that may have changed.
func (l *Live) outcome(r *root) (a *answer, settled, lost <-chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case r.done:
		return r.answer, nil, nil, nil
	case r.err != nil:
		return nil, nil, nil, r.err
	case l.link.isLost():
		return nil, nil, nil, l.unreachable()
	}
	return nil, r.settled, l.link.lost, nil
}

func (l *Live) unreachable() error {
	return fmt.Errorf("%w for %s: %w", ErrUnreachable, l.clock().Sub(l.link.since).Round(time.Millisecond), l.link.err)
}

// leave takes a waiter out and counts its wait.
func (l *Live) leave(r *root, a *answer, err error, d time.Duration) {
	w := Wait{Kind: "listener", Duration: d, Outcome: "found"}
	if r.kind == dnsRoot {
		w.Kind = "dns"
	}
	switch {
	case errors.Is(err, ErrUnreachable):
		w.Outcome = "unreachable"
	case errors.Is(err, ErrRefused):
		w.Outcome = "refused"
	case errors.Is(err, ErrTimeout):
		w.Outcome = "timeout"
	case err != nil:
		w.Outcome = "cancelled"
	case a.target == nil && a.dns == nil:
		w.Outcome = "unknown"
	}
	l.mu.Lock()
	r.waiting--
	l.waits.add(d, w.Outcome)
	l.mu.Unlock()
	if l.opts.OnWait != nil {
		l.opts.OnWait(w)
	}
}

// evict drops the name that was not used for the longest time, and reports whether there was one without waiters.
func (l *Live) evict(roots map[string]*root) bool {
	var oldest *root
	for _, r := range roots {
		if r.waiting == 0 && (oldest == nil || r.used.Load() < oldest.used.Load()) {
			oldest = r
		}
	}
	if oldest == nil {
		return false
	}
	delete(roots, oldest.key.name)
	l.dropRoot(oldest)
	return true
}

// tick is how often the clock of uses advances; sweeps happen at the same time.
const tick = 5 * time.Second

// keepTime advances the clock of uses and drops what was not used for long.
func (l *Live) keepTime(ctx context.Context) {
	start := l.clock()
	base := l.second.Load()
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			l.second.Store(base + int64(l.clock().Sub(start)/time.Second))
			l.sweep()
		}
	}
}

// sweep drops the names that were not used for KeepUnused, or KeepUnknown. While the control plane is away nothing is dropped, for
// it could not be had again.
func (l *Live) sweep() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.link.up {
		return
	}
	now := l.second.Load()
	for _, roots := range []map[string]*root{l.names, l.dns} {
		for name, r := range roots {
			keep := l.opts.KeepUnknown
			if r.known() {
				keep = l.opts.KeepUnused
			}
			if r.waiting == 0 && time.Duration(now-r.used.Load())*time.Second > keep {
				delete(roots, name)
				l.dropRoot(r)
			}
		}
	}
	l.publish()
}
