package http2

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// TestDrain: a GOAWAY that lets all pass, a PING, the final GOAWAY, and the end after the last stream.
func TestDrain(t *testing.T) {
	release := make(chan struct{})
	var server *ServerConn
	begun := make(chan struct{}, 2)
	p := rawClient(t, nil, func(s *ServerStream) {
		server = s.ServerConn()
		begun <- struct{}{}
		<-release
		s.WriteResponse(&message.Response{Status: 204})
		s.FinishBody(nil)
	})
	p.headers(1, true, plainGet...)
	<-begun
	server.Drain()
	if f, ok := p.next().(*xhttp2.GoAwayFrame); !ok || f.LastStreamID != maxStreamID || f.ErrCode != 0 {
		t.Fatalf("%v", f)
	}
	ping, ok := p.next().(*xhttp2.PingFrame)
	if !ok {
		t.Fatal("no PING")
	}
	p.headers(3, true, plainGet...) // was on its way
	<-begun
	p.must(p.fr.WritePing(true, ping.Data))
	if f, ok := p.next().(*xhttp2.GoAwayFrame); !ok || f.LastStreamID != 3 {
		t.Fatalf("%v", f)
	}
	p.headers(5, true, plainGet...) // came too late: nothing answers it
	close(release)
	seen := map[uint32]bool{}
	for f := p.next(); f != nil; f = p.next() {
		seen[f.Header().StreamID] = true
	}
	if !errors.Is(p.err, io.EOF) || len(seen) != 2 || !seen[1] || !seen[3] {
		t.Errorf("%v, frames of streams %v", p.err, seen)
	}
	p.nc.Close()
	if err := <-p.done; err != nil {
		t.Error(err)
	}
}

// TestDrainBearsSlowReaders: who has been sent everything, and shows that it still reads, is not closed on; who falls silent is.
func TestDrainBearsSlowReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun, release := make(chan *ServerConn), make(chan struct{})
		p := rawClient(t, nil, func(s *ServerStream) {
			begun <- s.ServerConn()
			<-release
			s.WriteResponse(&message.Response{Status: 204})
			s.FinishBody(nil)
		})
		p.headers(1, true, plainGet...)
		server := <-begun
		server.Drain()
		close(release)
		for f := p.next(); f != nil; f = p.next() {
			if ping, ok := f.(*xhttp2.PingFrame); ok {
				p.must(p.fr.WritePing(true, ping.Data))
			}
		}
		for range 10 {
			time.Sleep(finishTime - time.Second)
			p.must(p.fr.WriteWindowUpdate(0, 1000))
			synctest.Wait()
			select {
			case err := <-p.done:
				t.Fatalf("closed on a client that reads: %v", err)
			default:
			}
		}
		last := time.Now()
		if err := <-p.done; err != nil || time.Since(last) != finishTime {
			t.Errorf("ended after %v: %v", time.Since(last), err)
		}
	})
}

// TestDrainWithoutAnswer: a client that does not answer the PING does not keep the connection from its end.
func TestDrainWithoutAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := *DefaultOptions()
		o.IdleTimeout = time.Minute // drains by itself
		p := rawClient(t, &o, refuseLarge)
		start := time.Now()
		for p.next() != nil {
		}
		if took := time.Since(start); took < time.Minute || took > 2*time.Minute {
			t.Errorf("the connection ended after %v", took)
		}
		p.nc.Close()
		if err := <-p.done; err != nil {
			t.Error(err)
		}
	})
}

// TestKeepAlive: a silent peer is asked and given up when it does not answer; one that answers is kept.
func TestKeepAlive(t *testing.T) {
	for _, answers := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			o := *DefaultOptions()
			o.KeepAlive = 10 * time.Second
			p := rawClient(t, &o, refuseLarge)
			pings := 0
			for {
				f := p.next()
				if f == nil {
					break
				}
				if ping, ok := f.(*xhttp2.PingFrame); ok {
					if pings++; answers && pings < 10 {
						p.must(p.fr.WritePing(true, ping.Data))
					}
				}
			}
			if answers && pings != 10 || !answers && pings != 1 {
				t.Errorf("%d pings", pings)
			}
			if err := <-p.done; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error(err)
			}
		})
	}
}

