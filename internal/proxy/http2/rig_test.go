package http2

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// tcpLink gives both ends of a loopback connection.
func tcpLink(t testing.TB) (client, server conn.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return conn.FromNet(a), conn.FromNet(b)
}

// joined is a client and a server on one connection. Both ends must end without an error but those that a test expects.
type joined struct {
	client     *ClientConn
	server     *ServerConn
	clientDone chan error
	serverDone chan error
}

func join(t testing.TB, co, so *Options, handle func(*ServerStream)) *joined {
	t.Helper()
	a, b := tcpLink(t)
	j := &joined{client: NewClientConn(a, co), server: NewServerConn(b, "http", so), clientDone: make(chan error, 1), serverDone: make(chan error, 1)}
	go func() { j.clientDone <- j.client.Run() }()
	go func() { j.serverDone <- j.server.Serve(handle) }()
	var once sync.Once
	t.Cleanup(func() {
		once.Do(func() {
			j.client.Close()
			j.server.Close()
			<-j.clientDone
			<-j.serverDone
		})
	})
	return j
}

func open(t testing.TB, c *ClientConn) *ClientStream {
	t.Helper()
	st, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func get(path string) *message.Request {
	return &message.Request{Method: "GET", Scheme: "http", Authority: "a.example", Path: path}
}

// send writes a whole request.
func send(t testing.TB, st *ClientStream, r *message.Request, body string, trailers *message.Header) {
	t.Helper()
	if err := errors.Join(st.WriteRequest(r), st.WriteBody([]byte(body)), st.FinishBody(trailers)); err != nil {
		t.Fatal(err)
	}
}

// receive reads a whole response.
func receive(t testing.TB, st *ClientStream) (*message.Response, string) {
	t.Helper()
	var r message.Response
	if err := st.ReadResponse(&r); err != nil {
		t.Fatal(err)
	}
	body, err := readAll(st)
	if err != nil {
		t.Fatal(err)
	}
	return &r, body
}

func readAll(r interface{ ReadBody([]byte) (int, error) }) (string, error) {
	var out []byte
	p := make([]byte, 1000)
	for {
		n, err := r.ReadBody(p)
		out = append(out, p[:n]...)
		if err == io.EOF {
			return string(out), nil
		}
		if err != nil {
			return string(out), err
		}
	}
}

// echo answers with the request's body and trailers, and a head that names what was asked.
func echo(s *ServerStream) {
	r := s.Request()
	res := message.Response{Status: 200, Body: r.Body}
	res.Header.Add("Asked", r.Method+" "+r.Scheme+" "+r.Authority+r.Path)
	if r.Body.Kind == message.NoBody {
		res.Body = message.Body{}
	}
	if s.WriteResponse(&res) != nil {
		return
	}
	p := make([]byte, 32<<10)
	for {
		n, err := s.ReadBody(p)
		if n > 0 && s.WriteBody(p[:n]) != nil {
			return
		}
		if err == io.EOF {
			s.FinishBody(s.Trailers())
			return
		}
		if err != nil {
			return
		}
		if s.BodyBuffered() == 0 {
			s.Flush()
		}
	}
}
