package rpc

import "time"

// A client may send burst frames at once and rate a second all the time; a message counts as several. Beyond that its connection is read
// no faster, and the client's own flow control holds it back.
const (
	paceBurst   = 8000
	paceRate    = 2000
	costMessage = 4
)

// pace is a bucket of frames.
type pace struct {
	used  float64
	at    time.Time
	timer *time.Timer // while the bucket is empty
}

// open reports whether frames may be read at this time; otherwise wake is called when they may.
func (p *pace) open(now time.Time, wake func()) bool {
	p.used = max(0, p.used-now.Sub(p.at).Seconds()*paceRate)
	p.at = now
	if p.used < paceBurst {
		return true
	}
	if p.timer == nil {
		p.timer = time.AfterFunc(0, wake)
	}
	p.timer.Reset(time.Duration((p.used - paceBurst + 1) / paceRate * float64(time.Second)))
	return false
}

func (p *pace) spend(n int) { p.used += float64(n) }

func (p *pace) end() {
	if p.timer != nil {
		p.timer.Stop()
	}
}
