package rpc

import "sync"

// queue has the connections that want a turn, in the order in which they were woken.
type queue struct {
	mu     sync.Mutex // guards all
	more   *sync.Cond // set once
	conns  []*conn    // from first on
	first  int
	closed bool
}

func newQueue() *queue {
	q := &queue{}
	q.more = sync.NewCond(&q.mu)
	return q
}

func (q *queue) put(c *conn) {
	q.mu.Lock()
	q.conns = append(q.conns, c)
	q.mu.Unlock()
	q.more.Signal()
}

// take waits for a connection; false when the queue is closed.
func (q *queue) take() (*conn, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.first == len(q.conns) && !q.closed {
		q.more.Wait()
	}
	if q.first == len(q.conns) {
		return nil, false
	}
	c := q.conns[q.first]
	q.conns[q.first] = nil
	if q.first++; q.first == len(q.conns) || q.first > 1024 && q.first > len(q.conns)/2 {
		n := copy(q.conns, q.conns[q.first:])
		clear(q.conns[n:])
		q.conns, q.first = q.conns[:n], 0
	}
	return c, true
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
				c.server.queue.put(c)
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
	c.turn(b)
	if !c.state.CompareAndSwap(running, idle) {
		c.state.Store(queued)
		c.server.queue.put(c)
	}
}
