package peers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weftmesh/weft/internal/agent"
	"github.com/weftmesh/weft/test/envoy"
)

// web runs a program of HTTP at an address: it says which pod it is, and what the proxy in front says of the client.
func (p *pod) web(address string) {
	t := p.mesh.t
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s", p.name, r.Header.Get("X-Forwarded-Client-Cert"))
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }() // the test's end stops it
	t.Cleanup(func() { _ = s.Close(); <-done })
}

// shouts runs a program that greets and sends back lines in upper case.
func (p *pod) shouts(address string) {
	t := p.mesh.t
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() { // the test's end stops it
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // the connection's end stops it
				defer c.Close()
				fmt.Fprintln(c, p.name)
				for lines := bufio.NewScanner(c); lines.Scan(); {
					fmt.Fprintln(c, strings.ToUpper(lines.Text()))
				}
			}()
		}
	}()
}

// behindEnvoy runs an Envoy for the pod, and waits until it serves.
func (p *pod) behindEnvoy() {
	t := p.mesh.t
	t.Helper()
	p.attend()
	cmd := exec.Command(envoy.Find(t), "-c", filepath.Join(p.dir, agent.EnvoyBootstrap), "-l", "warning", "--concurrency", "1", "--disable-hot-restart")
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	p.mesh.eventually("Envoy's readiness", func() error {
		if got := envoyAdmin(t, "/ready"); !strings.HasPrefix(got, "LIVE") {
			return errors.New(got)
		}
		return nil
	})
}

func envoyAdmin(t *testing.T, path string) string {
	t.Helper()
	r, err := http.Get("http://127.0.0.1:15000" + path)
	if err != nil {
		return err.Error()
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}

// marked dials as the programs of an Envoy's pod do: their connections are captured.
var marked = &net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
	var err error
	failed := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_MARK, appMark) })
	return errors.Join(failed, err)
}}

// get sends a request to an address and gives status and body. Headers are pairs of a name and a value.
func get(t *testing.T, dial func(ctx context.Context, network, address string) (net.Conn, error), address, host string, headers ...string) (int, string, error) {
	t.Helper()
	transport := &http.Transport{DialContext: dial, DisableKeepAlives: true}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// TestEnvoySidecar runs a real Envoy as a sidecar, with its classical configuration: it calls and is called by our own proxies over mutual
// TLS, takes changes while it runs, enforces policies, relays connections, and refuses nothing that it is sent.
func TestEnvoySidecar(t *testing.T) {
	if !captured(t) {
		return
	}
	m := newMesh(t, time.Hour)
	page := m.newPod("productpage", "v1")
	page.sidecar = true
	outside := netip.MustParseAddr("10.99.0.1")
	capture(t, outside, page.ip)
	for _, s := range []struct {
		app, protocol string
		port          int32
	}{{"productpage", "http", 9080}, {"reviews", "http", 9080}, {"ratings", "grpc", 9081}, {"mysql", "tcp", 3306}, {"plain", "http", 9080}} {
		m.serve(s.app, s.port, s.protocol)
	}
	v1, v2, ratings, mysql, plain := m.newPod("reviews", "v1"), m.newPod("reviews", "v2"), m.newPod("ratings", "v1"), m.newPod("mysql", "v1"), m.newPod("plain", "v1")
	v1.sidecar, v2.sidecar, ratings.sidecar, mysql.sidecar = true, true, true, true
	m.add(page, v1, v2, ratings, mysql, plain)
	for _, p := range []*pod{v1, v2} {
		program, _ := p.proxied("")
		p.web(program)
	}
	program, toPage := ratings.proxied("productpage:9080")
	ratings.listens(program)
	program, _ = mysql.proxied("")
	mysql.shouts(program)
	plain.web(plain.addr())
	page.web(page.addr())
	m.apply(subsets)
	page.behindEnvoy()

	is := func(what string, want *pod, identity, service, host string, headers ...string) {
		t.Helper()
		m.eventually(what, func() error {
			status, body, err := get(t, marked.DialContext, service, host, headers...)
			if err != nil || status != 200 || !strings.HasPrefix(body, want.name+" ") || !strings.Contains(body, identity) {
				return fmt.Errorf("%d %q %w", status, body, err)
			}
			return nil
		})
	}
	const (
		reviewsIP, ratingsIP, mysqlIP, plainIP = "10.78.0.2:9080", "10.78.0.3:9081", "10.78.0.4:3306", "10.78.0.5:9080"
		id                                     = "spiffe://cluster.local/ns/default/sa/"
	)
	// Out of the pod: to our proxies, to what has none, to services of gRPC and of bytes, to the outside.
	is("version 1", v1, id+"productpage", reviewsIP, "reviews:9080")
	is("version 2", v2, id+"productpage", reviewsIP, "reviews.default.svc.cluster.local:9080")
	is("a pod without proxy", plain, "", plainIP, "plain.default")
	client := m.dial("passthrough:///"+ratingsIP, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, a string) (net.Conn, error) { return marked.DialContext(ctx, "tcp", a) }))
	client.until("a call", func(pod, user string, err error) bool {
		return err == nil && pod == ratings.name && strings.Contains(user, id+"productpage")
	})
	lines := func(what string, dial func(context.Context, string, string) (net.Conn, error), address string) {
		t.Helper()
		m.eventually(what, func() error {
			c, err := dial(t.Context(), "tcp", address)
			if err != nil {
				return err
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(patience))
			fmt.Fprintln(c, "hello")
			lines := bufio.NewScanner(c)
			var got []string
			for len(got) < 2 && lines.Scan() {
				got = append(got, lines.Text())
			}
			if strings.Join(got, " ") != mysql.name+" HELLO" {
				return fmt.Errorf("%q %w", got, lines.Err())
			}
			return nil
		})
	}
	lines("lines", marked.DialContext, mysqlIP)
	elsewhere := &pod{mesh: m, name: "elsewhere"}
	elsewhere.web(netip.AddrPortFrom(outside, 8000).String())
	is("the outside", elsewhere, "", netip.AddrPortFrom(outside, 8000).String(), "elsewhere.example")

	// A change of routes reaches a running Envoy, after the control plane was away too.
	m.stop()
	is("an answer without control plane", v1, id+"productpage", reviewsIP, "reviews:9080")
	m.start()
	m.apply(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default}