// TestGone: the handler learns that its client gave up, with the code.
func TestGone(t *testing.T) {
	got := make(chan error, 3)
	p := rawClient(t, nil, func(s *ServerStream) {
		called := make(chan struct{})
		s.OnGone(func() { close(called) })
		<-s.Gone()
		<-called
		got <- s.Err()
		_, err := s.ReadBody(make([]byte, 1))
		got <- err
		got <- s.WriteResponse(&message.Response{Status: 200})
	})
	p.headers(1, false, plainGet...)
	p.must(p.fr.WriteRSTStream(1, xhttp2.ErrCode(EnhanceYourCalm)))
	for range 3 {
		var se *StreamError
		if err := <-got; !errors.As(err, &se) || se.Code != EnhanceYourCalm || !se.Remote || se.Unprocessed() {
			t.Error(err)
		}
	}
}

// TestHandlerThatAnswersEarly: the rest of a body that nobody wants is stopped, without an error, and counts to no window.
func TestHandlerThatAnswersEarly(t *testing.T) {
	p := rawClient(t, nil, func(s *ServerStream) {
		s.WriteResponse(&message.Response{Status: 413})
		s.FinishBody(nil)
	})
	p.headers(1, false, plainGet...)
	if got := p.status(1); got != "413" {
		t.Error(got)
	}
	if got := p.rst(1); got != int(NoError) {
		t.Error(got)
	}
	for range 20 { // still on its way
		p.must(p.fr.WriteData(1, false, make([]byte, 16000)))
	}
	p.headers(3, true, plainGet...)
	if got := p.status(3); got != "413" {
		t.Error(got)
	}
}

// rawServer is the server of a client of ours.
func rawServer(t testing.TB, o *Options, settings ...xhttp2.Setting) (*raw, *ClientConn) {
	a, b := memLink(t)
	p := newRaw(t, b)
	c := NewClientConn(conn.FromNet(a), o)
	go func() { p.done <- c.Run() }()
	t.Cleanup(func() { b.Close(); c.Close() })
	preface := make([]byte, len(clientPreface))
	if _, err := io.ReadFull(b, preface); err != nil || string(preface) != clientPreface {
		t.Fatalf("%q, %v", preface, err)
	}
	p.must(p.fr.WriteSettings(settings...))
	return p, c
}

// TestUnprocessed: what the server surely did not do is told from what it may have done.
func TestUnprocessed(t *testing.T) {
	for _, c := range []struct {
		name        string
		act         func(p *raw)
		first, last bool // streams 1 and 5 are surely unprocessed
	}{
		{"GOAWAY", func(p *raw) { p.fr.WriteGoAway(1, 0, nil); p.fr.WriteRSTStream(1, xhttp2.ErrCodeCancel) }, false, true},
		{"refused", func(p *raw) {
			for _, id := range []uint32{1, 3, 5} {
				p.fr.WriteRSTStream(id, xhttp2.ErrCodeRefusedStream)
			}
		}, true, true},
		{"GOAWAY with an error", func(p *raw) { p.fr.WriteGoAway(0, xhttp2.ErrCodeInternal, nil) }, true, true},
		{"closed", func(p *raw) { p.nc.Close() }, false, false},
	} {
		p, cc := rawServer(t, nil)
		var sts []*ClientStream
		for range 3 {
			st := open(t, cc)
			send(t, st, get("/"), "", nil)
			sts = append(sts, st)
			if _, ok := p.next().(*xhttp2.MetaHeadersFrame); !ok {
				t.Fatal("no HEADERS")
			}
		}
		c.act(p)
		for i, want := range []bool{c.first, c.first || c.last, c.last} {
			err := sts[i].ReadResponse(new(message.Response))
			var u interface{ Unprocessed() bool }
			if !errors.As(err, &u) || u.Unprocessed() != want {
				t.Errorf("%s, stream %d: %v, want unprocessed %v", c.name, 2*i+1, err, want)
			}
			sts[i].EndExchange()
		}
		if strings.HasPrefix(c.name, "GOAWAY") && (!cc.Draining() || cc.Available() != 0) {
			t.Errorf("%s: streams are still taken", c.name)
		}
	}
}

