package podhost

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

const (
	mark     = 1337
	selfMark = 1338
)

var gateway = netip.MustParsePrefix("10.77.255.254/16")

// The test binary is the pod host, the sidecar and the application too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "pod-host":
			os.Exit(Main(nil))
		case "sidecar":
			sidecar()
		case "app":
			app(os.Args[2:])
		}
	}
	goleak.VerifyTestMain(m)
}

// patience bounds waits for what should come soon.
const patience = 2 * time.Minute

// sidecar answers every captured connection with the name of its listener and the original destination.
func sidecar() {
	for addr, name := range map[string]string{"127.0.0.1:15001": "outbound", "0.0.0.0:15006": "inbound"} {
		l, err := net.Listen("tcp", addr)
		exitOn(err)
		go func() {
			for {
				c, err := l.Accept()
				exitOn(err)
				raw, _ := c.(*net.TCPConn).SyscallConn()
				raw.Control(func(fd uintptr) {
					dst, err := unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, unix.SO_ORIGINAL_DST)
					exitOn(err)
					m := dst.Multiaddr
					fmt.Fprintf(c, "%s %d.%d.%d.%d:%d", name, m[4], m[5], m[6], m[7], int(m[2])<<8|int(m[3]))
				})
				c.Close()
			}
		}()
	}
	u, err := net.ListenPacket("udp", "127.0.0.1:15053")
	exitOn(err)
	fmt.Println("ready")
	buf := make([]byte, 100)
	for {
		n, from, err := u.ReadFrom(buf)
		exitOn(err)
		u.WriteTo(append([]byte("dns "), buf[:n]...), from)
	}
}

func exitOn(err error) {
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func app(args []string) {
	switch args[0] {
	case "tcp", "udp", "marked", "itself":
		d := net.Dialer{Timeout: patience}
		network := args[0]
		if marks := map[string]int{"marked": mark, "itself": selfMark}; marks[network] != 0 {
			mark := marks[network]
			network = "tcp"
			d.Control = func(_, _ string, c syscall.RawConn) (err error) {
				c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark) })
				return err
			}
		}
		c, err := d.Dial(network, args[1])
		exitOn(err)
		c.SetDeadline(time.Now().Add(patience))
		if network == "udp" {
			c.Write([]byte("question"))
		}
		buf := make([]byte, 200)
		n, err := c.Read(buf)
		exitOn(err)
		fmt.Println(string(buf[:n]))
	case "listen":
		l, err := net.Listen("tcp", args[1])
		exitOn(err)
		fmt.Println("listening")
		for {
			c, err := l.Accept()
			exitOn(err)
			io.WriteString(c, "app")
			c.Close()
		}
	case "status":
		raw, _ := os.ReadFile("/proc/self/status")
		os.Stdout.Write(raw)
	case "who":
		name, _ := os.Hostname()
		conf, _ := os.ReadFile("/etc/resolv.conf")
		fmt.Printf("%d %s %s", os.Getuid(), name, conf)
	case "orphan": // leaves a process in a session of its own and ends
		cmd := exec.Command("/proc/self/exe", "app", "wait")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		cmd.Stdout = os.Stdout
		exitOn(cmd.Start())
		fmt.Println(cmd.Process.Pid)
	case "confined":
		confined(args[1:])
	case "wait":
		// Not an empty select: without cgo the runtime would see that nothing can ever happen, and end the process.
		ended := make(chan os.Signal, 1)
		signal.Notify(ended, syscall.SIGHUP)
		<-ended
	}
	os.Exit(0)
}

