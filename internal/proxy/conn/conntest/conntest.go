// Package conntest runs tests of the request path on real sockets over an I/O back end: the one that $WEFT_IO names, by default the
// best there is. `WEFT_IO=net go test ./internal/proxy/...` is the other half.
package conntest

import (
	"net"
	"os"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/conn"
)

// Engine opens the back end for the time of a test.
func Engine(t testing.TB) *conn.Engine {
	t.Helper()
	e, err := conn.Open(os.Getenv("WEFT_IO"))
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

// Adopt moves a connection onto the back end.
func Adopt(t testing.TB, e *conn.Engine, nc net.Conn) net.Conn {
	t.Helper()
	on, err := e.Adopt(nc)
	if err != nil {
		t.Fatal(err)
	}
	return on
}

// Listen opens a listener of the loopback on the back end. It is closed with the test at the latest.
func Listen(t testing.TB, e *conn.Engine) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if l, err = e.Listen(l); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}
