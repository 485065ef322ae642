package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/weftmesh/weft/internal/control"
)

// plane keeps the embedded control plane running: a failure or panic of it is logged and it is started again with back-off,
// while workloads and proxies go on. It can be stopped and started on request.
type plane struct {
	open func() (*control.Control, error)
	// started is called with each new control plane before it runs, and the context of its run; it must not block.
	started func(context.Context, *control.Control)
	log     *slog.Logger

	mu      sync.Mutex
	current *control.Control // nil while there is none
	since   time.Time
	state   string
	wanted  bool
	cancel  context.CancelFunc // ends the current run
	changed chan struct{}      // closed and replaced at each change of what is above
}

func newPlane(open func() (*control.Control, error), started func(context.Context, *control.Control), log *slog.Logger) *plane {
	return &plane{open: open, started: started, log: log, state: "starting", since: time.Now(), wanted: true, changed: make(chan struct{})}
}

// The waits between failed starts double from the first to the last.
const (
	firstBackOff = 200 * time.Millisecond
	lastBackOff  = 10 * time.Second
	// soundAfter is how long a run must have lasted for the waits to begin anew.
	soundAfter = 10 * time.Second
)

// run keeps the control plane going until the context ends. The first start must succeed: an address in use, or a state
// directory that cannot be read, is for the user to mend.
func (p *plane) run(ctx context.Context) error {
	backOff, first := firstBackOff, true
	for ctx.Err() == nil {
		if !p.awaitWanted(ctx) {
			break
		}
		began := time.Now()
		err := p.once(ctx)
		switch {
		case ctx.Err() != nil:
		case err == nil: // asked to stop
			backOff = firstBackOff
		case first && time.Since(began) < soundAfter && errors.Is(err, errStart):
			return err
		default:
			p.log.Error("the control plane failed; it starts again", "error", err, "after", backOff)
			p.set(nil, "failed: "+err.Error())
			if time.Since(began) > soundAfter {
				backOff = firstBackOff
			}
			p.pause(ctx, backOff)
			backOff = min(2*backOff, lastBackOff)
		}
		first = false
	}
	p.set(nil, "stopped")
	return nil
}

// errStart marks errors of opening the control plane, as opposed to errors of running it.
var errStart = errors.New("control plane")

// once runs one control plane to its end. It returns nil when it was asked to stop.
func (p *plane) once(ctx context.Context) (err error) {
	c, err := p.open()
	if err != nil {
		return fmt.Errorf("%w: %w", errStart, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.mu.Lock()
	p.cancel = cancel
	p.mu.Unlock()
	p.started(ctx, c)
	p.set(c, "running")
	err = contain(func() error { return c.Run(ctx) })
	stopped := ctx.Err() != nil
	p.set(nil, "stopped")
	if stopped {
		return nil
	}
	if err == nil {
		err = errors.New("it ended by itself")
	}
	return err
}

// contain turns a panic into an error.
func contain(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	return f()
}

func (p *plane) set(c *control.Control, state string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.current, p.state, p.since = c, state, time.Now()
	p.announce()
}

// announce wakes those who wait for a change. mu is held.
func (p *plane) announce() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *plane) awaitWanted(ctx context.Context) bool {
	for {
		p.mu.Lock()
		wanted, changed := p.wanted, p.changed
		p.mu.Unlock()
		if wanted {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-changed:
		}
	}
}

// pause waits, or until somebody asks for a start or stop.
func (p *plane) pause(ctx context.Context, d time.Duration) {
	p.mu.Lock()
	changed := p.changed
	p.mu.Unlock()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-changed:
	}
}

// get gives the running control plane, or nil, and what to say about it.
func (p *plane) get() (c *control.Control, state string, since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current, p.state, p.since
}

// stop ends the control plane and waits until it is gone; start begins it and waits until it runs.
func (p *plane) stop(ctx context.Context) error {
	p.want(false)
	return p.await(ctx, func() bool { return p.current == nil })
}

func (p *plane) start(ctx context.Context) error {
	p.want(true)
	return p.await(ctx, func() bool { return p.current != nil })
}

func (p *plane) want(wanted bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted = wanted
	if !wanted && p.cancel != nil {
		p.cancel()
	}
	p.announce()
}

func (p *plane) await(ctx context.Context, done func() bool) error {
	for {
		p.mu.Lock()
		ok, changed := done(), p.changed
		p.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}
