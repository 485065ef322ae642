package upgrade

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/weftmesh/weft/internal/ca"
	"github.com/weftmesh/weft/internal/control"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/loopback/loopbacktest"
	"github.com/weftmesh/weft/internal/wire"
)

const domain = "cluster.local"

// patience bounds waits for what should come soon.
const patience = 2 * time.Minute

// binary is weft-proxy, built once.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "weft")
	if err == nil {
		binary = filepath.Join(dir, "weft-proxy")
		var out []byte
		if out, err = exec.Command("go", "build", "-o", binary, "github.com/weftmesh/weft/cmd/weft-proxy").CombinedOutput(); err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "upgrade: build weft-proxy:", err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// rig is a control plane, a workload, and one proxy in front of it that goes from process to process.
type rig struct {
	t       *testing.T
	dir     string
	backend *httptest.Server
	grpc    string         // address of the workload's gRPC server
	echo    net.PacketConn // of the workload, which sends datagrams back
	held    chan struct{}  // answers to /slow are finished when it is closed
	address string         // where clients connect, for HTTP
	calls   string         // and for gRPC
	game    string         // where clients send datagrams; gateways alone have it
	secure  string         // where clients speak TLS and HTTP/3; gateways alone have it
	plain   string         // where they speak something else
	objects string         // of the mesh, but for what publish fills in
	roots   *x509.CertPool // of its certificate
	health  *health.Server
	admin   string // path of the admin socket
	file    string // the bootstrap
	config  wire.Bootstrap
}

// newRig makes a mesh with one service, backend.example, and the bootstrap of a proxy that leads to it: a gateway, or a sidecar with
// explicit listeners.
func newRig(t *testing.T, role wire.Role) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "weft") // the paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &rig{t: t, dir: dir, held: make(chan struct{}), admin: filepath.Join(dir, "admin"), file: filepath.Join(dir, "bootstrap.json"), address: loopbacktest.Address(t)}
	r.backend = httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(r.backend.Close)
	r.serveGRPC()
	r.serveDatagrams()
	r.secure, r.plain = loopbacktest.Address(t), loopbacktest.Address(t)
	if r.calls = r.address; role == wire.Sidecar {
		r.calls = loopbacktest.Address(t)
	}
	authority, err := ca.Open(filepath.Join(dir, "ca"), ca.Options{TrustDomain: domain, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := ca.OpenTokens(filepath.Join(dir, "ca"), ca.TokenOptions{TrustDomain: domain})
	if err != nil {
		t.Fatal(err)
	}
	r.control(authority, tokens)
	node := wire.Node{Role: role, Name: "edge-1", Namespace: "default", ServiceAccount: "edge", Workload: "edge", IP: "127.0.0.1", Labels: map[string]string{"istio": "ingressgateway"}, Cluster: "weft"}
	token, err := tokens.Mint(identity.Peer{ID: identity.ID{TrustDomain: domain, Namespace: "default", ServiceAccount: "edge"}, Workload: "edge", Instance: "edge-1", Cluster: "weft"})
	if err != nil {
		t.Fatal(err)
	}
	r.config = wire.Bootstrap{Node: node, Control: "unix://" + filepath.Join(dir, "xds"), TrustDomain: domain, Roots: string(authority.RootsPEM()), Token: token,
		StateDir: filepath.Join(dir, "state"), AdminSocket: r.admin, UpgradeSocket: filepath.Join(dir, "upgrade"), DrainSeconds: 2, UpgradeDrainSeconds: 90}
	if role == wire.Sidecar {
		r.config.OutboundPorts = []wire.PortMap{{Listen: r.address, Destination: "backend.example:80"}, {Listen: r.calls, Destination: "backend.example:81"}}
		r.config.DNS = loopbacktest.Address(t)
	}
	raw, err := json.Marshal(r.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return r
}

// serveGRPC runs the workload's gRPC server: the health service, whose Check is unary and whose Watch is a stream.
func (r *rig) serveGRPC() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.grpc, r.health = l.Addr().String(), health.NewServer()
	s := grpc.NewServer()
	healthv1.RegisterHealthServer(s, r.health)
	go s.Serve(l) // ends by Stop
	r.t.Cleanup(s.Stop)
}

// serveDatagrams has the workload send each datagram back.
func (r *rig) serveDatagrams() {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.echo, r.game = pc, loopbacktest.Address(r.t)
	r.t.Cleanup(func() { pc.Close() })
	go func() { // ends by Close
		buf := make([]byte, 2048)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(buf[:n], from) // a session that has ended refuses it
		}
	}()
}

