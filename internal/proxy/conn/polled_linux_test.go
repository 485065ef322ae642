package conn_test

import (
	"net"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
)

// polled are the transports on pollers of our own.
func polled() []transport {
	return []transport{
		{"polled tcp", func(t *testing.T) (conn.Conn, conn.Conn) { return polledPair(t, openEngine(t)) }},
		{"polled tcp, adopted", func(t *testing.T) (conn.Conn, conn.Conn) { return adoptedPair(t, openEngine(t), "tcp", "127.0.0.1:0") }},
		{"polled unix", func(t *testing.T) (conn.Conn, conn.Conn) {
			return adoptedPair(t, openEngine(t), "unix", t.TempDir()+"/s")
		}},
		{"tls over polled tcp", func(t *testing.T) (conn.Conn, conn.Conn) {
			a, b := polledPair(t, openEngine(t))
			return overTLS(t, [2]conn.Conn{a, b})
		}},
	}
}

func openEngine(t testing.TB) *conn.Engine {
	t.Helper()
	e, err := conn.Open(conn.Poll)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// polledPair dials and accepts on the engine.
func polledPair(t testing.TB, e *conn.Engine) (conn.Conn, conn.Conn) {
	t.Helper()
	l := polledListener(t, e, "127.0.0.1:0")
	a, err := e.Dialer(nil)(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return overNet(closing(t, a, b))
}

func polledListener(t testing.TB, e *conn.Engine, address string) net.Listener {
	t.Helper()
	raw, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	l, err := e.Listen(raw)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func adoptedPair(t *testing.T, e *conn.Engine, network, address string) (conn.Conn, conn.Conn) {
	t.Helper()
	a, b := listenPair(t, network, address)
	pa, err := e.Adopt(a)
	if err != nil {
		t.Fatal(err)
	}
	pb, err := e.Adopt(b)
	if err != nil {
		t.Fatal(err)
	}
	return overNet(closing(t, pa, pb))
}

func TestPolledConnsAllocateNothing(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector is told of each system call, which allocates")
	}
	a, b := polledPair(t, openEngine(t))
	p, far := make([]byte, 64), time.Now().Add(time.Hour)
	n := testing.AllocsPerRun(100, func() {
		a.SetReadDeadline(far)
		b.Write(p)
		a.Wait()
		conn.Quiet(a)
		if n, err := a.Read(p); n != len(p) || err != nil {
			t.Fatal(n, err)
		}
		a.SetReadDeadline(time.Time{})
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestListenerCloses(t *testing.T) {
	l := polledListener(t, openEngine(t), "127.0.0.1:0")
	done := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		done <- err
	}()
	l.Close()
	if err := <-done; err == nil {
		t.Fatal("accepted from a closed listener")
	}
}
