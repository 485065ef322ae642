package http2

import (
	"io"
	"os"
	"time"

	"github.com/weftmesh/weft/internal/proxy/http2/block"
	"github.com/weftmesh/weft/internal/proxy/http2/head"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/slow"
)

// stream is what both sides of a stream share. Streams are used again on their connection; the wake channels outlive one
// use, so that a waiter may find a token that was meant for an earlier one: it looks again and waits on.
type stream struct {
	c     *core         // set once
	owner *ClientStream // set once; nil on a server
	id    uint32

	rd, wr deadline

	// Guarded by the connection's mu.

	err     error // ends both halves
	werr    error // ends the writing half
	byPeer  bool  // err is the peer's reset
	gone    chan struct{}
	onGone  func()
	message *head.Head // the strings of the head that is in use
	trail   *head.Head // nil until trailers have come

	// The reading half.
	headed      bool // client: the final response's head has come
	remoteEnded bool
	counts      bool // it is one of the connection's counted streams
	rwait       bool
	declared    int64 // -1: not
	empty       bool  // the message has no content, whatever its head says
	got         int64
	body        block.Queue
	lent        *block.Block // see TakeBody; it is the reading goroutine's of the stream
	recvWin     int64
	unacked     int

	// The writing half.
	open       bool // a head was written that its body follows
	localEnded bool
	wasReset   bool
	wwait      bool
	forRoom    bool // it waits for room in the output, not for windows
	discard    bool // what is written goes nowhere: an answer to HEAD
	sized      bool
	left       int64
	sendWin    int64
	sent       int64
	mark       int    // place of the last frame's head in the output, 0: none
	markWrite  uint64 // the write that will carry it
	headWrite  uint64 // the first write that may carry a frame of this stream
	stallAt    int64  // sent, when the connection's clock last saw it stall
	stall      time.Time
	slow       slow.Reader

	ask head.Asked
}

// still stops what runs for a stream that nobody will use again.
func (st *stream) still() {
	st.rd.stop()
	st.wr.stop()
}

func (st *stream) init(c *core) {
	st.c = c
	st.rd.wake, st.wr.wake = make(chan struct{}, 1), make(chan struct{}, 1)
	st.gone = make(chan struct{}, 1)
	st.message = head.New()
}

// begin makes a stream ready for use. mu is held.
func (st *stream) begin(id uint32) {
	c := st.c
	st.id = id
	st.declared, st.recvWin, st.sendWin = -1, int64(c.o.StreamWindow), c.peer.window
	c.active++
	c.counted++
	st.counts = true
	c.watchdog.idle = time.Time{}
}

// forget drops everything but what the next use can have. The stream is in no table any more.
func (st *stream) forget() {
	st.message.Release()
	if st.trail != nil {
		st.trail.Release()
	}
	select {
	case <-st.gone:
	default:
	}
	st.rd.set(time.Time{})
	st.wr.set(time.Time{})
	st.err, st.werr, st.byPeer, st.onGone = nil, nil, false, nil
	st.headed, st.remoteEnded, st.rwait, st.empty, st.got, st.unacked = false, false, false, false, 0, 0
	st.open, st.localEnded, st.wasReset, st.wwait, st.discard, st.sized = false, false, false, false, false, false
	st.left, st.sent, st.mark, st.headWrite, st.stall, st.slow, st.ask = 0, 0, 0, 0, time.Time{}, slow.Reader{}, head.Asked{}
	st.id = 0
}

// leave takes the stream off its connection, resetting it if it is not at its end. mu is held.
func (st *stream) leave(code ErrCode) {
	c := st.c
	well := st.err == nil && st.werr == nil && st.localEnded && st.remoteEnded
	if st.err == nil && !well {
		st.onGone = nil
		c.reset(st, code, "", false)
	}
	c.giveBack(st.body.Clear())
	st.takeBack()
	c.unstall(st)
	c.active--
	st.uncount()
	if st.id == 0 {
		return
	}
	delete(c.streams, st.id)
	switch {
	case well:
		c.closed.add(st.id, endedWell)
		c.resets = max(c.resets-1, 0)
	case st.byPeer:
		c.closed.add(st.id, resetByPeer)
	default:
		c.closed.add(st.id, resetByUs)
	}
}

