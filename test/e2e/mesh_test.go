package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/api"
)

// account is a user that runs weft.
type account struct {
	name string
	id   *syscall.Credential // nil for the user of the test
}

// self is the user that runs the tests.
func self() account {
	if os.Geteuid() == 0 {
		return account{name: "root"}
	}
	return account{name: "user"}
}

// nobody is an ordinary user for root's tests.
const nobody = 65534

// ordinary is an unprivileged user.
func ordinary() account {
	if os.Geteuid() != 0 {
		return self()
	}
	return account{name: "user", id: &syscall.Credential{Uid: nobody, Gid: nobody, NoSetGroups: false}}
}

// settings of a mesh to start.
type settings struct {
	account
	isolation string            // default auto
	flags     []string          // further ones of `weft up`
	manifests map[string]string // files besides Bookinfo's
	bare      bool              // without Bookinfo
	publish   string            // default 8080=0
}

// mesh is a running `weft up`.
type mesh struct {
	*testing.T
	settings
	name   string
	dir    string // everything of this mesh is in here: state, home, manifests; and the run folder unless root runs it
	files  string // what `weft up` follows
	runDir string
	api    *api.Client
	began  time.Time
	up     *process
}

var meshes atomic.Int64

// start runs `weft up` on a copy of Bookinfo and waits until it says that it is up. The test's end stops it.
func start(t *testing.T, s settings) *mesh {
	t.Helper()
	m := prepare(t, s)
	m.needNamespaces()
	m.run()
	m.awaitUp()
	return m
}

// prepare makes a mesh's folders and names.
func prepare(t *testing.T, s settings) *mesh {
	t.Helper()
	dir, err := os.MkdirTemp("", "wm") // t.TempDir's names are too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &mesh{T: t, settings: s, name: fmt.Sprintf("t%d-%d", os.Getpid(), meshes.Add(1)), dir: dir, files: filepath.Join(dir, "files")}
	for _, sub := range []string{"files", "home", "run", "state"} {
		m.check(os.Mkdir(filepath.Join(dir, sub), 0o700))
	}
	m.runDir = filepath.Join(dir, "run", "weft", m.name)
	if os.Geteuid() == 0 && s.id == nil {
		m.runDir = filepath.Join("/run/weft", m.name)
	}
	if !s.bare {
		for _, name := range []string{"bookinfo.yaml", "gateway.yaml", "destination-rules.yaml"} {
			m.write(name, m.example(name))
		}
	}
	for name, content := range s.manifests {
		m.write(name, content)
	}
	if s.id != nil {
		m.check(filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
			return errors.Join(err, os.Chown(path, int(s.id.Uid), int(s.id.Gid)))
		}))
	}
	m.api = api.NewClient(filepath.Join(m.runDir, "api.sock"))
	t.Cleanup(m.api.Close)
	return m
}

func (m *mesh) check(err error) {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
}

// example reads a file of examples/bookinfo.
func (m *mesh) example(name string) string {
	m.Helper()
	raw, err := os.ReadFile(filepath.Join(repository, "examples", "bookinfo", name))
	m.check(err)
	return string(raw)
}

// write changes a followed file as most editors do: a new file takes the place of the old one.
func (m *mesh) write(name, content string) {
	m.Helper()
	temporary := filepath.Join(m.dir, name+".new")
	m.check(os.WriteFile(temporary, []byte(content), 0o644))
	m.check(os.Rename(temporary, filepath.Join(m.files, name)))
}

// run starts `weft up` and does not wait.
func (m *mesh) run() {
	m.Helper()
	publish := m.publish
	if publish == "" {
		publish = "8080=0"
	}
	args := []string{"up", m.files, "--state", filepath.Join(m.dir, "state"), "--publish", publish,
		"--xds-address", "none", "--metrics-address", "127.0.0.1:0", "--log-level", "info"}
	if m.isolation != "" {
		args = append(args, "--isolation", m.isolation)
	}
	m.began = time.Now()
	if m.up == nil {
		m.Cleanup(m.end)
	}
	m.up = m.launch(append(args, m.flags...)...)
}

// end stops `weft up` if it still runs, and shows what it said if the test failed.
func (m *mesh) end() {
	p := m.up
	if p.running() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(busy):
			m.Errorf("weft up does not end on SIGTERM")
			_ = p.cmd.Process.Kill()
			<-p.done
		}
	}
	if m.Failed() {
		m.Logf("weft up of %s said:\n%s", m.name, p.out.String())
	}
}

func (m *mesh) awaitUp() {
	m.Helper()
	m.eventually(30*time.Second, "the mesh is up", func() error {
		if !m.up.running() {
			return fatal(fmt.Errorf("weft up ended: %s", m.up.out.String()))
		}
		if !strings.Contains(m.up.out.String(), "try next") {
			return errors.New("weft up does not say so")
		}
		return nil
	})
}

