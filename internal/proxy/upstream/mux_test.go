package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// sessions is an endpoint whose connections tests end and fill.
type sessions struct {
	mu    sync.Mutex
	all   []*session
	slow  bool // Ready never comes
	dials int
	fail  error
	said  string // in place of HTTP/2
	why   error  // the connection ends before it
}

type session struct {
	of       *sessions
	ready    chan struct{}
	over     chan struct{}
	once     sync.Once
	draining bool          // guarded by of.mu, as the next ones
	shut     time.Time     // zero: there is room
	opened   chan struct{} // closed when there is room again
}

func (s *session) Run() error             { <-s.over; return nil }
func (s *session) Ready() <-chan struct{} { return s.ready }
func (s *session) Available() int         { return 1 }
func (s *session) Close() error           { s.once.Do(func() { close(s.over) }); return nil }

func (s *session) Unsettled() (string, error) {
	if s.of.said != "" {
		return s.of.said, errors.New("not HTTP/2")
	}
	return "", s.of.why
}

func (s *session) Shut() time.Duration {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	if s.shut.IsZero() {
		return 0
	}
	return time.Since(s.shut) + 1
}

func (s *session) Opened() <-chan struct{} {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	return s.opened
}

// close is an endpoint that leaves no room for bodies, reopen one that does again.
func (s *session) close() {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.shut, s.opened = time.Now(), make(chan struct{})
}

func (s *session) reopen() {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.shut = time.Time{}
	close(s.opened)
}

func (s *session) Draining() bool {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	return s.draining
}

func (e *sessions) start(*Conn) Session {
	s := &session{of: e, ready: make(chan struct{}), over: make(chan struct{})}
	if !e.slow {
		close(s.ready)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, s)
	return s
}

func (e *sessions) pool(c *conf.Cluster, o PoolOptions) *Pool {
	o.Start = e.start
	return NewPool(Way{Address: "10.0.0.1:80", Dial: func(context.Context, string) (net.Conn, error) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.dials++; e.fail != nil {
			return nil, e.fail
		}
		a, b := net.Pipe()
		b.Close()
		return a, nil
	}}, NewBreaker(&c.Limits), o)
}

func lease(t *testing.T, p *Pool) *Conn {
	t.Helper()
	c, _, err := p.Lease(t.Context(), time.Time{}, true)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestWhoDoesNotSpeakHTTP2IsRememberedForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for said, says := range map[string]string{"HTTP/1.1 400 Bad Request": "connect to 10.0.0.1:80: the endpoint speaks HTTP/1, not HTTP/2",
			"220 mail\x1b\r\n": `connect to 10.0.0.1:80: the endpoint does not speak HTTP/2: it answered "220 mail\x1b\r\n"`} {
			e := &sessions{said: said}
			c := &conf.Cluster{}
			c.MaxConnections = 1
			p := e.pool(c, PoolOptions{})
			if p.NotHTTP2() {
				t.Fatal("known before it was asked")
			}
			for range 2 { // what was found takes no part of the limit
				_, _, err := p.Lease(t.Context(), time.Time{}, true)
				if !errors.Is(err, ErrNotHTTP2) || err.Error() != says {
					t.Fatalf("%v", err)
				}
			}
			time.Sleep(foreignTime - 1)
			if !p.NotHTTP2() || e.dials != 2 {
				t.Errorf("forgotten at once, or %d connections", e.dials)
			}
			time.Sleep(time.Nanosecond)
			if p.NotHTTP2() {
				t.Error("never forgotten")
			}
			p.Close()
		}
	})
}

