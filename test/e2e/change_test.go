package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/loopback/loopbacktest"
)

// webService is a service with three instances of the test's web server, reachable from outside at /web.
const webService = `apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  selector: {app: web}
  ports:
  - {name: http, port: 8000}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 3
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: web
        command: [program, http, "8000"]
        ports:
        - containerPort: 8000
        readinessProbe:
          httpGet: {path: /ready, port: 8000}
          periodSeconds: 1
          failureThreshold: 1
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata:
  name: web
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 8080, name: http, protocol: HTTP}
    hosts: ["*"]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: web
spec:
  hosts: ["*"]
  gateways: [web]
  http:
  - route:
    - destination: {host: web, port: {number: 8000}}
`

// fromWeb is an error unless an answer is the web server's.
func fromWeb(a answer) error {
	if a.status != http.StatusOK || !strings.HasPrefix(a.body, "this is web-") {
		return fmt.Errorf("status %d: %.200s", a.status, a.body)
	}
	return nil
}

// names lists the instances of a workload that are ready.
func (m *mesh) readyPods(workload string) []api.Pod {
	m.Helper()
	w, _ := m.workload(workload)
	var ready []api.Pod
	for _, p := range w.Pods {
		if p.Ready {
			ready = append(ready, p)
		}
	}
	return ready
}

// signal sends a signal to a process of a pod.
func (m *mesh) signal(p api.Pod, process string, s syscall.Signal) {
	m.Helper()
	for _, proc := range p.Processes {
		if proc.Name == process && proc.PID > 0 {
			m.check(syscall.Kill(proc.PID, s))
			return
		}
	}
	m.Fatalf("%s has no running process %s: %+v", p.Name, process, p.Processes)
}

// replies are the instances that answer n requests.
func (b *browser) replies(n int) map[string]int {
	b.m.Helper()
	seen := map[string]int{}
	for range n {
		a, err := b.get("/")
		b.m.check(errors.Join(err, fromWeb(a)))
		seen[strings.TrimSpace(strings.TrimPrefix(a.body, "this is "))]++
	}
	return seen
}

// TestRestart replaces instances while requests go on.
func TestRestart(t *testing.T) {
	t.Parallel()
	everyFlavour(t, testRestart)
}

func testRestart(t *testing.T, s settings) {
	m := start(t, s)
	load := m.traffic(4)
	load.await(50)
	for _, w := range []string{"reviews-v1", "details-v1", "productpage-v1"} {
		before := m.readyPods(w)
		m.must("restart", w)
		m.eventually(20*time.Second, w+" is replaced", func() error {
			if now := m.readyPods(w); len(now) != 1 || now[0].Name == before[0].Name {
				return fmt.Errorf("%s, then %+v", before[0].Name, now)
			}
			return m.ready(w)
		})
		load.await(20)
	}
	load.end("rolling restarts of reviews-v1, details-v1 and productpage-v1")
}

// TestCrash kills programs and breaks their readiness while requests go on: they are left at once, and come back.
func TestCrash(t *testing.T) {
	t.Parallel()
	everyFlavour(t, testCrash)
}

