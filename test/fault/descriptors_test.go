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