// certificate makes that of the gateway, for edge.example, as a Secret has it.
func (r *rig) certificate() (cert, key string) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"edge.example"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		r.t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		r.t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	r.roots = x509.NewCertPool()
	r.roots.AppendCertsFromPEM(text)
	return base64.StdEncoding.EncodeToString(text), base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
}

// dialGRPC gives a client with a connection of its own, to the proxy.
func (r *rig) dialGRPC() healthv1.HealthClient {
	r.t.Helper()
	c, err := grpc.NewClient("passthrough:///"+r.calls, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return healthv1.NewHealthClient(c)
}

// serve is the workload.
func (r *rig) serve(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	switch req.URL.Path {
	case "/slow": // half of the answer at once
		io.WriteString(w, "begun ")
		w.(http.Flusher).Flush()
		select {
		case <-r.held:
		case <-req.Context().Done():
			return
		}
		io.WriteString(w, "and ended")
	default:
		fmt.Fprintf(w, "%s %s", req.Method, body)
	}
}

const objects = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: backend, namespace: default}
spec:
  hosts: [backend.example]
  addresses: [10.78.9.9]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}, {number: 81, name: grpc, protocol: GRPC}, {number: 82, name: tcp, protocol: TCP}]
  endpoints: [ENDPOINTS]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: default, annotations: {weft.dev/http3: "true"}}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: PORT, name: http, protocol: HTTP}, hosts: ["*"]}
  - {port: {number: PLAIN, name: tcp, protocol: TCP}, hosts: ["*"]}
  - {port: {number: SECURE, name: https, protocol: HTTPS}, hosts: ["*"], tls: {mode: SIMPLE, credentialName: edge}}
