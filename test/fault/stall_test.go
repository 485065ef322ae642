package fault

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/wire"
	"github.com/weftmesh/weft/test/rig"
)

// clock is a proxy's clock that tests can move.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time       { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) jump(d time.Duration) { c.ahead.Add(int64(d)) }

// outbound starts a sidecar with a movable clock and a route that a test may change.
func outbound(t *testing.T, change func(*conf.Forward), endpoints ...*conf.Endpoint) (*rig.Proxy, string, *clock) {
	t.Helper()
	c := &clock{}
	p, address := rig.New(t).OutboundOptions(func(o *proxy.Options) { o.Now = c.now }, endpoints...)
	if change != nil {
		reroute(p, change)
	}
	return p, address, c
}

// reroute gives the service a changed route.
func reroute(p *rig.Proxy, change func(*conf.Forward)) {
	route := rig.Forward("backend")
	change(route.Forward)
	p.Config.Publish(func(_ *conf.Snapshot, names map[string]*conf.Target) {
		name := wire.ListenerName(rig.Service, rig.ServicePort)
		target := *names[name]
		target.Routes = rig.Table(route)
		names[name] = &target
	})
}

// TestStalledReaders: clients that do not read what they asked for hold no more than socket buffers; the others go on.
func TestStalledReaders(t *testing.T) {
	const stalled, size = 50, 64 << 20
	var sent atomic.Int64
	b := rig.NewBackend(t, func(c net.Conn, r *rig.Received) bool {
		if r.URL.Path == "/g" {
			return ok(c, r)
		}
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
		p := make([]byte, 64<<10)
		for range size / len(p) {
			n, err := c.Write(p)
			if sent.Add(int64(n)); err != nil {
				return false
			}
		}
		return true
	})
	_, address, _ := outbound(t, nil, rig.Plain(b.Addr().String()))
	before, heap := rig.Measure(t), rig.Heap()
	var clients []net.Conn
	for range stalled {
		c := dial(t, address)
		c.SetReadBuffer(4 << 10)
		io.WriteString(c, "GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
		clients = append(clients, c)
	}
	settled(t, &sent)
	if n := sent.Load(); n > stalled*size/4 {
		t.Errorf("%d bytes were taken for clients that read nothing", n)
	}
	if grown := int64(rig.Heap()) - int64(heap); grown > stalled*512<<10 {
		t.Errorf("the heap grew by %d bytes for %d stalled clients", grown, stalled)
	}
	if g, err := get(t, address); err != nil || g.status != 200 {
		t.Errorf("meanwhile: %v, %v", g, err)
	}
	for i, c := range clients {
		endings[i%len(endings)].end(c)
		c.Close()
	}
	before.Back(t, b)
}

// settled waits until a count has not moved for a while.
func settled(t *testing.T, n *atomic.Int64) {
	t.Helper()
	last, since := int64(-1), time.Now()
	rig.Eventually(t, "nothing moves any more", func() bool {
		if now := n.Load(); now != last || now == 0 {
			last, since = now, time.Now()
		}
		return time.Since(since) > 300*time.Millisecond
	})
}

// TestStalledWriters: backends that do not read what clients send get no more than socket buffers hold.
func TestStalledWriters(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var held []net.Conn
	done := make(chan struct{})
	go func() { // ends with the listener
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			held = append(held, c) // and never read
			mu.Unlock()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	_, address, _ := outbound(t, nil, rig.Plain(l.Addr().String()))
	before, heap := rig.Measure(t), rig.Heap()
	const stalled, size = 50, 64 << 20
	var sent atomic.Int64
	var clients sync.WaitGroup
	var conns []net.Conn
	for range stalled {
		c := dial(t, address)
		c.SetDeadline(time.Time{})
		conns = append(conns, c)
		clients.Go(func() {
			fmt.Fprintf(c, "POST /large HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", size)
			p := make([]byte, 64<<10)
			for range size / len(p) {
				n, err := c.Write(p)
				if sent.Add(int64(n)); err != nil {
					return
				}
			}
		})
	}
	settled(t, &sent)
	if n := sent.Load(); n > stalled*size/4 {
		t.Errorf("%d bytes were taken for a backend that reads nothing", n)
	}
	if grown := int64(rig.Heap()) - int64(heap); grown > stalled*(512+64)<<10 {
		t.Errorf("the heap grew by %d bytes for %d stalled uploads", grown, stalled)
	}
	for _, c := range conns {
		c.Close()
	}
	clients.Wait()
	mu.Lock()
	for _, c := range held {
		c.Close()
	}
	mu.Unlock()
	before.Back(t)
}

// TestSlowLoris: clients that send heads by the byte are ended after the time for a head, with an answer, and only they.
func TestSlowLoris(t *testing.T) {
	b := rig.NewBackend(t, ok)
	p, address, clock := outbound(t, nil, rig.Plain(b.Addr().String()))
	before := rig.Measure(t)
	const slow = 200
	var clients []*net.TCPConn
	for range slow {
		c := dial(t, address)
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nX: ")
		clients = append(clients, c)
	}
	idle := dial(t, address)
	defer idle.Close()
	r := bufio.NewReader(idle)
	ask := func() {
		t.Helper()
		io.WriteString(idle, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if g, err := read(r); err != nil || g.status != 200 {
			t.Fatalf("an idle client: %v, %v", g, err)
		}
	}
	ask()
	rig.Eventually(t, "the reading of all heads", func() bool { // from then on their time runs
		var text strings.Builder
		return p.Metrics(&text) == nil && strings.Contains(text.String(), fmt.Sprintf("\nweft_downstream_requests_active %d\n", slow))
	})
	for range 5 { // each byte comes within any time-out between bytes
		for _, c := range clients {
			if _, err := io.WriteString(c, "x"); err != nil {
				t.Fatal("ended too early")
			}
		}
		clock.jump(3 * time.Second)
	}
	clock.jump(20 * time.Second)
	for _, c := range clients {
		if g, err := read(bufio.NewReader(c)); err != nil || g.status != http.StatusRequestTimeout {
			t.Fatalf("a slow client got %v, %v", g, err)
		}
		if n, err := io.Copy(io.Discard, c); n > 0 || isTimeout(err) {
			t.Fatalf("a slow client was kept: %d bytes, %v", n, err)
		}
		c.Close()
	}
	ask()
	idle.Close()
	before.Back(t, b)
}

func isTimeout(err error) bool {
	t, ok := err.(net.Error)
	return ok && t.Timeout()
}

// TestHalfOpen: a backend that takes requests and never answers costs a time-out each, and no more; clients that leave meanwhile
// take their request with them.
func TestHalfOpen(t *testing.T) {
	released := make(chan struct{})
	b := rig.NewBackend(t, func(net.Conn, *rig.Received) bool {
		<-released
		return false
	})
	t.Cleanup(func() { close(released) })
	p, address, _ := outbound(t, func(f *conf.Forward) { f.Timeout = 5 * time.Second }, rig.Plain(b.Addr().String()))
	if g, err := get(t, address); err != nil || g.status != http.StatusGatewayTimeout {
		t.Errorf("%v, %v", g, err)
	}
	for i, how := range endings {
		c := dial(t, address)
		io.WriteString(c, "GET /left HTTP/1.1\r\nHost: a\r\n\r\n")
		rig.Eventually(t, "the request arrived", func() bool { return len(b.Received()) >= i+2 })
		how.end(c)
		c.Close()
	}
	rig.Eventually(t, "nothing is under way", func() bool {
		for _, c := range p.Clusters() {
			for _, e := range c.Endpoints {
				if e.Open > 0 {
					return false
				}
			}
		}
		return true
	})
}

// TestDiesMidStream: the other side of a stream in both directions hears when one side dies.
func TestDiesMidStream(t *testing.T) {
	for _, how := range []int{0, 2} {
		t.Run(endings[how].name, func(t *testing.T) {
			die := make(chan struct{})
			b := rig.NewBackend(t, func(c net.Conn, _ *rig.Received) bool {
				io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
				<-die
				endings[how].end(c)
				return false
			})
			_, address, _ := outbound(t, nil, rig.Plain(b.Addr().String()))
			before := rig.Measure(t)
			c := dial(t, address)
			defer c.Close()
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(res.Body, make([]byte, 5)); err != nil {
				t.Fatalf("the first part did not come by itself: %v", err)
			}
			close(die)
			if _, err := io.ReadAll(res.Body); err == nil || isTimeout(err) {
				t.Errorf("got %v", err)
			}
			c.Close()
			before.Back(t, b)
		})
	}
}

// TestEarlyAnswers: a backend that answers before the upload's end is heard, and the client's connection ends or goes on as the
// rest of the body allows.
func TestEarlyAnswers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // ends with the listener
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	_, address, _ := outbound(t, nil, rig.Plain(l.Addr().String()))
	before := rig.Measure(t)
	for _, size := range []int{100 << 10, 10 << 20} {
		answered := 0
		for n := 0; n < 20 || answered == 0 && n < 1000; n++ {
			c := dial(t, address)
			go func() { // ends with its write
				fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size))
			}()
			// The backend's reset may destroy its answer on the way to us: then 503 is the truth.
			switch g, err := read(bufio.NewReader(c)); {
			case err == nil && g.status == http.StatusRequestEntityTooLarge:
				answered++
			case err != nil || g.status != http.StatusServiceUnavailable:
				t.Errorf("%d bytes: %v, %v", size, g, err)
			}
			c.Close()
		}
		if answered == 0 {
			t.Errorf("%d bytes: no answer came through", size)
		}
	}
	before.Back(t)
}

