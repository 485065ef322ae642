package consul

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	networkingapi "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/source/sourcetest"
	"github.com/weftmesh/weft/internal/loopback/loopbacktest"
)

// server is a Consul of one agent, which has its data in memory.
type server struct {
	address string
	args    []string
	process *exec.Cmd
}

// root is a token that may do everything, where the server has been told so.
const root = "8a2d7c60-93a4-4e0c-8a5e-2c1f5b7e9d00"

func start(t *testing.T, args ...string) *server {
	t.Helper()
	if _, err := exec.LookPath("consul"); err != nil {
		t.Skip("consul is not installed")
	}
	ports := make([]string, 3)
	for i := range ports {
		_, ports[i], _ = net.SplitHostPort(loopbacktest.Address(t))
	}
	s := &server{address: "127.0.0.1:" + ports[0], args: append([]string{"agent", "-dev", "-bind=127.0.0.1", "-client=127.0.0.1", "-http-port=" + ports[0],
		"-server-port=" + ports[1], "-serf-lan-port=" + ports[2], "-serf-wan-port=-1", "-grpc-port=-1", "-grpc-tls-port=-1", "-dns-port=-1"}, args...)}
	t.Cleanup(s.kill)
	s.begin(t)
	return s
}

func (s *server) kill() {
	_ = s.process.Process.Kill()
	_ = s.process.Wait()
}

// begin starts the server, with nothing in it, and waits until it can be used.
func (s *server) begin(t *testing.T) {
	t.Helper()
	s.process = exec.Command("consul", s.args...)
	said, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	s.process.Stdout, s.process.Stderr = said, said
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		if r, err := http.Get("http://" + s.address + "/v1/catalog/service/consul?token=" + root); err == nil {
			text, _ := io.ReadAll(r.Body)
			r.Body.Close()
			if strings.Contains(string(text), "ServiceID") {
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			text, _ := os.ReadFile(said.Name())
			t.Fatalf("consul does not become ready; it says:\n%s", text[max(0, len(text)-3000):])
		}
	}
}

func (s *server) put(t *testing.T, path string, body any) {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	s.send(t, http.MethodPut, path, text)
}

// snapshot gives all that the server has.
func (s *server) snapshot(t *testing.T) []byte {
	t.Helper()
	r, err := http.Get("http://" + s.address + "/v1/snapshot")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	all, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatal(r.Status, err)
	}
	return all
}

func (s *server) send(t *testing.T, method, path string, body []byte) {
	t.Helper()
	req, _ := http.NewRequest(method, "http://"+s.address+path, bytes.NewReader(body))
	req.Header.Set("X-Consul-Token", root)
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(r.Body)
		t.Errorf("%s: %s: %s", path, r.Status, text)
	}
}

func (s *server) register(t *testing.T, id, name, version, status string) {
	t.Helper()
	s.put(t, "/v1/agent/service/register", map[string]any{"ID": id, "Name": name, "Address": "10.0.0.1", "Port": 8080,
		"Meta": map[string]string{sourcetest.Label: version}, "Tags": []string{"canary", "team=a"},
		"Check": map[string]any{"TTL": "1h", "Status": status}})
}

func (s *server) place(t *testing.T, set ...func(*Options)) *sourcetest.Place {
	t.Helper()
	cable := sourcetest.NewCable(t, s.address)
	o := Options{Address: "http://" + cable.Addr(), Check: compile.Check, Log: slog.New(slog.DiscardHandler)}
	for _, f := range set {
		f(&o)
	}
	src, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return &sourcetest.Place{
		Source: src,
		Put:    func(t *testing.T, name, version string) { s.register(t, name, name, version, "passing") },
		Delete: func(t *testing.T, name string) { s.put(t, "/v1/agent/service/deregister/"+name, nil) },
		Cut:    cable.Cut, Mend: cable.Mend,
		Describe: func(o *source.Object) (string, string, bool) {
			e, ok := o.Kube.(*networking.ServiceEntry)
			if !ok || o.GetName() == "consul" || len(e.Spec.Endpoints) == 0 {
				return "", "", false
			}
			return o.GetName(), e.Spec.Endpoints[0].Labels[sourcetest.Label], true
		},
	}
}