// TestResponseBeforeReset: a response that came whole is not lost to the reset that stops the request's body.
func TestResponseBeforeReset(t *testing.T) {
	p, cc := rawServer(t, nil)
	st := open(t, cc)
	r := get("/")
	r.Method, r.Body.Kind = "POST", message.Chunked
	if err := errors.Join(st.WriteRequest(r), st.Flush()); err != nil {
		t.Fatal(err)
	}
	p.next()
	p.headers(1, false, ":status", "413")
	p.must(p.fr.WriteData(1, true, []byte("too long")))
	p.must(p.fr.WriteRSTStream(1, 0))
	var se *StreamError
	var err error
	for err == nil {
		err = errors.Join(st.WriteBody([]byte("more")), st.Flush())
		if err == nil && p.next() == nil {
			t.Fatal(p.err)
		}
	}
	if !errors.As(err, &se) || se.Code != NoError {
		t.Error(err)
	}
	if res, body := receive(t, st); res.Status != 413 || body != "too long" {
		t.Errorf("%d %q", res.Status, body)
	}
	st.EndExchange()
}

// TestMalformedResponses are refused, each alone.
func TestMalformedResponses(t *testing.T) {
	p, cc := rawServer(t, nil)
	for name, kv := range map[string][]string{
		"no :status": {"x", "y"}, "odd :status": {":status", "20"}, "letters": {":status", "2xx"}, ":path": {":status", "200", ":path", "/"},
		"connection": {":status", "200", "connection", "close"}, "101": {":status", "101"}, "1xx that ends": {":status", "103"},
		"length": {":status", "200", "content-length", "1"}, "large": {":status", "200", "x", strings.Repeat("x", 70_000)},
	} {
		st := open(t, cc)
		send(t, st, get("/"), "", nil)
		var id uint32
		for id == 0 {
			if f, ok := p.next().(*xhttp2.MetaHeadersFrame); ok {
				id = f.StreamID
			}
		}
		block := p.fields(kv...)
		n := min(len(block), minMaxFrame)
		p.must(p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: block[:n], EndStream: true, EndHeaders: n == len(block)}))
		for block = block[n:]; len(block) > 0; block = block[n:] {
			n = min(len(block), minMaxFrame)
			p.must(p.fr.WriteContinuation(id, n == len(block), block[:n]))
		}
		var se *StreamError
		if err := st.ReadResponse(new(message.Response)); !errors.As(err, &se) || se.Remote || se.Code != ProtocolError {
			t.Errorf("%s: %v", name, err)
		}
		st.EndExchange()
	}
}

// TestStreamLimit: the server's limit is kept.
func TestStreamLimit(t *testing.T) {
	p, cc := rawServer(t, nil, xhttp2.Setting{ID: settingStreams, Val: 1})
	st := open(t, cc)
	send(t, st, get("/"), "", nil)
	p.next()
	p.headers(1, true, ":status", "204") // after the SETTINGS
	receive(t, st)
	if _, err := cc.Open(); err != ErrBusy || cc.Available() != 0 {
		t.Errorf("%v, %d available", err, cc.Available())
	}
	st.EndExchange()
	st, err := cc.Open()
	if err != nil {
		t.Fatal(err)
	}
	st.EndExchange()
}

