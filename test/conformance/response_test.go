package conformance

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/weftmesh/weft/test/rig"
)

// reply is what a backend sends to one request, and what has to reach the client.
type reply struct {
	name   string
	method string // GET if empty
	sends  string // then the backend closes the connection if it ends in eof
	// gets is the final status and the body that the client reads: "200 hello". A body that breaks off ends in "...": its length is
	// not compared, and the client must not take it for whole.
	gets string
	// kept says that the proxy uses the connection to the backend again.
	kept bool
	http string // version of the request; "1.1" if empty
}

const eof = "<eof>"

// TestResponses sends each to a client in each direction, and then asks for something else, which has to be answered by itself
// whatever the first response was.
func TestResponses(t *testing.T) {
	for _, w := range ways(t, echo) {
		t.Run(w.name, func(t *testing.T) {
			for _, c := range responses {
				t.Run(c.name, func(t *testing.T) { w.respond(t, c) })
			}
		})
	}
}

func (w *way) respond(t *testing.T, c reply) {
	t.Helper()
	w.backend.Answer(func(conn net.Conn, r *rig.Received) bool {
		if r.URL.Path != "/r" {
			return echo(conn, r)
		}
		io.WriteString(conn, strings.TrimSuffix(c.sends, eof))
		return !strings.HasSuffix(c.sends, eof)
	})
	method, version := c.method, c.http
	if method == "" {
		method = "GET"
	}
	if version == "" {
		version = "1.1"
	}
	cl := dial(t, w.address)
	cl.send(method + " /r HTTP/" + version + "\r\nHost: a\r\n\r\n")
	a, err := cl.read(method)
	for err == nil && a.StatusCode < 200 && a.StatusCode != 101 {
		a, err = cl.read(method)
	}
	switch want, breaks := strings.CutSuffix(c.gets, "..."); {
	case err != nil:
		t.Fatalf("no response: %v", err)
	case breaks:
		if !strings.HasPrefix(fmt.Sprint(a.StatusCode, " ", a.body), want) || a.err == nil {
			t.Errorf("got %d %q, %v; want %q and an error", a.StatusCode, a.body, a.err, want)
		}
	case a.StatusCode >= 500 && want == fmt.Sprint(a.StatusCode):
	default:
		if got := strings.TrimSpace(fmt.Sprint(a.StatusCode, " ", a.body)); got != want || a.err != nil {
			t.Errorf("got %q, %v; want %q", got, a.err, want)
		}
	}
	w.after(t, c)
}

// after asks for something else a few times, and finds out whether the connection was kept.
func (w *way) after(t *testing.T, c reply) {
	t.Helper()
	r := w.backend.Take()
	if len(r) == 0 {
		t.Fatal("nothing reached the backend")
	}
	for i := range 3 {
		cl := dial(t, w.address)
		cl.send(fmt.Sprintf("GET /after%d HTTP/1.1\r\nHost: a\r\n\r\n", i))
		if a, err := cl.read("GET"); err != nil || a.StatusCode != 200 || !strings.HasPrefix(a.body, fmt.Sprintf("GET /after%d ", i)) {
			t.Fatalf("the next request got %v %q, %v", a.Response, a.body, err)
		}
		cl.conn.Close()
	}
	if c.kept {
		if !w.backend.Alive(r[0].Conn) {
			t.Error("the connection was not kept")
		}
		return
	}
	rig.Eventually(t, "the connection is closed", func() bool { return !w.backend.Alive(r[0].Conn) })
}

const ok = "HTTP/1.1 200 OK\r\n"

