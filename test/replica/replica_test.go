package replica

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
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
	"github.com/weftmesh/weft/internal/control/source/etcd/etcdtest"
	"github.com/weftmesh/weft/internal/loopback/loopbacktest"
)

// patience bounds waits that should be short: what fails is asked for again after a minute in some places.
const patience = 5 * time.Minute

// bin is the folder of our programs, which are made once.
var bin string

func TestMain(m *testing.M) {
	var err error
	if bin, err = os.MkdirTemp("", "weft"); err != nil {
		fmt.Fprintln(os.Stderr, "replica:", err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(bin) // what is left is in the folder of temporary files
	os.Exit(code)
}

var built = sync.OnceValue(func() error {
	out, err := exec.Command("go", "build", "-o", bin+"/", "github.com/weftmesh/weft/cmd/weft", "github.com/weftmesh/weft/cmd/weft-proxy").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, out)
	}
	return err
})

// program makes one of our programs, and gives its file.
func program(t *testing.T, name string) string {
	t.Helper()
	if err := built(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(bin, name)
}

// process starts one of our programs; it is killed when the test ends.
func process(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if text, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("%s %s:\n%s", filepath.Base(program), strings.Join(args, " "), text[max(0, len(text)-3000):])
		}
	})
	return cmd
}

// plane is one replica.
type plane struct {
	mesh    string
	cmd     *exec.Cmd
	client  *api.Client
	address string
}

func startPlane(t *testing.T, weft string, n int, from ...string) *plane {
	t.Helper()
	p := beginPlane(t, weft, n, from...)
	p.awaitReady(t)
	return p
}

func (p *plane) awaitReady(t *testing.T) {
	t.Helper()
	await(t, p.mesh+" is ready", func() bool {
		s, err := p.client.Status(t.Context())
		p.address = s.XDSAddress
		return err == nil && s.Settled
	})
}

// beginPlane starts one that may have to wait for what it reads.
func beginPlane(t *testing.T, weft string, n int, from ...string) *plane {
	t.Helper()
	mesh := fmt.Sprintf("t%d-%d", os.Getpid(), n)
	p := &plane{mesh: mesh, client: api.NewClient(api.SocketPath(mesh))}
	p.cmd = process(t, weft, append([]string{"--mesh", mesh, "control", "run", "--state", t.TempDir(), "--xds-address", "127.0.0.1:0",
		"--metrics-address", "none"}, from...)...)
	t.Cleanup(p.client.Close)
	t.Cleanup(func() { _ = os.RemoveAll(api.RunDir(mesh)) }) // what a killed one leaves
	return p
}

// proxies says how many are connected to the replica.
func (p *plane) proxies(t *testing.T) int {
	t.Helper()
	s, err := p.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return len(s.Proxies)
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-ctx.Done():
			t.Fatalf("not within %v: %s", patience, what)
		case <-tick.C:
		}
	}
}

// sidecar is a proxy that clients use by HTTP_PROXY.
type sidecar struct{ client *http.Client }

func startSidecar(t *testing.T, proxy string, p *plane, control string, n int) *sidecar {
	t.Helper()
	listen := loopbacktest.Address(t)
	reply, err := p.client.Join(t.Context(), api.JoinRequest{Name: fmt.Sprintf("client-%d", n), Namespace: "default", ServiceAccount: "client",
		Workload: "client", Control: control, ForwardProxy: listen})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "bootstrap.json")
	if err := os.WriteFile(file, reply.Bootstrap, 0o600); err != nil {
		t.Fatal(err)
	}
	process(t, proxy, "--bootstrap", file)
	return through(listen)
}

// through uses the proxy at an address.
func through(listen string) *sidecar {
	return &sidecar{&http.Client{Timeout: time.Minute, Transport: &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: listen})}}}
}

// call gives the answer of the service, or what went wrong.
func (s *sidecar) call() string { return s.get("http://backend.example/") }

func (s *sidecar) get(url string) string {
	r, err := s.client.Get(url)
	if err != nil {
		return err.Error()
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		return fmt.Sprint(r.Status, string(text), err)
	}
	return string(text)
}

// backend answers with a word.
func backend(t *testing.T, word string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, word) }))
	t.Cleanup(s.Close)
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	return port
}

func (p *plane) send(t *testing.T, port string) {
	t.Helper()
	text := fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: backend, namespace: default}
spec:
  hosts: [backend.example]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  location: MESH_EXTERNAL
  endpoints: [{address: 127.0.0.1, ports: {http: %s}}]
`, port)
	r, err := p.client.Apply(t.Context(), api.ChangeRequest{Documents: []api.Document{{Name: "backend.yaml", Content: []byte(text)}}})
	if err != nil || r.Refused {
		t.Fatal(r, err)
	}
}

// TestOneDies kills one of three control planes under load: no request fails, changes go on through the others and reach every proxy,
// and a replica that joins later is one of them.
func TestOneDies(t *testing.T) {
	server := etcdtest.Start(t)
	var planes []*plane
	var addresses []string
	for n := range 3 {
		p := startPlane(t, program(t, "weft"), n, "--etcd", server.Endpoint)
		planes, addresses = append(planes, p), append(addresses, p.address)
	}
	one, two := backend(t, "one"), backend(t, "two")
	planes[0].send(t, one)
	var sidecars []*sidecar
	for n := range 4 { // each replica knows the authority that signed the others' tokens
		sidecars = append(sidecars, startSidecar(t, program(t, "weft-proxy"), planes[n%3], strings.Join(addresses, ","), n))
	}
	for _, s := range sidecars {
		await(t, "every proxy serves", func() bool { return s.call() == "one" })
	}
	stop := load(t, sidecars)
	victim := planes[0]
	for _, p := range planes {
		if p.proxies(t) > victim.proxies(t) {
			victim = p
		}
	}
	if err := victim.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var rest []*plane
	for _, p := range planes {
		if p != victim {
			rest = append(rest, p)
		}
	}
	rest[0].send(t, two)
	for _, s := range sidecars {
		await(t, "every proxy has the change", func() bool { return s.call() == "two" })
	}
	await(t, "the others have all proxies", func() bool { return rest[0].proxies(t)+rest[1].proxies(t) == len(sidecars) })
	late := startPlane(t, program(t, "weft"), 3, "--etcd", server.Endpoint)
	late.send(t, one)
	for _, s := range sidecars {
		await(t, "every proxy has the late replica's change", func() bool { return s.call() == "one" })
	}
	if failed := stop(); failed != "" {
		t.Errorf("a request failed: %s", failed)
	}
}

// load has every proxy asked all the time; the func ends it and gives the first failure.
func load(t *testing.T, sidecars []*sidecar) func() string {
	ctx, cancel := context.WithCancel(t.Context())
	var g sync.WaitGroup
	var failed atomic.Pointer[string]
	for _, s := range sidecars {
		g.Go(func() { // ends with ctx
			for ctx.Err() == nil {
				if got := s.call(); got != "one" && got != "two" {
					failed.CompareAndSwap(nil, &got)
				}
			}
		})
	}
	stop := func() string {
		cancel()
		g.Wait()
		if f := failed.Load(); f != nil {
			return *f
		}
		return ""
	}
	t.Cleanup(func() { stop() })
	return stop
}
