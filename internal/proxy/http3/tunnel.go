package http3

import (
	"errors"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	quichttp "github.com/quic-go/quic-go/http3"

	"github.com/weftmesh/weft/internal/proxy/conn"
)

// askedProtocol is what a client wants to speak by extended CONNECT (RFC 9220): the library gives it in place of the version.
func askedProtocol(r *http.Request) string {
	if r.Method == http.MethodConnect && r.Proto != "HTTP/3.0" {
		return r.Proto
	}
	return ""
}

// Hijack flushes and gives the stream as a connection to relay, after a 101. Closing it before both directions have ended resets the
// stream.
func (s *Stream) Hijack() (conn.Conn, error) {
	streamer, ok := s.w.(quichttp.HTTPStreamer)
	if !ok {
		return nil, errors.New("http/3: the library does not give the stream away")
	}
	stream, err := streamer.HTTPStream()
	if err != nil {
		return nil, streamError(err)
	}
	s.finished = true // whoever has it ends it
	t := &tunnel{stream: stream, of: s, local: s.local, remote: s.remote}
	s.mu.Lock()
	s.tunnel = t
	s.mu.Unlock()
	return t, nil
}

// tunnel is a stream as a connection.
type tunnel struct {
	stream        *quichttp.Stream
	of            *Stream
	local, remote netip.AddrPort

	// Owned by the reading goroutine.
	first [1]byte // that Wait has read
	has   bool
	err   error // the end, or what broke it

	mu          sync.Mutex
	ended, over bool // the sending, and all of it
}

// Read implements conn.Conn.
func (t *tunnel) Read(p []byte) (int, error) {
	switch {
	case t.has && len(p) > 0:
		t.has, p[0] = false, t.first[0]
		return 1, nil
	case t.err != nil && !t.has:
		return 0, t.err
	}
	n, err := t.stream.Read(p)
	if n > 0 {
		err = nil // it comes again
	}
	return n, streamError(err)
}

// Wait implements conn.Conn: the stream is read to know that it can be.
func (t *tunnel) Wait() error {
	if t.has || t.err != nil {
		return nil
	}
	n, err := t.stream.Read(t.first[:])
	var timeout interface{ Timeout() bool }
	switch {
	case n == 1:
		t.has = true
	case errors.As(err, &timeout) && timeout.Timeout():
		return err
	default:
		t.err = streamError(err)
	}
	return nil
}

// Write implements conn.Conn.
func (t *tunnel) Write(p []byte) (int, error) {
	return t.of.deliver(p, t.stream.Write)
}

// CloseWrite implements conn.Conn.
func (t *tunnel) CloseWrite() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended || t.over {
		return nil
	}
	t.ended = true
	return streamError(t.stream.Close())
}

// abort resets the stream, from any goroutine.
func (t *tunnel) abort() {
	t.stream.CancelRead(quic.StreamErrorCode(quichttp.ErrCodeExcessiveLoad))
	t.stream.CancelWrite(quic.StreamErrorCode(quichttp.ErrCodeExcessiveLoad))
}

// Close implements conn.Conn.
func (t *tunnel) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return nil
	}
	t.over = true
	t.stream.CancelRead(quic.StreamErrorCode(quichttp.ErrCodeRequestCanceled))
	if !t.ended {
		t.stream.CancelWrite(quic.StreamErrorCode(quichttp.ErrCodeConnectError))
	}
	return nil
}

// SetReadDeadline implements conn.Conn.
func (t *tunnel) SetReadDeadline(d time.Time) error { return t.stream.SetReadDeadline(d) }

// SetWriteDeadline implements conn.Conn.
func (t *tunnel) SetWriteDeadline(d time.Time) error { return t.stream.SetWriteDeadline(d) }

// LocalAddr implements conn.Conn.
func (t *tunnel) LocalAddr() netip.AddrPort { return t.local }

// RemoteAddr implements conn.Conn.
func (t *tunnel) RemoteAddr() netip.AddrPort { return t.remote }

var _ conn.Conn = (*tunnel)(nil)
