package upgrade

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/weftmesh/weft/internal/wire"
)

// longTime is how long TestEverythingForLong takes; make soak sets more.
func longTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("UPGRADE_TIME")
	if text == "" {
		return 5 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("UPGRADE_TIME: %v", err)
	}
	return d
}

// lifeTime is that of long-lived connections and streams: less than what the processes before have for theirs.
const lifeTime = 12 * time.Second

// site is an endpoint of all the workload's protocols that can leave.
type site struct {
	r      *rig
	web    *http.Server
	calls  *grpc.Server
	health *health.Server
	tcp    net.Listener
	open   sync.WaitGroup // connections of TCP
	text   string         // of the endpoint, in a ServiceEntry
}

func (r *rig) site() *site {
	r.t.Helper()
	s := &site{r: r, health: health.NewServer(), calls: grpc.NewServer()}
	var ports [3]int
	var listeners [3]net.Listener
	for i := range listeners {
		l, err := net.Listen("tcp", "127.0.0.2:0")
		if err != nil {
			r.t.Skipf("there is no second address of loopback: %v", err)
		}
		listeners[i], ports[i] = l, l.Addr().(*net.TCPAddr).Port
	}
	s.text = fmt.Sprintf("{address: 127.0.0.2, ports: {http: %d, grpc: %d, tcp: %d}}", ports[0], ports[1], ports[2])
	s.web = &http.Server{Handler: http.HandlerFunc(r.serveLong)}
	healthv1.RegisterHealthServer(s.calls, s.health)
	s.tcp = listeners[2]
	go s.web.Serve(listeners[0])
	go s.calls.Serve(listeners[1])
	go func() {
		for {
			c, err := s.tcp.Accept()
			if err != nil {
				return
			}
			s.open.Go(func() {
				defer c.Close()
				io.Copy(c, c)
			})
		}
	}()
	r.t.Cleanup(func() { s.web.Close(); s.calls.Stop(); s.tcp.Close() })
	return s
}

// leave ends it when all that uses it has ended.
func (s *site) leave() {
	s.tcp.Close()
	s.calls.GracefulStop()
	if err := s.web.Shutdown(context.Background()); err != nil {
		s.r.t.Errorf("a workload does not end: %v", err)
	}
	s.open.Wait()
}

// serveLong is the workload, which also echoes what comes over WebSockets.
func (r *rig) serveLong(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path != "/ws" {
		r.serve(w, req)
		return
	}
	c, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: proof\r\n\r\n")
	io.Copy(c, rw)
}

// kinds are loads by the protocol.
type kinds struct {
	r     *rig
	end   chan struct{}
	all   map[string]*load
	names []string
}

// run runs clients of that kind again and again until the end.
func (k *kinds) run(kind string, clients int, do func(l *load) error) {
	l := k.all[kind]
	if l == nil {
		l = &load{r: k.r, end: k.end}
		k.all[kind] = l
		k.names = append(k.names, kind)
	}
	for range clients {
		l.group.Go(func() { // ends by end
			for {
				select {
				case <-k.end:
					return
				default:
					l.note(do(l))
				}
			}
		})
	}
}

// lives sends lines and awaits their echo for as long as such a connection lives.
func lives(rw io.ReadWriter, end <-chan struct{}) error {
	r := bufio.NewReader(rw)
	begin := time.Now()
	for n := 0; time.Since(begin) < lifeTime; n++ {
		line := fmt.Sprintf("line %d\n", n)
		if _, err := io.WriteString(rw, line); err != nil {
			return fmt.Errorf("after %v: %w", time.Since(begin), err)
		}
		if got, err := r.ReadString('\n'); err != nil || got != line {
			return fmt.Errorf("after %v: %q, %w", time.Since(begin), got, err)
		}
		select {
		case <-end:
			return nil
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

func (k *kinds) tcp(*load) error {
	c, err := net.Dial("tcp", k.r.plain)
	if err != nil {
		return err
	}
	defer c.Close()
	return lives(c, k.end)
}

func (k *kinds) websocket(*load) error {
	c, err := net.Dial("tcp", k.r.address)
	if err != nil {
		return err
	}
	defer c.Close()
	io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err == nil && res.StatusCode != 101 {
		err = errors.New(res.Status)
	}
	if err != nil {
		return err
	}
	return lives(struct {
		io.Reader
		io.Writer
	}{r, c}, k.end)
}

// websocket3 is a WebSocket over HTTP/3.
func (k *kinds) websocket3(*load) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	qc, err := quic.DialAddr(ctx, k.r.secure, &tls.Config{RootCAs: k.r.roots, ServerName: "edge.example", NextProtos: []string{"h3"}}, quicConfig)
	if err != nil {
		return err
	}
	defer qc.CloseWithError(0, "")
	c := (&http3.Transport{}).NewClientConn(qc)
	s, err := c.OpenRequestStream(ctx)
	if err == nil {
		err = s.SendRequestHeader(&http.Request{Method: "CONNECT", Proto: "websocket", Host: "edge.example", URL: &url.URL{Scheme: "https", Host: "edge.example", Path: "/ws"},
			Header: http.Header{"Sec-Websocket-Version": {"13"}}})
	}
	if err != nil {
		return err
	}
	res, err := s.ReadResponse()
	if err == nil && res.StatusCode != 200 {
		err = errors.New(res.Status)
	}
	if err != nil {
		return err
	}
	return lives(s, k.end)
}

// stream is one of gRPC, over which statuses come all the time.
func (k *kinds) stream(*load) error {
	c, err := grpc.NewClient("passthrough:///"+k.r.calls, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // ends with the stream
		select {
		case <-k.end:
			cancel()
		case <-ctx.Done():
		}
	}()
	w, err := healthv1.NewHealthClient(c).Watch(ctx, &healthv1.HealthCheckRequest{})
	if err != nil {
		return err
	}
	for begin := time.Now(); time.Since(begin) < lifeTime; {
		_, err := w.Recv()
		select {
		case <-k.end:
			return nil
		default:
		}
		if err != nil {
			return fmt.Errorf("after %v: %w", time.Since(begin), err)
		}
	}
	return nil
}

// start begins the load of every protocol.
func (k *kinds) start() {
	r := k.r
	posting := func(kind string, c *http.Client, to string, clients int) {
		k.run(kind, clients, func(l *load) error { return l.post(c, to, fmt.Sprintf("%s %d", kind, l.count())) })
	}
	posting("HTTP/1.1", &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}, "http://"+r.address, 3)
	posting("HTTP/1.1, new connections", &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, "http://"+r.address, 1)
	for range 2 {
		posting("HTTP/2", &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: r.roots, ServerName: "edge.example"}}}, "https://"+r.secure, 4)
	}
	busy, end := r.http3()
	r.t.Cleanup(end)
	posting("HTTP/3, always busy", busy, "https://"+r.secure, 8)
	calm, end := r.http3()
	r.t.Cleanup(end)
	k.run("HTTP/3", 1, func(l *load) error {
		time.Sleep(150 * time.Millisecond)
		return l.post(calm, "https://"+r.secure, "calm")
	})
	k.run("HTTP/3, new connections", 1, func(l *load) error {
		c, end := r.http3()
		defer end()
		return l.post(c, "https://"+r.secure, "new")
	})
	for range 2 {
		client := r.dialGRPC()
		k.run("gRPC", 2, func(*load) error {
			_, err := client.Check(context.Background(), &healthv1.HealthCheckRequest{})
			return err
		})
	}
	k.run("gRPC streams", 4, k.stream)
	k.run("WebSockets", 4, k.websocket)
	k.run("WebSockets over HTTP/3", 4, k.websocket3)
	k.run("TCP", 4, k.tcp)
	c, err := net.Dial("udp", r.game)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	k.run("datagrams", 1, func(l *load) error { return ask(c, fmt.Sprintf("%d", l.count())) })
}