// TestReadDeadline of a stream leaves the others alone, and the stream usable.
func TestReadDeadline(t *testing.T) {
	release := make(chan struct{})
	j := join(t, nil, nil, func(s *ServerStream) {
		<-release
		echo(s)
	})
	slow, other := open(t, j.client), open(t, j.client)
	send(t, slow, get("/"), "", nil)
	send(t, other, get("/"), "", nil)
	slow.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
	if err := slow.ReadResponse(new(message.Response)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	slow.SetReadDeadline(time.Time{})
	close(release)
	for _, st := range []*ClientStream{slow, other} {
		if res, _ := receive(t, st); res.Status != 200 {
			t.Error(res.Status)
		}
		st.EndExchange()
	}
}

// TestSlowStreamHoldsUpNobody: one body is not read while others pass.
func TestSlowStreamHoldsUpNobody(t *testing.T) {
	j := join(t, nil, nil, func(s *ServerStream) {
		s.WriteResponse(&message.Response{Status: 200, Body: message.Body{Kind: message.Chunked}})
		if s.Request().Path == "/slow" {
			for s.WriteBody(make([]byte, 100_000)) == nil {
			}
			return
		}
		s.WriteBody(make([]byte, 3<<20))
		s.FinishBody(nil)
	})
	slow := open(t, j.client)
	send(t, slow, get("/slow"), "", nil)
	for range 10 {
		st := open(t, j.client)
		send(t, st, get("/"), "", nil)
		if _, body := receive(t, st); len(body) != 3<<20 {
			t.Error(len(body))
		}
		st.EndExchange()
	}
	if n := slow.BodyBuffered(); n > DefaultOptions().StreamWindow {
		t.Errorf("%d bytes are held", n)
	}
	slow.EndExchange()
}

// TestSensitiveFields: what a client keeps out of compression tables is kept out of them on the way on.
func TestSensitiveFields(t *testing.T) {
	got := make(chan message.Field, 1)
	j := join(t, nil, nil, func(s *ServerStream) {
		for f := range s.Request().Header.All() {
			got <- f
		}
		hello(s)
	})
	for range 3 {
		st := open(t, j.client)
		r := get("/")
		r.Header.AddSensitive("X-Key", "secret")
		send(t, st, r, "", nil)
		if f := <-got; f != (message.Field{Name: "x-key", Value: "secret", Sensitive: true}) {
			t.Errorf("%+v", f)
		}
		receive(t, st)
		st.EndExchange()
	}
}

// TestIdleHoldsNothing: between exchanges a connection has no buffers, and after a while neither streams nor goroutines to spare.
func TestIdleHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memLink(t)
		c, s := NewClientConn(conn.FromNet(a), nil), NewServerConn(conn.FromNet(b), "http", nil)
		done := make(chan error, 2)
		go func() { done <- c.Run() }()
		go func() { done <- s.Serve(echo) }()
		for range 3 {
			st := open(t, c)
			r := get("/")
			r.Method, r.Body.Kind = "POST", message.Chunked
			send(t, st, r, strings.Repeat("x", 20_000), nil)
			receive(t, st)
			st.EndExchange()
		}
		synctest.Wait()
		for _, x := range []*core{&c.core, &s.core} {
			if x.in != nil || x.out.blk != nil || x.scratch.Held() {
				t.Error("an idle connection holds buffers")
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(c.free)+len(s.free) != 0 {
			t.Errorf("%d and %d streams are kept", len(c.free), len(s.free))
		}
		select {
		case s.work <- nil:
			t.Error("a goroutine still waits for work")
		default:
		}
		c.Close()
		s.Close()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}

// TestChaos mixes exchanges that end in every way. Afterwards nothing is left.
func TestChaos(t *testing.T) {
	so := *DefaultOptions()
	so.Resets, so.ConnWindow, so.StreamWindow, so.WriteBytes = 1<<30, 1<<17, 1<<16, 1<<14
	j := join(t, nil, &so, func(s *ServerStream) {
		if rand.IntN(10) == 0 {
			return
		}
		if rand.IntN(10) == 0 {
			s.Reset(InternalError)
		}
		echo(s)
	})
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			for range 40 {
				st, err := j.client.Open()
				if err != nil {
					t.Error(err)
					return
				}
				r := get("/")
				r.Method, r.Body.Kind = "POST", message.Chunked
				ctx, cancel := context.WithCancel(t.Context())
				if rand.IntN(4) == 0 {
					stop := context.AfterFunc(ctx, func() { st.SetReadDeadline(time.Unix(1, 0)) })
					cancel()
					stop()
				}
				st.WriteRequest(r)
				done := make(chan struct{})
				go func() {
					defer close(done)
					st.WriteBody(make([]byte, rand.IntN(200_000)))
					st.FinishBody(nil)
				}()
				if rand.IntN(3) > 0 {
					var res message.Response
					if st.ReadResponse(&res) == nil && rand.IntN(3) > 0 {
						readAll(st)
					}
				}
				st.Reset(Cancel)
				<-done
				cancel()
				if !st.EndExchange() {
					t.Error("the connection ended")
				}
			}
		})
	}
	wg.Wait()
	if n := j.client.Streams(); n != 0 {
		t.Errorf("%d streams are left", n)
	}
	st := open(t, j.client)
	for st != nil {
		send(t, st, get("/"), "", nil)
		if st.ReadResponse(new(message.Response)) == nil {
			st.EndExchange()
			break
		}
		st.EndExchange()
		st = open(t, j.client)
	}
}

