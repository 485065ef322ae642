package rpc

import "sync"

// queue has the connections that want a turn: those of which something is to end, those that were woken, and those whose last turn was not
// long enough, each in their order. The first go before all others, because what they hold is given back then. The last have one of freshTurns,
// so that a client that has very much to be told holds up nobody who is to be told a little.
type queue struct {
	mu     sync.Mutex // guards all
	more   *sync.Cond // set once
	lines  [3]line    // by urgency
	since  int        // turns since the last one of long
	closed bool
}

// urgency says in which line a connection waits for its turn.
type urgency int

const (
	hurried urgency = iota
	fresh
	long
)

const freshTurns = 8

// line is a queue of one kind.
type line struct {
	conns []*conn // from first on
	first int
}

func (l *line) empty() bool { return l.first == len(l.conns) }

func (l *line) put(c *conn) { l.conns = append(l.conns, c) }

func (l *line) take() *conn {
	c := l.conns[l.first]
	l.conns[l.first] = nil
	if l.first++; l.first == len(l.conns) || l.first > 1024 && l.first > len(l.conns)/2 {
		n := copy(l.conns, l.conns[l.first:])
		clear(l.conns[n:])
		l.conns, l.first = l.conns[:n], 0
	}
	return c
}

func newQueue() *queue {
	q := &queue{}
	q.more = sync.NewCond(&q.mu)
	return q
}

// put adds a connection.
func (q *queue) put(c *conn, u urgency) {
	q.mu.Lock()
	q.lines[u].put(c)
	q.mu.Unlock()
	q.more.Signal()
}

// take waits for a connection; false when the queue is closed.
func (q *queue) take() (*conn, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.next() == nil && !q.closed {
		q.more.Wait()
	}
	l := q.next()
	if l == nil {
		return nil, false
	}
	if q.since++; l == &q.lines[long] {
		q.since = 0
	}
	return l.take(), true
}

// next is the line whose turn it is; nil when nobody waits.
func (q *queue) next() *line {
	if l := &q.lines[long]; !l.empty() && q.since >= freshTurns-1 && q.lines[hurried].empty() {
		return l
	}
	for i := range q.lines {
		if l := &q.lines[i]; !l.empty() {
			return l
		}
	}
	return nil
}

func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.more.Broadcast()
}

// workspace is what a worker lends to the connection whose turn it is.
type workspace struct {
	in  []byte // what is read
	out []byte // frames to be written
}

// readSize is a little more than the largest TLS record.
const readSize = 17 << 10

// work gives turns until the queue is closed.
func (q *queue) work() {
	b := &workspace{in: make([]byte, readSize), out: make([]byte, 0, flushFrom+maxFrame)}
	for {
		c, ok := q.take()
		if !ok {
			return
		}
		c.run(b)
		if cap(b.out) > 2*(flushFrom+maxFrame) {
			b.out = make([]byte, 0, flushFrom+maxFrame)
		}
	}
}

// The states of a connection. One that is woken while it has its turn gets another one. One that is queued may be so twice: it was hastened
// while it waited already.
const (
	idle = iota
	queued
	running
	again
)

// wake asks for a turn. It may be called by anyone at any time and never blocks.
func (c *conn) wake() {
	for {
		switch s := c.state.Load(); s {
		case queued, again:
			return
		case idle:
			if c.state.CompareAndSwap(idle, queued) {
				c.server.queue.put(c, fresh)
				return
			}
		case running:
			if c.state.CompareAndSwap(running, again) {
				return
			}
		}
	}
}

// hasten asks for a turn before others, for something to end. It may be called by anyone at any time and never blocks.
func (c *conn) hasten() {
	c.hurry.Store(true)
	for {
		switch s := c.state.Load(); s {
		case queued:
			c.server.queue.put(c, hurried)
			return
		case again:
			return
		case idle:
			if c.state.CompareAndSwap(idle, queued) {
				c.server.queue.put(c, hurried)
				return
			}
		case running:
			if c.state.CompareAndSwap(running, again) {
				return
			}
		}
	}
}

// run takes a turn, unless it was had already.
func (c *conn) run(b *workspace) {
	if !c.state.CompareAndSwap(queued, running) {
		return
	}
	c.long = false
	c.hurry.Store(false)
	c.turn(b)
	u := fresh
	if c.long {
		u = long
	}
	if !c.state.CompareAndSwap(running, idle) {
		if c.hurry.Load() {
			u = hurried
		}
		c.state.Store(queued)
		c.server.queue.put(c, u)
	}
}
