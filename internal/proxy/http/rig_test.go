package http1

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/memnet"
	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// script is a Conn that plays what a peer sends, step bytes at a time, and keeps what is written to it.
type script struct {
	in     []byte
	step   int // bytes per Read; zero: all there are
	err    error
	out    bytes.Buffer
	writes int
	closed bool
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.in) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		return 0, io.EOF
	}
	n := min(len(p), len(s.in))
	if s.step > 0 {
		n = min(n, s.step)
	}
	copy(p, s.in[:n])
	s.in = s.in[n:]
	return n, nil
}

func (s *script) Write(p []byte) (int, error)      { s.writes++; return s.out.Write(p) }
func (s *script) Wait() error                      { return nil }
func (s *script) CloseWrite() error                { return nil }
func (s *script) Close() error                     { s.closed = true; return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }
func (s *script) LocalAddr() netip.AddrPort        { return netip.AddrPort{} }
func (s *script) RemoteAddr() netip.AddrPort       { return netip.AddrPort{} }

// steps are the sizes in which inputs arrive in the tests: everything must parse the same however it is cut.
var steps = []int{0, 1, 7}

// readRequest parses raw with its body.
func readRequest(raw string, step int) (r *message.Request, body string, s *ServerConn, err error) {
	s = NewServerConn(&script{in: []byte(raw), step: step}, "http", nil)
	r = new(message.Request)
	if err = s.ReadRequest(r); err != nil {
		return r, "", s, err
	}
	b, err := readAll(s)
	return r, b, s, err
}

func readAll(r interface{ ReadBody([]byte) (int, error) }) (string, error) {
	var out []byte
	p := make([]byte, 1000)
	for {
		n, err := r.ReadBody(p)
		out = append(out, p[:n]...)
		if err == io.EOF {
			return string(out), nil
		}
		if err != nil {
			return string(out), err
		}
	}
}

// status gives the status of an *Error, 0 for nil, -1 for any other error.
func status(err error) int {
	var e *Error
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.Status
	}
	return -1
}

// link gives both ends of a connection in memory.
func link(t testing.TB) (client, server conn.Conn) {
	t.Helper()
	n, addr := memnet.New(), netip.MustParseAddrPort("10.0.0.1:80")
	l, err := n.Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := n.Dial(t.Context(), netip.MustParseAddr("10.0.0.2"), addr)
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return conn.FromNet(a), conn.FromNet(b)
}

// loop is a Conn that answers every request written to it with the same response, without allocating.
type loop struct {
	script
	response []byte
}

func (l *loop) Write(p []byte) (int, error) {
	l.in = l.response
	return len(p), nil
}
