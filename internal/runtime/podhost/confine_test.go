package podhost

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// confined acts as an application that tries what it must not do, and says how that went.
func confined(args []string) {
	switch args[0] {
	case "umask":
		fmt.Printf("%04o\n", unix.Umask(0))
	case "read":
		raw, err := os.ReadFile(args[1])
		fmt.Printf("%q %v\n", raw, errors.Is(err, os.ErrNotExist))
	case "write":
		err := os.WriteFile(args[1], nil, 0o600)
		fmt.Println(errors.Is(err, syscall.EROFS))
	case "kill":
		pid, _ := strconv.Atoi(args[1])
		fmt.Println(syscall.Kill(pid, syscall.SIGKILL))
	case "trace":
		pid, _ := strconv.Atoi(args[1])
		_, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		fmt.Println(errors.Is(err, os.ErrPermission))
	case "orphan, then kill all":
		a, err := os.StartProcess("/proc/self/exe", []string{"weft-test", "app", "wait"}, &os.ProcAttr{})
		exitOn(err)
		fmt.Println(syscall.Kill(-1, syscall.SIGKILL))
		state, err := a.Wait()
		exitOn(err)
		fmt.Println(state)
	}
	os.Exit(0)
}

// inner is the process id that a process has in its own namespace.
func inner(t *testing.T, p *Running) string {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(raw), "\nNSpid:")
	line, _, _ := strings.Cut(after, "\n")
	f := strings.Fields(line)
	return f[len(f)-1]
}

func bothModes(t *testing.T, f func(t *testing.T, c *Client)) {
	for _, netns := range []bool{true, false} {
		t.Run(fmt.Sprint("netns=", netns), func(t *testing.T) { f(t, start(t, netns)) })
	}
}

func needScope(t *testing.T, c *Client) {
	t.Helper()
	if len(c.Notes()) > 0 {
		t.Skip(c.Notes())
	}
}

func TestApplicationSignalsItsOwnPodOnly(t *testing.T) {
	bothModes(t, func(t *testing.T, c *Client) {
		needScope(t, c)
		addPod(t, c, "a", "10.77.0.10")
		addPod(t, c, "b", "10.77.0.11")
		sidecar, _ := run(t, c, "a", true, "app", "wait")
		other, _ := run(t, c, "b", false, "app", "wait")
		for _, p := range []*Running{sidecar, other} {
			if got := output(t, c, "a", "confined", "kill", inner(t, p)); got != "operation not permitted" {
				t.Errorf("kill: %s", got)
			}
			if got := output(t, c, "a", "confined", "trace", inner(t, p)); got != "true" {
				t.Errorf("its environment is refused: %s", got)
			}
		}
		mate, _ := run(t, c, "a", false, "app", "wait") // as a preStop hook and its server
		if got := output(t, c, "a", "confined", "kill", inner(t, mate)); got != "<nil>" {
			t.Errorf("kill in the pod: %s", got)
		}
		<-mate.Done()
		if got := output(t, c, "a", "confined", "orphan, then kill all"); got != "<nil>\nsignal: killed" {
			t.Errorf("kill -1: %s", got)
		}
		for _, p := range []*Running{sidecar, other} {
			select {
			case <-p.Done():
				t.Errorf("killed: %v", p.Exit())
			default:
			}
			if err := p.Signal(syscall.SIGTERM); err != nil { // the pod host itself still can
				t.Error(err)
			}
			<-p.Done()
		}
	})
}

func TestHiddenFolders(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "state", "ca", "key")
	if err := errors.Join(os.MkdirAll(filepath.Dir(key), 0o755), os.WriteFile(key, []byte("secret"), 0o644)); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("state", link); err != nil {
		t.Fatal(err)
	}
	for name, hidden := range map[string]string{"folder": filepath.Join(dir, "state"), "link": link, "parent": dir} {
		t.Run(name, func(t *testing.T) {
			c := start(t, true, hidden, filepath.Join(dir, "absent"))
			addPod(t, c, "a", "10.77.0.10")
			if got := output(t, c, "a", "confined", "read", key); got != `"" true` {
				t.Errorf("application: %s", got)
			}
			if got := output(t, c, "a", "confined", "write", filepath.Join(hidden, "x")); got != "true" {
				t.Errorf("application may write: %s", got)
			}
			p, r := run(t, c, "a", true, "app", "confined", "read", key)
			if got := line(t, r); got != `"secret" false` {
				t.Errorf("sidecar: %s", got)
			}
			<-p.Done()
			p, _ = run(t, c, "a", true, "app", "wait")
			if got := output(t, c, "a", "confined", "read", "/proc/"+inner(t, p)+"/root"+key); got != `"" false` { // refused
				t.Errorf("application by way of the sidecar: %s", got)
			}
		})
	}
}

func TestNoCapabilityInPortsMode(t *testing.T) {
	c := start(t, false)
	addPod(t, c, "a", "10.77.0.10")
	for _, sidecar := range []bool{false, true} {
		p, r := run(t, c, "a", sidecar, "app", "status")
		raw, _ := io.ReadAll(r)
		<-p.Done()
		for _, want := range []string{"CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"} {
			if !strings.Contains(string(raw), want) {
				t.Errorf("sidecar %v: no %q in\n%s", sidecar, want, raw)
			}
		}
	}
}

func TestSidecarsFilesArePrivate(t *testing.T) {
	bothModes(t, func(t *testing.T, c *Client) {
		addPod(t, c, "a", "10.77.0.10")
		outer := unix.Umask(0o022)
		unix.Umask(outer)
		if got, want := output(t, c, "a", "confined", "umask"), fmt.Sprintf("%04o", outer); got != want {
			t.Errorf("application: umask %s, want %s", got, want)
		}
		p, r := run(t, c, "a", true, "app", "confined", "umask")
		if got := line(t, r); got != "0077" {
			t.Errorf("sidecar: umask %s", got)
		}
		<-p.Done()
	})
}
