package http1

import (
	"io"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/message"
)

// TestBothHalvesWorkAtOnce echoes each piece of a request's body in the response before the next is sent: the response
// starts, and most of it leaves, while the request is still being read. The race detector watches.
func TestBothHalvesWorkAtOnce(t *testing.T) {
	client, server := link(t)
	s, c := NewServerConn(server, "http", nil), NewClientConn(client, nil)
	served := make(chan error, 1)
	go func() { served <- echo(s) }()
	chunked := message.Body{Kind: message.Chunked}
	for round := range 3 {
		if err := c.WriteRequest(&message.Request{Method: "POST", Authority: "a", Path: "/", Body: chunked}); err != nil {
			t.Fatal(err)
		}
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		pieces := make(chan string)
		wrote := make(chan error, 1)
		go func() { wrote <- writePieces(c, pieces) }()
		var resp message.Response
		if err := c.ReadResponse(&resp); err != nil {
			t.Fatal(err)
		}
		for _, piece := range []string{"a", strings.Repeat("b", 100), "c"} {
			pieces <- piece
			got := make([]byte, len(piece))
			if _, err := io.ReadFull(readerFunc(c.ReadBody), got); err != nil || string(got) != piece {
				t.Fatalf("round %d: %q, %v", round, got, err)
			}
		}
		close(pieces)
		if rest, err := readAll(c); rest != "" || err != nil {
			t.Fatalf("round %d: %q, %v", round, rest, err)
		}
		if err := <-wrote; err != nil {
			t.Fatal(err)
		}
		if !c.EndExchange() {
			t.Fatalf("round %d ended the connection", round)
		}
	}
	client.Close()
	if err := <-served; err != io.EOF {
		t.Fatal(err)
	}
}

func writePieces(c *ClientConn, pieces <-chan string) error {
	for p := range pieces {
		if err := c.WriteBody([]byte(p)); err != nil {
			return err
		}
		if err := c.Flush(); err != nil {
			return err
		}
	}
	return c.FinishBody(nil)
}

// echo serves with one goroutine that reads and one that writes.
func echo(s *ServerConn) error {
	for {
		var r message.Request
		if err := s.WaitRequest(); err != nil {
			return err
		}
		if err := s.ReadRequest(&r); err != nil {
			return err
		}
		pieces := make(chan string)
		var readErr error
		go func() {
			defer close(pieces)
			p := make([]byte, 1000)
			for {
				n, err := s.ReadBody(p)
				if n > 0 {
					pieces <- string(p[:n])
				}
				if err != nil {
					readErr = err
					return
				}
			}
		}()
		if err := s.WriteResponse(&message.Response{Status: 200, Body: message.Body{Kind: message.Chunked}}); err != nil {
			return err
		}
		err := s.Flush()
		for p := range pieces {
			if err == nil {
				err = s.WriteBody([]byte(p))
			}
			if err == nil {
				err = s.Flush()
			}
		}
		if err == nil {
			err = s.FinishBody(nil)
		}
		if err != nil || readErr != io.EOF {
			return readErr
		}
		if !s.EndExchange() {
			return errNotReusable
		}
	}
}

func TestClientHijacksAfterUpgrade(t *testing.T) {
	client, server := link(t)
	c := NewClientConn(client, nil)
	if err := c.WriteRequest(&message.Request{Method: "GET", Authority: "a", Path: "/", Upgrade: "echo"}); err != nil {
		t.Fatal(err)
	}
	if err := c.FinishBody(nil); err != nil {
		t.Fatal(err)
	}
	server.Write([]byte("HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nserver "))
	var r message.Response
	if err := c.ReadResponse(&r); err != nil || r.Upgrade != "echo" {
		t.Fatalf("%q, %v", r.Upgrade, err)
	}
	if c.Reusable() {
		t.Fatal("an upgraded connection is reusable")
	}
	up, err := c.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	server.Write([]byte("first"))
	server.CloseWrite()
	if got, err := io.ReadAll(readerFunc(up.Read)); string(got) != "server first" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
}

// FuzzWrite writes heads made of anything: what the writer lets through, the parser must read back as it was meant, with
// nothing after it.
func FuzzWrite(f *testing.F) {
	f.Add("GET", "a.example", "/p?q", "X-Name", "value")
	f.Add("M", "a:80", "*", "Connection", "x")
	f.Add("PUT", "[::1]", "/", "TE", "trailers")
	f.Add("GET", "a", "/ HTTP/1.1\r\nX: y", "A\r\nB", "c\r\n\r\nGET / HTTP/1.1")
	f.Fuzz(func(t *testing.T, method, authority, path, name, value string) {
		if method == "CONNECT" || authority == "" || !strings.HasPrefix(path, "/") {
			return
		}
		sc := &script{}
		c := NewClientConn(sc, nil)
		w := message.Request{Method: method, Authority: authority, Path: path}
		w.Header.Add(name, value)
		if c.WriteRequest(&w) != nil || c.FinishBody(nil) != nil {
			return
		}
		r, body, s, err := readRequest(sc.out.String(), 0)
		if sc.out.Len() > DefaultLimits().TargetBytes {
			return
		}
		if err != nil || body != "" || s.buffered() != 0 || r.Method != method || r.Authority != authority || r.Path != path {
			t.Fatalf("%q was read as %+v, %q, %v", sc.out.String(), r, body, err)
		}
		if got, ok := r.Header.Get(name); !framingName(name) && (!ok || got != str(trimOWS(raw(value)))) {
			t.Fatalf("field %q: %q was read as %q", name, value, got)
		}
	})
}
