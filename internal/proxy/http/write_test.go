package http1

import (
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/message"
)

func header(lines ...string) (h message.Header) {
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		h.Add(name, value)
	}
	return h
}

func TestWriteRequest(t *testing.T) {
	sized := message.Body{Kind: message.Sized, Length: 2}
	for _, c := range []struct {
		name string
		req  message.Request
		body string
		want string
	}{
		{"Host is the authority, in its place", message.Request{Method: "GET", Authority: "b", Path: "/x?y", Header: header("A: 1", "hOST: a", "B: 2", "Host: c")}, "",
			"GET /x?y HTTP/1.1\r\nA: 1\r\nhOST: b\r\nB: 2\r\n\r\n"},
		{"Host comes first when it was missing", message.Request{Method: "GET", Authority: "b", Path: "/", Header: header("A: 1")}, "",
			"GET / HTTP/1.1\r\nHost: b\r\nA: 1\r\n\r\n"},
		{"connection fields are the codec's", message.Request{Method: "GET", Authority: "b", Path: "/",
			Header: header("Connection: close, x", "Keep-Alive: 1", "Proxy-Connection: x", "Upgrade: x", "Transfer-Encoding: chunked", "Content-Length: 9")}, "",
			"GET / HTTP/1.1\r\nHost: b\r\n\r\n"},
		{"length in place", message.Request{Method: "POST", Authority: "b", Path: "/", Header: header("host: a", "content-length: 99", "A: 1"), Body: sized}, "hi",
			"POST / HTTP/1.1\r\nhost: b\r\ncontent-length: 2\r\nA: 1\r\n\r\nhi"},
		{"length added", message.Request{Method: "POST", Authority: "b", Path: "/", Body: sized}, "hi", "POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\n\r\nhi"},
		{"POST without a body", message.Request{Method: "POST", Authority: "b", Path: "/"}, "", "POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n\r\n"},
		{"chunked", message.Request{Method: "POST", Authority: "b", Path: "/", Header: header("content-length: 5"), Body: message.Body{Kind: message.Chunked}}, "hello world, hello",
			"POST / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n12\r\nhello world, hello\r\n0\r\n\r\n"},
		{"upgrade", message.Request{Method: "GET", Authority: "b", Path: "/", Header: header("upgrade: x", "TE: trailers"), Upgrade: "websocket"}, "",
			"GET / HTTP/1.1\r\nHost: b\r\nTE: trailers\r\nUpgrade: websocket\r\nConnection: TE, Upgrade\r\n\r\n"},
		{"TE", message.Request{Method: "GET", Authority: "b", Path: "/", Header: header("te: trailers")}, "",
			"GET / HTTP/1.1\r\nHost: b\r\nte: trailers\r\nConnection: TE\r\n\r\n"},
		{"CONNECT", message.Request{Method: "CONNECT", Authority: "b:1"}, "", "CONNECT b:1 HTTP/1.1\r\nHost: b:1\r\n\r\n"},
	} {
		s := &script{}
		conn := NewClientConn(s, nil)
		if err := conn.WriteRequest(&c.req); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if err := conn.WriteBody([]byte(c.body)); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if err := conn.FinishBody(nil); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if got := s.out.String(); got != c.want {
			t.Errorf("%s:\n got %q\nwant %q", c.name, got, c.want)
		}
		if s.writes != 1 {
			t.Errorf("%s: %d writes", c.name, s.writes)
		}
	}
}

func TestHeadsThatCannotBeWritten(t *testing.T) {
	for name, r := range map[string]message.Request{
		"CRLF in a value":     {Method: "GET", Authority: "b", Path: "/", Header: header("A: b\r\nC: d")},
		"NUL in a value":      {Method: "GET", Authority: "b", Path: "/", Header: header("A: \x00")},
		"space in a name":     {Method: "GET", Authority: "b", Path: "/", Header: header("A b: c")},
		"empty name":          {Method: "GET", Authority: "b", Path: "/", Header: header(": c")},
		"space in the path":   {Method: "GET", Authority: "b", Path: "/a b"},
		"CRLF in the path":    {Method: "GET", Authority: "b", Path: "/ HTTP/1.1\r\nA: b"},
		"no path":             {Method: "GET", Authority: "b"},
		"CRLF in the host":    {Method: "GET", Authority: "b\r\nA: b", Path: "/"},
		"space in the method": {Method: "GET /", Authority: "b", Path: "/"},
		"CRLF in the upgrade": {Method: "GET", Authority: "b", Path: "/", Upgrade: "a\r\nb"},
		"until close":         {Method: "GET", Authority: "b", Path: "/", Body: message.Body{Kind: message.UntilClose}},
	} {
		s := &script{}
		c := NewClientConn(s, nil)
		if err := c.WriteRequest(&r); err != ErrBadHead {
			t.Errorf("%s: %v", name, err)
		}
		if err := c.Flush(); err != nil || s.out.Len() != 0 {
			t.Errorf("%s: wrote %q, %v", name, s.out.String(), err)
		}
	}
}