---
apiVersion: v1
kind: Secret
metadata: {name: edge, namespace: default}
type: kubernetes.io/tls
data: {tls.crt: CERTIFICATE, tls.key: KEY}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: backend, namespace: default}
spec:
  hosts: ["*"]
  gateways: [edge]
  http:
  - match: [{headers: {content-type: {prefix: application/grpc}}}]
    route: [{destination: {host: backend.example, port: {number: 81}}}]
  - route: [{destination: {host: backend.example, port: {number: 80}}}]
    headers: {response: {set: {x-round: "ROUND"}}}
  tcp:
  - match: [{port: PLAIN}]
    route: [{destination: {host: backend.example, port: {number: 82}}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: game, namespace: default}
spec:
  gatewayClassName: weft
  listeners: [{name: game, port: GAME, protocol: UDP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: UDPRoute
metadata: {name: game, namespace: default}
spec:
  parentRefs: [{name: game}]
  rules: [{backendRefs: [{name: echo, port: 7}]}]
---
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: default}
spec: {clusterIP: 10.78.9.8, ports: [{name: echo, port: 7, protocol: UDP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: echo-1, namespace: default, labels: {kubernetes.io/service-name: echo}}
addressType: IPv4
ports: [{name: echo, port: ECHO, protocol: UDP}]
endpoints: [{addresses: [127.0.0.1]}]
`

// endpoint is the workload's, as a ServiceEntry has it.
func (r *rig) endpoint() string {
	_, backend, _ := net.SplitHostPort(r.backend.Listener.Addr().String())
	_, calls, _ := net.SplitHostPort(r.grpc)
	return fmt.Sprintf("{address: 127.0.0.1, ports: {http: %s, grpc: %s, tcp: %s}}", backend, calls, calls)
}

func (r *rig) mesh() string { return filepath.Join(r.dir, "mesh.yaml") }

// publish writes the mesh's file, with a value of a response's header field and the endpoints of the service.
func (r *rig) publish(round string, endpoints ...string) {
	r.t.Helper()
	text := strings.NewReplacer("ROUND", round, "ENDPOINTS", strings.Join(endpoints, ", ")).Replace(r.objects)
	if err := errors.Join(os.WriteFile(r.mesh()+".new", []byte(text), 0o600), os.Rename(r.mesh()+".new", r.mesh())); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) control(authority *ca.Authority, tokens *ca.Tokens) {
	r.t.Helper()
	_, port, _ := net.SplitHostPort(r.address)
	_, game, _ := net.SplitHostPort(r.game)
	_, echo, _ := net.SplitHostPort(r.echo.LocalAddr().String())
	_, secure, _ := net.SplitHostPort(r.secure)
	cert, key := r.certificate()
	_, plain, _ := net.SplitHostPort(r.plain)
	r.objects = strings.NewReplacer("PORT", port, "GAME", game, "ECHO", echo, "SECURE", secure, "PLAIN", plain, "CERTIFICATE", cert, "KEY", key).Replace(objects)
	r.publish("0", r.endpoint())
	file := r.mesh()
	c, err := control.New(control.Options{StateDir: filepath.Join(r.dir, "control"), Paths: []string{file}, Settings: model.Settings{TrustDomain: domain},
		LocalRuntime: true, Address: "-", HTTPAddress: "-", Socket: filepath.Join(r.dir, "xds"), Log: slog.New(slog.DiscardHandler), Authority: authority, Tokens: tokens})
	if err != nil {
		r.t.Fatal(err)
	}
	controller := true
	if err := c.SetRuntimeObjects([]source.Kube{&corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: "edge-1", Namespace: "default", Labels: map[string]string{"istio": "ingressgateway"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: "edge", Controller: &controller}}},
		Spec:   corev1.PodSpec{ServiceAccountName: "edge"},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "127.0.0.1", PodIPs: []corev1.PodIP{{IP: "127.0.0.1"}}},
	}}); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }() // ends with the test
	r.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("control plane: %v", err)
		}
		if err := authority.Close(); err != nil {
			r.t.Error(err)
		}
	})
}

// process is a running weft-proxy.
type process struct {
	r    *rig
	cmd  *exec.Cmd
	out  *output
	done chan struct{} // closed when it has ended
}

// output collects what a process writes.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// start starts a program as the proxy, with the bootstrap and further arguments.
func (r *rig) start(program string, args ...string) *process {
	r.t.Helper()
	p := &process{r: r, cmd: exec.Command(program, append([]string{"--bootstrap", r.file}, args...)...), out: &output{}, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if err := p.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() { // ends with the process
		defer close(p.done)
		_ = p.cmd.Wait() // its end is in ProcessState
	}()
	r.t.Cleanup(func() {
		p.signal(syscall.SIGKILL)
		<-p.done
		if r.t.Failed() {
			r.t.Logf("process %d (%s):\n%s", p.cmd.Process.Pid, p.cmd.ProcessState, p.out)
		}
	})
	return p
}

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) } // it may have ended

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// wait gives the exit code.
func (p *process) wait() int {
	p.r.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.r.t.Fatalf("process %d does not end", p.cmd.Process.Pid)
	}
	return p.cmd.ProcessState.ExitCode()
}

// says waits for a line of the process's log.
func (p *process) says(text string) {
	p.r.t.Helper()
	p.r.eventually(fmt.Sprintf("process %d says %q", p.cmd.Process.Pid, text), func() bool { return strings.Contains(p.out.String(), text) })
}

func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// ask makes a request of the admin socket; an answer but 200 is empty.
func (r *rig) ask(method, path string) string {
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", r.admin)
	}}
	req, err := http.NewRequest(method, "http://admin"+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		return ""
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return ""
	}
	return string(body)
}

// first starts the first process and waits until it serves.
func (r *rig) first() *process {
	r.t.Helper()
	p := r.start(binary)
	r.eventually("the first process is ready", func() bool { return p.ended() || r.ask("GET", "/ready") != "" })
	r.eventually("the first process accepts", func() bool { return p.ended() || r.load1() == nil })
	return p
}

// load1 makes one request.
func (r *rig) load1() error {
	return (&load{r: r}).one(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, "first")
}

// load sends requests without pause until stop, which reports what failed and how many were sent.
type load struct {
	r     *rig
	end   chan struct{}
	group sync.WaitGroup

	mu     sync.Mutex
	sent   int
	failed []string
}

func (r *rig) load() *load {
	l := &load{r: r, end: make(chan struct{})}
	for i := range 6 {
		keep := i%3 != 2 // the third opens a connection for each request
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: !keep}, Timeout: patience}
		l.group.Go(func() { // ends by stop
			defer c.CloseIdleConnections()
			for n := 0; ; n++ {
				select {
				case <-l.end:
					return
				default:
				}
				l.note(l.one(c, strconv.Itoa(i)+"."+strconv.Itoa(n)))
			}
		})
	}
	return l
}

// calls adds unary gRPC calls over two connections.
func (l *load) calls() {
	for range 2 {
		client := l.r.dialGRPC()
		l.group.Go(func() { // ends by stop
			for {
				select {
				case <-l.end:
					return
				default:
				}
				_, err := client.Check(l.r.t.Context(), &healthv1.HealthCheckRequest{})
				l.note(err)
			}
		})
	}
}

// datagrams adds two clients that send datagrams, each from one socket. Each has to be answered.
func (l *load) datagrams() {
	for i := range 2 {
		c, err := net.Dial("udp", l.r.game)
		if err != nil {
			l.r.t.Fatal(err)
		}
		l.group.Go(func() { // ends by stop
			defer c.Close()
			for n := 0; ; n++ {
				select {
				case <-l.end:
					return
				default:
				}
				l.note(ask(c, fmt.Sprintf("%d.%d", i, n)))
			}
		})
	}
}

func ask(c net.Conn, text string) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	buf := make([]byte, 2048)
	n, err := c.Read(buf)
	if err == nil && string(buf[:n]) != text {
		err = fmt.Errorf("sent %q, got %q", text, buf[:n])
	}
	return err
}

// quicConfig is the one of http3, but clients wait as long as the tests do.
var quicConfig = &quic.Config{MaxIncomingStreams: -1, KeepAlivePeriod: 10 * time.Second, HandshakeIdleTimeout: patience, MaxIdleTimeout: patience}

// http3 gives a client of HTTP/3 with connections of its own.
func (r *rig) http3() (c *http.Client, end func()) {
	tr := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: r.roots, ServerName: "edge.example"}, QUICConfig: quicConfig}
	return &http.Client{Transport: tr, Timeout: patience}, func() { tr.Close() }
}

// http3 adds clients of HTTP/3: two that keep their connection, and one that makes a new one for each request.
func (l *load) http3() {
	for i := range 3 {
		l.group.Go(func() { // ends by stop
			c, end := l.r.http3()
			for n := 0; ; n++ {
				select {
				case <-l.end:
					end()
					return
				default:
				}
				l.note(l.post(c, "https://"+l.r.secure, fmt.Sprintf("quic %d.%d", i, n)))
				if i == 2 {
					end()
					c, end = l.r.http3()
				}
			}
		})
	}
}

func (l *load) one(c *http.Client, body string) error { return l.post(c, "http://"+l.r.address, body) }

// post may not be sent twice by a client or a proxy by itself, but where it was refused.
func (l *load) post(c *http.Client, to, body string) error {
	res, err := c.Post(to+"/", "text/plain", strings.NewReader(body))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err == nil && (res.StatusCode != http.StatusOK || string(got) != "POST "+body) {
		err = fmt.Errorf("%d %q", res.StatusCode, got)
	}
	return err
}

func (l *load) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	if err != nil {
		l.failed = append(l.failed, fmt.Sprintf("request %d: %v", l.sent, err))
	}
}

// count is the number of requests so far.
func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent
}

// more waits until n more requests have been answered.
func (l *load) more(n int) {
	l.r.t.Helper()
	begin := l.count()
	l.r.eventually("requests go on", func() bool { return l.count() >= begin+n })
}

func (l *load) stop() {
	l.r.t.Helper()
	close(l.end)
	l.group.Wait()
	if len(l.failed) > 0 {
		l.r.t.Errorf("%d of %d requests failed: %s", len(l.failed), l.sent, strings.Join(l.failed[:min(5, len(l.failed))], "; "))
	}
	l.r.t.Logf("%d requests", l.sent)
}
