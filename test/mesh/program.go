package mesh

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/weftmesh/weft/examples/bookinfo/app"
)

// ServedBy is the response header by which the programs of this package name the pod that answered.
const ServedBy = "Served-By"

// Seen is a request that reached a workload's program.
type Seen struct {
	Method, Path, Host string
	Header             http.Header
}

// process is what runs in a pod's container. It belongs to its pod.
type process struct {
	pod      *Pod
	listener net.Listener
	end      func()
	running  sync.WaitGroup

	mu      sync.Mutex
	seen    []Seen
	failing map[string]int // answers left to fail, by the key of echo's requests
	conns   map[net.Conn]bool
}

// startProcess runs the container's command, on the container's first port:
//
//	bookinfo SERVICE   a service of Bookinfo, of the version in SERVICE_VERSION or the pod's label; Istio's images mean the same
//	echo               answers with the request as JSON; see echo
//	tcp-echo           says "POD\n", then sends back each line in upper case
//	tcp-ask            sends back each line in upper case: the client speaks first
//	tls-ask            the same, in TLS, with a certificate of its own making for its pod's name
//	forward-proxy      connects to where CONNECT, or a POST whose bodies carry bytes, asks for; the port 1 of anything is forbidden
//	rate-limit         a rate-limit service of Envoy's protocol that lets each description pass twice
//	sleep              serves nothing
func startProcess(pod *Pod, c corev1.Container) (*process, error) {
	p := &process{pod: pod, failing: map[string]int{}, conns: map[net.Conn]bool{}}
	words := command(c)
	if len(words) == 0 {
		return nil, fmt.Errorf("pod %s: container %s has no command", pod.Name, c.Name)
	}
	if words[0] == "sleep" {
		p.end = func() {}
		return p, nil
	}
	l, err := pod.host.Listen(netip.AddrPortFrom(netip.IPv4Unspecified(), containerPort(c)))
	if err != nil {
		return nil, fmt.Errorf("pod %s: %w", pod.Name, err)
	}
	p.listener = l
	switch words[0] {
	case "bookinfo":
		h, err := app.New(words[len(words)-1], app.Config{
			Version: cmp.Or(environment(c, "SERVICE_VERSION"), pod.Labels["version"]), PodName: pod.Name, Transport: pod.transport,
		})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("pod %s: %w", pod.Name, err), l.Close())
		}
		p.serveHTTP(h)
	case "echo":
		p.serveHTTP(http.HandlerFunc(p.echo))
	case "tcp-echo":
		p.serveTCP(pod.Name + "\n")
	case "tcp-ask":
		p.serveTCP("")
	case "forward-proxy":
		p.serveHTTP(http.HandlerFunc(p.forward))
	case "rate-limit":
		p.serveRateLimits()
	case "tls-ask":
		pair, err := SelfSigned(pod.Name)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("pod %s: %w", pod.Name, err), l.Close())
		}
		p.listener = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pair}})
		p.serveTCP("")
	default:
		return nil, errors.Join(fmt.Errorf("pod %s: there is no program %q", pod.Name, words[0]), l.Close())
	}
	return p, nil
}

func containerPort(c corev1.Container) uint16 {
	if len(c.Ports) == 0 {
		return 9080
	}
	return uint16(c.Ports[0].ContainerPort)
}

// sampleImage is an image of Istio's own Bookinfo, for which ours stands in.
var sampleImage = regexp.MustCompile(`/examples-bookinfo-(productpage|details|reviews|ratings)-v[0-9]+:`)

func command(c corev1.Container) []string {
	if m := sampleImage.FindStringSubmatch(c.Image); m != nil && len(c.Command) == 0 {
		return []string{"bookinfo", m[1]}
	}
	return slices.Concat(c.Command, c.Args)
}

func environment(c corev1.Container, name string) string {
	for _, e := range c.Env {
		if e.Name == name {
			return e.Value
		}
	}
	return ""
}

func (p *process) serveHTTP(h http.Handler) {
	s := &http.Server{Handler: p.recording(h), Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	p.running.Go(func() { _ = s.Serve(p.listener) }) // ends with the server; the error says only that
	p.end = func() { _ = s.Close() }
}

// recording notes each request and names the pod in the answer.
func (p *process) recording(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/health" {
			p.mu.Lock()
			p.seen = append(p.seen, Seen{r.Method, r.URL.RequestURI(), r.Host, r.Header.Clone()})
			p.mu.Unlock()
		}
		w.Header().Set(ServedBy, p.pod.Name)
		next.ServeHTTP(w, r)
	})
}

// Echo is the answer of the program echo.
type Echo struct {
	Pod, Method, Path, Host, Body string
	Header                        map[string]string // by lower-case name; several values joined by ", "
}

// echo answers with what it was asked. Parameters of the query change that: status=503 sets the status, delay=2s waits,
// size=1000 adds that many bytes, and fail=2 with key=K fails the first two requests of that key with 503 (or status).
func (p *process) echo(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Content-Type") == grpcType {
		p.echoCall(w, r)
		return
	}
	q := r.URL.Query()
	if wait, err := time.ParseDuration(q.Get("delay")); err == nil && !pause(r.Context(), wait) {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	status := http.StatusOK
	if n, err := strconv.Atoi(q.Get("status")); err == nil {
		status = n
	}
	if q.Has("fail") && !p.fails(q.Get("key"), q.Get("fail")) {
		status = http.StatusOK
	} else if q.Has("fail") && status == http.StatusOK {
		status = http.StatusServiceUnavailable
	}
	answer := p.asked(r, string(body))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer) // the client may be gone
	if size, err := strconv.Atoi(q.Get("size")); err == nil {
		_, _ = io.Copy(w, io.LimitReader(endless{}, int64(size)))
	}
}

// fails reports whether this request of the key is among its first ones that fail.
func (p *process) fails(key, first string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.failing[key]; !known {
		p.failing[key], _ = strconv.Atoi(first)
	}
	p.failing[key]--
	return p.failing[key] >= 0
}

// endless reads as newlines.
type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = '\n'
	}
	return len(b), nil
}

// pause is false when the context ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// serveTCP greets, then sends each line back in upper case until the client ends.
func (p *process) serveTCP(greeting string) {
	p.running.Go(func() {
		for {
			c, err := p.listener.Accept()
			if err != nil {
				return // closed by stop
			}
			p.mu.Lock()
			p.conns[c] = true
			p.mu.Unlock()
			p.running.Go(func() { p.talk(c, greeting) })
		}
	})
	p.end = func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for c := range p.conns {
			c.Close()
		}
	}
}

func (p *process) talk(c net.Conn, greeting string) {
	defer func() {
		c.Close()
		p.mu.Lock()
		delete(p.conns, c)
		p.mu.Unlock()
	}()
	if _, err := io.WriteString(c, greeting); err != nil {
		return
	}
	for lines := bufio.NewScanner(c); lines.Scan(); {
		p.mu.Lock()
		p.seen = append(p.seen, Seen{Method: "TCP", Path: lines.Text()})
		p.mu.Unlock()
		if _, err := fmt.Fprintln(c, strings.ToUpper(lines.Text())); err != nil {
			return
		}
	}
}

// stop ends the program at once, as a crash would.
func (p *process) stop() {
	if p.listener != nil {
		p.listener.Close()
	}
	p.end()
	p.running.Wait()
}

func (p *process) requests() []Seen {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.seen)
}
