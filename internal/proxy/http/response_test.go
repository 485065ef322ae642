package http1

import (
	"io"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/message"
)

// exchange writes a request of that method to a scripted server and reads its response with its body.
func exchange(t *testing.T, req message.Request, raw string, step int) (r *message.Response, body string, c *ClientConn, err error) {
	t.Helper()
	c = NewClientConn(&script{in: []byte(raw), step: step}, nil)
	if req.Method == "" {
		req.Method = "GET"
	}
	req.Authority, req.Path = "a:80", "/"
	if err := c.WriteRequest(&req); err != nil {
		t.Fatal(err)
	}
	if err := c.FinishBody(nil); err != nil {
		t.Fatal(err)
	}
	r = new(message.Response)
	if err = c.ReadResponse(r); err != nil {
		return r, "", c, err
	}
	b, err := readAll(c)
	return r, b, c, err
}

func TestRefusedResponses(t *testing.T) {
	for _, c := range []struct{ name, raw string }{
		{"bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n"},
		{"bare LF throughout", "HTTP/1.1 200 OK\nContent-Length: 0\n\n"},
		{"not HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n"},
		{"version 2", "HTTP/2.0 200 OK\r\n\r\n"},
		{"two-digit status", "HTTP/1.1 20 OK\r\n\r\n"},
		{"four-digit status", "HTTP/1.1 2000 OK\r\n\r\n"},
		{"status below 100", "HTTP/1.1 099 OK\r\n\r\n"},
		{"two spaces", "HTTP/1.1  200 OK\r\n\r\n"},
		{"control in the reason", "HTTP/1.1 200 O\x00K\r\n\r\n"},
		{"obs-fold", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n"},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"},
		{"length and coding", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{"unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello"},
		{"coding in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{"upgrade nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"},
		{"bad chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"},
		{"large head", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 70<<10) + "\r\n\r\n"},
	} {
		for _, step := range steps {
			_, _, conn, err := exchange(t, message.Request{}, c.raw, step)
			if status(err) != 502 {
				t.Errorf("%s, in steps of %d: %v, want 502", c.name, step, err)
			}
			if conn.EndExchange() {
				t.Errorf("%s: the connection is still used", c.name)
			}
		}
	}
}

func TestAcceptedResponses(t *testing.T) {
	type want struct {
		status int
		kind   message.BodyKind
		body   string
		reuse  bool
	}
	for _, c := range []struct {
		name string
		req  message.Request
		raw  string
		want want
	}{
		{"sized", message.Request{}, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", want{200, message.Sized, "hello", true}},
		{"empty", message.Request{}, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", want{200, message.Sized, "", true}},
		{"no reason", message.Request{}, "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", want{200, message.Sized, "", true}},
		{"odd status", message.Request{}, "HTTP/1.1 999 \r\nContent-Length: 0\r\n\r\n", want{999, message.Sized, "", true}},
		{"chunked", message.Request{}, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", want{200, message.Chunked, "hello", true}},
		{"until close", message.Request{}, "HTTP/1.1 200 OK\r\n\r\nhello", want{200, message.UntilClose, "hello", false}},
		{"close", message.Request{}, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", want{200, message.Sized, "", false}},
		{"HTTP/1.0", message.Request{}, "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", want{200, message.Sized, "", false}},
		{"HTTP/1.0 keep-alive", message.Request{}, "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", want{200, message.Sized, "", true}},
		{"HEAD", message.Request{Method: "HEAD"}, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", want{200, message.NoBody, "", true}},
		{"HEAD chunked", message.Request{Method: "HEAD"}, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", want{200, message.NoBody, "", true}},
		{"204", message.Request{}, "HTTP/1.1 204 No Content\r\n\r\n", want{204, message.NoBody, "", true}},
		{"204 with content", message.Request{}, "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", want{204, message.NoBody, "", false}},
		{"304", message.Request{}, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", want{304, message.NoBody, "", true}},
		{"bytes after the end", message.Request{}, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n", want{200, message.Sized, "", false}},
		{"CONNECT", message.Request{Method: "CONNECT"}, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", want{200, message.NoBody, "", false}},
		{"CONNECT refused", message.Request{Method: "CONNECT"}, "HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno", want{403, message.Sized, "no", true}},
		{"upgrade", message.Request{Upgrade: "websocket"}, "HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", want{101, message.NoBody, "", false}},
	} {
		for _, step := range steps {
			r, body, conn, err := exchange(t, c.req, c.raw, step)
			if err != nil {
				t.Errorf("%s, in steps of %d: %v", c.name, step, err)
				continue
			}
			if step != 0 && c.name == "bytes after the end" {
				continue // they are still on their way
			}
			if got := (want{r.Status, r.Body.Kind, body, conn.EndExchange()}); got != c.want {
				t.Errorf("%s, in steps of %d: got %+v, want %+v", c.name, step, got, c.want)
			}
		}
	}
}

func TestInformationalResponsesComeOneByOne(t *testing.T) {
	r, _, c, err := exchange(t, message.Request{}, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 0)
	if err != nil || r.Status != 100 {
		t.Fatalf("%d, %v", r.Status, err)
	}
	if err := c.ReadResponse(r); err != nil || r.Status != 103 || r.Header.Len() != 1 {
		t.Fatalf("%d, %v", r.Status, err)
	}
	if c.EndExchange() {
		t.Fatal("reusable before the final response")
	}
	if err := c.ReadResponse(r); err != nil || r.Status != 200 {
		t.Fatalf("%d, %v", r.Status, err)
	}
	if body, err := readAll(c); body != "ok" || err != nil {
		t.Fatalf("%q, %v", body, err)
	}
	if err := c.ReadResponse(r); err != ErrState {
		t.Fatalf("third response: %v", err)
	}
}

func TestEndlessInformationalResponsesEnd(t *testing.T) {
	r, _, c, err := exchange(t, message.Request{}, strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 200), 0)
	for n := 1; err == nil; n++ {
		if n > maxInformational {
			t.Fatal("still reading")
		}
		err = c.ReadResponse(r)
	}
	if status(err) != 502 {
		t.Fatal(err)
	}
}

func TestResponseStartedTellsWhetherARetryIsSafe(t *testing.T) {
	for raw, want := range map[string]struct {
		started bool
		err     error
	}{"": {false, io.EOF}, "H": {true, io.ErrUnexpectedEOF}, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n": {true, io.ErrUnexpectedEOF}} {
		_, _, c, err := exchange(t, message.Request{}, raw, 0)
		if err != want.err || c.ResponseStarted() != want.started {
			t.Errorf("after %q: %v, started %v", raw, err, c.ResponseStarted())
		}
	}
}