func TestContract(t *testing.T) {
	sourcetest.Test(t, func(t *testing.T) *sourcetest.Place { return start(t).place(t) })
}

// TestHealth: a critical instance takes no requests; labels, locality and port are Consul's.
func TestHealth(t *testing.T) {
	s := start(t)
	s.register(t, "a1", "a", "1", "critical")
	l := sourcetest.Listen(t, s.place(t))
	l.Await(t, "")
	s.put(t, "/v1/agent/check/pass/service:a1", nil)
	l.Await(t, "a=1")
	e := l.Get(source.Key{Group: source.GroupNetworking, Kind: "ServiceEntry", Namespace: "default", Name: "a"}).Kube.(*networking.ServiceEntry)
	ep := e.Spec.Endpoints[0]
	if e.Spec.Hosts[0] != "a.service.consul" || ep.Address != "10.0.0.1" || ep.Locality != "dc1" || ep.Labels["team"] != "a" || ep.Labels["canary"] != "true" ||
		e.Spec.Ports[0].Number != 8080 || ep.Ports["service"] != 8080 {
		t.Errorf("got %v", &e.Spec)
	}
	s.put(t, "/v1/agent/check/fail/service:a1", nil)
	l.Await(t, "")
	if f := l.Last().Findings; len(f) > 0 {
		t.Errorf("got %v", f)
	}
}

// TestRestored: a Consul that is set back to what it had once, and counts from there, is read anew.
func TestRestored(t *testing.T) {
	s := start(t)
	s.register(t, "a1", "a", "1", "passing")
	l := sourcetest.Listen(t, s.place(t))
	l.Await(t, "a=1")
	saved := s.snapshot(t)
	s.register(t, "b1", "b", "1", "passing")
	s.register(t, "a1", "a", "2", "passing")
	l.Await(t, "a=2 b=1")
	s.put(t, "/v1/agent/service/deregister/b1", nil) // the agent would register its services again
	s.register(t, "a1", "a", "1", "passing")
	l.Await(t, "a=1")
	s.put(t, "/v1/catalog/register", map[string]any{"Node": "elsewhere", "Address": "10.0.0.9",
		"Service": map[string]any{"ID": "c1", "Service": "c", "Port": 80, "Meta": map[string]string{sourcetest.Label: "1"}}})
	l.Await(t, "a=1 c=1")
	s.send(t, http.MethodPut, "/v1/snapshot", saved)
	l.Await(t, "a=1")
	awaitTold(t, l, source.WentBack)
	s.register(t, "a1", "a", "3", "passing") // while the index is lower than it was
	l.Await(t, "a=3")
}

// TestManyInstances: a service may have a thousand instances, of which one changes.
func TestManyInstances(t *testing.T) {
	s := start(t)
	const most = 1000
	instance := func(i int, version string) map[string]any {
		return map[string]any{"Node": "elsewhere", "Address": "10.0.0.9", "Service": map[string]any{"ID": fmt.Sprint("a", i), "Service": "a",
			"Address": fmt.Sprintf("10.1.%d.%d", i/250, i%250+1), "Port": 80, "Meta": map[string]string{sourcetest.Label: version}}}
	}
	for i := range most {
		s.put(t, "/v1/catalog/register", instance(i, "1"))
	}
	l := sourcetest.Listen(t, s.place(t))
	has := func(version string) func() bool {
		return func() bool {
			o := l.Get(source.Key{Group: source.GroupNetworking, Kind: "ServiceEntry", Namespace: "default", Name: "a"})
			if o == nil {
				return false
			}
			all := o.Kube.(*networking.ServiceEntry).Spec.Endpoints
			return len(all) == most && slices.ContainsFunc(all, func(e *networkingapi.WorkloadEntry) bool {
				return e.Address == "10.1.3.250" && e.Labels[sourcetest.Label] == version
			})
		}
	}
	l.AwaitThat(t, "all instances", has("1"))
	for _, v := range []string{"2", "3"} {
		s.put(t, "/v1/catalog/register", instance(most-1, v))
		l.AwaitThat(t, "the change", has(v))
	}
}

