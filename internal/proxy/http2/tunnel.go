package http2

import (
	"net/netip"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
)

// tunnel is a stream as a connection, after a 101 or a 2xx to CONNECT (RFC 9113 section 8.5, RFC 8441 section 5).
type tunnel struct {
	st *stream
}

// Hijack flushes and gives the stream as a connection to relay, after a 101 or a 2xx to CONNECT. The strings of the request live
// until EndExchange, which the handler calls when both directions have ended; closing the connection before resets the stream.
func (s *ServerStream) Hijack() (conn.Conn, error) { return s.hijack() }

// Hijack flushes and gives the stream as a connection to relay, after a 101 or a 2xx to CONNECT. The strings of the response live
// until EndExchange, which is due when both directions have ended; closing the connection before resets the stream.
func (s *ClientStream) Hijack() (conn.Conn, error) { return s.hijack() }

func (st *stream) hijack() (conn.Conn, error) { return &tunnel{st: st}, st.Flush() }

func (t *tunnel) Read(p []byte) (int, error) {
	n, err := t.st.ReadBody(p)
	if n > 0 {
		err = nil // the end comes again
	}
	return n, err
}

// Write sends p at once.
func (t *tunnel) Write(p []byte) (int, error) {
	if err := t.st.WriteBody(p); err != nil {
		return 0, err
	}
	return len(p), t.st.Flush()
}

func (t *tunnel) Wait() error {
	st := t.st
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	for st.body.Len() == 0 && st.err == nil && !st.remoteEnded {
		if err := st.waitRead(); err != nil {
			return err
		}
	}
	return nil
}

func (t *tunnel) CloseWrite() error { return t.st.FinishBody(nil) }

// Close resets the stream unless both directions have ended.
func (t *tunnel) Close() error {
	st := t.st
	st.c.mu.Lock()
	over := st.localEnded && st.remoteEnded
	st.c.mu.Unlock()
	if !over {
		st.Reset(Cancel)
	}
	return nil
}

// Quiet reports whether the stream is open with nothing to read.
func (t *tunnel) Quiet() bool {
	st := t.st
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	return st.body.Len() == 0 && st.err == nil && !st.remoteEnded
}

func (t *tunnel) SetReadDeadline(d time.Time) error  { return t.st.SetReadDeadline(d) }
func (t *tunnel) SetWriteDeadline(d time.Time) error { return t.st.SetWriteDeadline(d) }
func (t *tunnel) LocalAddr() netip.AddrPort          { return t.st.c.c.LocalAddr() }
func (t *tunnel) RemoteAddr() netip.AddrPort         { return t.st.c.c.RemoteAddr() }

var _ conn.Conn = (*tunnel)(nil)
