package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/api"
)

// flavour is a way to run a mesh.
type flavour struct {
	account
	isolation string
}

func (f flavour) String() string { return f.name + "-" + f.isolation }

// flavours are all ways that this test run can try; the others are named.
func flavours(t *testing.T) []flavour {
	all := []flavour{{self(), "netns"}, {self(), "ports"}}
	if os.Geteuid() != 0 {
		t.Log("not root: only an ordinary user's mesh is tried")
		return all
	}
	return append(all, flavour{ordinary(), "netns"}, flavour{ordinary(), "ports"})
}

// needNamespaces skips the test where the kernel does not let the account make network namespaces.
func (m *mesh) needNamespaces() {
	m.Helper()
	if m.isolation != "netns" || m.id == nil && os.Geteuid() == 0 {
		return
	}
	for _, file := range []string{"/proc/sys/user/max_user_namespaces", "/proc/sys/kernel/unprivileged_userns_clone"} {
		if raw, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(raw)) == "0" {
			m.Skipf("the kernel refuses user namespaces: %s is 0", file)
		}
	}
	if raw, err := os.ReadFile("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"); err == nil && strings.TrimSpace(string(raw)) == "1" {
		m.Skip("AppArmor refuses user namespaces (kernel.apparmor_restrict_unprivileged_userns is 1)")
	}
}

// everyFlavour runs a test in every way, side by side.
func everyFlavour(t *testing.T, test func(t *testing.T, s settings)) {
	for _, f := range flavours(t) {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			test(t, settings{account: f.account, isolation: f.isolation})
		})
	}
}

func TestUp(t *testing.T) {
	t.Parallel()
	everyFlavour(t, func(t *testing.T, s settings) {
		links, tables := hostNetwork(t)
		m := start(t, s)
		m.summary()
		m.pages()
		m.looksAround()
		m.explains()
		m.executes()
		m.runsProgram()
		left := m.traces(links, tables)
		if _, err := m.up.stopBy(os.Interrupt, 10*time.Second); err != nil {
			t.Error(err)
		}
		m.nothingLeft(left, false)
	})
}

// summary checks what `weft up` says once everything is ready.
func (m *mesh) summary() {
	m.Helper()
	m.eventually(10*time.Second, "weft up has said all", func() error {
		if !strings.Contains(m.up.out.String(), "Ctrl-C") { // the last line
			return errors.New("weft up does not say how to end it")
		}
		return nil
	})
	said := m.up.out.String()
	took := regexp.MustCompile(`up in (\d+\.\d) s`).FindStringSubmatch(said)
	if took == nil {
		m.Fatalf("weft up does not say how long it took:\n%s", said)
	}
	s := m.status()
	m.Logf("up in %s s, isolation %s: %s", took[1], s.Isolation, s.Reason)
	contains(m.T, "weft up", said, "mesh "+m.name, "isolation "+m.isolation, "http://"+m.gateway(8080)+"/productpage", s.Metrics,
		"--mesh "+m.name+" graph", "productpage-v1", "Ctrl-C")
	if s.Isolation != m.isolation || s.Reason == "" || s.Control != "running" || s.PID != m.up.cmd.Process.Pid {
		m.Errorf("status: %+v", s)
	}
}

func (m *mesh) pages() {
	m.Helper()
	b := m.browser()
	a := b.page()
	if err := a.whole(); err != nil {
		m.Errorf("product page: %v", err)
	}
	seen := b.every(60, answer.version)
	if len(seen) != 3 || seen["v1"] == 0 || seen["v2"] == 0 || seen["v3"] == 0 {
		m.Errorf("versions of reviews seen: %v, want all three", seen)
	}
	if a, err := b.get("/no/such/page"); err != nil || a.status != 404 {
		m.Errorf("a path without a route: status %d, %v, want 404", a.status, err)
	}
}

