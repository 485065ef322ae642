package http1

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weftmesh/weft/internal/memnet"
	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/conn/conntest"
	"github.com/weftmesh/weft/internal/proxy/message"
)

func TestPipelinedRequestsStay(t *testing.T) {
	for _, step := range steps {
		sc := &script{step: step, in: []byte("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nonePOST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n")}
		s := NewServerConn(sc, "http", nil)
		var r message.Request
		for i, want := range []string{"/1 one", "/2 two", "/3 "} {
			if err := s.WaitRequest(); err != nil {
				t.Fatal(err)
			}
			if err := s.ReadRequest(&r); err != nil {
				t.Fatal(err)
			}
			body := ""
			if i > 0 { // the first body is left for EndExchange to drain
				body, _ = readAll(s)
			} else {
				body = "one"
			}
			if got := r.Path + " " + body; got != want {
				t.Fatalf("in steps of %d: request %d is %q", step, i, got)
			}
			if err := s.WriteResponse(&message.Response{Status: 204}); err != nil {
				t.Fatal(err)
			}
			if err := s.FinishBody(nil); err != nil {
				t.Fatal(err)
			}
			if !s.EndExchange() {
				t.Fatalf("in steps of %d: request %d ended the connection", step, i)
			}
		}
		if err := s.ReadRequest(&r); err != io.EOF {
			t.Fatal(err)
		}
	}
}

func TestNoBufferIsHeldWhileIdle(t *testing.T) {
	client, server := link(t)
	s := NewServerConn(server, "http", nil)
	c := NewClientConn(client, nil)
	for range 2 {
		serveOne(t, c, s)
		if s.input.blk != nil || s.output.blk != nil || c.input.blk != nil || c.output.blk != nil {
			t.Fatal("a buffer is held between exchanges")
		}
	}
	if !c.Quiet() {
		t.Fatal("the idle connection is not quiet")
	}
	server.Close()
	if c.Quiet() {
		t.Fatal("the closed connection is quiet")
	}
}

