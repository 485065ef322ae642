package http2

import (
	"os"
	"time"
)

// noise counts frames that carry nothing. The clock is asked only once the budget is used up. Owned by the reading goroutine.
type noise struct {
	n     int
	since time.Time
}

// noisy charges n. It fails when more was spent within a second than Options.Noise.
func (c *core) noisy(n int) error {
	if c.noise.n += n; c.noise.n <= c.o.Noise {
		return nil
	}
	now := time.Now()
	if now.Sub(c.noise.since) < time.Second {
		return connError(EnhanceYourCalm, "too many frames that carry nothing")
	}
	c.noise = noise{since: now}
	return nil
}

// pay accounts for n frames by which a peer may answer what is sent to it. mu is held.
func (c *core) pay(n int) { c.paid = min(c.paid+n, 1<<16) }

// faulted charges a stream that the peer reset or made us reset (rapid reset, CVE-2023-44487; "made you reset", CVE-2025-8671). mu
// is held.
func (c *core) faulted() error {
	if c.server == nil {
		return nil
	}
	if c.resets++; c.resets > c.o.Resets {
		return connError(EnhanceYourCalm, "too many streams were reset")
	}
	return nil
}

// tooMuchQueued bounds what waits for a peer that does not read. mu is held.
func (c *core) tooMuchQueued() error {
	if len(c.out.buf) > 2*c.o.WriteBytes {
		return connError(EnhanceYourCalm, "too many answers wait to be read")
	}
	return nil
}

// How a stream ended.
const (
	endedWell = iota + 1
	resetByUs
	resetByPeer
)

// closedStreams remembers how the last streams ended: what a late frame means depends on it.
type closedStreams struct {
	id  [64]uint32
	way [64]uint8
	at  int
}

func (s *closedStreams) add(id uint32, way uint8) {
	s.id[s.at], s.way[s.at] = id, way
	s.at = (s.at + 1) % len(s.id)
}

func (s *closedStreams) how(id uint32) uint8 {
	for i, x := range s.id {
		if x == id {
			return s.way[i]
		}
	}
	return 0
}

func (s *closedStreams) rewrite(id uint32, way uint8) {
	for i, x := range s.id {
		if x == id {
			s.way[i] = way
		}
	}
}

// watchdog is what the connection's clock knows from its last look. Guarded by mu.
type watchdog struct {
	batches uint32    // and when it changed
	read    time.Time // the last time that something was read
	write   uint64    // the write under way, and when it was first seen
	wrote   time.Time
	idle    time.Time // since when there is no stream; zero while there are
	pinged  bool      // a keep-alive PING is out
	asked   time.Time // when a PING was sent
}

// tick looks after deadlines of the connection that need no timer of their own.
func (c *core) tick() {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	if err := c.overdue(now); err != nil {
		c.abandonOnce(err)
		c.c.Close()
		return
	}
	c.stalledTooLong(now)
	c.resets -= c.resets / 4
	c.keepAlive(now)
	if c.server != nil {
		c.server.tick(now)
	} else {
		c.client.tick(now)
	}
	c.clock.Reset(c.o.period())
}

func (c *core) overdue(now time.Time) error {
	w := &c.watchdog
	if n := c.batches.Load(); n != w.batches || w.read.IsZero() {
		w.batches, w.read = n, now
		if w.pinged {
			w.pinged = false // anything it sends shows that it lives
		}
	}
	if c.waiting.Load() && c.o.HeadTime > 0 && now.Sub(w.read) > c.o.HeadTime {
		return os.ErrDeadlineExceeded
	}
	if !c.out.writing || c.out.writes != w.write {
		w.write, w.wrote = c.out.writes, now
	} else if c.o.WriteStall > 0 && now.Sub(w.wrote) > c.o.WriteStall {
		return os.ErrDeadlineExceeded
	}
	if (w.pinged || c.draining && !c.farewell) && c.o.PingTimeout > 0 && now.Sub(w.asked) > c.o.PingTimeout {
		if w.pinged {
			return os.ErrDeadlineExceeded
		}
		if c.server != nil {
			c.server.sayFarewell()
		}
	}
	return nil
}

// stalledTooLong resets streams whose peer has kept its window shut.
func (c *core) stalledTooLong(now time.Time) {
	if c.o.WriteStall <= 0 {
		return
	}
	for _, st := range c.streams {
		if st.stall.IsZero() || st.sent != st.stallAt {
			if st.stallAt, st.stall = st.sent, (time.Time{}); st.wwait {
				st.stall = now
			}
		} else if !st.wwait {
			st.stall = time.Time{}
		} else if now.Sub(st.stall) > c.o.WriteStall {
			if st.err == nil {
				st.end(&StreamError{Code: Cancel, Reason: "the window stayed shut", Stalled: c.o.WriteStall})
			}
			c.reset(st, Cancel, "", false)
		}
	}
	c.flush(false)
}

func (c *core) keepAlive(now time.Time) {
	w := &c.watchdog
	if c.o.KeepAlive <= 0 || w.pinged || now.Sub(w.read) < c.o.KeepAlive {
		return
	}
	w.pinged, w.asked = true, now
	c.room(frameHeader + 8)
	c.out.buf = appendPing(c.out.buf, 0, keepAlivePing)
	c.flush(false)
}
