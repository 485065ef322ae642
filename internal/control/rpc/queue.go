package rpc

import "sync"

// queue has the connections that want a turn: those that were woken, and those whose last turn was not long enough, each in their order.
// The latter have one of freshTurns, so that a client that has very much to be told holds up nobody who is to be told a little.
type queue struct {
	mu     sync.Mutex // guards all
	more   *sync.Cond // set once
	fresh  line
	long   line
	since  int // turns since the last one of long
	closed bool
}

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

// put adds a connection; long says that its last turn was not long enough.
func (q *queue) put(c *conn, long bool) {
	q.mu.Lock()
	if long {
		q.long.put(c)
	} else {
		q.fresh.put(c)
	}
	q.mu.Unlock()
	q.more.Signal()
}

// take waits for a connection; false when the queue is closed.
func (q *queue) take() (*conn, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.fresh.empty() && q.long.empty() && !q.closed {
		q.more.Wait()
	}
	switch {
	case q.fresh.empty() && q.long.empty():
		return nil, false
	case q.long.empty(), !q.fresh.empty() && q.since < freshTurns-1:
		q.since++
		return q.fresh.take(), true
	}
	q.since = 0
	return q.long.take(), true
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

// The states of a connection. One that is woken while it has its turn gets another one.
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
				c.server.queue.put(c, false)
				return
			}
		case running:
			if c.state.CompareAndSwap(running, again) {
				return
			}
		}
	}
}

// run takes a turn.
func (c *conn) run(b *workspace) {
	c.state.Store(running)
	c.long = false
	c.turn(b)
	if long := c.long; !c.state.CompareAndSwap(running, idle) {
		c.state.Store(queued)
		c.server.queue.put(c, long)
	}
}
