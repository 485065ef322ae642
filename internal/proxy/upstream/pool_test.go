package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/conn/conntest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// endpoint accepts and holds connections; they end with the test.
type endpoint struct {
	net.Listener
	accepted chan net.Conn
	count    atomic.Int32
}

func listen(t *testing.T) *endpoint {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &endpoint{Listener: l, accepted: make(chan net.Conn, 100)}
	done := make(chan struct{})
	go func() { // ends with the listener
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			e.count.Add(1)
			e.accepted <- c
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
		close(e.accepted)
		for c := range e.accepted {
			c.Close()
		}
	})
	return e
}

func pool(t *testing.T, e *endpoint, c *conf.Cluster, o PoolOptions) *Pool {
	t.Helper()
	on := conntest.Engine(t).Dialer(nil)
	dial := func(ctx context.Context, a string) (net.Conn, error) { return on(ctx, "tcp", a) }
	p := NewPool(Way{Address: e.Addr().String(), Dial: dial}, NewBreaker(&c.Limits), o)
	t.Cleanup(p.Close)
	return p
}

func get(t *testing.T, p *Pool, now time.Time) *Conn {
	t.Helper()
	c, err := p.Get(t.Context(), now, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPoolReusesTheLastUsed(t *testing.T) {
	p := pool(t, listen(t), &conf.Cluster{}, PoolOptions{})
	now := time.Now()
	a, b := get(t, p, now), get(t, p, now)
	p.Put(a, now)
	p.Put(b, now)
	if c := get(t, p, now); c != b || c.Carried != 1 {
		t.Fatalf("got %p carried %d, want %p", c, c.Carried, b)
	} else {
		p.Put(c, now)
	}
	if open, idle := p.Count(); open != 2 || idle != 2 {
		t.Fatalf("%d open, %d idle", open, idle)
	}
}

func TestPoolDoesNotReuse(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		opt   PoolOptions
		late  time.Duration
		spoil func(net.Conn)
	}{
		"idle for too long":      {late: DefaultIdle + time.Second, spoil: func(net.Conn) {}},
		"requests used up":       {opt: PoolOptions{MaxRequests: 1}, spoil: func(net.Conn) {}},
		"closed by the server":   {late: 100 * time.Millisecond, spoil: func(c net.Conn) { c.(*net.TCPConn).CloseWrite() }},
		"spoken to when unasked": {late: 100 * time.Millisecond, spoil: func(c net.Conn) { io.WriteString(c, "HTTP/1.1 408 \r\n\r\n") }},
	} {
		t.Run(name, func(t *testing.T) {
			e := listen(t)
			p := pool(t, e, &conf.Cluster{}, c.opt)
			a := get(t, p, now)
			server := <-e.accepted
			defer server.Close()
			p.Put(a, now)
			c.spoil(server)
			if c.late < DefaultIdle && c.opt.MaxRequests == 0 {
				a.Wait() // what the server did has arrived
			}
			b := get(t, p, now.Add(c.late))
			if b == a {
				t.Fatal("reused")
			}
			p.Put(b, now)
			if open, _ := p.Count(); open > 1 {
				t.Fatalf("%d connections open", open)
			}
		})
	}
}

func TestPoolLearnsTheServersTimeout(t *testing.T) {
	e := listen(t)
	p := pool(t, e, &conf.Cluster{}, PoolOptions{IdleTimeout: time.Hour})
	now := time.Now()
	p.Learn(5 * time.Second)
	p.Put(get(t, p, now), now)
	p.Sweep(now.Add(2 * time.Second))
	if _, idle := p.Count(); idle != 1 {
		t.Fatal("ended long before it had to be")
	}
	p.Sweep(now.Add(4 * time.Second))
	if open, _ := p.Count(); open != 0 {
		t.Fatal("kept up to the moment when the server closes")
	}
}

func TestPoolLimits(t *testing.T) {
	e := listen(t)
	p := pool(t, e, &conf.Cluster{Limits: conf.Limits{MaxConnections: 1, MaxPending: 1}}, PoolOptions{})
	now := time.Now()
	a := get(t, p, now)
	// One may wait...
	type result struct {
		c   *Conn
		err error
	}
	got := make(chan result)
	go func() {
		c, err := p.Get(context.Background(), now, time.Time{})
		got <- result{c, err}
	}()
	for {
		if _, pending, _, _ := p.breaker.InUse(); pending == 1 {
			break
		}
	}
	// ...the next is refused at once.
	var refused *Error
	if _, err := p.Get(t.Context(), now, time.Time{}); !errors.As(err, &refused) || refused.Op != Overflow {
		t.Fatalf("got %v", err)
	}
	if text := refused.Error(); !strings.Contains(text, "1 of 1 connections, 1 of 1 waiting requests") {
		t.Errorf("the limit that was reached: %s", text)
	}
	p.Put(a, now)
	r := <-got
	if r.err != nil || r.c != a {
		t.Fatalf("waiter got %v, %v", r.c, r.err)
	}
	// A discarded connection makes room for a new one.
	go func() {
		c, err := p.Get(context.Background(), now, time.Time{})
		got <- result{c, err}
	}()
	for {
		if _, pending, _, _ := p.breaker.InUse(); pending == 1 {
			break
		}
	}
	p.Discard(r.c)
	if r = <-got; r.err != nil || r.c == a {
		t.Fatalf("waiter got %v, %v", r.c, r.err)
	}
	// Whoever's time runs out leaves the queue.
	if _, err := p.Get(t.Context(), now, time.Now().Add(time.Millisecond)); !errors.As(err, &refused) || !refused.Timeout() {
		t.Fatalf("got %v", err)
	}
	p.Put(r.c, now)
	if n, pending, _, _ := p.breaker.InUse(); n != 1 || pending != 0 {
		t.Fatalf("%d connections, %d pending", n, pending)
	}
	p.Close()
	if n, _, _, _ := p.breaker.InUse(); n != 0 {
		t.Fatalf("%d connections counted after the end", n)
	}
}

func TestConnectErrorsSayWhatAndWhere(t *testing.T) {
	e := listen(t)
	p := pool(t, e, &conf.Cluster{}, PoolOptions{})
	e.Listener.Close()
	_, err := p.Get(t.Context(), time.Now(), time.Time{})
	var failed *Error
	if !errors.As(err, &failed) || failed.Op != Connect {
		t.Fatalf("got %v", err)
	}
	if want := "connect to " + e.Addr().String() + ": connection refused"; err.Error() != want {
		t.Fatalf("got %q, want %q", err, want)
	}
	if n, _, _, _ := p.breaker.InUse(); n != 0 {
		t.Fatalf("%d connections counted", n)
	}
}

func TestGetAndPutDoNotAllocate(t *testing.T) {
	p := pool(t, listen(t), &conf.Cluster{}, PoolOptions{})
	now := time.Now()
	p.Put(get(t, p, now), now)
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() {
		c, _ := p.Get(ctx, now, time.Time{})
		p.Put(c, now)
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func TestTrimClosesWhatIsIdleAlone(t *testing.T) {
	p := pool(t, listen(t), &conf.Cluster{Limits: conf.Limits{MaxConnections: 2}}, PoolOptions{})
	now := time.Now()
	var got [2]*Conn
	for i := range got {
		var err error
		if got[i], err = p.Get(t.Context(), now, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	p.Put(got[0], now)
	p.Trim()
	if open, idle := p.Count(); open != 1 || idle != 0 {
		t.Errorf("%d open, %d idle", open, idle)
	}
	p.Put(got[1], now)
	c, err := p.Get(t.Context(), now, time.Time{})
	if err != nil || c != got[1] {
		t.Errorf("the one that was in use is not kept: %v", err)
	}
	other, err := p.Get(t.Context(), now, time.Now().Add(time.Minute)) // the limit has room again
	if err != nil {
		t.Fatal(err)
	}
	p.Discard(c)
	p.Discard(other)
}

func TestPoolOfHighPriority(t *testing.T) {
	e := listen(t)
	p := pool(t, e, &conf.Cluster{Limits: conf.Limits{MaxConnections: 1}}, PoolOptions{})
	b := NewBreaker(&conf.Limits{MaxConnections: 1})
	h := p.High(b)
	if h != p.High(b) {
		t.Error("two pools of high priority")
	}
	for _, of := range []*Pool{p, h} {
		c, err := of.Get(t.Context(), time.Now(), time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		of.Put(c, time.Now())
	}
	if open, idle := p.Count(); open != 2 || idle != 2 {
		t.Errorf("%d connections, %d idle, want 2 and 2", open, idle)
	}
	p.Trim()
	if connections, _, _, _ := b.InUse(); connections != 0 {
		t.Errorf("%d connections are left after Trim", connections)
	}
	p.Close()
	if _, err := h.Get(t.Context(), time.Now(), time.Time{}); err == nil {
		t.Error("the pool of high priority outlives the endpoint")
	}
	closed := pool(t, e, &conf.Cluster{}, PoolOptions{})
	closed.Close()
	if _, err := closed.High(b).Get(t.Context(), time.Now(), time.Time{}); err == nil {
		t.Error("a closed pool gives an open one for high priority")
	}
}