// serveOne carries one exchange and ends it on both sides.
func serveOne(t *testing.T, c *ClientConn, s *ServerConn) {
	t.Helper()
	var (
		req  message.Request
		resp message.Response
	)
	for _, step := range []func() error{
		func() error {
			return c.WriteRequest(&message.Request{Method: "PUT", Authority: "a", Path: "/", Body: message.Body{Kind: message.Chunked}})
		},
		func() error { return c.WriteBody([]byte("ping")) },
		func() error { return c.FinishBody(nil) },
		s.WaitRequest,
		func() error { return s.ReadRequest(&req) },
		func() error { return expectBody(s, "ping") },
		func() error {
			return s.WriteResponse(&message.Response{Status: 200, Body: message.Body{Kind: message.Sized, Length: 4}})
		},
		func() error { return s.WriteBody([]byte("pong")) },
		func() error { return s.FinishBody(nil) },
		c.WaitResponse,
		func() error { return c.ReadResponse(&resp) },
		func() error { return expectBody(c, "pong") },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	if !s.EndExchange() || !c.EndExchange() {
		t.Fatal("the connection is not reusable")
	}
}

func expectBody(r interface{ ReadBody([]byte) (int, error) }, want string) error {
	got, err := readAll(r)
	if err == nil && got != want {
		err = errors.New("body " + got)
	}
	return err
}

func TestContinue(t *testing.T) {
	client, server := link(t)
	s, c := NewServerConn(server, "http", nil), NewClientConn(client, nil)
	h := header("Expect: 100-continue")
	if err := c.WriteRequest(&message.Request{Method: "PUT", Authority: "a", Path: "/", Header: h, Body: message.Body{Kind: message.Sized, Length: 2}}); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	var req message.Request
	if err := s.ReadRequest(&req); err != nil || !req.ExpectContinue {
		t.Fatalf("%v, %v", err, req.ExpectContinue)
	}
	if err := s.WriteInformational(100, new(message.Header)); err != nil {
		t.Fatal(err)
	}
	var resp message.Response
	if err := c.ReadResponse(&resp); err != nil || resp.Status != 100 {
		t.Fatalf("%d, %v", resp.Status, err)
	}
	if err := c.WriteBody([]byte("hi")); err != nil {
		t.Fatal(err)
	}
	if err := c.FinishBody(nil); err != nil {
		t.Fatal(err)
	}
	if err := s.WriteResponse(&message.Response{Status: 204}); err != nil {
		t.Fatal(err)
	}
	if err := s.FinishBody(nil); err != nil {
		t.Fatal(err)
	}
	if err := c.ReadResponse(&resp); err != nil || resp.Status != 204 || !resp.KeepAlive {
		t.Fatalf("%+v, %v", resp, err)
	}
	if !s.EndExchange() || !c.EndExchange() {
		t.Fatal("the connection is not reusable")
	}
}

func TestHijackKeepsBytesReadBeyondTheHead(t *testing.T) {
	client, server := link(t)
	s := NewServerConn(server, "http", nil)
	client.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nearly "))
	if err := s.ReadRequest(new(message.Request)); err != nil {
		t.Fatal(err)
	}
	if err := s.WriteResponse(&message.Response{Status: 101, Upgrade: "echo"}); err != nil {
		t.Fatal(err)
	}
	raw, err := s.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	client.Write([]byte("late"))
	client.CloseWrite()
	if got, err := io.ReadAll(readerFunc(raw.Read)); string(got) != "early late" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	raw.Write([]byte("answer"))
	raw.Close()
	got, err := io.ReadAll(readerFunc(client.Read))
	if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 101 ") || !strings.HasSuffix(string(got), "\r\n\r\nanswer") {
		t.Fatalf("%q, %v", got, err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestShutLetsTheResponseArrive(t *testing.T) {
	client, server := link(t)
	s := NewServerConn(server, "http", nil)
	client.Write([]byte("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\nsome of it"))
	if err := s.ReadRequest(new(message.Request)); err != nil {
		t.Fatal(err)
	}
	if err := s.WriteResponse(&message.Response{Status: 413}); err != nil {
		t.Fatal(err)
	}
	if err := s.FinishBody(nil); err != nil {
		t.Fatal(err)
	}
	if s.EndExchange() {
		t.Fatal("reusable with 10 MB to come")
	}
	done := make(chan error, 1)
	go func() { done <- s.Shut() }()
	got, err := io.ReadAll(readerFunc(client.Read))
	if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 413 ") {
		t.Fatalf("%q, %v", got, err)
	}
	client.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestShutHearsAFastSenderOut is for a client that looks for the answer only after it has sent more than a server drains of a body to
// keep its connection.
func TestShutHearsAFastSenderOut(t *testing.T) {
	client, down := sockets(t)
	s := NewServerConn(conn.FromNet(down), "http", nil)
	const length = 16 << 20
	sent := make(chan error, 1)
	go func() { // ends with the body or the connection
		_, err := fmt.Fprintf(client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", length)
		if err == nil {
			_, err = client.Write(make([]byte, length))
		}
		sent <- err
	}()
	if err := s.ReadRequest(new(message.Request)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.WriteResponse(&message.Response{Status: 413}), s.FinishBody(nil)); err != nil || s.EndExchange() {
		t.Fatal("not to be shut", err)
	}
	shut := make(chan error, 1)
	go func() { shut <- s.Shut() }()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(client)
	if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 413 ") {
		t.Fatalf("%q, %v", got, err)
	}
	client.Close()
	if err := <-shut; err != nil {
		t.Fatal(err)
	}
}

// TestBodyThatEndsWithTheConnectionIsResetWhenBrokenOff: HTTP/1.0 has no other sign that something is missing.
func TestBodyThatEndsWithTheConnectionIsResetWhenBrokenOff(t *testing.T) {
	for _, whole := range []bool{true, false} {
		client, down := sockets(t)
		s := NewServerConn(conn.FromNet(conntest.Adopt(t, conntest.Engine(t), down)), "http", nil)
		io.WriteString(client, "POST / HTTP/1.0\r\nContent-Length: 9\r\n\r\nsome")
		if err := s.ReadRequest(new(message.Request)); err != nil {
			t.Fatal(err)
		}
		s.ReadBody(make([]byte, 9))
		err := errors.Join(s.WriteResponse(&message.Response{Status: 200, Body: message.Body{Kind: message.UntilClose}}), s.WriteBody([]byte("half")), s.Flush())
		if err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(client)
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(res.Body, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		if whole {
			if err := s.FinishBody(nil); err != nil {
				t.Fatal(err)
			}
		}
		s.EndExchange()
		shut := make(chan error, 1)
		go func() { shut <- s.Shut() }()
		if n, err := res.Body.Read(make([]byte, 1)); n != 0 || (err == io.EOF) != whole {
			t.Errorf("whole %v: %d, %v", whole, n, err)
		}
		client.Close()
		<-shut
	}
}

func TestShutOfAnIdleConnectionDoesNotLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, server := link(t)
		s, start := NewServerConn(server, "http", nil), time.Now()
		for range 2 {
			if err := s.Shut(); err != nil || time.Since(start) != 0 {
				t.Fatalf("%v after %v", err, time.Since(start))
			}
			client, server := link(t)
			s = NewServerConn(server, "http", nil)
			c := NewClientConn(client, nil)
			if n, err := c.ReadBody(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Fatalf("a body before any response: %d, %v", n, err)
			}
			serveOne(t, c, s)
		}
	})
}

func TestDrainingAStalledBodyEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := link(t)
		s := NewServerConn(server, "http", nil)
		client.Write([]byte("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nsome of it"))
		if err := s.ReadRequest(new(message.Request)); err != nil {
			t.Fatal(err)
		}
		if err := s.WriteResponse(&message.Response{Status: 403}); err != nil {
			t.Fatal(err)
		}
		if err := s.FinishBody(nil); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if s.EndExchange() || time.Since(start) != DefaultLimits().DrainTime {
			t.Fatalf("ended after %v", time.Since(start))
		}
		if err := s.Shut(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestReadDeadlineWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, server := link(t)
		s := NewServerConn(server, "http", nil)
		server.SetReadDeadline(time.Now().Add(time.Minute))
		if err := s.WaitRequest(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	})
}

