package http2

import (
	"encoding/binary"

	"github.com/weftmesh/weft/internal/proxy/http2/head"
)

// This file is what the reader does with each frame. Errors are the connection's; those of streams are dealt with here.

func (c *core) onData(id uint32, flags byte, p []byte) error {
	if id == 0 {
		return connError(ProtocolError, "DATA without a stream")
	}
	data, bad := unpad(p, flags)
	if bad != nil {
		return bad
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.recvWin -= int64(len(p)); c.recvWin < 0 {
		return connError(FlowControlError, "more DATA than the connection's window")
	}
	st := c.streams[id]
	if st == nil {
		c.giveBack(len(p))
		return c.stray(id, true)
	}
	ended := flags&flagEndStream != 0
	if len(data) == 0 && !ended {
		if err := c.noisy(4); err != nil {
			return err
		}
	}
	code, why := st.accepts(int64(len(p)), int64(len(data)), ended)
	if why != "" || st.err != nil {
		c.giveBack(len(p))
		if st.err != nil && !st.byPeer {
			return nil // we reset it
		}
		return c.late(st, code, why)
	}
	st.recvWin -= int64(len(p))
	st.got += int64(len(data))
	c.giveBack(len(p) - len(data))
	st.unacked += len(p) - len(data)
	st.body.Add(data)
	if ended {
		st.endRemote()
	}
	c.wakeReader(st)
	return nil
}

// stray deals with a frame for a stream that is not there (section 5.1). mu is held.
func (c *core) stray(id uint32, data bool) error {
	if c.idleStream(id) {
		return connError(ProtocolError, "frame for an idle stream")
	}
	switch c.closed.how(id) {
	case endedWell:
		return connError(StreamClosed, "frame after the end of its stream")
	case resetByUs:
		return c.noisy(1)
	}
	if data {
		c.room(frameHeader + 4)
		c.out.buf = appendRST(c.out.buf, id, StreamClosed)
		return c.faulted()
	}
	return c.noisy(1)
}

// idleStream reports whether nobody has begun that stream.
func (c *core) idleStream(id uint32) bool {
	return id > c.last || id&1 == 0
}

// late resets a stream for a frame that it cannot take, or ends the connection when both sides had ended the stream.
func (c *core) late(st *stream, code ErrCode, why string) error {
	if st.localEnded && st.remoteEnded {
		return connError(StreamClosed, why)
	}
	return c.reset(st, code, why, true)
}

func (c *core) onHeaders(id uint32, flags byte, p []byte) error {
	if id == 0 {
		return connError(ProtocolError, "HEADERS without a stream")
	}
	p, bad := unpad(p, flags)
	if bad != nil {
		return bad
	}
	self := false
	if flags&flagPriority != 0 {
		if len(p) < 5 {
			return connError(FrameSizeError, "HEADERS is too short for its priority")
		}
		self = binary.BigEndian.Uint32(p)&maxStreamID == id
		p = p[5:]
	}
	if flags&flagEndHeaders != 0 {
		return c.onBlock(id, flags, p, self)
	}
	c.part = partial{id: id, flags: flags, self: self, buf: append(c.part.buf[:0], p...)}
	return nil
}

func (c *core) onContinuation(id uint32, flags byte, p []byte) error {
	if c.part.id == 0 {
		return connError(ProtocolError, "CONTINUATION without a header block")
	}
	if c.part.frames++; len(c.part.buf)+len(p) > c.o.BlockBytes || c.part.frames > 8+len(c.part.buf)>>9 {
		return connError(EnhanceYourCalm, "header block is too large, or in too many pieces")
	}
	c.part.buf = append(c.part.buf, p...)
	if flags&flagEndHeaders == 0 {
		return nil
	}
	part := c.part
	c.part = partial{}
	return c.onBlock(id, part.flags, part.buf, part.self)
}

// onBlock decodes a whole header block, whatever becomes of its stream: the table depends on it.
func (c *core) onBlock(id uint32, flags byte, block []byte, self bool) error {
	h := c.scratch
	if err := h.Decode(c.dec, block, c.o.limits()); err != nil {
		return connError(CompressionError, err.Error())
	}
	if self {
		h.Malformed("stream depends on itself")
	}
	ended := flags&flagEndStream != 0
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.streams[id]
	switch {
	case st == nil && c.server != nil:
		return c.server.onRequest(id, ended)
	case st == nil:
		return c.stray(id, false)
	case st.err != nil && !st.byPeer:
		return c.noisy(1) // we reset it
	case st.remoteEnded || st.err != nil:
		return c.late(st, StreamClosed, "HEADERS after the end")
	case c.client != nil && !st.headed:
		return c.client.onResponse(st, ended)
	}
	return c.onTrailers(st, ended)
}

func (c *core) onTrailers(st *stream, ended bool) error {
	h := c.scratch
	h.CheckTrailers()
	if !ended {
		h.Malformed("trailers that do not end the stream")
	}
	if code, why := st.accepts(0, 0, ended); h.Bad == "" && why != "" {
		return c.reset(st, code, why, true)
	}
	if h.Bad != "" {
		return c.reset(st, ProtocolError, h.Bad, true)
	}
	c.scratch, st.trail = st.trail, h
	if c.scratch == nil {
		c.scratch = head.New()
	}
	st.endRemote()
	c.wakeReader(st)
	return nil
}

func (c *core) onRST(id uint32, p []byte) error {
	if id == 0 {
		return connError(ProtocolError, "RST_STREAM without a stream")
	}
	if len(p) != 4 {
		return connError(FrameSizeError, "RST_STREAM of another size than 4")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.streams[id]
	if st == nil {
		if c.idleStream(id) {
			return connError(ProtocolError, "RST_STREAM for an idle stream")
		}
		c.closed.rewrite(id, resetByPeer)
		return c.noisy(1)
	}
	code := ErrCode(binary.BigEndian.Uint32(p))
	if st.err == nil {
		st.resetByPeer(code)
	}
	if st.remoteEnded && st.localEnded && code == NoError {
		return nil
	}
	return c.faulted()
}

func (c *core) onWindow(id uint32, p []byte) error {
	if len(p) != 4 {
		return connError(FrameSizeError, "WINDOW_UPDATE of another size than 4")
	}
	n := int64(binary.BigEndian.Uint32(p) & maxStreamID)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.paid > 0 { // it answers DATA of ours
		c.paid--
	} else if err := c.noisy(1); err != nil {
		return err
	}
	if id == 0 {
		if n == 0 {
			return connError(ProtocolError, "WINDOW_UPDATE by 0")
		}
		if c.sendWin += n; c.sendWin > maxWindow {
			return connError(FlowControlError, "connection's window overflows")
		}
		if c.client != nil {
			c.client.reopen()
		}
		c.wakeStalled(false)
		return nil
	}
	st := c.streams[id]
	switch {
	case st == nil && c.idleStream(id):
		return connError(ProtocolError, "WINDOW_UPDATE for an idle stream")
	case n == 0 && st == nil && c.closed.how(id) == resetByUs:
		return c.faulted() // it may have been sent before our reset was read
	case n == 0 && (st == nil || st.whole()):
		return connError(ProtocolError, "WINDOW_UPDATE by 0") // there is no stream that could be reset
	case st == nil || st.err != nil:
		return nil
	case n == 0:
		return c.reset(st, ProtocolError, "WINDOW_UPDATE by 0", true)
	}
	if st.sendWin += n; st.sendWin > maxWindow {
		return c.reset(st, FlowControlError, "stream's window overflows", true)
	}
	c.wakeWriter(st)
	return nil
}

func (c *core) onSettings(id uint32, flags byte, p []byte) error {
	switch {
	case id != 0:
		return connError(ProtocolError, "SETTINGS on a stream")
	case flags&flagAck != 0 && len(p) != 0, len(p)%6 != 0:
		return connError(FrameSizeError, "SETTINGS of an odd size")
	case flags&flagAck != 0:
		return c.noisy(1)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.noisy(8 + len(p)/6); err != nil {
		return err
	}
	for ; len(p) > 0; p = p[6:] {
		if err := c.set(binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])); err != nil {
			return err
		}
	}
	if !c.settled && c.client != nil {
		defer close(c.client.ready)
	}
	c.settled = true
	c.room(frameHeader)
	c.out.buf = appendFrame(c.out.buf, 0, frameSettings, flagAck, 0)
	c.wakeStalled(false)
	return nil
}

// set is section 6.5.2. mu is held.
func (c *core) set(id uint16, v uint32) error {
	switch id {
	case settingTable:
		c.enc.SetMax(int(min(v, maxWindow)))
	case settingPush:
		if v > 1 || v == 1 && c.client != nil {
			return connError(ProtocolError, "invalid ENABLE_PUSH")
		}
	case settingStreams:
		c.peer.streams = int(min(v, 1<<30))
	case settingWindow:
		return c.setWindow(int64(v))
	case settingFrame:
		if v < minMaxFrame || v > 1<<24-1 {
			return connError(ProtocolError, "invalid MAX_FRAME_SIZE")
		}
		c.peer.frame = min(int(v), bulkFrameBytes)
	case settingHeadList:
		c.peer.headList = int(min(v, 1<<30))
	case settingConnect:
		if v > 1 || v == 0 && c.peer.connect {
			return connError(ProtocolError, "invalid ENABLE_CONNECT_PROTOCOL")
		}
		c.peer.connect = v == 1
	}
	return nil
}

func (c *core) setWindow(v int64) error {
	if v > maxWindow {
		return connError(FlowControlError, "invalid INITIAL_WINDOW_SIZE")
	}
	delta := v - c.peer.window
	c.peer.window = v
	for _, st := range c.streams {
		if st.sendWin += delta; st.sendWin > maxWindow {
			return connError(FlowControlError, "stream's window overflows by SETTINGS")
		}
	}
	return nil
}

func (c *core) onPing(id uint32, flags byte, p []byte) error {
	switch {
	case id != 0:
		return connError(ProtocolError, "PING on a stream")
	case len(p) != 8:
		return connError(FrameSizeError, "PING of another size than 8")
	}
	payload := binary.BigEndian.Uint64(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if flags&flagAck != 0 {
		c.watchdog.pinged = c.watchdog.pinged && payload != keepAlivePing
		if payload == drainPing && c.draining && c.server != nil {
			c.server.sayFarewell()
		}
		return c.noisy(1)
	}
	if c.paid > 0 { // gRPC measures the path by a PING after DATA
		c.paid--
	} else if err := c.noisy(2); err != nil {
		return err
	}
	c.room(frameHeader + 8)
	c.out.buf = appendPing(c.out.buf, flagAck, payload)
	return c.tooMuchQueued()
}

func (c *core) onPriority(id uint32, p []byte) error {
	if id == 0 {
		return connError(ProtocolError, "PRIORITY without a stream")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	code, why := ErrCode(0), ""
	switch {
	case len(p) != 5:
		code, why = FrameSizeError, "PRIORITY of another size than 5"
	case binary.BigEndian.Uint32(p)&maxStreamID == id:
		code, why = ProtocolError, "stream depends on itself"
	default:
		return c.noisy(1)
	}
	if st := c.streams[id]; st != nil && !st.whole() {
		return c.reset(st, code, why, true)
	}
	return connError(code, why) // there is no stream that could be reset
}

func (c *core) onGoAway(id uint32, p []byte) error {
	switch {
	case id != 0:
		return connError(ProtocolError, "GOAWAY on a stream")
	case len(p) < 8:
		return connError(FrameSizeError, "GOAWAY is too short")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.noisy(8); err != nil || c.server != nil {
		return err
	}
	return c.client.onGoAway(binary.BigEndian.Uint32(p)&maxStreamID, ErrCode(binary.BigEndian.Uint32(p[4:])))
}