spec:
  hosts: [reviews]
  http:
  - match: [{headers: {end-user: {exact: jason}}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{headers: {end-user: {exact: nobody}}}]
    fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: reviews, subset: v2}}]
  - route: [{destination: {host: reviews, subset: v1}}]
`)
	m.eventually("the fault", func() error {
		if status, body, err := get(t, marked.DialContext, reviewsIP, "reviews", "end-user", "nobody"); status != 418 {
			return fmt.Errorf("%d %q %w", status, body, err)
		}
		return nil
	})
	for range 10 {
		is("the header's version", v2, id+"productpage", reviewsIP, "reviews:9080", "end-user", "jason")
		is("the other version", v1, id+"productpage", reviewsIP, "reviews:9080")
	}

	// Into the pod: from our proxy, and from who has none while that is allowed.
	into := func(what string, want int, identity string, dial func(context.Context, string, string) (net.Conn, error), address string) {
		t.Helper()
		m.eventually(what, func() error {
			status, body, err := get(t, dial, address, "productpage:9080")
			if status != want || want == 200 && !strings.Contains(body, identity) {
				return fmt.Errorf("%d %q %w", status, body, err)
			}
			return nil
		})
	}
	direct := new(net.Dialer).DialContext
	// At addresses of the pod's own, where nothing else is.
	m.apply(`
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: page, namespace: default}
spec:
  workloadSelector: {labels: {app: productpage}}
  egress:
  - {port: {number: 3306, protocol: MYSQL}, bind: 127.0.0.1, captureMode: NONE, hosts: ["./mysql.default.svc.cluster.local"]}
  - {port: {number: 9080, protocol: HTTP}, captureMode: NONE, hosts: ["./*"]}
  - hosts: ["./*"]
`)
	lines("lines at an address of its own", direct, "127.0.0.1:3306")
	for host, want := range map[string]int{"reviews": 200, "plain.default:9080": 200, "elsewhere.example": 404} {
		m.eventually(host+" at an address of its own", func() error {
			status, body, err := get(t, direct, "127.0.0.1:9080", host)
			if status != want {
				return fmt.Errorf("%d %q %w", status, body, err)
			}
			return nil
		})
	}
	is("what is captured", v1, id+"productpage", reviewsIP, "reviews:9080")
	into("our proxy", 200, id+"ratings", direct, toPage)
	into("nobody", 200, "", direct, page.addr())
	m.apply(strict)
	into("nobody, refused", 0, "", direct, page.addr())
	into("our proxy under STRICT", 200, id+"ratings", direct, toPage)
	m.apply(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: page, namespace: default}
spec:
  selector: {matchLabels: {app: productpage}}
  action: DENY
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/ratings]}}]
`)
	into("refusal", 403, "", direct, toPage)

	if r := m.refusals(); len(r) > 0 {
		t.Errorf("refused: %+v", r)
	}
	for _, line := range strings.Split(envoyAdmin(t, "/stats?filter=update_rejected|lds.update_failure"), "\n") {
		if name, n, ok := strings.Cut(line, ": "); ok && strings.HasSuffix(name, "rejected") && n != "0" {
			t.Error(line)
		}
	}
}
