package poll

import (
	"sync"
	"time"
)

// base is what deadlines are measured from.
var base = time.Now()

// setDeadline makes calls on s fail from t on. It is called for each request, so what is dear, the heap, is only asked when the
// next look at the connection would come too late.
func (p *poller) setDeadline(s *side, t time.Time) {
	var at int64
	if !t.IsZero() {
		// What has no monotonic reading is compared by the wall clock; what is before base has passed.
		at = max(1, int64(t.Sub(base)))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = at
	switch {
	case at == 1 || at != 0 && p.deadlines.watch(s, at):
		s.raise(expired)
	case s.state.Load()&expired != 0:
		s.lower(expired)
	}
}

// forget lifts the deadline of a side that is not used any more.
func (p *poller) forget(s *side) {
	s.mu.Lock()
	s.deadline = 0
	s.mu.Unlock()
	p.deadlines.forget(s)
}

// heapEntry says when a side is looked at.
type heapEntry struct {
	at    int64 // 0 while it is not in the heap
	index int
}

// deadlines are the sides of a poller by the time of the next look at each. A deadline that is moved back or lifted, as those of
// requests are, leaves its entry where it was: the look finds the new one.
type deadlines struct {
	mu    sync.Mutex
	sides []*side
	timer *time.Timer
	armed int64 // when timer goes off; 0 for never
	over  bool
}

// watch sees to it that s is looked at when at has come, and reports whether it has already. It is called with s.mu held.
func (d *deadlines) watch(s *side, at int64) (passed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := &s.entry
	if e.at != 0 && e.at <= at || d.over {
		return false
	}
	if at <= int64(time.Since(base)) {
		return true
	}
	if e.at == 0 {
		e.index = len(d.sides)
		d.sides = append(d.sides, s)
	}
	e.at = at
	d.up(e.index)
	d.arm()
	return false
}

// forget takes s out. A look that has begun finds no deadline.
func (d *deadlines) forget(s *side) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.entry.at != 0 {
		d.remove(s.entry.index)
	}
}

// arm is called with mu held.
func (d *deadlines) arm() {
	if len(d.sides) == 0 {
		return
	}
	first := d.sides[0].entry.at
	if d.armed != 0 && d.armed <= first {
		return
	}
	d.armed = first
	wait := time.Duration(first - int64(time.Since(base)))
	if d.timer == nil {
		d.timer = time.AfterFunc(wait, d.look)
		return
	}
	d.timer.Reset(wait)
}

// look expires what is due.
func (d *deadlines) look() {
	d.mu.Lock()
	d.armed = 0
	now := int64(time.Since(base))
	var due []*side
	for len(d.sides) > 0 && d.sides[0].entry.at <= now {
		due = append(due, d.sides[0])
		d.remove(0)
	}
	if !d.over {
		d.arm()
	}
	d.mu.Unlock()
	for _, s := range due {
		s.mu.Lock()
		if s.deadline != 0 && (s.deadline <= now || d.watch(s, s.deadline)) {
			s.raise(expired)
		}
		s.mu.Unlock()
	}
}

func (d *deadlines) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = true
	if d.timer != nil {
		d.timer.Stop()
	}
}

// A binary heap; every side knows its place.

func (d *deadlines) remove(i int) {
	last := len(d.sides) - 1
	d.sides[i].entry.at = 0
	if i != last {
		d.put(i, d.sides[last])
	}
	d.sides[last] = nil
	if d.sides = d.sides[:last]; i < last {
		d.up(d.down(i))
	}
}

func (d *deadlines) put(i int, s *side) { d.sides[i], s.entry.index = s, i }

func (d *deadlines) up(i int) {
	s := d.sides[i]
	for i > 0 {
		parent := (i - 1) / 2
		if d.sides[parent].entry.at <= s.entry.at {
			break
		}
		d.put(i, d.sides[parent])
		i = parent
	}
	d.put(i, s)
}

func (d *deadlines) down(i int) int {
	s := d.sides[i]
	for {
		child := 2*i + 1
		if child >= len(d.sides) {
			break
		}
		if r := child + 1; r < len(d.sides) && d.sides[r].entry.at < d.sides[child].entry.at {
			child = r
		}
		if s.entry.at <= d.sides[child].entry.at {
			break
		}
		d.put(i, d.sides[child])
		i = child
	}
	d.put(i, s)
	return i
}
