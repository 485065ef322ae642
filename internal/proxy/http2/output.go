package http2

import (
	"runtime"

	"github.com/weftmesh/weft/internal/proxy/http2/block"
)

// output is the frames that wait to be written. Guarded by the connection's mu, which is not held during the write.
type output struct {
	blk     *block.Block // nil while there are none
	buf     []byte       // in blk.b
	writing bool         // somebody writes
	due     bool         // somebody is about to
	writes  uint64       // begun so far
}

func (o *output) drop() {
	if o.blk != nil {
		block.Put(o.blk)
		o.blk, o.buf = nil, nil
	}
}

// room makes room for n bytes. mu is held.
func (c *core) room(n int) {
	o := &c.out
	if need := len(o.buf) + n; o.blk == nil || need > cap(o.buf) {
		next := block.Get(max(need, 4<<10))
		buf := append(next.B[:0], o.buf...)
		o.drop()
		o.blk, o.buf = next, buf
	}
}

// flush sees to it that what waits leaves: in this call, or with a write that somebody else has begun or is about to begin. With
// gather it lets the goroutines that are ready to run add theirs first. mu is held, and given up meanwhile.
func (c *core) flush(gather bool) {
	o := &c.out
	if len(o.buf) == 0 || o.writing || o.due {
		return
	}
	if gather && len(o.buf) < c.o.WriteBytes/2 {
		o.due = true
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
		o.due = false
	}
	c.write()
}

// write writes until nothing waits, unless somebody does already. mu is held, and given up meanwhile.
func (c *core) write() {
	o := &c.out
	for len(o.buf) > 0 && !o.writing {
		if c.err != nil && c.mute || c.finishing {
			o.drop()
			return
		}
		k, b := o.blk, o.buf
		o.blk, o.buf, o.writing = nil, nil, true
		o.writes++
		c.mu.Unlock()
		_, err := c.c.Write(b)
		c.mu.Lock()
		block.Put(k)
		if o.writing = false; err != nil {
			c.mute = true
			c.abandonOnce(err)
			c.c.Close()
			o.drop()
			return
		}
		c.wakeStalled(true)
	}
	if c.server != nil {
		c.server.finish()
	}
}

// wakeStalled lets waiting writers look again: all, or those that wait for room in the output. mu is held.
func (c *core) wakeStalled(room bool) {
	kept := c.stalled[:0]
	for _, st := range c.stalled {
		if room && !st.forRoom {
			kept = append(kept, st)
			continue
		}
		signal(st.wr.wake)
	}
	clear(c.stalled[len(kept):])
	c.stalled = kept
}

func (c *core) wakeWriter(st *stream) {
	if st.wwait {
		signal(st.wr.wake)
	}
}

// giveBack opens the connection's window by n bytes that wait no longer, sooner or later. mu is held.
func (c *core) giveBack(n int) {
	c.unacked += n
	if c.unacked < max(c.o.ConnWindow/4, 1) || c.err != nil {
		return
	}
	c.room(frameHeader + 4)
	c.out.buf = appendWindow(c.out.buf, 0, c.unacked)
	c.recvWin += int64(c.unacked)
	c.unacked = 0
}

// reset ends a stream by RST_STREAM. fault says that the peer made us do it. mu is held; the caller flushes.
func (c *core) reset(st *stream, code ErrCode, why string, fault bool) error {
	if c.err == nil && st.id != 0 && !st.whole() && !st.wasReset {
		c.room(frameHeader + 4)
		c.out.buf = appendRST(c.out.buf, st.id, code)
		st.wasReset = true
	}
	if st.err == nil {
		st.end(&StreamError{Code: code, Reason: why})
	}
	if fault {
		return c.faulted()
	}
	st.uncount()
	return nil
}