// process is a started program.
type process struct {
	cmd  *exec.Cmd
	out  output // both streams
	done chan struct{}
	err  error // of Wait; read after done
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// launch starts weft with the mesh's account and environment.
func (m *mesh) launch(args ...string) *process {
	m.Helper()
	p := &process{done: make(chan struct{})}
	p.cmd = m.command(context.Background(), args...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	m.check(p.cmd.Start())
	go func() { // ends with the process
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p
}

func (m *mesh) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(binaries, "weft"), append([]string{"--mesh", m.name}, args...)...)
	cmd.Dir = m.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Join(m.dir, "home"), "XDG_RUNTIME_DIR=" + filepath.Join(m.dir, "run")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: m.id}
	return cmd
}

// result is what a command said and how it ended.
type result struct {
	stdout, stderr string
	code           int
}

func (r result) String() string {
	return fmt.Sprintf("exit code %d\nstdout: %s\nstderr: %s", r.code, r.stdout, r.stderr)
}

// weft runs a command to its end.
func (m *mesh) weft(args ...string) result { m.Helper(); return m.weftWith("", args...) }

// weftWith runs a command that reads the text.
func (m *mesh) weftWith(stdin string, args ...string) result {
	m.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*busy)
	defer cancel()
	cmd := m.command(ctx, args...)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		m.Fatalf("weft %s: %v", strings.Join(args, " "), errors.Join(err, ctx.Err()))
	}
	return result{out.String(), errOut.String(), cmd.ProcessState.ExitCode()}
}

// must runs a command that has to succeed and gives its output.
func (m *mesh) must(args ...string) string {
	m.Helper()
	r := m.weft(args...)
	if r.code != 0 {
		m.Fatalf("weft %s: %s", strings.Join(args, " "), r)
	}
	return r.stdout
}

// apply applies a file of examples/bookinfo/try.
func (m *mesh) apply(names ...string) {
	m.Helper()
	for _, name := range names {
		m.must("apply", "-f", filepath.Join(repository, "examples", "bookinfo", "try", name))
	}
}

// inPod runs the test program inside a workload.
func (m *mesh) inPod(workload string, args ...string) result {
	m.Helper()
	return m.weft(append([]string{"exec", workload, "--", filepath.Join(binaries, programName)}, args...)...)
}

func (m *mesh) status() api.Status {
	m.Helper()
	s, err := m.api.Status(m.Context())
	m.check(err)
	return s
}

// workload gives the state of a workload of the default namespace.
func (m *mesh) workload(name string) (api.Workload, bool) {
	m.Helper()
	for _, w := range m.status().Workloads {
		if w.Name == name {
			return w, true
		}
	}
	return api.Workload{}, false
}

// ready is nil when the workload has as many ready instances as it should, and no other.
func (m *mesh) ready(name string) error {
	w, ok := m.workload(name)
	if !ok || w.State != "Running" || w.Ready != w.Desired || len(w.Pods) != w.Desired {
		return fmt.Errorf("workload %s: %+v", name, w)
	}
	return nil
}

// gateway is the host's address of a gateway port.
func (m *mesh) gateway(port int) string {
	m.Helper()
	for _, g := range m.status().Gateways {
		if g.Port == port {
			return g.Address
		}
	}
	m.Fatalf("gateway port %d is not published", port)
	return ""
}

// errFatal in an error ends eventually at once.
var errFatal = errors.New("it will not get better")

func fatal(err error) error { return errors.Join(errFatal, err) }

// busy is how much longer things may take on a machine that has much else to do: only what holds nothing up is judged by the clock.
const busy = 2 * time.Minute

// eventually waits until the condition holds and fails the test when the time, and what a busy machine adds, is over.
func (m *mesh) eventually(within time.Duration, what string, condition func() error) {
	m.Helper()
	eventually(m.T, within, what, condition)
}

func eventually(t *testing.T, within time.Duration, what string, condition func() error) {
	t.Helper()
	began := time.Now()
	deadline := began.Add(within + busy)
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		err := condition()
		if took := time.Since(began); err == nil && took > within {
			t.Logf("%s: after %.1f s, expected within %s", what, took.Seconds(), within)
		}
		if err == nil {
			return
		}
		if time.Now().After(deadline) || errors.Is(err, errFatal) {
			t.Fatalf("%s: not within %s: %v", what, within+busy, err)
		}
		<-tick.C
	}
}

// output is a buffer that may be read while it is written.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// contains fails the test for each text that is missing.
func contains(t *testing.T, what, text string, wanted ...string) {
	t.Helper()
	for _, w := range wanted {
		if !strings.Contains(text, w) {
			t.Errorf("%s: %q is missing in:\n%s", what, w, text)
		}
	}
}