// TestConnectionsThatEndBeforeHTTP2: an endpoint that ends connections without a word is taken for one of HTTP/1, unless something says
// that it speaks HTTP/2: then it may be about to leave, once.
func TestConnectionsThatEndBeforeHTTP2(t *testing.T) {
	alert := &net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}
	broken := errors.New("first frame is no SETTINGS")
	for name, c := range map[string]struct {
		why    error
		before bool // it has spoken HTTP/2
		beside bool // and another connection is open still
		first  error
		op     Op
		then   error
		not2   bool // as it is remembered in the end
	}{
		"end":                        {why: io.EOF, first: ErrNotHTTP2, op: Connect, then: ErrSilent, not2: true},
		"reset":                      {why: &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, first: ErrSilent, op: Connect, then: ErrNotHTTP2, not2: true},
		"reset while it was written": {why: &net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.EPIPE)}, first: ErrSilent, op: Connect, then: ErrNotHTTP2, not2: true},
		"it spoke HTTP/2":            {why: io.EOF, before: true, first: ErrEnded, op: Closed, then: ErrNotHTTP2, not2: true},
		"it speaks HTTP/2":           {why: io.EOF, before: true, beside: true, first: ErrEnded, op: Closed, then: ErrSilent},
		"alert":                      {why: alert, first: alert, op: Handshake, then: alert},
		"broken frames":              {why: broken, first: broken, op: Connect, then: broken},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &sessions{}
				p := e.pool(&conf.Cluster{}, PoolOptions{MaxRequests: 1})
				var open *Conn
				if c.before {
					open = lease(t, p)
					if !c.beside {
						p.Return(open, time.Now(), false)
						open = nil
					}
				}
				e.why = c.why
				var u *Error
				if _, _, err := p.Lease(t.Context(), time.Time{}, true); !errors.Is(err, c.first) || !errors.As(err, &u) || u.Op != c.op {
					t.Errorf("first %v", err)
				}
				if _, _, err := p.Lease(t.Context(), time.Time{}, true); !errors.Is(err, c.then) || errors.Is(err, ErrNotHTTP2) != c.not2 {
					t.Errorf("then %v", err)
				}
				if p.NotHTTP2() != c.not2 {
					t.Errorf("it is remembered as one that does not speak HTTP/2: %v", !c.not2)
				}
				if open != nil {
					p.Return(open, time.Now(), false)
				}
				p.Close()
				synctest.Wait()
				if now, _, _, _ := p.breaker.InUse(); now != 0 {
					t.Errorf("the breaker counts %d connections", now)
				}
			})
		})
	}
}

func TestRequestsShareAConnectionUntilItIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &sessions{}
		p := e.pool(&conf.Cluster{}, PoolOptions{MaxRequests: 4})
		one := lease(t, p)
		if lease(t, p) != one || e.dials != 1 {
			t.Fatalf("%d connections for two requests", e.dials)
		}
		lease(t, p)
		p.Return(one, time.Now(), true) // the endpoint takes no third at a time
		two := lease(t, p)
		if two == one || e.dials != 2 {
			t.Fatal("a full connection was used")
		}
		p.Return(one, time.Now(), false)
		if lease(t, p) != one {
			t.Fatal("a connection with room was not used")
		}
		if c := lease(t, p); c == one {
			t.Fatal("a connection carried more requests than it may")
		}
		p.Return(one, time.Now(), false)
		p.Return(one, time.Now(), false)
		synctest.Wait()
		select {
		case <-e.all[0].over:
		default:
			t.Error("a connection that has carried all that it may is open still")
		}
		p.Close()
		p.Return(two, time.Now(), false)
		p.Return(two, time.Now(), false)
		synctest.Wait()
		if open, _ := p.Count(); open != 0 {
			t.Errorf("%d connections are left", open)
		}
		if now, _, _, _ := p.breaker.InUse(); now != 0 {
			t.Errorf("the breaker counts %d connections", now)
		}
	})
}

func TestLeaseFailsAsConnectingDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var u *Error
		e := &sessions{fail: errors.New("refused")}
		if _, _, err := e.pool(&conf.Cluster{}, PoolOptions{}).Lease(t.Context(), time.Time{}, true); !errors.As(err, &u) || u.Op != Connect {
			t.Errorf("got %v", err)
		}
		e = &sessions{slow: true}
		p := e.pool(&conf.Cluster{}, PoolOptions{})
		_, _, err := p.Lease(t.Context(), time.Now().Add(time.Second), true)
		if !errors.As(err, &u) || u.Op != Connect || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("an endpoint that does not speak HTTP/2: %v", err)
		}
		time.Sleep(DefaultConnectTimeout)
		synctest.Wait()
		if now, _, _, _ := p.breaker.InUse(); now != 0 {
			t.Errorf("the breaker counts %d connections", now)
		}
	})
}

func TestLimitsOfTheBreakerHoldForLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &sessions{}
		p := e.pool(&conf.Cluster{Limits: conf.Limits{MaxConnections: 1, MaxPending: 1}}, PoolOptions{})
		c := lease(t, p)
		p.mux.mu.Lock()
		c.limit = 1
		p.mux.mu.Unlock()
		got := make(chan *Conn)
		go func() { got <- lease(t, p) }() // ends with the Return below
		synctest.Wait()
		var u *Error
		if _, _, err := p.Lease(t.Context(), time.Time{}, true); !errors.As(err, &u) || u.Op != Overflow {
			t.Errorf("a second waiter: %v", err)
		}
		p.Return(c, time.Now(), false)
		if <-got != c || e.dials != 1 {
			t.Error("the waiter got another connection")
		}
		p.Return(c, time.Now(), false)
		p.Sweep(time.Now().Add(time.Hour))
		synctest.Wait()
		if open, _ := p.Count(); open != 0 {
			t.Errorf("an idle connection was kept for an hour")
		}
	})
}