func (c *core) unstall(st *stream) {
	for i, x := range c.stalled {
		if x == st {
			c.stalled = append(c.stalled[:i], c.stalled[i+1:]...)
			break
		}
	}
	st.wwait = false
}

// accepts says what is wrong with DATA of that many bytes on the wire and of content.
func (st *stream) accepts(wire, content int64, ended bool) (ErrCode, string) {
	switch got := st.got + content; {
	case st.remoteEnded || st.err != nil:
		return StreamClosed, "DATA after the end"
	case wire > st.recvWin:
		return FlowControlError, "more DATA than the stream's window"
	case st.c.client != nil && !st.headed:
		return ProtocolError, "DATA before HEADERS"
	case st.empty && got > 0:
		return ProtocolError, "content where there can be none"
	case !st.empty && st.declared >= 0 && (got > st.declared || ended && got != st.declared):
		return ProtocolError, "content differs from its content-length"
	}
	return NoError, ""
}

// whole reports whether both sides have ended the stream: then it is closed, though it may not have been left yet.
func (st *stream) whole() bool { return st.localEnded && st.remoteEnded }

func (st *stream) endRemote() {
	st.remoteEnded = true
	if st.localEnded {
		st.uncount()
	}
}

// endLocal comes before the frame can leave that ends the writing half.
func (st *stream) endLocal() {
	st.localEnded = true
	if st.remoteEnded {
		st.uncount()
	}
}

// uncount makes room for another stream of the peer, which may begin one as soon as it knows this one's end (RFC 9113 section 5.1.2): the
// handler may still have to tidy up then. A stream that the peer has reset, or made us reset, counts for as long as its handler runs. mu
// is held.
func (st *stream) uncount() {
	if st.counts {
		st.counts = false
		st.c.counted--
	}
}

// resetByPeer takes note of RST_STREAM. mu is held.
func (st *stream) resetByPeer(code ErrCode) {
	err := &StreamError{Code: code, Remote: true}
	if st.c.client != nil && st.remoteEnded {
		st.werr = err // RFC 9113 section 8.1: the response is whole and must not be dropped
		st.c.wakeWriter(st)
		return
	}
	st.byPeer = true
	st.end(err)
}

// fail ends the stream because its connection ends. mu is held.
func (st *stream) fail(err error) {
	if st.err != nil {
		return
	}
	if st.c.client != nil && st.remoteEnded {
		if st.werr == nil {
			st.werr = err
		}
		signal(st.wr.wake)
		return
	}
	st.end(err)
}

// end makes both halves fail. mu is held.
func (st *stream) end(err error) {
	st.err = err
	st.c.giveBack(st.body.Clear())
	signal(st.rd.wake)
	signal(st.wr.wake)
	signal(st.gone)
	if f := st.onGone; f != nil {
		st.onGone = nil
		f()
	}
}

// wakeReader lets the stream's reader look again at the end of the batch. The reading goroutine calls it, with mu held.
func (c *core) wakeReader(st *stream) {
	if st.rwait {
		st.rwait = false
		c.wakes = append(c.wakes, st.rd.wake)
	}
}

// waitRead waits for a token. mu is held, and given up meanwhile.
func (st *stream) waitRead() error {
	if st.rd.passed() {
		return os.ErrDeadlineExceeded
	}
	st.rwait = true
	st.c.mu.Unlock()
	<-st.rd.wake
	st.c.mu.Lock()
	st.rwait = false
	return nil
}

// waitWrite sends what there is and waits for windows or room.
func (st *stream) waitWrite() error {
	c := st.c
	if !c.out.writing {
		if len(c.out.buf) > 0 {
			c.write()
			return nil
		}
	}
	if st.wr.passed() {
		return os.ErrDeadlineExceeded
	}
	c.stalled = append(c.stalled, st)
	st.wwait, st.forRoom = true, st.sendWin > 0 && c.sendWin > 0
	c.mu.Unlock()
	<-st.wr.wake
	c.mu.Lock()
	c.unstall(st)
	return nil
}