// looksAround checks ps, status, get, graph and logs.
func (m *mesh) looksAround() {
	m.Helper()
	workloads := []string{"productpage-v1", "details-v1", "reviews-v1", "reviews-v2", "reviews-v3", "ratings-v1", "istio-ingressgateway"}
	contains(m.T, "ps", m.must("ps"), append(workloads, "1/1", "Running")...)
	contains(m.T, "ps --wide", m.must("ps", "--wide"), "istio-proxy", "productpage-v1-", "up")
	m.eventually(5*time.Second, "all proxies are connected", func() error {
		if n := len(m.status().Proxies); n != len(workloads) {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	contains(m.T, "status", m.must("status"), append(workloads, "running", "spiffe://cluster.local/ns/default/sa/bookinfo-reviews",
		m.gateway(8080), m.status().Metrics, "synced", m.files)...)
	contains(m.T, "get", m.must("get"), "VirtualService", "DestinationRule", "files/gateway.yaml:", "Deployment", "ok")
	contains(m.T, "get -o yaml", m.must("get", "vs", "bookinfo", "-o", "yaml"), "kind: VirtualService", "exact: /productpage")
	contains(m.T, "logs", m.must("logs", "reviews"), "reviews-v1-", "reviews-v2-", "reviews-v3-", "path=/reviews/0")
	m.eventually(10*time.Second, "the access log, which proxies write in batches, has the call", func() error {
		log := m.must("logs", "productpage", "-c", "istio-proxy")
		for _, want := range []string{"GET /reviews/0 HTTP/1.1", "outbound|9080||reviews.default.svc.cluster.local"} {
			if !strings.Contains(log, want) {
				return fmt.Errorf("%q is missing in:\n%s", want, log)
			}
		}
		return nil
	})
	m.eventually(15*time.Second, "the graph shows all calls", func() error {
		return m.edges("istio-ingressgateway>productpage-v1", "productpage-v1>details-v1", "productpage-v1>reviews-v1",
			"productpage-v1>reviews-v2", "productpage-v1>reviews-v3", "reviews-v2>ratings-v1", "reviews-v3>ratings-v1")
	})
	contains(m.T, "graph", m.must("graph"), "mTLS", "/s", "ms", "reviews-v3")
}

// edges is nil when the graph has each arrow "from>to" with a rate, without errors, under mutual TLS.
func (m *mesh) edges(want ...string) error {
	g, err := m.api.Graph(m.Context(), time.Minute)
	if err != nil {
		return err
	}
	got := map[string]api.Edge{}
	for _, e := range g.Edges {
		got[e.Source+">"+e.Destination] = e
	}
	for _, w := range want {
		if e := got[w]; e.Rate <= 0 || e.ErrorShare != 0 || !e.MutualTLS {
			return fmt.Errorf("%s: %+v among %d edges", w, e, len(g.Edges))
		}
	}
	return nil
}

func (m *mesh) explains() {
	m.Helper()
	contains(m.T, "explain", m.must("explain", "--from", "productpage", "GET", "http://reviews:9080/reviews/0"),
		"spiffe://cluster.local/ns/default/sa/bookinfo-productpage", "reviews.default.svc.cluster.local", "mutual TLS", "3 of 3 endpoints ready")
	if r := m.weft("explain", "--from", "nobody", "http://reviews:9080/"); r.code != 1 || !strings.Contains(r.stderr, "nobody") {
		m.Errorf("explain from an unknown workload: %s", r)
	}
	if r := m.weft("explain", "http://reviews:9080/"); r.code != 2 {
		m.Errorf("explain without --from: %s", r)
	}
}

func (m *mesh) executes() {
	m.Helper()
	r := m.inPod("productpage", "get", "http://ratings:9080/ratings/0")
	if r.code != 0 || !strings.HasPrefix(r.stdout, "200 ") || !strings.Contains(r.stdout, "Reviewer1") {
		m.Errorf("a call by name from productpage's pod: %s", r)
	}
	if r := m.weftWith("hello", "exec", "reviews-v1", "--", "sh", "-c", "cat; echo problem >&2; exit 7"); r.code != 7 || r.stdout != "hello" || r.stderr != "problem\n" {
		m.Errorf("exec: %s", r)
	}
	if r := m.weft("exec", "nothing", "--", "true"); r.code != 1 || !strings.Contains(r.stderr, `"nothing"`) {
		m.Errorf("exec in what does not run: %s", r)
	}
}

// asksPoliciesOfItself checks that policies hold for what a workload asks of its own service, by mutual TLS and in plaintext.
func (m *mesh) asksPoliciesOfItself() {
	m.Helper()
	for _, mode := range []string{"STRICT", "DISABLE"} {
		policies := fmt.Sprintf(ownPolicies, mode)
		if r := m.weftWith(policies, "apply", "-f", "-"); r.code != 0 {
			m.Fatal(r)
		}
		m.eventually(5*time.Second, mode+": the program may not call itself", func() error {
			if r := m.inPod("web", "get", "http://web:8000/"); !strings.HasPrefix(r.stdout, "403 ") {
				return errors.New(r.String())
			}
			return nil
		})
		for range 10 {
			if r := m.inPod("web", "get", "http://web:8000/"); !strings.HasPrefix(r.stdout, "403 ") {
				m.Errorf("%s: the program calls itself where nobody may: %s", mode, r)
			}
		}
		if r := m.weftWith(policies, "delete", "-f", "-"); r.code != 0 {
			m.Fatal(r)
		}
	}
	m.eventually(5*time.Second, "the program may call itself again", func() error {
		if r := m.inPod("web", "get", "http://web:8000/"); !strings.HasPrefix(r.stdout, "200 ") {
			return errors.New(r.String())
		}
		return nil
	})
}

const ownPolicies = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody}
spec: {selector: {matchLabels: {app: web}}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: own}
spec: {selector: {matchLabels: {app: web}}, mtls: {mode: %s}}
`

// runsProgram adds a program, calls it by name, sees it in the graph and takes it away.
func (m *mesh) runsProgram() {
	m.Helper()
	contains(m.T, "run", m.must("run", "--name", "web", "--port", "8000", "--", filepath.Join(binaries, programName), "http", "8000"), "http://web:8000")
	m.eventually(10*time.Second, "the program is ready", func() error { return m.ready("web") })
	m.eventually(10*time.Second, "productpage reaches the program", func() error {
		if r := m.inPod("productpage", "get", "http://web:8000/"); r.code != 0 || !strings.HasPrefix(r.stdout, "200 this is web-") {
			return errors.New(r.String())
		}
		return nil
	})
	if r := m.inPod("web", "get", "http://web:8000/"); r.code != 0 || !strings.HasPrefix(r.stdout, "200 this is web-") {
		m.Errorf("the program calls its own service: %s", r)
	}
	m.asksPoliciesOfItself()
	m.eventually(15*time.Second, "the graph shows the program", func() error {
		g, err := m.api.Graph(m.Context(), time.Minute)
		if err != nil {
			return err
		}
		for _, e := range g.Edges {
			if e.Source == "productpage-v1" && e.Destination == "web" && e.MutualTLS && e.Rate > 0 {
				return nil
			}
		}
		return fmt.Errorf("%+v", g.Edges)
	})
	contains(m.T, "delete program", m.must("delete", "program", "web"), "deleted")
	m.eventually(10*time.Second, "the program is gone", func() error {
		if w, there := m.workload("web"); there {
			return fmt.Errorf("%+v", w)
		}
		return nil
	})
	if r := m.weft("delete", "program", "web"); r.code != 1 {
		m.Errorf("deleting it twice: %s", r)
	}
}