// TestManyServices: Consul lets an address have 200 connections, and more services than that are read and followed, whether they are there
// from the beginning or come later. There is room for other clients of the same address.
func TestManyServices(t *testing.T) {
	s := start(t)
	version := func(i int, v string) {
		s.put(t, "/v1/catalog/register", map[string]any{"Node": "elsewhere", "Address": "10.0.0.9", "Service": map[string]any{"ID": fmt.Sprint("s", i),
			"Service": fmt.Sprint("s", i), "Address": fmt.Sprintf("10.1.%d.%d", i/250, i%250+1), "Port": 80, "Meta": map[string]string{sourcetest.Label: v}}})
	}
	register := func(from, to int) {
		for i := from; i < to; i++ {
			version(i, "1")
		}
	}
	var log lines
	listen := func() *sourcetest.Listener {
		return sourcetest.Listen(t, s.place(t, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) }))
	}
	has := func(l *sourcetest.Listener, i int, v string) bool {
		o := l.Get(source.Key{Group: source.GroupNetworking, Kind: "ServiceEntry", Namespace: "default", Name: fmt.Sprint("s", i)})
		return o != nil && o.Kube.(*networking.ServiceEntry).Spec.Endpoints[0].Labels[sourcetest.Label] == v
	}
	all := func(l *sourcetest.Listener, n int) {
		t.Helper()
		l.AwaitThat(t, fmt.Sprint(n, " services"), func() bool {
			for i := range n {
				if !has(l, i, "1") {
					return false
				}
			}
			return true
		})
	}
	register(0, mostWaiting/2) // each has a question of its own
	l := listen()
	all(l, mostWaiting/2)
	register(mostWaiting/2, 300)
	all(l, 300)
	later := listen()
	all(later, 300)
	for _, i := range []int{0, 150, 299} {
		version(i, "2")
		l.AwaitThat(t, "the change", func() bool { return has(l, i, "2") })
		later.AwaitThat(t, "the change", func() bool { return has(later, i, "2") })
	}
	// Both sources together leave that many connections.
	for range 200 - 2*mostConnections - 10 {
		c, err := net.Dial("tcp", s.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	s.put(t, "/v1/catalog/deregister", map[string]any{"Node": "elsewhere", "ServiceID": "s0"})
	l.AwaitThat(t, "one less", func() bool { return !has(l, 0, "2") })
	if text := log.String(); strings.Contains(text, "cannot be read") {
		t.Error(text)
	}
}

// TestTokenRevoked: while Consul does not know the token, what was read stays in force; when it does again, all is read anew.
func TestTokenRevoked(t *testing.T) {
	const ours = "6f3c1a52-0f6e-4a55-9a53-4f0c6c0f7b11"
	s := start(t, `-hcl=acl { enabled = true, default_policy = "deny", tokens { initial_management = "`+root+`", agent = "`+root+`" } }`)
	s.put(t, "/v1/acl/policy", map[string]any{"Name": "read", "Rules": `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`})
	grant := func() {
		s.put(t, "/v1/acl/token", map[string]any{"AccessorID": ours, "SecretID": ours, "Policies": []map[string]string{{"Name": "read"}}})
	}
	grant()
	s.register(t, "a", "a", "1", "passing")
	var log lines
	l := sourcetest.Listen(t, s.place(t, func(o *Options) { o.Token, o.Log = ours, slog.New(slog.NewTextHandler(&log, nil)) }))
	l.Await(t, "a=1")
	s.send(t, http.MethodDelete, "/v1/acl/token/"+ours, nil)
	s.register(t, "a", "a", "2", "passing")
	s.register(t, "b", "b", "1", "passing")
	log.await(t, "cannot be read")
	l.Await(t, "a=1")
	grant()
	l.Await(t, "a=2 b=1")
}

// TestHangs: a Consul that hangs is said to be away, although its connections stay open, until it answers again; then what changes is heard.
func TestHangs(t *testing.T) {
	s := start(t)
	s.register(t, "a", "a", "1", "passing")
	l := sourcetest.Listen(t, s.place(t))
	l.Await(t, "a=1")
	began := time.Now()
	if err := s.process.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	awaitTold(t, l, "SourceUnreadable")
	t.Logf("said after %v", time.Since(began))
	if err := s.process.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	awaitTold(t, l, "")
	s.register(t, "a", "a", "2", "passing")
	l.Await(t, "a=2")
}

// TestHidden: what the rights of a token hide is said, also where it is only instances, until it may see all; that is seen without a change
// of the catalog.
func TestHidden(t *testing.T) {
	const ours = "6f3c1a52-0f6e-4a55-9a53-4f0c6c0f7b11"
	s := start(t, `-hcl=acl { enabled = true, default_policy = "deny", tokens { initial_management = "`+root+`", agent = "`+root+`" } }`)
	for name, rules := range map[string]string{"none": `key "x" { policy = "read" }`, "services": `service_prefix "" { policy = "read" }`,
		"nodes": `node_prefix "" { policy = "read" }`} {
		s.put(t, "/v1/acl/policy", map[string]any{"Name": name, "Rules": rules})
	}
	grant := func(path string, policies ...string) {
		var named []map[string]string
		for _, p := range policies {
			named = append(named, map[string]string{"Name": p})
		}
		s.put(t, path, map[string]any{"AccessorID": ours, "SecretID": ours, "Policies": named})
	}
	grant("/v1/acl/token", "none")
	s.register(t, "a", "a", "1", "passing")
	l := sourcetest.Listen(t, s.place(t, func(o *Options) { o.Token = ours }))
	awaitTold(t, l, servicesHidden)
	if f := l.Last().Findings[0]; f.Severity != model.Warning || !strings.Contains(f.Message, "hide services;") {
		t.Errorf("got %v", f)
	}
	grant("/v1/acl/token/"+ours, "services")
	l.AwaitThat(t, "that instances are hidden", func() bool {
		f := l.Last().Findings
		return len(f) == 1 && f[0].Code == servicesHidden && strings.Contains(f[0].Message, "hide instances, such as of /v1/health/service/")
	})
	grant("/v1/acl/token/"+ours, "services", "nodes")
	l.Await(t, "a=1")
	awaitTold(t, l, "")
}

// awaitTold waits until the findings have these codes.
func awaitTold(t *testing.T, l *sourcetest.Listener, want string) {
	t.Helper()
	l.AwaitThat(t, "findings "+want, func() bool {
		var codes []string
		for _, f := range l.Last().Findings {
			codes = append(codes, f.Code)
		}
		return strings.Join(codes, " ") == want
	})
}

// TestNames: of services that would have the same ServiceEntry one has it, with its own instances alone; each of the others is told.
func TestNames(t *testing.T) {
	s := start(t)
	s.register(t, "under", "my_api", "under", "passing")
	l := sourcetest.Listen(t, s.place(t))
	l.Await(t, "my-api=under")
	s.register(t, "hyphen", "my-api", "hyphen", "passing")
	s.register(t, "capital", "My-Api", "capital", "passing")
	l.Await(t, "my-api=hyphen")
	awaitTold(t, l, "NameTaken NameTaken")
	key := source.Key{Group: source.GroupNetworking, Kind: "ServiceEntry", Namespace: "default", Name: "my-api"}
	if e := l.Get(key).Kube.(*networking.ServiceEntry); len(e.Spec.Endpoints) != 1 {
		t.Errorf("services are mixed: %v", &e.Spec)
	}
	var told []string
	for _, f := range l.Last().Findings {
		told = append(told, f.File+" "+f.Message)
	}
	for i, name := range []string{"My-Api", "my_api"} {
		if len(told) != 2 || !strings.Contains(told[i], "consul:"+name+" ") || !strings.Contains(told[i], `"my-api"`) {
			t.Errorf("got %q", told)
		}
	}
	s.put(t, "/v1/agent/service/deregister/hyphen", nil)
	l.Await(t, "my-api=capital")
	awaitTold(t, l, "NameTaken")
	s.put(t, "/v1/agent/service/deregister/capital", nil)
	l.Await(t, "my-api=under")
	awaitTold(t, l, "")
}

// TestWithoutPort: an instance without port is left out and told, and the others are followed on.
func TestWithoutPort(t *testing.T) {
	s := start(t)
	s.register(t, "a1", "a", "1", "passing")
	l := sourcetest.Listen(t, s.place(t))
	l.Await(t, "a=1")
	s.put(t, "/v1/agent/service/register", map[string]any{"ID": "a2", "Name": "a", "Address": "10.0.0.2"})
	l.Await(t, "a=1")
	awaitTold(t, l, "InstanceWithoutPort")
	if f := l.Last().Findings[0]; f.Severity != model.Warning || f.File != "consul:a" || !strings.Contains(f.Message, "a2 on node ") || !strings.Contains(f.Message, " (port 0)") {
		t.Errorf("got %v", f)
	}
	s.register(t, "a1", "a", "3", "passing")
	l.Await(t, "a=3")
	awaitTold(t, l, "InstanceWithoutPort")
	s.put(t, "/v1/agent/service/deregister/a1", nil)
	l.Await(t, "")
	awaitTold(t, l, "InstanceWithoutPort")
	s.put(t, "/v1/agent/service/deregister/a2", nil)
	awaitTold(t, l, "")
}

// TestChoice: who has a name does not depend on any order.
func TestChoice(t *testing.T) {
	served, others := choose(map[string][]string{"x_y": nil, "X-Y": nil, "x-y": nil, "b_c": nil, "B-C": nil, "d": nil, "d/": nil, "*": nil})
	if got, want := fmt.Sprint(served, others), "map[B-C:true d:true x-y:true] map[*: X-Y:x-y b_c:B-C d/: x_y:x-y]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestTold: each reason for which Consul cannot be read is logged once, and so is that it is read again, or hides services.
func TestTold(t *testing.T) {
	var mu sync.Mutex
	answer := func(w http.ResponseWriter) { http.Error(w, "not now", http.StatusInternalServerError) }
	asked := make(chan struct{}, 1000)
	fake := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.Header().Set("X-Consul-Index", fmt.Sprint(len(asked)+1))
		answer(w)
		asked <- struct{}{}
	}))
	defer fake.Close()
	var log lines
	s, err := New(Options{Address: fake.URL, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, func(source.Change) {}) }() // ends with cancel
	for range 3 {
		<-asked
	}
	mu.Lock()
	answer = func(w http.ResponseWriter) {
		w.Header().Set("X-Consul-Default-ACL-Policy", "deny")
		_, _ = w.Write([]byte("{}"))
	}
	mu.Unlock()
	for range 3 {
		<-asked
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for word, want := range map[string]int{"not now": 1, "nothing is served before": 1, "read again": 1, "ACLs hide services": 1} {
		if got := strings.Count(log.String(), word); got != want {
			t.Errorf("%q is logged %d times, want %d:\n%s", word, got, want, log.String())
		}
	}
}

// TestRefused: why connections are refused stays said when the transport does not repeat it.
func TestRefused(t *testing.T) {
	s, err := New(Options{Address: "https://127.0.0.1:1", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	var last source.Change
	s.intake.Begin(Layer, func(c source.Change) { last = c })
	for _, reason := range []string{notEstablished, "tls: certificate required", notEstablished} {
		s.fails(servicesPath, &url.Error{Op: "Get", URL: "https://127.0.0.1:1", Err: errors.New(reason)})
	}
	if f := last.Findings; len(f) != 1 || !strings.Contains(f[0].Message, "certificate required") {
		t.Errorf("got %v", f)
	}
}

// lines is a log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// await waits until the log has some words.
func (l *lines) await(t *testing.T, words string) {
	t.Helper()
	late := time.After(3 * time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(l.String(), words) {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("the log has no %q:\n%s", words, l.String())
		}
	}
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
