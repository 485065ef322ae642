package http2

import (
	"sync"
	"sync/atomic"
	"time"
)

// deadline wakes one half of a stream. Its timer is left running when the deadline changes or goes, and looks again when it
// fires: most deadlines are replaced long before they pass, and so cost no timer operation.
type deadline struct {
	wake chan struct{} // set once, capacity 1
	on   atomic.Bool   // at is not zero; written with mu held

	mu    sync.Mutex
	at    time.Time // zero: none
	armed time.Time // when the timer fires; zero: it does not
	timer *time.Timer
}

func (d *deadline) set(t time.Time) {
	if t.IsZero() && !d.on.Load() {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = t
	d.on.Store(!t.IsZero())
	if t.IsZero() || !d.armed.IsZero() && !t.Before(d.armed) {
		return
	}
	d.arm(time.Until(t))
}

func (d *deadline) arm(in time.Duration) {
	if d.armed = d.at; d.timer == nil {
		d.timer = time.AfterFunc(max(in, 0), d.fire)
		return
	}
	d.timer.Reset(max(in, 0))
}

func (d *deadline) fire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed = time.Time{}
	if d.at.IsZero() {
		return
	}
	if in := time.Until(d.at); in > 0 {
		d.arm(in)
		return
	}
	signal(d.wake)
}

// stop ends the timer of a stream that nobody will use again: it would hold on to the stream, and with it to the connection.
func (d *deadline) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at, d.armed = time.Time{}, time.Time{}
	d.on.Store(false)
	if d.timer != nil {
		d.timer.Stop()
	}
}

func (d *deadline) passed() bool {
	if !d.on.Load() {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.at.IsZero() && !time.Now().Before(d.at)
}

// signal leaves a token unless one lies there.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
