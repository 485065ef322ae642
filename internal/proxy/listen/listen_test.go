package listen

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/weftmesh/weft/internal/proxy/conn/conntest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server runs a Server on a socket; what it logs is given when it has ended.
func server(t *testing.T, handle func(Accepted)) (address string, s *Server, logged func() string) {
	t.Helper()
	l := conntest.Listen(t, conntest.Engine(t))
	var log bytes.Buffer
	s = &Server{Handle: handle, Log: slog.New(slog.NewTextHandler(&log, nil))}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }() // ends with the listener
	end := sync.OnceFunc(func() {
		l.Close()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		s.Close()
		s.Wait()
	})
	t.Cleanup(end)
	return l.Addr().String(), s, func() string { end(); return log.String() }
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestPanicEndsOneConnection(t *testing.T) {
	address, _, logged := server(t, func(a Accepted) {
		b := make([]byte, 1)
		if _, err := a.Conn.Read(b); err != nil {
			return
		}
		if b[0] == '!' {
			panic("of this connection")
		}
		a.Conn.Write(b)
	})
	other := dial(t, address)
	bad := dial(t, address)
	io.WriteString(bad, "!")
	if got, _ := io.ReadAll(bad); len(got) != 0 {
		t.Fatalf("read %q", got)
	}
	io.WriteString(other, "x")
	if got, err := io.ReadAll(other); string(got) != "x" {
		t.Fatalf("the other connection got %q, %v", got, err)
	}
	if text := logged(); !strings.Contains(text, "of this connection") || !strings.Contains(text, "listen_test.go") {
		t.Fatalf("logged %q", text)
	}
}

func TestCloseEndsAllConnections(t *testing.T) {
	address, s, _ := server(t, func(a Accepted) {
		if a.Redirected || a.Destination != a.Conn.LocalAddr() {
			t.Errorf("destination %v of a direct connection to %v", a.Destination, a.Conn.LocalAddr())
		}
		a.Conn.Read(make([]byte, 1))
	})
	c := dial(t, address)
	for s.Open() == 0 {
	}
	s.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Fatal("still open")
	}
	late := dial(t, address)
	if _, err := late.Read(make([]byte, 1)); err == nil {
		t.Fatal("a connection after the end is served")
	}
}
