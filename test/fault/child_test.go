package fault

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy"
	"github.com/weftmesh/weft/internal/proxy/overload"
	"github.com/weftmesh/weft/test/rig"
)

// A child process has limits of its own. It runs a sidecar in front of the endpoint in its environment, prints the sidecar's address,
// and ends with its standard input.
const (
	childEndpoint    = "FAULT_ENDPOINT"
	childDescriptors = "FAULT_DESCRIPTORS"
	childMemory      = "FAULT_MEMORY"
	childWatched     = "FAULT_WATCHED"
	childTLS         = "FAULT_TLS" // a gateway with TLS in the sidecar's place
)

// TestChild is the child process; by itself it does nothing.
func TestChild(t *testing.T) {
	endpoint := os.Getenv(childEndpoint)
	if endpoint == "" {
		t.Skip("runs as the child process of other tests")
	}
	if n, err := strconv.ParseUint(os.Getenv(childDescriptors), 10, 64); err == nil {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: max(n, 1024)}); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := strconv.ParseInt(os.Getenv(childMemory), 10, 64); err == nil {
		debug.SetMemoryLimit(n)
	}
	options := func(o *proxy.Options) {
		if os.Getenv(childWatched) != "" {
			o.MemoryLimit = overload.MemoryLimit(0)
		}
	}
	var p *rig.Proxy
	var address string
	if os.Getenv(childTLS) != "" {
		p, address = rig.New(t).GatewayOptions(options, terminates(t), rig.Plain(endpoint))
	} else {
		p, address = rig.New(t).OutboundOptions(options, rig.Plain(endpoint))
	}
	admin := httptest.NewServer(p.Handler())
	defer admin.Close()
	var h hoard
	defer h.release()
	fmt.Fprintln(os.Stderr, "serving", address, strings.TrimPrefix(admin.URL, "http://"))
	var b ballast
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if lines.Text() == hoarding {
			h.take()
		} else if err := b.fill(lines.Text()); err != nil {
			t.Error(err)
		}
	}
}

// child starts a child process and gives its sidecar's address.
func child(t *testing.T, environment ...string) (address string, pid int) {
	t.Helper()
	address, _, pid, _ = adminChild(t, environment...)
	return address, pid
}

// adminChild gives besides the address of the sidecar's admin pages, and what takes lines for ballast.fill.
func adminChild(t *testing.T, environment ...string) (address, admin string, pid int, tell io.Writer) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$", "-test.count=1")
	cmd.Env = append(os.Environ(), environment...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	var verdict strings.Builder
	cmd.Stdout = &verdict
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for address == "" && lines.Scan() {
		if words := strings.Fields(lines.Text()); len(words) == 3 && words[0] == "serving" {
			address, admin = words[1], words[2]
		}
	}
	rest := make(chan struct{})
	go func() { // ends with the child
		defer close(rest)
		io.Copy(io.Discard, out)
	}()
	t.Cleanup(func() {
		in.Close()
		<-rest
		if err := cmd.Wait(); err != nil {
			t.Errorf("the child: %v\n%s", err, verdict.String())
		}
	})
	if address == "" {
		t.Fatal("the child does not serve")
	}
	return address, admin, cmd.Process.Pid, in
}

// TestFullDescriptorTable: a proxy whose table of descriptors cannot hold all who come has clients wait, and none is refused: idle
// connections make room, and clients that are told to close come again.
func TestFullDescriptorTable(t *testing.T) {
	b := rig.NewBackend(t, ok)
	address, _ := child(t, childEndpoint+"="+b.Addr().String(), childDescriptors+"=64")
	var clients sync.WaitGroup
	for range 100 { // more than the table holds; the rest waits in the listener's queue
		clients.Go(func() {
			c := dial(t, address)
			t.Cleanup(func() { c.Close() }) // it stays, idle, as long as it may
			if n, err := askUntilClosed(c, 1); n != 1 {
				t.Errorf("a client that stays: %v", err)
			}
		})
		clients.Go(func() {
			for done := 0; done < 10; {
				c := dial(t, address)
				n, err := askUntilClosed(c, 10-done)
				c.Close()
				if done += n; err != nil {
					t.Errorf("after %d answers: %v", done, err)
					return
				}
			}
		})
	}
	clients.Wait()
}

// askUntilClosed asks so many times over a connection, or less if that ends: as it was told, or while it was idle, just as another
// question was on its way. Every client repeats such a one (RFC 9112 section 9.3.1).
func askUntilClosed(c net.Conn, times int) (answers int, err error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	for r := bufio.NewReader(c); answers < times; answers++ {
		_, err := io.WriteString(c, "GET /g HTTP/1.1\r\nHost: a\r\n\r\n")
		var res *http.Response
		if err == nil {
			res, err = http.ReadResponse(r, nil)
		}
		if answers > 0 && (errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)) {
			return answers, nil
		}
		if err != nil {
			return answers, err
		}
		_, err = io.Copy(io.Discard, res.Body)
		if err != nil || res.StatusCode != 200 {
			return answers, fmt.Errorf("status %d, %w", res.StatusCode, err)
		}
		if res.Close {
			return answers + 1, nil
		}
	}
	return answers, nil
}

// TestMemoryPressure: hundreds of stalled downloads and of uploads under way do not make a proxy with little memory grow.
func TestMemoryPressure(t *testing.T) {
	const limit = 48 << 20
	b := rig.NewBackend(t, func(c net.Conn, r *rig.Received) bool {
		if r.URL.Path == "/g" {
			return ok(c, r)
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
		p := make([]byte, 256<<10)
		for range 100000000 / len(p) {
			if _, err := c.Write(p); err != nil {
				return false
			}
		}
		return false
	})
	address, pid := child(t, childEndpoint+"="+b.Addr().String(), childMemory+"="+strconv.Itoa(limit))
	var crowd []net.Conn
	for range 300 {
		c := dial(t, address)
		c.SetReadBuffer(4 << 10)
		io.WriteString(c, "GET /large HTTP/1.1\r\nHost: a\r\nX: "+strings.Repeat("x", 20<<10)+"\r\n\r\n")
		crowd = append(crowd, c)
	}
	rig.Eventually(t, "all downloads have begun", func() bool { return len(b.Received()) >= 300 })
	for range 100 {
		if g, err := get(t, address); err != nil || g.status != 200 {
			t.Errorf("meanwhile: %v, %v", g, err)
		}
	}
	resident := residentBytes(t, pid)
	t.Logf("%d MiB resident with 300 stalled downloads", resident>>20)
	if resident > 3*limit {
		t.Errorf("%d bytes resident", resident)
	}
	for _, c := range crowd {
		c.Close()
	}
	if g, err := get(t, address); err != nil || g.status != 200 {
		t.Errorf("afterwards: %v, %v", g, err)
	}
}

// residentBytes is a process's resident memory, proc_pid_status(5).
func residentBytes(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skipf("memory cannot be measured here: %v", err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// hoarding is the line that has a child process fill its table of descriptors.
const hoarding = "hoard"

type hoard struct{ held []io.Closer }

func (h *hoard) take() {
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return
		}
		h.held = append(h.held, f)
	}
}

func (h *hoard) release() {
	for _, f := range h.held {
		f.Close()
	}
}
