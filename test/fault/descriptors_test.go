//go:build linux

package fault

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weftmesh/weft/test/rig"
)

// TestTableMadeSmaller: a table of descriptors that is made smaller than what is open (prlimit) starves nobody: idle connections make room.
func TestTableMadeSmaller(t *testing.T) {
	b := rig.NewBackend(t, ok)
	address, _, pid, _ := adminChild(t, childEndpoint+"="+b.Addr().String(), childDescriptors+"=1024")
	idle := idlers(t, address, 100)
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: 1024}, nil); err != nil {
		t.Skipf("limits of another process cannot be set here: %v", err)
	}
	served(t, address, 20)
	ends(t, idle[0])
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1024, Max: 1024}, nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range idlers(t, address, 100) { // there is room for all again
		c.Close()
	}
}

// TestTableGrowsAgain: a proxy that can take nobody any more takes those who wait, and as many as there is room for then, once its table
// of descriptors is larger (prlimit), without a new start.
func TestTableGrowsAgain(t *testing.T) {
	b := rig.NewBackend(t, ok)
	address, admin, pid, _ := adminChild(t, childEndpoint+"="+b.Addr().String(), childDescriptors+"=64")
	idlers(t, address, 10)
	_, before := page(t, admin, "/metrics")
	limit := func(n uint64) {
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: 1024}, nil); err != nil {
			t.Skipf("limits of another process cannot be set here: %v", err)
		}
	}
	limit(1)
	var waiting []net.Conn
	for range 5 {
		c := dial(t, address)
		defer c.Close()
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		waiting = append(waiting, c)
	}
	answer := make([]byte, len(okResponse))
	waiting[0].SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, err := waiting[0].Read(answer); !os.IsTimeout(err) {
		t.Fatalf("without a descriptor: %d bytes, %v", n, err)
	}
	limit(1024)
	for i, c := range waiting {
		c.SetReadDeadline(time.Now().Add(patience))
		if n, err := c.Read(answer); err != nil || !strings.HasPrefix(string(answer[:n]), "HTTP/1.1 200 ") {
			t.Errorf("client %d, who has waited: %q, %v", i, answer[:n], err)
		}
	}
	rig.Eventually(t, "the proxy has seen that there is more room", func() bool {
		_, text := page(t, admin, "/metrics")
		return most(text) > most(before) && strings.Contains(text, "\nweft_overload_stage 0\n")
	})
	for i, c := range idlers(t, address, 200) {
		if !stays(c) {
			t.Fatalf("client %d of 200 had to go, and there is room for all", i)
		}
	}
}

// most is how many connections of clients a proxy has descriptors for, as its metrics tell.
func most(metrics string) (n int) {
	if _, value, ok := strings.Cut(metrics, "\nweft_listener_connections_max "); ok {
		fmt.Sscan(value, &n)
	}
	return n
}

// TestTableFilledByOthers: where descriptors that are not connections fill the table, the connections that have been idle for the longest
// make room for clients that wait, and metrics tell.
func TestTableFilledByOthers(t *testing.T) {
	b := rig.NewBackend(t, ok)
	address, admin, pid, tell := adminChild(t, childEndpoint+"="+b.Addr().String(), childDescriptors+"=1024")
	idle := idlers(t, address, 100)
	since := time.Now()
	rig.Eventually(t, "the last of them is idle, too", func() bool { return time.Since(since) > 300*time.Millisecond })
	fmt.Fprintln(tell, hoarding)
	rig.Eventually(t, "the table is full", func() bool {
		open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			t.Fatal(err)
		}
		return len(open) >= 1024
	})
	served(t, address, 20)
	ends(t, idle[0])
	rig.Eventually(t, "metrics tell", func() bool {
		_, text := page(t, admin, "/metrics")
		return !strings.Contains(text, "\nweft_descriptors_exhausted_total 0\n") && !strings.Contains(text, "\nweft_connections_evicted_total 0\n")
	})
	if !stays(idle[len(idle)-1]) {
		t.Error("all idle connections were closed, and a few would have done")
	}
}

// idlers are clients that have been answered and stay.
func idlers(t *testing.T, address string, n int) (all []net.Conn) {
	t.Helper()
	for range n {
		c := dial(t, address)
		t.Cleanup(func() { c.Close() })
		if n, err := askUntilClosed(c, 1); n != 1 {
			t.Fatalf("an early client: %v", err)
		}
		all = append(all, c)
	}
	return all
}

// served asks with new connections, one after the other, which stay.
func served(t *testing.T, address string, n int) {
	t.Helper()
	for i := range n {
		c := dial(t, address)
		t.Cleanup(func() { c.Close() })
		began := time.Now()
		if n, err := askUntilClosed(c, 1); n != 1 {
			t.Fatalf("new client %d, after %v: %v", i, time.Since(began), err)
		}
	}
}

func ends(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	if _, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("the oldest idle connection is open still: %v", err)
	}
}

// stays reports whether a client that is idle can be answered still.
func stays(c net.Conn) bool {
	n, _ := askUntilClosed(c, 1)
	return n == 1
}
