package rpc

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// handle takes one frame.
func (c *conn) handle(f *frame) error {
	c.pace.spend(1)
	switch {
	case !c.introduced && (f.kind != frameSettings || f.has(flagAck)):
		return violation("the first frame is not SETTINGS")
	case c.block.stream != 0 && (f.kind != frameContinuation || f.stream != c.block.stream):
		return violation("a header block is interrupted")
	}
	switch f.kind {
	case frameData:
		return c.data(f)
	case frameHeaders:
		return c.headers(f)
	case frameContinuation:
		return c.continuation(f)
	case framePriority:
		return c.priority(f)
	case frameReset:
		return c.reset(f)
	case frameSettings:
		return c.settings(f)
	case framePing:
		return c.ping(f)
	case frameGoAway:
		if f.stream != 0 || len(f.payload) < 8 {
			return violation("a malformed GOAWAY")
		}
		return nil // the client closes the connection when its streams have ended
	case frameWindow:
		return c.windowUpdate(f)
	case framePush:
		return violation("PUSH_PROMISE of a client")
	}
	return nil // frames of unknown types are ignored (RFC 9113, section 5.5)
}

func (c *conn) find(id uint32) *Stream {
	for _, s := range c.streams {
		if s.id == id {
			return s
		}
	}
	return nil
}

// headers begins a header block.
func (c *conn) headers(f *frame) error {
	if f.stream%2 == 0 {
		return violation("HEADERS on stream %d", f.stream)
	}
	b, err := f.unpadded()
	if err != nil {
		return err
	}
	c.block = block{stream: f.stream, end: f.has(flagEndStream)}
	return c.gather(b, f.has(flagEndHeaders))
}

func (c *conn) continuation(f *frame) error {
	if c.block.stream == 0 {
		return violation("CONTINUATION without HEADERS")
	}
	return c.gather(f.payload, f.has(flagEndHeaders))
}

// maxBlock bounds a header block as it is sent; what is larger is no request of gRPC.
const maxBlock = 4 * maxHead

// gather adds to the header block, and decodes it when it is all there.
func (c *conn) gather(b []byte, last bool) error {
	if len(c.block.bytes)+len(b) > maxBlock {
		return connError{codeEnhanceYourCalm, "a header block of more than 64 KiB"}
	}
	if !last {
		c.block.bytes = append(c.block.bytes, b...)
		return nil
	}
	if len(c.block.bytes) > 0 {
		b = append(c.block.bytes, b...)
	}
	id, end := c.block.stream, c.block.end
	c.block = block{}
	known := c.find(id)
	h := head{trailers: known != nil}
	c.decoder.SetEmitFunc(func(f hpack.HeaderField) { h.field(f.Name, f.Value) })
	_, err := c.decoder.Write(b)
	if err == nil {
		err = c.decoder.Close()
	}
	c.decoder.SetEmitFunc(func(hpack.HeaderField) {})
	if err != nil {
		return connError{codeCompression, err.Error()}
	}
	switch {
	case known != nil && (!end || known.halfClosed):
		return connError{codeStreamClosed, fmt.Sprintf("HEADERS inside of stream %d", id)}
	case known != nil: // trailers, which gRPC's clients do not send
		known.halfClose()
		return nil
	case id <= c.last:
		return connError{codeStreamClosed, fmt.Sprintf("HEADERS on stream %d, which was closed", id)}
	}
	c.last = id
	c.pace.spend(costMessage)
	c.open(id, &h, end)
	return nil
}

// open begins a stream.
func (c *conn) open(id uint32, h *head, end bool) {
	malformed, refused := h.check()
	switch {
	case malformed != "":
		c.sendReset(id, codeProtocol)
		return
	case len(c.streams) >= c.server.options.MaxStreams:
		c.sendReset(id, codeRefused)
		return
	}
	s := &Stream{conn: c, id: id, window: c.initial, halfClosed: end}
	c.streams = append(c.streams, s)
	if refused != "" {
		s.finish(&ending{http: refused, status: status.New(codes.Internal, "this is no request of gRPC")})
		return
	}
	if err := s.begin(h); err != nil {
		s.finish(&ending{status: status.Convert(err)})
		return
	}
	if end {
		s.halfClose()
	}
}

// data takes a piece of a stream.
func (c *conn) data(f *frame) error {
	if f.stream == 0 || f.stream > c.last {
		return violation("DATA on stream %d, which is not open", f.stream)
	}
	b, err := f.unpadded()
	if err != nil {
		return err
	}
	if c.credit += len(f.payload); c.credit > defaultWindow {
		return connError{codeFlowControl, "more DATA than the window allows"}
	}
	if c.credit > defaultWindow/2 {
		c.sendWindow(0, c.credit)
		c.credit = 0
	}
	s := c.find(f.stream)
	switch {
	case s == nil: // it ended a moment ago
		return nil
	case s.halfClosed:
		return connError{codeStreamClosed, fmt.Sprintf("DATA on stream %d, which the client has ended", f.stream)}
	}
	if s.credit += len(f.payload); s.credit > defaultWindow {
		return connError{codeFlowControl, "more DATA than the window of a stream allows"}
	}
	if s.credit > defaultWindow/2 && !f.has(flagEndStream) {
		c.sendWindow(s.id, s.credit)
		s.credit = 0
	}
	if err := s.take(b); err != nil {
		s.finish(&ending{status: status.Convert(err)})
		return nil
	}
	if c.unfinished() > 2*c.server.options.MaxMessage {
		return connError{codeEnhanceYourCalm, "too many unfinished messages"}
	}
	if f.has(flagEndStream) {
		s.halfClose()
	}
	return nil
}

