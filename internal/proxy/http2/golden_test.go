package http2

import (
	"encoding/hex"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/message"
)

// script is a Conn that plays what a peer sends, step bytes at a time, and keeps what is written to it. It ends when the input
// does and hold is closed.
type script struct {
	in   []byte
	step int // bytes per Read; zero: all there are
	hold chan struct{}

	mu  sync.Mutex
	out []byte
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.in) == 0 {
		if s.hold != nil {
			<-s.hold
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

func (s *script) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = append(s.out, p...)
	return len(p), nil
}

func (s *script) Wait() error                      { return nil }
func (s *script) CloseWrite() error                { return nil }
func (s *script) Close() error                     { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }
func (s *script) LocalAddr() netip.AddrPort        { return netip.AddrPort{} }
func (s *script) RemoteAddr() netip.AddrPort       { return netip.AddrPort{} }

func unhex(t testing.TB, lines ...string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(strings.Join(lines, ""), " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestGoldenServer plays a whole connection: what the server writes is compared byte by byte, however the input is cut.
func TestGoldenServer(t *testing.T) {
	in := append([]byte(clientPreface), unhex(t,
		"000000 04 00 00000000",                             // SETTINGS
		"00000a 01 04 00000001 83 86 84 41 01 61 0f0d 0135", // HEADERS: POST http / a, content-length: 5
		"000008 00 09 00000001 02 68656c6c6f 0000",          // DATA, padded, END_STREAM: hello
		"000008 06 00 00000000 0102030405060708",            // PING
	)...)
	want := unhex(t,
		"000018 04 00 00000000 0003 00000100 0008 00000001 0004 00100000 0006 0000f000", // SETTINGS
		"000004 08 00 00000000 007f0001",                                                // WINDOW_UPDATE: 8 MiB - 65535
		"000000 04 01 00000000",                                                         // SETTINGS acknowledged
		"000008 06 01 00000000 0102030405060708",                                        // PING answered
		"00000a 01 04 00000001 88 00 01 78 01 31 0f0d 0135",                             // HEADERS: 200, x: 1, content-length: 5
		"000005 00 00 00000001 68656c6c6f",                                              // DATA
		"000005 01 05 00000001 00 01 74 01 76",                                          // trailers, END_STREAM: t: v
	)
	for _, step := range []int{0, 1, 7} {
		sc := &script{in: append([]byte(nil), in...), step: step, hold: make(chan struct{})}
		s := NewServerConn(sc, "http", nil)
		err := s.Serve(func(st *ServerStream) {
			defer close(sc.hold)
			body, err := readAll(st)
			if err != nil || body != "hello" {
				t.Errorf("%q, %v", body, err)
			}
			res := message.Response{Status: 200, Body: message.Body{Kind: message.Sized, Length: 5}}
			res.Header.Add("X", "1")
			var trailers message.Header
			trailers.Add("T", "v")
			if err := st.WriteResponse(&res); err != nil {
				t.Error(err)
			}
			st.WriteBody([]byte(body))
			st.FinishBody(&trailers)
			st.EndExchange()
		})
		if err != nil {
			t.Error(err)
		}
		if got := inOrder(sc.out); got != inOrder(want) {
			t.Errorf("step %d: wrote\n%swant\n%s", step, got, inOrder(want))
		}
	}
}

// inOrder gives frames one a line, those of the connection before those of streams: their order depends on the scheduler.
func inOrder(b []byte) string {
	var conn, streams strings.Builder
	for len(b) >= frameHeader {
		n := frameHeader + (int(b[0])<<16 | int(b[1])<<8 | int(b[2]))
		out := &conn
		if b[8] != 0 {
			out = &streams
		}
		out.WriteString(hex.EncodeToString(b[:min(n, len(b))]) + "\n")
		b = b[min(n, len(b)):]
	}
	return conn.String() + streams.String()
}