func testCrash(t *testing.T, s settings) {
	s.bare, s.manifests = true, map[string]string{"web.yaml": webService}
	m := start(t, s)
	b := m.browser()
	if seen := b.replies(60); len(seen) != 3 {
		t.Errorf("instances that answer: %v, want 3", seen)
	}

	t.Log("an instance that is not ready gets nothing")
	load := m.trafficTo(4, "/", fromWeb)
	load.await(100)
	broken := m.readyPods("web")[0]
	if r := m.inPod(broken.Name, "poke", "/break"); r.code != 0 {
		t.Fatal(r)
	}
	m.eventually(5*time.Second, "two are ready", func() error {
		if n := len(m.readyPods("web")); n != 2 {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	m.eventually(time.Second, "it gets nothing more", func() error {
		if n := b.replies(30)[broken.Name]; n > 0 {
			return fmt.Errorf("%d of 30", n)
		}
		return nil
	})
	if r := m.inPod(broken.Name, "poke", "/mend"); r.code != 0 {
		t.Fatal(r)
	}
	m.eventually(10*time.Second, "three are ready", func() error { return m.ready("web") })
	load.end("an instance's readiness failing and recovering")

	t.Log("programs that are killed are left at once and start again")
	load = m.trafficTo(4, "/", fromWeb)
	load.await(100)
	for _, p := range m.readyPods("web") {
		m.signal(p, "web", syscall.SIGKILL)
		m.eventually(20*time.Second, "it is started again", func() error {
			w, _ := m.workload("web")
			for _, now := range w.Pods {
				if now.Name == p.Name && now.Ready && now.Restarts > p.Restarts {
					return nil
				}
			}
			return fmt.Errorf("%+v", w.Pods)
		})
	}
	load.await(50)
	load.end("the death of each of three instances in turn")
	contains(t, "ps --wide", m.must("ps", "--wide"), "signal: killed")
}

// TestModes changes what a service demands of its callers while they send what nothing may send twice: not one request is lost.
func TestModes(t *testing.T) {
	t.Parallel()
	m := start(t, settings{account: self(), bare: true, manifests: map[string]string{"web.yaml": webService}})
	load := m.load(4, func(b *browser) (answer, error) { return b.post("/") }, fromWeb)
	load.await(50)
	const mode = `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: MODE}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec: {host: web, trafficPolicy: {tls: {mode: CLIENT}}}
`
	for i := range 24 {
		now := [][2]string{{"STRICT", "ISTIO_MUTUAL"}, {"DISABLE", "DISABLE"}, {"PERMISSIVE", "ISTIO_MUTUAL"}}[i%3]
		if r := m.weftWith(strings.NewReplacer("MODE", now[0], "CLIENT", now[1]).Replace(mode), "apply", "-f", "-"); r.code != 0 {
			t.Fatal(r)
		}
		load.await(20)
	}
	load.end("24 changes of PeerAuthentication and DestinationRule")
}

// TestControl stops the control plane: traffic goes on, proxies start from what they had, and it recovers by itself.
func TestControl(t *testing.T) {
	t.Parallel()
	everyFlavour(t, testControl)
}

// saved reports whether the sidecar of a workload's only pod has written down the endpoints of all clusters that it is to find by parts of
// their names. It does so soon after they came, and later where writing takes long.
func (m *mesh) saved(workload string, clusters ...string) error {
	raw, err := os.ReadFile(filepath.Join(m.dir, "state/runtime/proxies/default", workload, "0/config.json"))
	if err != nil {
		return err
	}
	var file struct {
		Resources []struct{ Type, Name string }
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		return err
	}
	for _, part := range clusters {
		found := false
		for _, r := range file.Resources {
			found = found || strings.HasSuffix(r.Type, ".ClusterLoadAssignment") && strings.Contains(r.Name, part)
		}
		if !found {
			return fmt.Errorf("nothing of %q", part)
		}
	}
	return nil
}

func testControl(t *testing.T, s settings) {
	m := start(t, s)
	b := m.browser()
	m.apply("reviews-v3.yaml")
	m.eventually(5*time.Second, "red stars only", func() error { return b.only(answer.stars, "red") })
	load := m.traffic(2)
	load.await(50)
	if r := m.inPod("productpage", "get", "http://reviews:9080/reviews/0"); r.code != 0 {
		t.Error(r)
	}

	m.must("control", "stop")
	if s := m.status(); s.Control != "stopped" {
		t.Errorf("control plane %q, want stopped", s.Control)
	}
	load.await(200)
	if r := m.weft("apply", "-f", filepath.Join(repository, "examples/bookinfo/try/all-v1.yaml")); r.code != 1 || !strings.Contains(r.stderr, "weft control start") {
		t.Errorf("apply without control plane: %s", r)
	}
	if r := m.inPod("productpage", "get", "http://reviews:9080/reviews/0"); r.code != 0 || !strings.HasPrefix(r.stdout, "200 ") || !strings.Contains(r.stdout, "red") {
		t.Errorf("a name that productpage used: %s", r)
	}
	load.end("the control plane's absence")

	t.Log("a sidecar that is killed meanwhile starts from what it had")
	uses := map[string][]string{"productpage-v1": {"|v3|reviews.", "|details."}, "reviews-v3": {"|ratings."}}
	for _, name := range []string{"productpage-v1", "reviews-v3"} {
		m.eventually(20*time.Second, "the sidecar of "+name+" has on disk what it uses", func() error { return m.saved(name, uses[name]...) })
		before := m.readyPods(name)[0]
		m.signal(before, "istio-proxy", syscall.SIGKILL)
		m.eventually(20*time.Second, "the sidecar of "+name+" is back", func() error {
			pods := m.readyPods(name)
			if len(pods) != 1 || pods[0].Restarts == before.Restarts {
				return fmt.Errorf("%+v", pods)
			}
			return b.only(answer.stars, "red")
		})
	}

	t.Log("it starts again and knows what was applied")
	load = m.traffic(2)
	m.must("control", "start")
	m.eventually(10*time.Second, "all proxies are connected", func() error {
		if s := m.status(); s.Control != "running" || len(s.Proxies) != 7 || s.AppliedCount != 1 {
			return fmt.Errorf("%s, %d proxies, %d applied objects", s.Control, len(s.Proxies), s.AppliedCount)
		}
		return nil
	})
	m.must("control", "restart")
	m.apply("all-v1.yaml")
	m.eventually(5*time.Second, "v1 only", func() error { return b.only(answer.version, "v1") })
	load.await(50)
	load.end("the control plane's return")

	t.Log("applied objects and programs survive down and up")
	m.must("run", "--name", "kept", "--port", "8000", "--", filepath.Join(binaries, programName), "http", "8000")
	m.must("down")
	if _, err := m.up.ends(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	m.run()
	m.awaitUp()
	contains(t, "weft up", m.up.out.String(), "4 objects were applied earlier")
	if err := m.browser().only(answer.version, "v1"); err != nil {
		t.Error(err)
	}
	m.eventually(10*time.Second, "the program answers", func() error {
		if r := m.inPod("productpage", "get", "http://kept:8000/"); r.code != 0 || !strings.HasPrefix(r.stdout, "200 this is kept-") {
			return errors.New(r.String())
		}
		return nil
	})
}

// TestPortInUse publishes a gateway where another program listens.
func TestPortInUse(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	other := strings.ReplaceAll(m8081, "PORT", port)
	m := start(t, settings{account: self(), manifests: map[string]string{"other.yaml": other}})
	if err := m.browser().page().whole(); err != nil {
		t.Errorf("the other gateway: %v", err)
	}
	m.eventually(5*time.Second, "the status names port and remedy", func() error {
		for _, f := range m.status().Findings {
			if strings.Contains(f.Text, port) && strings.Contains(f.Text, "--publish "+port+"=") {
				return nil
			}
		}
		return fmt.Errorf("%+v", m.status().Findings)
	})
	contains(t, "weft up", m.up.out.String(), "--publish "+port+"=")
}

// TestAppliedPortIsOpen: a gateway's new port takes connections when weft apply has returned, and one that is deleted takes none.
func TestAppliedPortIsOpen(t *testing.T) {
	t.Parallel()
	m := start(t, settings{account: self()})
	for range 5 {
		address := loopbacktest.Address(t)
		_, port, _ := net.SplitHostPort(address)
		if r := m.weftWith(strings.ReplaceAll(m8081, "PORT", port), "apply", "-f", "-"); r.code != 0 {
			t.Fatal(r)
		}
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatalf("applied, but not open: %v", err)
		}
		c.Close()
		m.must("delete", "gateway", "second")
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			t.Fatal("deleted, but open")
		}
	}
}

// m8081 is a second gateway port for Bookinfo.
const m8081 = `apiVersion: networking.istio.io/v1
kind: Gateway
metadata:
  name: second
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: PORT, name: http, protocol: HTTP}
    hosts: ["*"]
`