func TestWriteResponse(t *testing.T) {
	const get, get10 = "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
	sized := message.Body{Kind: message.Sized, Length: 2}
	chunked, untilClose := message.Body{Kind: message.Chunked}, message.Body{Kind: message.UntilClose}
	for _, c := range []struct {
		name, req string
		resp      message.Response
		body      string
		want      string
		reuse     bool
	}{
		{"sized", get, message.Response{Status: 200, Header: header("A: 1", "content-length: 9"), Body: sized}, "hi", "HTTP/1.1 200 OK\r\nA: 1\r\ncontent-length: 2\r\n\r\nhi", true},
		{"reason kept", get, message.Response{Status: 200, Reason: "Fine", Body: sized}, "hi", "HTTP/1.1 200 Fine\r\nContent-Length: 2\r\n\r\nhi", true},
		{"no body is length 0", get, message.Response{Status: 200, Header: header("Transfer-Encoding: chunked")}, "", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true},
		{"the upstream's close is not ours", get, message.Response{Status: 200, Header: header("Connection: close"), Body: sized}, "hi", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", true},
		{"chunked", get, message.Response{Status: 200, Body: chunked}, "hi", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", true},
		{"until close becomes chunked", get, message.Response{Status: 200, Body: untilClose}, "hi", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", true},
		{"HTTP/1.0 sized", get10, message.Response{Status: 200, Body: sized}, "hi", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nhi", true},
		{"HTTP/1.0 chunked", get10, message.Response{Status: 200, Header: header("Transfer-Encoding: chunked"), Body: chunked}, "hi", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhi", false},
		{"client closes", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", message.Response{Status: 200, Body: sized}, "hi", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi", false},
		{"HEAD keeps the upstream's length", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", message.Response{Status: 200, Header: header("Content-Length: 9")}, "", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", true},
		{"HEAD drops a body", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", message.Response{Status: 404, Body: sized}, "hi", "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n", true},
		{"304", get, message.Response{Status: 304, Header: header("Content-Length: 9", "ETag: x")}, "", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nETag: x\r\n\r\n", true},
		{"204", get, message.Response{Status: 204, Header: header("Content-Length: 9", "Transfer-Encoding: chunked")}, "", "HTTP/1.1 204 No Content\r\n\r\n", true},
		{"CONNECT", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", message.Response{Status: 200, Header: header("Content-Length: 9")}, "", "HTTP/1.1 200 OK\r\n\r\n", false},
		{"upgrade", "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", message.Response{Status: 101, Upgrade: "x"}, "", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", false},
		{"refused", "GET /\r\n\r\n", message.Response{Status: 400, Body: sized}, "no", "HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno", false},
		{"unread body of a client that waits for 100", "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n", message.Response{Status: 403, Body: sized}, "no",
			"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno", false},
	} {
		sc := &script{in: []byte(c.req)}
		s := NewServerConn(sc, "http", nil)
		s.ReadRequest(new(message.Request))
		if err := s.WriteResponse(&c.resp); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if err := s.WriteBody([]byte(c.body)); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if err := s.FinishBody(nil); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if got := sc.out.String(); got != c.want {
			t.Errorf("%s:\n got %q\nwant %q", c.name, got, c.want)
		}
		if sc.writes != 1 {
			t.Errorf("%s: %d writes", c.name, sc.writes)
		}
		if got := s.EndExchange(); got != c.reuse {
			t.Errorf("%s: reusable %v", c.name, got)
		}
	}
}

func TestTrailersAreWrittenWithoutFramingFields(t *testing.T) {
	sc := &script{in: []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n")}
	s := NewServerConn(sc, "http", nil)
	if err := s.ReadRequest(new(message.Request)); err != nil {
		t.Fatal(err)
	}
	if err := s.WriteResponse(&message.Response{Status: 200, Body: message.Body{Kind: message.Chunked}}); err != nil {
		t.Fatal(err)
	}
	h := header("Grpc-Status: 0", "Content-Length: 5", "Transfer-Encoding: chunked", "Host: a")
	if err := s.FinishBody(&h); err != nil {
		t.Fatal(err)
	}
	if got, want := sc.out.String(), "\r\n\r\n0\r\nGrpc-Status: 0\r\n\r\n"; !strings.HasSuffix(got, want) {
		t.Fatalf("got %q", got)
	}
}

func TestBodyLengthIsKept(t *testing.T) {
	for _, c := range []struct {
		body  message.Body
		write []string
	}{
		{message.Body{Kind: message.Sized, Length: 2}, []string{"h", "ey"}},
		{message.Body{Kind: message.Sized, Length: 4}, []string{"h", "ey"}},
		{message.Body{}, []string{"h"}},
	} {
		conn := NewClientConn(&script{}, nil)
		if err := conn.WriteRequest(&message.Request{Method: "PUT", Authority: "b", Path: "/", Body: c.body}); err != nil {
			t.Fatal(err)
		}
		var err error
		for _, p := range c.write {
			if err == nil {
				err = conn.WriteBody([]byte(p))
			}
		}
		if err == nil {
			err = conn.FinishBody(nil)
		}
		if err != ErrBodyLength || conn.EndExchange() {
			t.Errorf("%+v: %v", c.body, err)
		}
	}
}

// TestBodiesOfAllSizesArriveWhole cuts bodies around the sizes of buffers, in both framings.
func TestBodiesOfAllSizesArriveWhole(t *testing.T) {
	for _, kind := range []message.BodyKind{message.Sized, message.Chunked} {
		for _, n := range []int{0, 1, 4000, 4060, 4090, 4095, 4096, 4097, 8192, 70000} {
			for _, piece := range []int{1000, 4096, 100000} {
				body := strings.Repeat("0123456789", n/10+1)[:n]
				sc := &script{}
				c := NewClientConn(sc, nil)
				if err := c.WriteRequest(&message.Request{Method: "PUT", Authority: "b", Path: "/", Body: message.Body{Kind: kind, Length: int64(n)}}); err != nil {
					t.Fatal(err)
				}
				for i := 0; i < n; i += piece {
					if err := c.WriteBody([]byte(body[i:min(n, i+piece)])); err != nil {
						t.Fatal(err)
					}
				}
				if err := c.FinishBody(nil); err != nil {
					t.Fatal(err)
				}
				for _, step := range steps {
					_, got, s, err := readRequest(sc.out.String(), step)
					if err != nil || got != body || s.buffered() != 0 {
						t.Fatalf("kind %d, %d bytes by %d, read in steps of %d: %d bytes, %v", kind, n, piece, step, len(got), err)
					}
				}
			}
		}
	}
}

func TestStripHopByHop(t *testing.T) {
	for _, c := range []struct {
		name     string
		in, want []string
	}{
		{"nothing to do", []string{"A: 1", "B: 2"}, []string{"A: 1", "B: 2"}},
		{"the fixed ones", []string{"Keep-Alive: 1", "A: 1", "proxy-connection: x", "Transfer-Encoding: chunked", "Upgrade: x", "te: gzip"}, []string{"A: 1"}},
		{"listed ones", []string{"X: 1", "y: 2", "A: 1", "Connection: close, x , Y,,z", "x: 3", "Z: 4", "connection: a"}, nil},
		{"listed before and after", []string{"X: 1", "Connection: x", "Connection: b", "B: 1", "C: 2"}, []string{"C: 2"}},
		{"some cannot be listed", []string{"Host: a", "Connection: host, content-length, expect", "Content-Length: 1", "Expect: x"}, []string{"Host: a", "Content-Length: 1", "Expect: x"}},
		{"TE keeps trailers", []string{"TE: gzip, Trailers", "Connection: TE"}, []string{"TE: trailers"}},
	} {
		h, want := header(c.in...), header(c.want...)
		StripHopByHop(&h)
		if !equal(&h, &want) {
			t.Errorf("%s: got %v", c.name, h)
		}
	}
}

func equal(a, b *message.Header) bool {
	if a.Len() != b.Len() {
		return false
	}
	for i := range a.Len() {
		if a.At(i) != b.At(i) {
			return false
		}
	}
	return true
}

// RFC 9112 section 9.6: a response behind which the connection ends says so.
func TestResponsesToUnreadableBodiesSayClose(t *testing.T) {
	for _, c := range []struct {
		name, req string
		status    int
		close     bool
	}{
		{"broken chunk", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400, true},
		{"whole chunks", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", 400, false},
		{"ended early", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", 400, true},
		{"long body refused", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\nx", 413, true},
		{"long body taken", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\nx", 200, false},
		{"short body refused", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx", 413, false},
	} {
		sc := &script{in: []byte(c.req)}
		s := NewServerConn(sc, "http", nil)
		if err := s.ReadRequest(new(message.Request)); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		var b [9]byte
		for _, err := s.ReadBody(b[:]); err == nil && c.name[:5] != "short" && c.name[:4] != "long"; {
			_, err = s.ReadBody(b[:])
		}
		if err := s.WriteResponse(&message.Response{Status: c.status}); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if err := s.FinishBody(nil); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := strings.Contains(sc.out.String(), "\r\nConnection: close\r\n"); got != c.close {
			t.Errorf("%s: %q", c.name, sc.out.String())
		}
	}
}
