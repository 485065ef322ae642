// Package loopbacktest draws addresses for the servers of tests that must be told where to listen.
package loopbacktest

import (
	"net"
	"strconv"
	"testing"

	"github.com/weftmesh/weft/internal/loopback"
)

// ports are held until the test's process ends.
var ports loopback.Ports

// Address is "127.0.0.1:PORT" that no other test is given, in whichever process.
func Address(t testing.TB) string {
	t.Helper()
	port, err := ports.Take()
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port)))
}
