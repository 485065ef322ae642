package fault

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/weftmesh/weft/internal/proxy/overload"
	"github.com/weftmesh/weft/test/rig"
)

// ballast is memory of a process that no garbage collector gives back.
type ballast struct{ held []byte }

// fill makes the process use as many bytes as a line says; what it needs for itself it keeps.
func (b *ballast) fill(line string) error {
	want, err := strconv.ParseInt(line, 10, 64)
	if err != nil {
		return err
	}
	if b.held != nil {
		if err := syscall.Munmap(b.held); err != nil {
			return err
		}
		b.held = nil
	}
	size := want - overload.Used()
	if size <= 0 {
		return nil
	}
	if b.held, err = syscall.Mmap(-1, 0, int(size), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE); err != nil {
		return err
	}
	for i := 0; i < len(b.held); i += os.Getpagesize() {
		b.held[i] = 1
	}
	return nil
}

// TestMemoryLimit: a proxy that nears its GOMEMLIMIT ends idle connections, then refuses requests and is not ready, then takes no
// connections, and serves as before when it has memory again.
func TestMemoryLimit(t *testing.T) {
	const limit = 512 << 20
	b := rig.NewBackend(t, ok)
	address, admin, pid, tell := adminChild(t, childEndpoint+"="+b.Addr().String(), childWatched+"=yes", "GOMEMLIMIT="+strconv.Itoa(limit))
	residentBytes(t, pid) // skips where memory cannot be measured
	use := func(percent int64, stage string) {
		t.Helper()
		fmt.Fprintln(tell, limit/1000*percent)
		rig.Eventually(t, "stage "+stage, func() bool {
			_, page := page(t, admin, "/metrics")
			return strings.Contains(page, "\nweft_overload_stage "+stage+"\n")
		})
	}
	answered := func(want int) {
		t.Helper()
		if g, err := get(t, address); err != nil || g.status != want {
			t.Errorf("a request: %v, %v, want %d", g, err, want)
		}
	}
	ready := func(want int) {
		t.Helper()
		if status, why := page(t, admin, "/ready"); status != want {
			t.Errorf("/ready: %d %q, want %d", status, why, want)
		}
	}
	answered(200)
	ready(200)
	h1, h2 := dial(t, address), dial(t, address)
	defer h1.Close()
	defer h2.Close()
	if _, err := io.WriteString(h1, "GET /g HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r1 := bufio.NewReader(h1)
	if g, err := read(r1); err != nil || g.status != 200 {
		t.Fatalf("before: %v, %v", g, err)
	}
	frames := begin2(t, h2)

	use(885, "1")
	if _, err := r1.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("an idle connection of HTTP/1: %v", err)
	}
	goneAway(t, frames)
	answered(200)
	ready(200)

	use(945, "2")
	answered(503)
	ready(503)

	use(1000, "3")
	if c, err := net.Dial("tcp", address); err == nil { // or it is reset at once
		defer c.Close()
		io.WriteString(c, "GET /g HTTP/1.1\r\nHost: a\r\n\r\n")
		c.SetReadDeadline(time.Now().Add(patience))
		if n, err := c.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a new connection: %d bytes, %v", n, err)
		}
	}
	ready(503)

	use(0, "0")
	ready(200)
	answered(200)
}

func page(t *testing.T, admin, path string) (int, string) {
	t.Helper()
	res, err := http.Get("http://" + admin + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// begin2 begins a connection of HTTP/2 and waits for the server's settings.
func begin2(t *testing.T, c net.Conn) *http2.Framer {
	t.Helper()
	f := http2.NewFramer(c, c)
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	if h, err := f.ReadFrame(); err != nil || h.Header().Type != http2.FrameSettings {
		t.Fatalf("settings: %v, %v", h, err)
	}
	return f
}

// goneAway reads until the server says that it takes no further streams.
func goneAway(t *testing.T, f *http2.Framer) {
	t.Helper()
	for {
		switch h, err := f.ReadFrame(); {
		case err != nil:
			t.Errorf("a connection of HTTP/2 ended without GOAWAY: %v", err)
			return
		case h.Header().Type == http2.FrameGoAway:
			return
		}
	}
}