// unfinished is how many bytes there are of messages that are not all there.
func (c *conn) unfinished() (n int) {
	for _, s := range c.streams {
		n += len(s.message)
	}
	return n
}

func (c *conn) priority(f *frame) error {
	switch {
	case f.stream == 0 || len(f.payload) != 5:
		return connError{codeFrameSize, "a malformed PRIORITY"}
	case binary.BigEndian.Uint32(f.payload)&maxWindow == f.stream:
		return violation("stream %d depends on itself", f.stream)
	}
	return nil // which means nothing (RFC 9113, section 5.3.2)
}

// reset ends a stream that the client gives up.
func (c *conn) reset(f *frame) error {
	switch {
	case len(f.payload) != 4:
		return connError{codeFrameSize, "a malformed RST_STREAM"}
	case f.stream == 0 || f.stream > c.last:
		return violation("RST_STREAM on stream %d, which is not open", f.stream)
	}
	c.pace.spend(costMessage)
	if s := c.find(f.stream); s != nil {
		c.drop(s)
		s.leave(status.Error(codes.Canceled, "the client gave the stream up"))
	}
	return nil
}

func (c *conn) drop(s *Stream) {
	c.streams = slices.DeleteFunc(c.streams, func(other *Stream) bool { return other == s })
}

// settings takes the client's.
func (c *conn) settings(f *frame) error {
	switch {
	case f.stream != 0:
		return violation("SETTINGS on a stream")
	case f.has(flagAck) && len(f.payload) != 0, len(f.payload)%6 != 0:
		return connError{codeFrameSize, "malformed SETTINGS"}
	case f.has(flagAck):
		c.decoder.SetAllowedMaxDynamicTableSize(0) // from here on the client knows
		return nil
	}
	c.introduced = true
	for b := f.payload; len(b) > 0; b = b[6:] {
		if err := c.setting(binary.BigEndian.Uint16(b), binary.BigEndian.Uint32(b[2:])); err != nil {
			return err
		}
	}
	c.space.out = appendFrame(c.space.out, frameSettings, flagAck, 0, 0)
	return nil
}

func (c *conn) setting(id uint16, v uint32) error {
	switch id {
	case settingPush:
		if v > 1 {
			return violation("ENABLE_PUSH is %d", v)
		}
	case settingFrameSize:
		if v < maxFrame || v > 1<<24-1 {
			return violation("MAX_FRAME_SIZE is %d", v)
		}
	case settingWindow:
		if v > maxWindow {
			return connError{codeFlowControl, fmt.Sprintf("INITIAL_WINDOW_SIZE is %d", v)}
		}
		for _, s := range c.streams { // RFC 9113, section 6.9.2
			if s.window += int64(v) - c.initial; s.window > maxWindow {
				return connError{codeFlowControl, "a window of more than 2^31-1"}
			}
			s.active = true
		}
		c.initial = int64(v)
	}
	return nil // the others concern what is not done here
}

func (c *conn) ping(f *frame) error {
	switch {
	case f.stream != 0:
		return violation("PING on a stream")
	case len(f.payload) != 8:
		return connError{codeFrameSize, "a malformed PING"}
	case !f.has(flagAck):
		c.space.out = append(appendFrame(c.space.out, framePing, flagAck, 0, 8), f.payload...)
	}
	return nil
}

// windowUpdate lets more be sent.
func (c *conn) windowUpdate(f *frame) error {
	if len(f.payload) != 4 {
		return connError{codeFrameSize, "a malformed WINDOW_UPDATE"}
	}
	n := int64(binary.BigEndian.Uint32(f.payload) & maxWindow)
	switch {
	case f.stream > c.last:
		return violation("WINDOW_UPDATE on stream %d, which is not open", f.stream)
	case f.stream == 0 && n == 0:
		return violation("WINDOW_UPDATE of nothing")
	case f.stream == 0:
		if c.window += n; c.window > maxWindow {
			return connError{codeFlowControl, "a window of more than 2^31-1"}
		}
		for _, s := range c.streams {
			s.active = true
		}
		return nil
	}
	s := c.find(f.stream)
	if s == nil {
		return nil // it ended a moment ago
	}
	if s.window += n; n == 0 || s.window > maxWindow {
		c.drop(s)
		s.leave(status.Error(codes.Internal, "an invalid WINDOW_UPDATE"))
		bad := codeFlowControl
		if n == 0 {
			bad = codeProtocol
		}
		c.sendReset(s.id, bad)
		return nil
	}
	s.active = true
	return nil
}

func (c *conn) sendReset(id uint32, why code) {
	c.space.out = binary.BigEndian.AppendUint32(appendFrame(c.space.out, frameReset, 0, id, 4), uint32(why))
}

func (c *conn) sendWindow(id uint32, n int) {
	c.space.out = binary.BigEndian.AppendUint32(appendFrame(c.space.out, frameWindow, 0, id, 4), uint32(n))
}