// TestTickAfterTheEnd: a write of the connection's clock gives its lock up, and the connection may end meanwhile.
func TestTickAfterTheEnd(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	s := NewServerConn(conn.FromNet(ours), "http", nil)
	s.Close()
	close(s.work) // as Serve does when its reading has ended
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchdog.idle = time.Now().Add(-time.Minute)
	s.tick(time.Now()) // does not panic
}

// TestTheWindowThatAllShare: where the server reads one body not at all, the client says since when the connection is held up.
func TestTheWindowThatAllShare(t *testing.T) {
	release := make(chan struct{})
	co := *DefaultOptions()
	co.WriteStall = 0
	j, st := held(t, &co, release)
	wrote := make(chan error, 1)
	go func() { wrote <- st.WriteBody(make([]byte, 1<<18)) }() // ends once the server reads
	for j.client.Shut() < 20*time.Millisecond {
		time.Sleep(time.Millisecond)
	}
	opened := j.client.Opened()
	close(release)
	<-opened
	if err := <-wrote; err != nil {
		t.Error(err)
	}
	st.FinishBody(nil)
	if err := st.ReadResponse(new(message.Response)); err != nil {
		t.Error(err)
	}
	// It answers once it has read the body, and has made room for that before.
	if d := j.client.Shut(); d != 0 {
		t.Errorf("shut for %s though there is room", d)
	}
	<-j.client.Opened()
	st.EndExchange()
}

// TestTheWindowIsGivenBack: the client cuts off what holds the connection up for too long, and there is room again for others.
func TestTheWindowIsGivenBack(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	co := *DefaultOptions()
	co.WriteStall = 100 * time.Millisecond
	j, st := held(t, &co, release)
	var stalled *StreamError
	err := st.WriteBody(make([]byte, 1<<18))
	if !errors.As(err, &stalled) || stalled.Stalled != co.WriteStall || stalled.Remote || stalled.Code != Cancel {
		t.Errorf("got %v", err)
	}
	<-j.client.Opened()
	st.EndExchange()
}

// held begins a request whose body the server reads after the release, and answers when it has the whole.
func held(t *testing.T, co *Options, release <-chan struct{}) (*joined, *ClientStream) {
	t.Helper()
	so := *DefaultOptions()
	so.StreamWindow, so.ConnWindow = 1<<20, 1<<16
	j := join(t, co, &so, func(s *ServerStream) {
		<-release
		readAll(s)
		s.WriteResponse(&message.Response{Status: 204})
		s.FinishBody(nil)
	})
	if j.client.Shut() != 0 {
		t.Error("shut from the beginning")
	}
	<-j.client.Ready()
	st := open(t, j.client)
	if err := st.WriteRequest(&message.Request{Method: "POST", Scheme: "http", Authority: "a.example", Path: "/", Body: message.Body{Kind: message.Chunked}}); err != nil {
		t.Fatal(err)
	}
	return j, st
}