// start starts a pod host as this user, or skips where the kernel refuses namespaces.
func start(t *testing.T, netns bool, hidden ...string) *Client {
	t.Helper()
	c, err := Start(t.Context(), Options{
		Command: []string{exe(t), "pod-host"}, UserNS: os.Getuid() != 0, Stderr: os.Stderr,
		Setup: Setup{Netns: netns, Gateway: gateway, Host: netip.MustParseAddr("10.77.0.1"), Mark: mark, SelfMark: selfMark, Outbound: 15001, Inbound: 15006, DNS: 15053, Open: []uint16{15006, 15020, 15021}, Hidden: hidden},
	})
	if netns && errors.Is(err, syscall.EPERM) {
		t.Skip("the kernel refuses namespaces:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func exe(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// run starts the test binary in a pod; lines gives its output.
func run(t *testing.T, c *Client, pod string, sidecar bool, args ...string) (*Running, *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	t.Cleanup(func() { r.Close() })
	p, err := c.Start(t.Context(), Process{Pod: pod, Path: exe(t), Args: append([]string{"weft-test"}, args...), Dir: "/", Sidecar: sidecar}, [3]*os.File{null, w, w})
	if err != nil {
		t.Fatal(err)
	}
	return p, r
}

func line(t *testing.T, r *os.File) string {
	t.Helper()
	r.SetReadDeadline(time.Now().Add(patience))
	var out []byte
	for b := make([]byte, 1); len(out) == 0 || out[len(out)-1] != '\n'; out = append(out, b...) {
		if _, err := r.Read(b); err != nil {
			t.Fatalf("after %q: %v", out, err)
		}
	}
	return strings.TrimSuffix(string(out), "\n")
}

func output(t *testing.T, c *Client, pod string, args ...string) string {
	t.Helper()
	p, r := run(t, c, pod, false, append([]string{"app"}, args...)...)
	var buf bytes.Buffer
	r.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(&buf, r); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	return strings.TrimSpace(buf.String())
}

func addPod(t *testing.T, c *Client, name, ip string, files ...File) {
	t.Helper()
	notes, err := c.CreatePod(t.Context(), Pod{Name: name, Hostname: name, Address: netip.MustParseAddr(ip), Capture: true, Files: files})
	if err != nil || len(notes) != 0 {
		t.Fatal(notes, err)
	}
}

func TestCapture(t *testing.T) {
	c := start(t, true)
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver 127.0.0.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		addPod(t, c, name, map[string]string{"a": "10.77.0.10", "b": "10.77.0.11"}[name], File{conf, "/etc/resolv.conf"})
		_, r := run(t, c, name, true, "sidecar")
		if got := line(t, r); got != "ready" {
			t.Fatal(got)
		}
	}
	_, r := run(t, c, "a", false, "app", "listen", "0.0.0.0:80") // a port below 1024, without any capability
	if got := line(t, r); got != "listening" {
		t.Fatal(got)
	}
	for _, tt := range []struct{ name, pod, cmd, arg, want string }{
		{"virtual address", "a", "tcp", "10.78.3.4:9080", "outbound 10.78.3.4:9080"},
		{"the world", "a", "tcp", "192.0.2.1:443", "outbound 192.0.2.1:443"},
		{"other pod", "b", "tcp", "10.77.0.10:80", "outbound 10.77.0.10:80"},
		{"the machine", "a", "tcp", "10.77.0.1:80", "outbound 10.77.0.1:80"},
		{"own pod", "a", "tcp", "10.77.0.10:80", "app"},
		{"loopback", "a", "tcp", "127.0.0.1:80", "app"},
		{"DNS at the name server", "a", "udp", "127.0.0.1:53", "dns question"},
		{"DNS anywhere", "a", "udp", "8.8.8.8:53", "dns question"},
		{"DNS over TCP", "a", "tcp", "8.8.8.8:53", ""},
		{"other UDP", "a", "udp", "192.0.2.1:443", "connection refused"},
		{"mark refused to the application", "b", "marked", "10.77.0.10:80", "operation not permitted"},
		{"its own name and files", "b", "who", "", fmt.Sprintf("%d b nameserver 127.0.0.1", os.Getuid())},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := output(t, c, tt.pod, tt.cmd, tt.arg)
			if tt.want == "" { // nobody listens for it in this test's sidecar
				tt.want = "connection refused"
			}
			if got != tt.want && !(strings.HasPrefix(got, "error:") && strings.HasSuffix(got, tt.want)) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	t.Run("inbound", func(t *testing.T) {
		p, r := run(t, c, "b", true, "app", "marked", "10.77.0.10:80") // as a sidecar would
		if got := line(t, r); got != "inbound 10.77.0.10:80" {
			t.Error(got)
		}
		<-p.Done()
	})
	t.Run("a sidecar's own pod", func(t *testing.T) {
		for how, want := range map[string]string{"marked": "app", "itself": "inbound 10.77.0.10:80"} {
			p, r := run(t, c, "a", true, "app", how, "10.77.0.10:80")
			if got := line(t, r); got != want {
				t.Errorf("%s: %s", how, got)
			}
			<-p.Done()
		}
	})
	t.Run("no way out for the sidecar", func(t *testing.T) {
		for _, addr := range []string{"10.77.0.1:80", "192.0.2.1:443"} {
			p, r := run(t, c, "b", true, "app", "marked", addr)
			if got := line(t, r); !strings.HasSuffix(got, "no route to host") {
				t.Error(got)
			}
			<-p.Done()
		}
	})
	t.Run("dial", func(t *testing.T) {
		conn, err := c.Dial(t.Context(), "a", netip.MustParseAddrPort("10.77.0.10:80"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if got, _ := io.ReadAll(conn); string(got) != "app" {
			t.Errorf("got %q", got)
		}
		if _, err := c.Dial(t.Context(), "a", netip.MustParseAddrPort("10.77.0.10:81")); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("closed port: %v", err)
		}
	})
}

func TestNoCapability(t *testing.T) {
	c := start(t, true)
	addPod(t, c, "a", "10.77.0.10")
	got := output(t, c, "a", "status")
	for _, want := range []string{"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	p, r := run(t, c, "a", true, "app", "status")
	raw, _ := io.ReadAll(r)
	<-p.Done()
	if !strings.Contains(string(raw), "CapEff:\t0000000000001000") { // CAP_NET_ADMIN is 12
		t.Errorf("sidecar:\n%s", raw)
	}
}

func TestRemovePodKillsOrphans(t *testing.T) {
	c := start(t, true)
	addPod(t, c, "a", "10.77.0.10")
	_, r := run(t, c, "a", false, "app", "orphan")
	line(t, r)
	if err := c.RemovePod(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	r.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadAll(r); err != nil { // the orphan holds the pipe while it lives
		t.Fatal(err)
	}
	addPod(t, c, "a", "10.77.0.10")
}

func TestRunEndsWithItsContext(t *testing.T) {
	c := start(t, false)
	addPod(t, c, "a", "10.77.0.10")
	ctx, cancel := context.WithCancel(t.Context())
	var out cancelWriter = func() { cancel() } // the orphan holds the pipe from now on
	_, err := c.Run(ctx, Process{Pod: "a", Path: exe(t), Args: []string{"weft-test", "app", "orphan"}, Dir: "/"}, nil, &out, nil)
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

type cancelWriter func()

func (f *cancelWriter) Write(p []byte) (int, error) { (*f)(); return len(p), nil }

func TestExitAndSignal(t *testing.T) {
	for _, netns := range []bool{true, false} {
		t.Run(fmt.Sprint("netns=", netns), func(t *testing.T) {
			c := start(t, netns)
			addPod(t, c, "a", "10.77.0.10")
			p, _ := run(t, c, "a", false, "app", "wait")
			if raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID())); err != nil || !strings.Contains(string(raw), "wait") {
				t.Fatalf("pid %d: %q %v", p.PID(), raw, err)
			}
			if err := p.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			<-p.Done()
			if got := p.Exit().String(); got != "signal: killed" {
				t.Error(got)
			}
			if err := p.Signal(syscall.SIGTERM); err != nil {
				t.Errorf("signal after the end: %v", err)
			}
			if _, err := c.Start(t.Context(), Process{Pod: "a", Path: "/nonexistent", Args: []string{"x"}, Dir: "/"}, [3]*os.File{os.Stdin, os.Stdout, os.Stderr}); !errors.Is(err, syscall.ENOENT) {
				t.Errorf("missing program: %v", err)
			}
		})
	}
}

// TestKilledParent kills the process that holds the client with SIGKILL: what ran in its pods ends.
func TestKilledParent(t *testing.T) {
	if os.Getenv("WEFT_TEST_PARENT") != "" {
		c := start(t, os.Getenv("WEFT_TEST_PARENT") == "netns")
		addPod(t, c, "a", "10.77.0.10")
		null, _ := os.Open(os.DevNull)
		if _, err := c.Start(t.Context(), Process{Pod: "a", Path: exe(t), Args: []string{"weft-test", "app", "orphan"}, Dir: "/"}, [3]*os.File{null, os.Stdout, os.Stdout}); err != nil {
			t.Fatal(err)
		}
		select {}
	}
	for _, mode := range []string{"netns", "ports"} {
		t.Run(mode, func(t *testing.T) {
			start(t, mode == "netns").Close() // skips
			cmd := exec.Command(exe(t), "-test.run=^TestKilledParent$")
			cmd.Env = append(os.Environ(), "WEFT_TEST_PARENT="+mode)
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			cmd.Stdout = w
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			w.Close()
			line(t, r) // the orphan runs
			cmd.Process.Kill()
			cmd.Wait()
			r.SetReadDeadline(time.Now().Add(patience))
			if rest, err := io.ReadAll(r); err != nil { // ends when nobody holds the pipe
				t.Fatalf("a process is left: %q %v", rest, err)
			}
		})
	}
}

// TestOrdinaryUser runs the tests of this package as another user when they run as root.
func TestOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("already an ordinary user")
	}
	dir, err := os.MkdirTemp("", "weft-user")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "weft.test")
	raw, err := os.ReadFile(exe(t))
	if err == nil {
		err = errors.Join(os.WriteFile(binary, raw, 0o755), os.Chmod(dir, 0o777))
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.v")
	cmd.Dir = dir
	cmd.Env = []string{"TMPDIR=" + dir, "HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	t.Logf("as uid 65534:\n%s", out)
	if err != nil {
		t.Fatal(err)
	}
}
