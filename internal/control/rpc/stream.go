package rpc

import (
	"encoding/binary"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Handler is what a stream means. Its methods are called one at a time, by workers that serve other clients too: they must not block.
// An error ends the stream with the gRPC status that it stands for.
type Handler interface {
	// Receive takes a message of the client in. It may not keep it.
	Receive(message []byte) error
	// Next sends one message of what there is to be said, with Stream.Send, and reports whether there may be more. It is called after
	// messages of the client, after Wake, and when the client's certificate has ended, whenever there is room.
	Next() (more bool, err error)
	// Closed is called last, with the reason when it was not the client that ended the stream.
	Closed(reason error)
}

// Stream is a call that has a Handler.
type Stream struct {
	conn *conn // set once
	id   uint32

	woken atomic.Bool           // for everybody
	why   atomic.Pointer[error] // as well: why it has to end, room or not

	// Whoever has the connection's turn owns what follows.
	handler    Handler
	active     bool     // the handler may have something to say
	window     int64    // for what is sent
	credit     int      // bytes of DATA that the client has not been given back
	message    []byte   // the part of a message that is there
	unsent     [][]byte // the parts, as they were given, of a message for which there is no room
	left       int      // bytes of unsent
	headSent   bool
	halfClosed bool // the client sends no more
	ending     *ending
}

// ending is how a stream ends.
type ending struct {
	http   string // a status of HTTP for what is no request of gRPC
	status *status.Status
}

// Peer is who is at the other end.
func (s *Stream) Peer() Peer { return s.conn.peer() }

// Wake has Next called soon. It may be called by anyone at any time and never blocks.
func (s *Stream) Wake() {
	s.woken.Store(true)
	s.conn.wake()
}

// Cut ends the stream with the gRPC status that the reason stands for, whether there is room or not: what waits for the client is
// forgotten. It may be called by anyone at any time and never blocks.
func (s *Stream) Cut(reason error) {
	s.why.CompareAndSwap(nil, &reason)
	s.woken.Store(true)
	s.conn.hasten()
}

// begin finds out what was called.
func (s *Stream) begin(h *head) error {
	if h.encoding != "" && h.encoding != "identity" {
		return status.Errorf(codes.Unimplemented, "messages compressed by %q are not read", h.encoding)
	}
	if m, ok := s.conn.server.unary[h.path]; ok {
		call, err := newCall(s, m, h)
		if err != nil {
			return err
		}
		s.handler = call
		return nil
	}
	open, ok := s.conn.server.streams[h.path]
	if !ok {
		return status.Errorf(codes.Unimplemented, "there is no method %q", h.path)
	}
	handler, err := open(s)
	if err != nil {
		return err
	}
	s.handler, s.active = handler, true
	return nil
}

// prefix is the size of what precedes a message: whether it is compressed, and its length.
const prefix = 5

// take handles a piece of what the client sends.
func (s *Stream) take(b []byte) error {
	if s.ending != nil {
		return nil
	}
	partial := len(s.message) > 0
	if partial {
		s.message = append(s.message, b...)
		b = s.message
	}
	rest := b
	for len(rest) >= prefix {
		n := binary.BigEndian.Uint32(rest[1:])
		switch {
		case rest[0] != 0:
			return status.Error(codes.Internal, "a compressed message on a stream without compression")
		case int64(n) > int64(s.conn.server.options.MaxMessage):
			return status.Errorf(codes.ResourceExhausted, "a message of %d bytes, more than %d", n, s.conn.server.options.MaxMessage)
		}
		if len(rest)-prefix < int(n) {
			break
		}
		s.conn.pace.spend(costMessage)
		if s.woken.Swap(false) { // what was to be said before the client spoke is said before it is heard
			if err := s.speak(noHurry); err != nil || s.ending != nil {
				return err
			}
		}
		if err := s.handler.Receive(rest[prefix : prefix+int(n)]); err != nil {
			return err
		}
		s.active = true
		rest = rest[prefix+int(n):]
	}
	switch {
	case len(rest) == 0:
		s.message = nil
	case !partial || len(rest) < len(b):
		s.message = append([]byte(nil), rest...)
	}
	return nil
}

// halfClose is the end of what the client sends, which ends a stream.
func (s *Stream) halfClose() {
	s.halfClosed = true
	switch call, unary := s.handler.(*call); {
	case s.ending != nil:
	case len(s.message) > 0:
		s.finish(&ending{status: status.New(codes.Internal, "the stream ended inside of a message")})
	case unary:
		if err := call.start(); err != nil {
			s.finish(&ending{status: status.Convert(err)})
		}
	default:
		s.finish(&ending{status: status.New(codes.OK, "")})
	}
}

// room reports whether a message would be sent at once.
func (s *Stream) room() bool { return s.left == 0 && s.ending == nil && !s.conn.sock.blocked() }

// SendHead sends the head of the response before its first message. It is for a Handler inside of its methods.
func (s *Stream) SendHead() {
	if s.headSent {
		return
	}
	s.headSent = true
	c := s.conn
	c.space.out = append(appendFrame(c.space.out, frameHeaders, flagEndHeaders, s.id, len(okHead)), okHead...)
}

// Send sends a message that is made of what it begins with, and of parts. The parts must not change any more: those for which there is no
// room are kept, not copied. It is for a Handler inside of Next; sent is false when a part of the message has to wait for the client.
func (s *Stream) Send(begin []byte, parts ...[]byte) (sent bool) {
	s.SendHead()
	n := prefix + len(begin)
	for _, p := range parts {
		n += len(p)
	}
	c := s.conn
	var head [prefix]byte
	binary.BigEndian.PutUint32(head[1:], uint32(n-prefix))
	if int64(n) > s.window || int64(n) > c.window || len(c.space.out)+n > flushFrom {
		s.unsent, s.left = append([][]byte{slices.Concat(head[:], begin)}, parts...), n
		s.push()
		return s.left == 0
	}
	s.window -= int64(n)
	c.window -= int64(n)
	f := framer{space: c.space, stream: s.id, left: n}
	f.add(head[:])
	f.add(begin)
	for _, p := range parts {
		f.add(p)
	}
	return true
}

// framer writes a message in frames.
type framer struct {
	space  *workspace
	stream uint32
	left   int // of the message, for frames to come
	room   int // in the frame that was begun
}

func (f *framer) add(b []byte) {
	for len(b) > 0 {
		if f.room == 0 {
			f.room = min(f.left, maxFrame)
			f.left -= f.room
			f.space.out = appendFrame(f.space.out, frameData, 0, f.stream, f.room)
		}
		n := min(f.room, len(b))
		f.space.out = append(f.space.out, b[:n]...)
		b, f.room = b[n:], f.room-n
	}
}

// push sends what there is room for of a message that waits: no more is written once the kernel takes no more.
func (s *Stream) push() {
	c := s.conn
	for s.left > 0 && !c.sock.blocked() {
		n := min(int64(s.left), s.window, c.window, maxFrame)
		if n <= 0 {
			return
		}
		c.space.out = appendFrame(c.space.out, frameData, 0, s.id, int(n))
		s.window -= n
		c.window -= n
		s.shift(int(n))
		if len(c.space.out) >= flushFrom && c.flush() != nil {
			return // which the next write finds too
		}
	}
}

// shift moves the next n bytes of a message that waits to what is written.
func (s *Stream) shift(n int) {
	out := s.conn.space
	for s.left -= n; n > 0; {
		p := s.unsent[0]
		k := min(n, len(p))
		out.out = append(out.out, p[:k]...)
		n -= k
		if s.unsent[0] = p[k:]; k == len(p) {
			s.unsent[0], s.unsent = nil, s.unsent[1:]
		}
	}
	if s.left == 0 {
		s.unsent = nil
	}
}

// What one stream, and one connection, says while others wait is bounded: by messages, and by time, after which no other message is asked
// for. What is to be said before a message of the client is heard takes its time.
const (
	messagesATurn = 32
	timeATurn     = 2 * time.Millisecond
	noHurry       = time.Hour
)

// advance lets the streams say what there is to be said, as far as there is time; the next turn goes on with the stream after the last.
func (c *conn) advance() error {
	start, all := time.Now(), c.left == 0 || c.left > len(c.streams)
	if all {
		c.left = len(c.streams)
	}
	for spoken := false; c.left > 0; { // from the end, because what ends is taken out
		s := c.streams[c.left-1]
		if !s.woken.Load() && !s.active && s.left == 0 && s.ending == nil {
			c.left--
			continue
		}
		if spoken && time.Since(start) > timeATurn {
			c.goOn()
			return nil
		}
		spoken = true
		c.left--
		s.woken.Store(false)
		if err := s.speak(timeATurn); err != nil {
			return err
		}
	}
	if !all {
		c.goOn() // with those at the end
	}
	return nil
}

// goOn asks for another turn, after those of others.
func (c *conn) goOn() {
	c.long = true
	c.wake()
}

func (s *Stream) speak(most time.Duration) error {
	c := s.conn
	if why := s.why.Load(); why != nil {
		s.giveUp(*why)
		return nil
	}
	s.active = true
	s.push()
	start := time.Now()
	for sent := 0; s.handler != nil && s.active && s.room(); sent++ {
		if sent == messagesATurn || sent > 0 && time.Since(start) > most {
			s.woken.Store(true)
			c.goOn()
			return nil
		}
		more, err := s.handler.Next()
		if err != nil {
			s.finish(&ending{status: status.Convert(err)})
			break
		}
		s.active = more
		if len(c.space.out) >= flushFrom {
			if err := c.flush(); err != nil {
				return err
			}
		}
	}
	s.conclude()
	return nil
}

// giveUp ends the stream although something may wait for the client, who then hears no reason.
func (s *Stream) giveUp(why error) {
	if s.left == 0 {
		s.finish(&ending{status: status.Convert(why)})
		return
	}
	s.conn.drop(s)
	s.leave(why)
	s.conn.sendReset(s.id, codeEnhanceYourCalm)
}

// finish ends the stream when what was begun has been sent.
func (s *Stream) finish(e *ending) {
	if s.ending == nil {
		s.ending, s.message = e, nil
	}
	s.conclude()
}

// conclude sends the end of a stream that has one, when there is room.
func (s *Stream) conclude() {
	if s.ending == nil || s.left > 0 || s.handler == gone {
		return
	}
	c, e := s.conn, s.ending
	var b []byte
	switch {
	case e.http != "":
		b = appendStatus(appendField(appendField(nil, ":status", e.http), "content-type", "application/grpc"), e.status)
	case s.headSent:
		b = appendStatus(nil, e.status)
	default:
		b = appendStatus(okHead[:len(okHead):len(okHead)], e.status)
	}
	c.space.out = append(appendFrame(c.space.out, frameHeaders, flagEndHeaders|flagEndStream, s.id, len(b)), b...)
	if !s.halfClosed {
		c.sendReset(s.id, codeNone) // the client need not go on (RFC 9113, section 8.1)
	}
	c.drop(s)
	s.leave(e.status.Err())
}

// gone is the handler of a stream that has ended.
var gone Handler = ended{}

type ended struct{}

func (ended) Receive([]byte) error { return nil }
func (ended) Next() (bool, error)  { return false, nil }
func (ended) Closed(error)         {}

// leave tells the handler that nothing follows.
func (s *Stream) leave(reason error) {
	h := s.handler
	s.handler, s.message, s.unsent, s.left, s.active = gone, nil, nil, 0, false
	if h != nil {
		h.Closed(reason)
	}
}
