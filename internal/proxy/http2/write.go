package http2

import (
	"strconv"
	"time"

	"github.com/weftmesh/weft/internal/proxy/http2/head"
	"github.com/weftmesh/weft/internal/proxy/http2/hpack"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// upperToken and badToken are what nameClass says of characters that a name on the wire cannot hold as they are.
const (
	badToken = iota
	goodToken
	upperToken
)

var nameClass = func() (t [256]uint8) {
	for i := range t {
		if message.TokenChars[i] {
			t[i] = goodToken
		}
	}
	for b := 'A'; b <= 'Z'; b++ {
		t[b] = upperToken
	}
	return t
}()

// fieldsCost checks fields that are to be written and bounds the bytes that they take.
func fieldsCost(h *message.Header) (n int, ok bool) {
	for i := range h.Len() {
		f := h.At(i)
		n += len(f.Name) + len(f.Value) + 12
		if h.Plain(i) {
			continue
		}
		if f.Name == "" || !head.ValidValue(f.Value) {
			return 0, false
		}
		for j := 0; j < len(f.Name); j++ {
			if nameClass[f.Name[j]] == badToken {
				return 0, false
			}
		}
	}
	return n, true
}

// fieldWriter encodes the fields of one head.
type fieldWriter struct {
	c          *core
	body       message.Body // Sized: its length is to be told
	keepLength bool         // copy content-length: it describes a body that is not sent (HEAD, 304)
	trailer    bool
	framed     bool
}

// fields appends h without what belongs to the connection.
func (w *fieldWriter) fields(b []byte, h *message.Header) []byte {
	for i := range h.Len() {
		f := h.At(i)
		if !h.Plain(i) {
			f.Name = w.c.lowered(f.Name)
			switch fieldRole(f.Name) {
			case ofConnection:
				continue
			case ofTE:
				if !message.EqualFold(f.Value, "trailers") || w.trailer {
					continue
				}
				f.Value = "trailers"
			case ofLength:
				if !w.keepLength {
					b = w.length(b)
					continue
				}
			}
		}
		if f.Sensitive {
			b = w.c.enc.Sensitive(b, f.Name, f.Value)
		} else {
			b = w.c.enc.Field(b, f.Name, f.Value)
		}
	}
	return w.length(b)
}

func (w *fieldWriter) length(b []byte) []byte {
	if w.framed || w.body.Kind != message.Sized {
		return b
	}
	w.framed = true
	digits := strconv.AppendInt(w.c.digits[:0], w.body.Length, 10)
	return w.c.enc.Field(b, "content-length", str(digits))
}

// lowered gives name in lower case, valid until the next call.
func (c *core) lowered(name string) string {
	for i := 0; i < len(name); i++ {
		if nameClass[name[i]] != upperToken {
			continue
		}
		c.lower = append(c.lower[:0], name...)
		for j, x := range c.lower {
			if nameClass[x] == upperToken {
				c.lower[j] = x | 0x20
			}
		}
		return str(c.lower)
	}
	return name
}

const (
	ofMessage = iota
	ofConnection
	ofTE
	ofLength
)

func fieldRole(name string) int {
	switch name {
	case "host", "upgrade", "connection", "keep-alive", "proxy-connection", "transfer-encoding", "http2-settings":
		return ofConnection
	case "te":
		return ofTE
	case "content-length":
		return ofLength
	}
	return ofMessage
}

// writable reports why the writing half cannot be used. mu is held.
func (st *stream) writable() error {
	switch {
	case st.err != nil:
		return st.err
	case st.werr != nil:
		return st.werr
	case st.c.err != nil: // the stream was not begun on the wire
		return &ConnError{Err: st.c.err, untouched: true}
	}
	return nil
}

// roomForHead waits while the output is full. mu is held.
func (st *stream) roomForHead() error {
	for {
		if err := st.writable(); err != nil {
			return err
		}
		if len(st.c.out.buf) < st.c.o.WriteBytes {
			return nil
		}
		if err := st.waitWrite(); err != nil {
			return err
		}
	}
}

// beginHead reserves a frame of at most cost bytes and begins its block.
func (st *stream) beginHead(cost int) (at int, b []byte) {
	c := st.c
	c.room(frameHeader + cost + 16)
	at = len(c.out.buf)
	return at, c.enc.Begin(appendFrame(c.out.buf, 0, frameHeaders, flagEndHeaders, st.id))
}

// endHead completes the frame that begins at at, in pieces if it is too long for one.
func (st *stream) endHead(at int, b []byte, end bool) {
	c := st.c
	if end {
		b[at+4] |= flagEndStream
		st.endLocal()
	}
	n := len(b) - at - frameHeader
	most := c.peer.frame
	if n > most {
		b = splitHead(b, at, most)
		n = most
	}
	b[at], b[at+1], b[at+2] = byte(n>>16), byte(n>>8), byte(n)
	if cap(b) != cap(c.out.buf) { // the bound was kept but for splitting
		c.out.buf = c.out.buf[:at]
		c.room(len(b) - at)
		c.out.buf = append(c.out.buf, b[at:]...)
	} else {
		c.out.buf = b
	}
	c.pay(2)
	st.mark, st.markWrite = at+1, c.out.writes
	if st.headWrite == 0 {
		st.headWrite = c.out.writes + 1
	}
}

// splitHead puts what a HEADERS frame cannot hold into CONTINUATION frames.
func splitHead(b []byte, at, most int) []byte {
	id := uint32(b[at+5])<<24 | uint32(b[at+6])<<16 | uint32(b[at+7])<<8 | uint32(b[at+8])
	rest := append([]byte(nil), b[at+frameHeader+most:]...)
	b = b[:at+frameHeader+most]
	b[at+4] &^= flagEndHeaders
	for len(rest) > 0 {
		n := min(len(rest), most)
		flags := byte(0)
		if n == len(rest) {
			flags = flagEndHeaders
		}
		b = append(appendFrame(b, n, frameContinuation, flags, id), rest[:n]...)
		rest = rest[n:]
	}
	return b
}

// unsent reports whether no byte of the stream has left. mu is held.
func (st *stream) unsent() bool { return st.id == 0 || st.headWrite > st.c.out.writes }

// beginBody notes the framing of the message whose head was written.
func (st *stream) beginBody(b message.Body, discard bool) {
	st.open, st.discard = true, discard
	st.sized, st.left = b.Kind == message.Sized || b.Kind == message.NoBody, b.Length
	if b.Kind == message.NoBody {
		st.left = 0
	}
}

// WriteBody writes p as part of the body, without keeping p. It may hold some of it back until Flush or FinishBody. More bytes
// than the head declared are ErrBodyLength. For a message that has no body (an answer to HEAD) it drops p.
func (st *stream) WriteBody(p []byte) error {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	switch err := st.writable(); {
	case err != nil:
		return err
	case !st.open:
		return ErrState
	case st.discard:
		return nil
	case st.sized && int64(len(p)) > st.left:
		return st.failBody()
	}
	if st.sized {
		st.left -= int64(len(p))
	}
	return st.data(p)
}

func (st *stream) failBody() error {
	c := st.c
	c.reset(st, InternalError, "body differs from its declared length", false)
	c.flush(false)
	return ErrBodyLength
}

// data queues p, and waits where windows or the output are full. mu is held.
func (st *stream) data(p []byte) error {
	c := st.c
	for len(p) > 0 {
		if err := st.writable(); err != nil {
			return err
		}
		room := c.o.WriteBytes - len(c.out.buf)
		n := int(min(int64(min(len(p), c.peer.frame, room)), st.sendWin, c.sendWin))
		if n <= 0 || n < 1<<10 && n < len(p) && n == room {
			if err := st.waitWrite(); err != nil {
				return err
			}
			continue
		}
		c.room(frameHeader + min(len(p), room) + len(p)>>10)
		st.mark, st.markWrite = len(c.out.buf)+1, c.out.writes
		c.out.buf = append(appendFrame(c.out.buf, n, frameData, 0, st.id), p[:n]...)
		st.sendWin -= int64(n)
		if c.sendWin -= int64(n); c.sendWin == 0 && c.client != nil {
			c.client.shutAt = time.Now()
			c.client.shut.Store(true)
		}
		st.sent += int64(n)
		c.pay(2 + n>>9)
		p = p[n:]
	}
	if len(c.out.buf) >= c.o.WriteBytes/2 {
		c.write()
	}
	return nil
}

// Flush sends what was written so far, or sees it sent by a write that is under way.
func (st *stream) Flush() error {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := st.writable(); err != nil {
		return err
	}
	c.flush(c.active > 1)
	return nil
}

// FinishBody ends the message and flushes. A Sized body that lacks bytes is ErrBodyLength. Trailers may be nil; they are sent if
// the message has content, without those that belong to a connection.
func (st *stream) FinishBody(trailers *message.Header) error {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	switch err := st.writable(); {
	case err != nil:
		return err
	case !st.open:
		return ErrState
	case st.sized && st.left > 0 && !st.discard:
		return st.failBody()
	}
	st.open = false
	if !st.localEnded {
		if err := st.endStream(trailers); err != nil {
			return err
		}
	}
	c.flush(c.active > 1)
	return nil
}

func (st *stream) endStream(trailers *message.Header) error {
	c := st.c
	if trailers != nil && trailers.Len() > 0 {
		cost, ok := fieldsCost(trailers)
		if !ok {
			c.reset(st, InternalError, "trailers cannot be written", false)
			c.flush(false)
			return ErrBadHead
		}
		if err := st.roomForHead(); err != nil {
			return err
		}
		at, b := st.beginHead(cost)
		w := fieldWriter{c: c, trailer: true}
		st.endHead(at, w.fields(b, trailers), true)
		return nil
	}
	st.endLocal()
	if st.mark > 0 && st.markWrite == c.out.writes {
		c.out.buf[st.mark-1+4] |= flagEndStream // the last frame has not left yet
		return nil
	}
	c.room(frameHeader)
	c.out.buf = appendFrame(c.out.buf, 0, frameData, flagEndStream, st.id)
	return nil
}

// pseudo appends a pseudo-header field, by its index in the static table where that holds the value.
func (c *core) pseudo(b []byte, index int, name, value string) []byte {
	if index != 0 {
		return hpack.Static(b, index)
	}
	return c.enc.Field(b, name, value)
}
