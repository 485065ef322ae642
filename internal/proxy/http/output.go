package http1

import (
	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// output is the writing half of a connection. What is in buf has not left yet.
type output struct {
	c   conn.Conn
	blk *block // nil while nothing is being written
	buf []byte // in blk.b, or a larger one for a large head

	kind    message.BodyKind // how the body is framed on the wire
	left    int64            // still to be written of a Sized body
	discard bool             // the message has no body on the wire whatever the caller writes
	open    bool             // a head was written and its body is not finished
	err     error            // sticky
}

func (o *output) acquire() {
	if o.blk == nil {
		o.blk = getBlock(smallBlock)
		o.buf = o.blk.b[:0]
	}
}

func (o *output) release() {
	if o.blk != nil {
		putBlock(o.blk)
		o.blk, o.buf = nil, nil
	}
}

// Flush sends what was written so far.
func (o *output) Flush() error {
	if o.err != nil || len(o.buf) == 0 {
		return o.err
	}
	_, o.err = o.c.Write(o.buf)
	o.buf = o.buf[:0]
	return o.err
}

// begin notes the framing of the message whose head is in buf.
func (o *output) begin(b message.Body, discard bool) {
	o.kind, o.left, o.discard, o.open = b.Kind, b.Length, discard, true
	if o.untilClose() {
		conn.BreakOnClose(o.c, true) // until it was written whole
	}
}

// untilClose reports whether a body is being written of which the end of the connection is the end.
func (o *output) untilClose() bool { return o.open && o.kind == message.UntilClose && !o.discard }

// WriteBody writes p as part of the body, without keeping p. It may hold some of it back until Flush or FinishBody. More
// bytes than the head declared are ErrBodyLength. For a message that has no body (an answer to HEAD) it drops p.
func (o *output) WriteBody(p []byte) error {
	switch {
	case o.err != nil:
		return o.err
	case !o.open:
		return ErrState
	case o.discard || len(p) == 0:
		return nil
	}
	o.acquire()
	switch o.kind {
	case message.NoBody:
		return o.fail(ErrBodyLength)
	case message.Sized:
		if int64(len(p)) > o.left {
			return o.fail(ErrBodyLength)
		}
		o.left -= int64(len(p))
	case message.Chunked:
		return o.writeChunk(p)
	}
	return o.put(p)
}

func (o *output) fail(err error) error {
	o.err = err
	return err
}

// put sends p or a copy of it stays in the buffer. A long p leaves from its own memory, but for the part that fills a buffer
// which must go first.
func (o *output) put(p []byte) error {
	if room := cap(o.buf) - len(o.buf); len(p) > room {
		if len(o.buf) > 0 {
			o.buf = append(o.buf, p[:room]...)
			p = p[room:]
			if err := o.Flush(); err != nil {
				return err
			}
		}
		if len(p) >= cap(o.buf) {
			_, o.err = o.c.Write(p)
			return o.err
		}
	}
	o.buf = append(o.buf, p...)
	return nil
}

// maxChunkLine is the length of the longest chunk line that writeChunk makes, with the CRLF of the chunk before.
const maxChunkLine = 2 + 16 + 2

func (o *output) writeChunk(p []byte) error {
	if cap(o.buf)-len(o.buf) < maxChunkLine {
		if err := o.Flush(); err != nil {
			return err
		}
	}
	o.buf = append(appendHex(o.buf, uint64(len(p))), '\r', '\n')
	if err := o.put(p); err != nil {
		return err
	}
	if cap(o.buf)-len(o.buf) < 2 {
		if err := o.Flush(); err != nil {
			return err
		}
	}
	o.buf = append(o.buf, '\r', '\n')
	return nil
}

func appendHex(b []byte, n uint64) []byte {
	shift := 60
	for shift > 0 && n>>shift == 0 {
		shift -= 4
	}
	for ; shift >= 0; shift -= 4 {
		b = append(b, "0123456789abcdef"[n>>shift&15])
	}
	return b
}

// FinishBody ends the message and flushes. A Sized body that lacks bytes is ErrBodyLength. Trailers may be nil; they are sent
// where the framing has a place for them, without those that RFC 9110 section 6.5.1 forbids there, and dropped elsewhere.
func (o *output) FinishBody(trailers *message.Header) error {
	switch {
	case o.err != nil:
		return o.err
	case !o.open:
		return ErrState
	}
	ends := o.untilClose()
	o.open = false
	if o.discard {
		return o.Flush()
	}
	if ends {
		if err := o.Flush(); err != nil {
			return err
		}
		conn.BreakOnClose(o.c, false)
	}
	switch o.kind {
	case message.Sized:
		if o.left != 0 {
			o.Flush()
			return o.fail(ErrBodyLength)
		}
	case message.Chunked:
		o.acquire()
		if err := o.endChunks(trailers); err != nil {
			return err
		}
	}
	return o.Flush()
}

func (o *output) endChunks(trailers *message.Header) error {
	b := append(o.buf, '0', '\r', '\n')
	if trailers != nil {
		for f := range trailers.All() {
			if framingName(f.Name) {
				continue
			}
			if !message.IsToken(f.Name) || !message.ValidValue(raw(f.Value)) {
				return o.fail(ErrBadHead)
			}
			b = appendField(b, f.Name, f.Value)
		}
	}
	o.buf = append(b, '\r', '\n')
	return nil
}

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ':', ' ')
	b = append(b, value...)
	return append(b, '\r', '\n')
}

// finished reports whether the last message was written whole.
func (o *output) finished() bool { return o.err == nil && !o.open && len(o.buf) == 0 }