// TestAgainstNetHTTP lets the standard library's client and server judge both sides, one relayed to the other.
func TestAgainstNetHTTP(t *testing.T) {
	n := memnet.New()
	backend := listen(t, n, "10.0.0.1:80")
	front := listen(t, n, "10.0.0.2:80")
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Method", r.Method)
		w.Header().Set("X-Trailer", r.Trailer.Get("T"))
		if r.URL.Path == "/flushed" {
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
		}
		w.Write(body)
	})}
	go srv.Serve(backend)
	t.Cleanup(func() { srv.Close() })
	served := make(chan error, 1)
	go func() { served <- relayOne(t, n, front, backend) }()

	transport := &http.Transport{Dial: func(string, string) (net.Conn, error) {
		return n.Dial(t.Context(), front.AddrPort().Addr(), front.AddrPort())
	}}
	client := &http.Client{Transport: transport}
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE"} {
		for _, path := range []string{"/", "/flushed"} {
			for _, size := range []int{0, 10, 100000} {
				checkEcho(t, client, method, path, size)
			}
		}
	}
	transport.CloseIdleConnections()
	if err := <-served; err != io.EOF {
		t.Fatal(err)
	}
}

func checkEcho(t *testing.T, client *http.Client, method, path string, size int) {
	t.Helper()
	body := strings.Repeat("x", size)
	var in io.Reader = strings.NewReader(body)
	if path == "/flushed" {
		in = io.MultiReader(in) // unknown length: chunked
	}
	req, err := http.NewRequest(method, "http://front"+path, in)
	if err != nil {
		t.Fatal(err)
	}
	if path == "/flushed" {
		req.Trailer = http.Header{"T": {"end"}}
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || resp.Header.Get("X-Method") != method {
		t.Fatalf("%s %s: %v, %v", method, path, resp.Header, err)
	}
	if method != "HEAD" && string(got) != body {
		t.Fatalf("%s %s: %d of %d bytes", method, path, len(got), size)
	}
	if path == "/flushed" && size > 0 && resp.Header.Get("X-Trailer") != "end" {
		t.Fatalf("%s %s: the trailer was lost", method, path)
	}
}

func listen(t *testing.T, n *memnet.Network, addr string) *memnet.Listener {
	t.Helper()
	ap, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	l, err := n.Listen(ap.AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// relayOne proxies one connection to one connection until the client closes it.
func relayOne(t *testing.T, n *memnet.Network, front, backend *memnet.Listener) error {
	down, err := front.Accept()
	if err != nil {
		return err
	}
	defer down.Close()
	up, err := n.Dial(t.Context(), front.AddrPort().Addr(), backend.AddrPort())
	if err != nil {
		return err
	}
	defer up.Close()
	s, c := NewServerConn(conn.FromNet(down), "http", nil), NewClientConn(conn.FromNet(up), nil)
	for {
		var (
			req  message.Request
			resp message.Response
		)
		if err := s.ReadRequest(&req); err != nil {
			return err
		}
		StripHopByHop(&req.Header)
		if err := c.WriteRequest(&req); err != nil {
			return err
		}
		if err := pump(c, s); err != nil {
			return err
		}
		if err := c.ReadResponse(&resp); err != nil {
			return err
		}
		StripHopByHop(&resp.Header)
		if err := s.WriteResponse(&resp); err != nil {
			return err
		}
		if err := pump(s, c); err != nil {
			return err
		}
		if !s.EndExchange() || !c.EndExchange() {
			return errors.New("not reusable")
		}
	}
}

func pump(dst interface {
	WriteBody([]byte) error
	FinishBody(*message.Header) error
}, src interface {
	ReadBody([]byte) (int, error)
	Trailers() *message.Header
}) error {
	p := make([]byte, 5000)
	for {
		n, err := src.ReadBody(p)
		if werr := dst.WriteBody(p[:n]); werr != nil {
			return werr
		}
		if err == io.EOF {
			return dst.FinishBody(src.Trailers())
		}
		if err != nil {
			return err
		}
	}
}

// TestPlainPathAllocatesNothing carries whole exchanges of both sides over connections that do not allocate themselves.
func TestPlainPathAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("pools do not keep under the race detector")
	}
	down := &loop{response: []byte("GET /path?query HTTP/1.1\r\nHost: service.example\r\nUser-Agent: test\r\nAccept: */*\r\nX-A: 1\r\nX-B: 2\r\nX-C: 3\r\n\r\n")}
	up := &loop{response: []byte("HTTP/1.1 200 OK\r\nServer: test\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n" + strings.Repeat("x", 1024))}
	down.in = down.response
	s, c := NewServerConn(down, "http", nil), NewClientConn(up, nil)
	var (
		req  message.Request
		resp message.Response
		p    = make([]byte, 2048)
	)
	one := func() {
		if err := exchangeOnce(s, c, &req, &resp, p); err != nil {
			t.Fatal(err)
		}
	}
	one()
	if n := testing.AllocsPerRun(1000, one); n != 0 {
		t.Fatalf("%v allocations per exchange", n)
	}
}

var errNotReusable = errors.New("not reusable")

func exchangeOnce(s *ServerConn, c *ClientConn, req *message.Request, resp *message.Response, p []byte) error {
	if err := s.ReadRequest(req); err != nil {
		return err
	}
	StripHopByHop(&req.Header)
	if err := c.WriteRequest(req); err != nil {
		return err
	}
	if err := c.FinishBody(nil); err != nil {
		return err
	}
	if err := c.ReadResponse(resp); err != nil {
		return err
	}
	StripHopByHop(&resp.Header)
	if err := s.WriteResponse(resp); err != nil {
		return err
	}
	for {
		n, err := c.ReadBody(p)
		if werr := s.WriteBody(p[:n]); werr != nil {
			return werr
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if err := s.FinishBody(nil); err != nil {
		return err
	}
	if !s.EndExchange() || !c.EndExchange() {
		return errNotReusable
	}
	return nil
}

func BenchmarkExchange(b *testing.B) {
	down := &loop{response: []byte("GET /path?query HTTP/1.1\r\nHost: service.example\r\nUser-Agent: test\r\nAccept: */*\r\nX-A: 1\r\nX-B: 2\r\nX-C: 3\r\n\r\n")}
	up := &loop{response: []byte("HTTP/1.1 200 OK\r\nServer: test\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n" + strings.Repeat("x", 1024))}
	down.in = down.response
	s, c := NewServerConn(down, "http", nil), NewClientConn(up, nil)
	var (
		req  message.Request
		resp message.Response
		p    = make([]byte, 2048)
	)
	b.ReportAllocs()
	for b.Loop() {
		if err := exchangeOnce(s, c, &req, &resp, p); err != nil {
			b.Fatal(err)
		}
	}
}

// TestEveryTruncationOfAResponseIsNoticed cuts a response at each byte: net/http must never take the rest for the whole.
func TestEveryTruncationOfAResponseIsNoticed(t *testing.T) {
	raw := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nT: end\r\n\r\n"
	for n := 1; n < len(raw); n++ {
		_, _, c, err := exchange(t, message.Request{}, raw[:n], 0)
		if err != io.ErrUnexpectedEOF || c.EndExchange() {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(raw)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(resp.Body); string(b) != "hello" || err != nil {
		t.Fatalf("the whole is not valid: %q, %v", b, err)
	}
}
