package e2e

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"
)

// stopBy sends a signal, waits for the end and gives the exit code, -1 after a deadly signal.
func (p *process) stopBy(s os.Signal, within time.Duration) (int, error) {
	if err := p.cmd.Process.Signal(s); err != nil {
		return 0, err
	}
	return p.ends(within)
}

func (p *process) ends(within time.Duration) (int, error) {
	t := time.NewTimer(within + busy)
	defer t.Stop()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-t.C:
		return 0, fmt.Errorf("it still runs after %s", within+busy)
	}
}

// TestEnd ends meshes in every way, with traffic, and looks for what is left.
func TestEnd(t *testing.T) {
	t.Parallel()
	ends := []struct {
		name   string
		killed bool
		end    func(m *mesh) (int, error)
	}{
		{"SIGINT", false, func(m *mesh) (int, error) { return m.up.stopBy(os.Interrupt, 10*time.Second) }},
		{"SIGTERM", false, func(m *mesh) (int, error) { return m.up.stopBy(syscall.SIGTERM, 10*time.Second) }},
		{"down", false, func(m *mesh) (int, error) {
			m.must("down")
			return m.up.ends(10 * time.Second)
		}},
		{"kill", true, func(m *mesh) (int, error) { return m.up.stopBy(syscall.SIGKILL, 10*time.Second) }},
	}
	for _, f := range flavours(t) {
		for _, e := range ends {
			t.Run(f.String()+"-"+e.name, func(t *testing.T) {
				t.Parallel()
				links, tables := hostNetwork(t)
				m := start(t, settings{account: f.account, isolation: f.isolation})
				load := m.traffic(2)
				load.await(20)
				left := m.traces(links, tables)
				code, err := e.end(m)
				load.halt()
				if err != nil {
					t.Fatal(err)
				}
				if want := map[bool]int{false: 0, true: -1}[e.killed]; code != want {
					t.Errorf("exit code %d, want %d:\n%s", code, want, m.up.out.String())
				}
				m.nothingLeft(left, e.killed)
				if r := m.weft("ps"); r.code != 1 {
					t.Errorf("ps of a mesh that is gone: %s", r)
				}
				if e.killed { // its files may lie about: the next one copes
					m.run()
					m.awaitUp()
					if err := m.browser().page().whole(); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
}

// TestEndEarly interrupts meshes that have hardly begun.
func TestEndEarly(t *testing.T) {
	t.Parallel()
	everyFlavour(t, func(t *testing.T, s settings) {
		links, tables := hostNetwork(t)
		m := prepare(t, s)
		m.needNamespaces()
		for _, phase := range []struct {
			name    string
			reached func() bool
		}{
			{"at once", func() bool { return true }},
			{"with its socket", func() bool { _, err := os.Stat(m.runDir + "/api.sock"); return err == nil }},
			{"with its first process", func() bool { return len(family(m.up.cmd.Process.Pid)) > 3 }},
		} {
			m.run()
			m.eventually(10*time.Second, "the mesh begins", func() error {
				if !phase.reached() {
					return errors.New(m.up.out.String())
				}
				return nil
			})
			left := traces{links: links, tables: tables, processes: family(m.up.cmd.Process.Pid)}
			code, err := m.up.stopBy(syscall.SIGTERM, 10*time.Second)
			if want := map[bool]int{true: -1}[phase.name == "at once" && code != 0]; err != nil || code != want {
				t.Errorf("stopped %s: exit code %d, %v:\n%s", phase.name, code, err, m.up.out.String())
			}
			m.nothingLeft(left, false)
		}
	})
}

// TestDetached runs a mesh in the background.
func TestDetached(t *testing.T) {
	t.Parallel()
	links, tables := hostNetwork(t)
	m := prepare(t, settings{account: self()})
	out := m.must("up", "-d", m.files, "--state", m.dir+"/state", "--publish", "8080=0", "--xds-address", "none", "--metrics-address", "none")
	t.Cleanup(func() { m.weft("down") })
	contains(t, "weft up -d", out, "up in", "running in the background", "productpage")
	if err := m.browser().page().whole(); err != nil {
		t.Error(err)
	}
	left := traces{links: links, tables: tables, processes: family(m.status().PID)}
	contains(t, "weft down", m.must("down"), "stopped")
	m.nothingLeft(left, false)
	if r := m.weft("down"); r.code != 1 {
		t.Errorf("weft down of a mesh that is gone: %s", r)
	}
}

// TestTwice starts a mesh that runs already.
func TestTwice(t *testing.T) {
	t.Parallel()
	m := start(t, settings{account: self()})
	again := m.launch("up", m.files, "--state", m.dir+"/state", "--publish", "8080=0", "--xds-address", "none", "--metrics-address", "none")
	code, err := again.ends(10 * time.Second)
	if err != nil || code != 1 {
		t.Errorf("weft up twice: exit code %d, %v", code, err)
	}
	contains(t, "weft up twice", again.out.String(), "runs already", "weft down")
	if err := m.browser().page().whole(); err != nil {
		t.Errorf("the first mesh: %v", err)
	}
}