// awaitRound waits until the proxy answers by what was published in that round or later. Endpoints come before routes.
func (r *rig) awaitRound(round int) {
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r.eventually(fmt.Sprintf("what was published in round %d is used", round), func() bool {
		res, err := c.Get("http://" + r.address)
		if err != nil {
			return false
		}
		res.Body.Close()
		got, err := strconv.Atoi(res.Header.Get("x-round"))
		return err == nil && got >= round
	})
}

// TestEverythingForLong: with upgrades, endpoints that come and leave, and routes that change, no client of any protocol loses anything.
func TestEverythingForLong(t *testing.T) {
	r := newRig(t, wire.Gateway)
	sites := []*site{r.site(), r.site()}
	list := func() (texts []string) {
		for _, s := range sites {
			texts = append(texts, s.text)
		}
		return texts
	}
	round := 1
	r.publish(fmt.Sprint(round), list()...)
	current := r.first()
	r.awaitDatagrams()
	r.awaitHTTP3()
	r.awaitRound(round)
	k := &kinds{r: r, end: make(chan struct{}), all: map[string]*load{}}
	var background sync.WaitGroup
	defer background.Wait()
	every := func(d time.Duration, f func(n int)) {
		background.Go(func() { // ends by end
			tick := time.NewTicker(d)
			defer tick.Stop()
			for n := 1; ; n++ {
				select {
				case <-k.end:
					return
				case <-tick.C:
					f(n)
				}
			}
		})
	}
	var mu sync.Mutex // sites, round
	publish := func() int {
		round++
		r.publish(fmt.Sprint(round), list()...)
		return round
	}
	every(100*time.Millisecond, func(n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, s := range sites {
			s.health.SetServingStatus("", healthv1.HealthCheckResponse_ServingStatus(1+n%2))
		}
	})
	every(700*time.Millisecond, func(int) {
		mu.Lock()
		defer mu.Unlock()
		publish()
	})
	begin := time.Now()
	every(5*time.Second, func(n int) {
		fresh := r.site()
		mu.Lock()
		old := sites[0]
		sites = []*site{sites[1], fresh}
		moved := publish()
		mu.Unlock()
		r.awaitRound(moved)
		gone := time.NewTimer(3 * time.Second)
		defer gone.Stop()
		<-gone.C // what had chosen the old endpoint before has been sent by then
		background.Go(func() {
			updates := time.NewTicker(50 * time.Millisecond)
			defer updates.Stop()
			done := make(chan struct{})
			background.Go(func() { old.leave(); close(done) })
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				case <-updates.C:
					old.health.SetServingStatus("", healthv1.HealthCheckResponse_ServingStatus(1+i%2))
				}
			}
		})
	})
	k.start()
	upgrades := 0
	for next := time.Now().Add(3 * time.Second); time.Since(begin) < longTime(t); {
		time.Sleep(time.Until(next))
		next = time.Now().Add(10 * time.Second)
		p := r.start(binary, "--takeover")
		p.says("took over")
		current.says("this process drains")
		current = p
		upgrades++
	}
	time.Sleep(time.Second)
	close(k.end)
	for _, kind := range k.names {
		l := k.all[kind]
		l.group.Wait()
		t.Logf("%-28s %8d, %d lost", kind, l.sent, len(l.failed))
		if len(l.failed) > 0 {
			t.Errorf("%s: %s", kind, strings.Join(l.failed[:min(5, len(l.failed))], "; "))
		}
	}
	t.Logf("%d upgrades", upgrades)
}