// TestClockJumps: the clock is moved by hours, back and forth: streams that are under way go on, and so do new requests, over
// connections that the proxy has kept from another time.
func TestClockJumps(t *testing.T) {
	parts := make(chan string)
	b := rig.NewBackend(t, func(c net.Conn, r *rig.Received) bool {
		if r.URL.Path != "/stream" {
			return ok(c, r)
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		for p := range parts {
			fmt.Fprintf(c, "%x\r\n%s\r\n", len(p), p)
		}
		_, err := io.WriteString(c, "0\r\n\r\n")
		return err == nil
	})
	_, address, clock := outbound(t, nil, rig.Plain(b.Addr().String()))
	before := rig.Measure(t)
	c := dial(t, address)
	defer c.Close()
	io.WriteString(c, "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
	r := bufio.NewReader(c)
	var stream *http.Response
	for i, hours := range []int{0, 2, -4, 30, -60, 24 * 365, -24 * 365, 32} {
		clock.jump(time.Duration(hours) * time.Hour)
		for range 20 {
			if g, err := get(t, address); err != nil || g.status != 200 {
				t.Errorf("after a jump of %d hours: %v, %v", hours, g, err)
			}
		}
		parts <- "part"
		if i == 0 {
			var err error
			if stream, err = http.ReadResponse(r, nil); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := io.ReadFull(stream.Body, make([]byte, 4)); err != nil {
			t.Fatalf("the stream after a jump of %d hours: %v", hours, err)
		}
	}
	close(parts)
	if rest, err := io.ReadAll(stream.Body); err != nil || len(rest) > 0 {
		t.Errorf("the stream's end: %q, %v", rest, err)
	}
	c.Close()
	before.Back(t, b)
}