// ReadBody reads into p what there is of the body: at least one byte, or io.EOF at its end, *StreamError or *ConnError when it was
// cut off, os.ErrDeadlineExceeded. It may give the last bytes and io.EOF in one call.
func (st *stream) ReadBody(p []byte) (int, error) {
	c := st.c
	st.takeBack()
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case st.body.Len() > 0:
			n := st.body.Read(p)
			st.consumed(n)
			if st.body.Len() == 0 && st.remoteEnded {
				return n, io.EOF
			}
			return n, nil
		case st.err != nil:
			return 0, st.err
		case st.remoteEnded:
			return 0, io.EOF
		case len(p) == 0:
			return 0, nil
		}
		if err := st.waitRead(); err != nil {
			return 0, err
		}
	}
}

// TakeBody reads without copying what there is in memory of the body, or a part of it; it may give nothing. It is valid until the
// next ReadBody or TakeBody, and the end of the exchange.
func (st *stream) TakeBody() []byte {
	st.takeBack()
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	k := st.body.Take()
	if k == nil {
		return nil
	}
	st.lent = k
	st.consumed(k.W - k.R)
	return k.B[k.R:k.W]
}

// takeBack ends what TakeBody has lent.
func (st *stream) takeBack() {
	if st.lent != nil {
		block.Put(st.lent)
		st.lent = nil
	}
}

// consumed lets the peer send more in place of n bytes. mu is held.
func (st *stream) consumed(n int) {
	c := st.c
	before := len(c.out.buf)
	c.giveBack(n)
	st.unacked += n
	if !st.remoteEnded && c.err == nil && st.unacked >= max(c.o.StreamWindow/4, 1) {
		c.room(frameHeader + 4)
		c.out.buf = appendWindow(c.out.buf, st.id, st.unacked)
		st.recvWin += int64(st.unacked)
		st.unacked = 0
	}
	if len(c.out.buf) > before {
		c.flush(false)
	}
}

// BodyBuffered gives how many bytes of the body lie in memory: while it is positive, ReadBody does not block.
func (st *stream) BodyBuffered() int {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	return st.body.Len()
}

// BodyDone reports whether the body was read to its end.
func (st *stream) BodyDone() bool {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	return st.err == nil && st.remoteEnded && st.body.Len() == 0
}

// BodyWhole reports whether all that is left of the body has arrived: reading it does not block.
func (st *stream) BodyWhole() bool {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	return st.err == nil && st.remoteEnded
}

// Trailers gives the trailer fields once ReadBody has given io.EOF. They live as long as the head's strings.
func (st *stream) Trailers() *message.Header {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	if st.trail == nil {
		st.trail = head.New()
	}
	return &st.trail.Fields
}

// SetReadDeadline makes pending and later reads of this stream fail with os.ErrDeadlineExceeded after t; the zero time means none.
func (st *stream) SetReadDeadline(t time.Time) error {
	st.rd.set(t)
	return nil
}

// SetWriteDeadline does so for writes that wait for the peer's windows or for other writes. A write to the transport itself is
// bounded by Options.WriteStall.
func (st *stream) SetWriteDeadline(t time.Time) error {
	st.wr.set(t)
	return nil
}

// Gone gives a channel that receives one value, once, when the stream ends before its time: the peer reset it, or the connection
// ended. Err then says why.
func (st *stream) Gone() <-chan struct{} { return st.gone }

// OnGone has f called at that moment, at once if it has passed; nil takes it back. f runs with the connection locked: it must not
// block nor call any method of this connection or its streams, and typically sets a deadline on another connection. It is not
// called once EndExchange has begun.
func (st *stream) OnGone(f func()) {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	if st.onGone = f; f != nil && st.err != nil {
		st.onGone = nil
		f()
	}
}

// Err gives why the stream ended before its time: *StreamError with the peer's code, *ConnError, or nil.
func (st *stream) Err() error {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	if st.err == nil {
		return st.werr
	}
	return st.err
}

// Reset ends the stream by RST_STREAM. Pending calls return.
func (st *stream) Reset(code ErrCode) {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if st.err == nil {
		c.reset(st, code, "", false)
		c.flush(false)
	}
}