var responses = []reply{
	// Framing: RFC 9112 section 6.3.
	{name: "length", sends: ok + "Content-Length: 5\r\n\r\nhello", gets: "200 hello", kept: true},
	{name: "length zero", sends: ok + "Content-Length: 0\r\n\r\n", gets: "200", kept: true},
	{name: "length to 1.0", sends: ok + "Content-Length: 5\r\n\r\nhello", gets: "200 hello", kept: true, http: "1.0"},
	{name: "chunks", sends: ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", gets: "200 hello", kept: true},
	{name: "chunks with extension and trailer", sends: ok + "Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: v\r\n\r\n", gets: "200 hello", kept: true},
	{name: "chunks to 1.0", sends: ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", gets: "200 hello", kept: true, http: "1.0"},
	{name: "until close", sends: ok + "\r\nhello" + eof, gets: "200 hello"},
	{name: "until close to 1.0", sends: ok + "\r\nhello" + eof, gets: "200 hello", http: "1.0"},
	{name: "until close, nothing", sends: ok + "\r\n" + eof, gets: "200"},
	{name: "1.0 until close", sends: "HTTP/1.0 200 OK\r\n\r\nhello" + eof, gets: "200 hello"},
	{name: "1.0 with length", sends: "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello" + eof, gets: "200 hello"},
	{name: "1.0 kept alive", sends: "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", gets: "200 hello", kept: true},
	{name: "connection close", sends: ok + "Connection: close\r\nContent-Length: 5\r\n\r\nhello" + eof, gets: "200 hello"},
	{name: "length and chunks", sends: ok + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", gets: "502"},
	{name: "chunks and length", sends: ok + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n", gets: "502"},
	{name: "two lengths that differ", sends: ok + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", gets: "502"},
	{name: "two lengths alike", sends: ok + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", gets: "502"},
	{name: "list of lengths", sends: ok + "Content-Length: 5, 5\r\n\r\nhello", gets: "502"},
	{name: "length with sign", sends: ok + "Content-Length: +5\r\n\r\nhello", gets: "502"},
	{name: "length negative", sends: ok + "Content-Length: -5\r\n\r\nhello", gets: "502"},
	{name: "length in letters", sends: ok + "Content-Length: x\r\n\r\nhello", gets: "502"},
	{name: "length too large", sends: ok + "Content-Length: 99999999999999999999\r\n\r\nhello", gets: "502"},
	{name: "length empty", sends: ok + "Content-Length:\r\n\r\nhello", gets: "502"},
	{name: "coding unknown", sends: ok + "Transfer-Encoding: gzip\r\n\r\nhello" + eof, gets: "502"},
	{name: "coding identity", sends: ok + "Transfer-Encoding: identity\r\n\r\nhello" + eof, gets: "502"},
	{name: "coding twice", sends: ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", gets: "502"},
	{name: "coding in 1.0", sends: "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", gets: "502"},
	{name: "chunk size wrong", sends: ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n" + eof, gets: "200 hello..."},
	{name: "chunk size wrong at once", sends: ok + "Transfer-Encoding: chunked\r\n\r\nx\r\n" + eof, gets: "200 ..."},
	{name: "chunk data too long", sends: ok + "Transfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n", gets: "200 ..."},
	// A body that breaks off must not seem whole.
	{name: "length not reached", sends: ok + "Content-Length: 9\r\n\r\nhello" + eof, gets: "200 hello..."},
	{name: "chunk not reached", sends: ok + "Transfer-Encoding: chunked\r\n\r\n9\r\nhello" + eof, gets: "200 hello..."},
	{name: "last chunk not reached", sends: ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n" + eof, gets: "200 hello..."},
	{name: "end of chunks not reached", sends: ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n" + eof, gets: "200 hello..."},
	// More than the response: it must answer nobody's request.
	{name: "bytes behind the length", sends: ok + "Content-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", gets: "200 hello"},
	{name: "bytes behind the chunks", sends: ok + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", gets: "200"},
	{name: "bytes behind HEAD", method: "HEAD", sends: ok + "Content-Length: 5\r\n\r\nhello", gets: "200"},
	{name: "bytes behind 204", sends: "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", gets: "204"},
	{name: "content in 204", sends: "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", gets: "204"},
	{name: "chunks in 204", sends: "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", gets: "204"},
	{name: "content in 304", sends: "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello", gets: "304"},
	{name: "one byte behind", sends: ok + "Content-Length: 5\r\n\r\nhello\n", gets: "200 hello"},
	// Responses without a body: RFC 9110 sections 9.3.2, 15.3.5, 15.3.6, 15.4.5.
	{name: "HEAD with length", method: "HEAD", sends: ok + "Content-Length: 5\r\n\r\n", gets: "200", kept: true},
	{name: "HEAD with chunks", method: "HEAD", sends: ok + "Transfer-Encoding: chunked\r\n\r\n", gets: "200", kept: true},
	{name: "HEAD without either", method: "HEAD", sends: ok + "\r\n", gets: "200", kept: true},
	{name: "204", sends: "HTTP/1.1 204 No Content\r\n\r\n", gets: "204", kept: true},
	{name: "204 with length zero", sends: "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", gets: "204", kept: true},
	{name: "205", sends: "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", gets: "205", kept: true},
	{name: "304", sends: "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", gets: "304", kept: true},
	{name: "304 with length", sends: "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", gets: "304", kept: true},
	// Status lines: RFC 9112 section 4.
	{name: "no reason", sends: "HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nhello", gets: "200 hello", kept: true},
	{name: "no reason, no space", sends: "HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", gets: "200 hello", kept: true},
	{name: "reason with high bytes", sends: "HTTP/1.1 200 \xe9t\xe9\r\nContent-Length: 5\r\n\r\nhello", gets: "200 hello", kept: true},
	{name: "status that nobody knows", sends: "HTTP/1.1 299 X\r\nContent-Length: 5\r\n\r\nhello", gets: "299 hello", kept: true},
	{name: "status 999", sends: "HTTP/1.1 999 X\r\nContent-Length: 5\r\n\r\nhello", gets: "999 hello", kept: true},
	{name: "version 1.2", sends: "HTTP/1.2 200 OK\r\nContent-Length: 5\r\n\r\nhello", gets: "200 hello", kept: true},
	{name: "status of two digits", sends: "HTTP/1.1 20 OK\r\n\r\n", gets: "502"},
	{name: "status of four digits", sends: "HTTP/1.1 2000 OK\r\n\r\n", gets: "502"},
	{name: "status 0xx", sends: "HTTP/1.1 099 OK\r\n\r\n", gets: "502"},
	{name: "status in letters", sends: "HTTP/1.1 abc OK\r\n\r\n", gets: "502"},
	{name: "status with sign", sends: "HTTP/1.1 +20 OK\r\n\r\n", gets: "502"},
	{name: "two spaces", sends: "HTTP/1.1  200 OK\r\n\r\n", gets: "502"},
	{name: "tab", sends: "HTTP/1.1\t200 OK\r\n\r\n", gets: "502"},
	{name: "version 2", sends: "HTTP/2.0 200 OK\r\n\r\n", gets: "502"},
	{name: "version in lower case", sends: "http/1.1 200 OK\r\n\r\n", gets: "502"},
	{name: "another protocol", sends: "ICY 200 OK\r\n\r\n", gets: "502"},
	{name: "no status line", sends: "hello\r\n\r\n", gets: "502"},
	{name: "HTTP/0.9", sends: "<html>hello</html>" + eof, gets: "503"},
	{name: "reason with bare CR", sends: "HTTP/1.1 200 O\rK\r\nContent-Length: 5\r\n\r\nhello", gets: "502"},
	{name: "reason with NUL", sends: "HTTP/1.1 200 O\x00K\r\nContent-Length: 5\r\n\r\nhello", gets: "502"},
	{name: "LF alone", sends: "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", gets: "502"},
	{name: "a request", sends: "GET / HTTP/1.1\r\nHost: a\r\n\r\n", gets: "502"},
	{name: "bytes of TLS", sends: "\x15\x03\x01\x00\x02\x02\x28" + eof, gets: "503"},
	{name: "settings of HTTP/2", sends: "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + eof, gets: "503"},
	// Fields.
	{name: "field with NUL", sends: ok + "X: a\x00b\r\nContent-Length: 5\r\n\r\nhello", gets: "502"},
	{name: "field with bare CR", sends: ok + "X: a\rSet-Cookie: x=y\r\nContent-Length: 5\r\n\r\nhello", gets: "502"},
	{name: "field with bare LF", sends: ok + "X: a\nSet-Cookie: x=y\r\nContent-Length: 5\r\n\r\nhello", gets: "502"},
	{name: "field folded", sends: ok + "X: a\r\n b\r\nContent-Length: 5\r\n\r\nhello", gets: "502"},
	{name: "field without colon", sends: ok + "X\r\nContent-Length: 5\r\n\r\nhello", gets: "502"},
	{name: "field without name", sends: ok + ": v\r\nContent-Length: 5\r\n\r\nhello", gets: "502"},
	{name: "space before the first field", sends: ok + " X: v\r\nContent-Length: 5\r\n\r\nhello", gets: "502"},
	{name: "space before the colon", sends: ok + "X : v\r\nContent-Length \t: 5\r\n\r\nhello", gets: "200 hello", kept: true}, // RFC 9112 section 5.1
	{name: "space before the colon of a second length", sends: ok + "Content-Length : 3\r\nContent-Length: 5\r\n\r\nhello", gets: "502"},
	{name: "space before the colon of a coding", sends: ok + "Content-Length: 3\r\nTransfer-Encoding : chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", gets: "502"},
	{name: "head too large", sends: ok + "X: " + strings.Repeat("x", 70<<10) + "\r\n\r\n", gets: "502"},
	{name: "too many fields", sends: ok + strings.Repeat("X: x\r\n", 101) + "\r\n", gets: "502"},
	// Nothing, or not enough.
	{name: "nothing", sends: eof, gets: "503"},
	{name: "half a status line", sends: "HTTP/1.1 2" + eof, gets: "503"},
	{name: "half a head", sends: ok + "Content-Le" + eof, gets: "503"},
	// Informational responses: RFC 9110 section 15.2.
	{name: "100", sends: "HTTP/1.1 100 Continue\r\n\r\n" + ok + "Content-Length: 5\r\n\r\nhello", gets: "200 hello", kept: true},
	{name: "103", sends: "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + ok + "Content-Length: 5\r\n\r\nhello", gets: "200 hello", kept: true},
	{name: "103 to 1.0", sends: "HTTP/1.1 103 Early Hints\r\n\r\n" + ok + "Content-Length: 5\r\n\r\nhello", gets: "200 hello", kept: true, http: "1.0"},
	{name: "fifty of 102", sends: strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 50) + ok + "Content-Length: 5\r\n\r\nhello", gets: "200 hello", kept: true},
	{name: "103 with a length", sends: "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n" + ok + "Content-Length: 5\r\n\r\nhello", gets: "200 hello", kept: true},
	{name: "flood of 102", sends: strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 1000), gets: "502"},
	{name: "100 and nothing", sends: "HTTP/1.1 100 Continue\r\n\r\n" + eof, gets: "503"},
	{name: "101 that nobody asked for", sends: "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\npoison", gets: "502"},
}

// TestInformational: what comes before the final response reaches the client, but for what the proxy answers itself.
func TestInformational(t *testing.T) {
	send := func(c net.Conn, r *rig.Received) bool {
		_, err := io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\nX: y\r\n\r\n"+
			"HTTP/1.1 102 Processing\r\n\r\n"+ok+"Content-Length: 5\r\n\r\nhello")
		return err == nil
	}
	for _, w := range ways(t, send) {
		t.Run(w.name, func(t *testing.T) {
			c := dial(t, w.address)
			c.send("GET /g HTTP/1.1\r\nHost: a\r\n\r\n")
			for _, want := range []string{"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", "HTTP/1.1 102 Processing\r\n\r\n", ok} {
				if head, err := readHead(c.r); err != nil || !strings.HasPrefix(head, want) {
					t.Fatalf("got %q, %v; want %q", head, err, want)
				}
			}
		})
	}
}

// TestForeignUpgrade: a backend may switch only to what the client has offered (RFC 9110 section 7.8).
func TestForeignUpgrade(t *testing.T) {
	for _, w := range ways(t, echo) {
		for _, c := range []struct{ name, sends string }{
			{"another protocol", "Connection: Upgrade\r\nUpgrade: other\r\n"},
			{"h2c", "Connection: Upgrade\r\nUpgrade: h2c\r\n"},
			{"none", ""},
			{"one that Connection does not list", "Upgrade: websocket\r\n"},
		} {
			t.Run(w.name+" "+c.name, func(t *testing.T) {
				w.backend.Answer(func(conn net.Conn, r *rig.Received) bool {
					io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n"+c.sends+"\r\n")
					return false
				})
				cl := dial(t, w.address)
				cl.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
				if a, err := cl.read("GET"); err != nil || a.StatusCode != http.StatusBadGateway {
					t.Fatalf("%v, %v", a.Response, err)
				}
			})
		}
	}
}

// TestResponseBytes: a response is passed on as it came, but for what concerns the connection.
func TestResponseBytes(t *testing.T) {
	const sent = "HTTP/1.1 203 Just  So\r\nsET-cookie: a=1\r\nSet-Cookie: b=2\r\nX-Empty:\r\nKeep-Alive: timeout=5\r\ncontent-LENGTH: 02\r\nX-Listed: 1\r\n" +
		"Connection: x-listed\r\nProxy-Connection: keep-alive\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: s\r\nX-Obs: \xff\r\n\r\nhi"
	const want = "HTTP/1.1 203 Just  So\r\nsET-cookie: a=1\r\nSet-Cookie: b=2\r\nX-Empty: \r\ncontent-LENGTH: 2\r\n" +
		"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: s\r\nX-Obs: \xff\r\n"
	for _, w := range ways(t, func(c net.Conn, _ *rig.Received) bool { _, err := io.WriteString(c, sent); return err == nil }) {
		t.Run(w.name, func(t *testing.T) {
			c := dial(t, w.address)
			c.send("GET /g HTTP/1.1\r\nHost: a\r\n\r\n")
			head, err := readHead(c.r)
			if err != nil || !strings.HasPrefix(head, want) {
				t.Fatalf("got\n%q, %v; want\n%q", head, err, want)
			}
			for _, line := range strings.Split(strings.TrimSuffix(strings.TrimPrefix(head, want), "\r\n\r\n"), "\r\n") {
				if !strings.HasPrefix(line, "X-Envoy-") {
					t.Errorf("added %q", line)
				}
			}
		})
	}
}