// A connection that is too old takes no further request, and ends with the last of its own.
func TestSharedConnectionsAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &sessions{}
		p := e.pool(&conf.Cluster{}, PoolOptions{MaxAge: time.Minute})
		old := lease(t, p)
		time.Sleep(time.Minute)
		p.Sweep(time.Now())
		if lease(t, p) != old {
			t.Fatal("a connection left before its time")
		}
		time.Sleep(time.Second)
		p.Sweep(time.Now())
		young := lease(t, p)
		if young == old {
			t.Fatal("a connection was used after its time")
		}
		p.Return(old, time.Now(), false)
		if open, _ := p.Count(); open != 2 {
			t.Fatalf("%d connections: one ended under a request", open)
		}
		p.Return(old, time.Now(), false)
		if open, _ := p.Count(); open != 1 {
			t.Fatalf("%d connections: the old one is kept", open)
		}
		p.Return(young, time.Now(), false)
		p.Close()
		synctest.Wait()
	})
}

// Where an endpoint leaves no room for bodies, others are made beside the connection, but not for a moment.
func TestConnectionsWithoutRoomForBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &sessions{}
		p := e.pool(&conf.Cluster{}, PoolOptions{})
		one := lease(t, p)
		for range 5 { // a large body that is read
			e.all[0].close()
			time.AfterFunc(shutTime-time.Millisecond, e.all[0].reopen)
			if lease(t, p) != one || e.dials != 1 {
				t.Fatalf("%d connections: the first was left for a moment", e.dials)
			}
		}
		e.all[0].close()
		if c, _, err := p.Lease(t.Context(), time.Time{}, false); c != one || err != nil {
			t.Fatalf("a request without a body: %v", err)
		}
		begun := time.Now()
		two := lease(t, p)
		if two == one || e.dials != 2 || time.Since(begun).Round(time.Millisecond) != shutTime {
			t.Fatalf("%d connections after %s", e.dials, time.Since(begun))
		}
		begun = time.Now()
		if second, third := lease(t, p), lease(t, p); second != two || third != two || time.Since(begun) != 0 {
			t.Fatal("others wait, or are held up")
		}
		e.all[0].reopen()
		if lease(t, p) != one || e.dials != 2 {
			t.Fatal("a connection that has room again is not used")
		}
		e.all[0].close()
		e.all[1].close()
		e.fail = errors.New("refused")
		time.Sleep(shutTime)
		if c := lease(t, p); c != one && c != two {
			t.Fatal("no connection though there are some")
		}
		for range one.active {
			p.Return(one, time.Now(), false)
		}
		for range two.active {
			p.Return(two, time.Now(), false)
		}
		p.Close()
		synctest.Wait()
		if now, _, _, _ := p.breaker.InUse(); now != 0 {
			t.Errorf("the breaker counts %d connections", now)
		}
	})
}

// Where no other connection is allowed, that without room takes the requests, as it always did.
func TestLimitsHoldForConnectionsWithoutRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &sessions{}
		p := e.pool(&conf.Cluster{Limits: conf.Limits{MaxConnections: 1}}, PoolOptions{})
		one := lease(t, p)
		e.all[0].close()
		time.Sleep(shutTime)
		if lease(t, p) != one || e.dials != 1 {
			t.Fatalf("%d connections", e.dials)
		}
		e.all[0].close()
		begun := time.Now()
		if c, _, err := p.Lease(t.Context(), begun.Add(shutTime/2), true); c != one || err != nil || time.Since(begun) != shutTime/2 {
			t.Errorf("a short time-out: %v after %s", err, time.Since(begun))
		}
		for range 3 {
			p.Return(one, time.Now(), false)
		}
		p.Close()
		synctest.Wait()
	})
}

func TestRetryBudget(t *testing.T) {
	b := NewBreaker(&conf.Limits{MaxRetries: 1, RetryBudget: &conf.RetryBudget{Share: 0.25, Min: 2}})
	allowed := func() (n int) {
		for b.Retry() {
			n++
		}
		for range n {
			b.RetryDone()
		}
		return n
	}
	if n := allowed(); n != 2 {
		t.Errorf("without requests: %d retries", n)
	}
	for range 20 {
		b.Request()
	}
	if n := allowed(); n != 5 {
		t.Errorf("a quarter of 20 requests: %d retries", n)
	}
	b.Update(&conf.Limits{MaxRetries: 1})
	if n := allowed(); n != 1 {
		t.Errorf("without a budget: %d retries", n)
	}
}
