package conformance

import (
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/weftmesh/weft/test/rig"
)

// duty is what RFC 9110 or 9112 demands of an intermediary, shown by one exchange: what a client sends, what the backend answers, and
// what must and must not stand in the heads that leave the proxy. Lines are those of a head, in lower case but for their values; one
// that ends in a star is the beginning of a line.
type duty struct {
	section, name         string
	sends                 string // "GET /g HTTP/1.1", then fields, with Host if it is not there
	answers               string
	onward, notOnward     []string // what the backend gets
	returned, notReturned []string // what the client gets
}

const plain = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

var duties = []duty{
	{section: "9110 2.5", name: "the version is the proxy's own", sends: "GET /g HTTP/1.2\r\n", answers: "HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
		onward: []string{"GET /g HTTP/1.1"}, returned: []string{"HTTP/1.1 200 OK"}},
	{section: "9110 2.5", name: "the version is not that of a client of 1.0", sends: "GET /g HTTP/1.0\r\n", answers: "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
		onward: []string{"GET /g HTTP/1.1"}, returned: []string{"HTTP/1.1 200 OK"}},
	{section: "9110 5.1", name: "fields that nobody knows are passed on", sends: "GET /g HTTP/1.1\r\nX-New: 1\r\nx_odd!: 2\r\n", answers: "HTTP/1.1 200 OK\r\nX-New: 3\r\nContent-Length: 0\r\n\r\n",
		onward: []string{"x-new: 1", "x_odd!: 2"}, returned: []string{"x-new: 3"}},
	{section: "9110 6.6.1", name: "a response without Date gets one", sends: "GET /g HTTP/1.1\r\n", answers: plain, returned: []string{"date: *"}},
	{section: "9110 6.6.1", name: "a Date that is there stays", sends: "GET /g HTTP/1.1\r\n", answers: "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n",
		returned: []string{"date: Sun, 06 Nov 1994 08:49:37 GMT"}},
	{section: "9110 7.6.1", name: "what Connection lists ends here", sends: "GET /g HTTP/1.1\r\nConnection: X-A , close\r\nX-A: 1\r\nX-B: 2\r\n",
		answers: "HTTP/1.1 200 OK\r\nX-C: 1\r\nConnection: x-c\r\nContent-Length: 0\r\n\r\n",
		onward:  []string{"x-b: 2"}, notOnward: []string{"x-a: *", "connection: *"}, notReturned: []string{"x-c: *", "connection: x-c*"}},
	{section: "9110 7.6.1", name: "what concerns the connection ends here, listed or not", sends: "GET /g HTTP/1.1\r\nKeep-Alive: timeout=1\r\nProxy-Connection: x\r\nTE: gzip\r\nUpgrade: x\r\n",
		answers:   "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nProxy-Connection: x\r\nUpgrade: x\r\nContent-Length: 0\r\n\r\n",
		notOnward: []string{"keep-alive: *", "proxy-connection: *", "te: *", "upgrade: *"}, notReturned: []string{"keep-alive: *", "proxy-connection: *", "upgrade: *"}},
	{section: "9110 7.6.2", name: "hops are counted down", sends: "OPTIONS /g HTTP/1.1\r\nMax-Forwards: 7\r\n", answers: plain, onward: []string{"max-forwards: 6"}},
	{section: "9110 7.6.2", name: "hops of other methods are not", sends: "GET /g HTTP/1.1\r\nMax-Forwards: 7\r\n", answers: plain, onward: []string{"max-forwards: 7"}},
	{section: "9110 7.7", name: "the target is not rewritten", sends: "GET /%7Ea/../b//c/%2e?d=%20&E HTTP/1.1\r\n", answers: plain, onward: []string{"GET /%7Ea/../b//c/%2e?d=%20&E HTTP/1.1"}},
	{section: "9110 7.7", name: "but an empty path is", sends: "GET http://a?q HTTP/1.1\r\n", answers: plain, onward: []string{"GET /?q HTTP/1.1"}},
	{section: "9110 7.7", name: "content that must not be transformed is not", sends: "GET /g HTTP/1.1\r\nAccept-Encoding: gzip\r\nCache-Control: no-transform\r\n",
		answers: "HTTP/1.1 200 OK\r\nCache-Control: no-transform\r\nETag: \"a\"\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello",
		onward:  []string{"accept-encoding: gzip"}, returned: []string{"etag: \"a\"", "content-type: text/plain", "content-length: 5"}, notReturned: []string{"content-encoding: *"}},
	{section: "9110 8.6", name: "204 has no length", sends: "GET /g HTTP/1.1\r\n", answers: "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
		notReturned: []string{"content-length: *", "transfer-encoding: *"}},
	{section: "9110 8.6", name: "304 keeps the length that a 200 would have", sends: "GET /g HTTP/1.1\r\n", answers: "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
		returned: []string{"content-length: 5"}, notReturned: []string{"transfer-encoding: *"}},
	{section: "9110 8.6", name: "HEAD keeps the length that a GET would have", sends: "HEAD /g HTTP/1.1\r\n", answers: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
		returned: []string{"content-length: 5"}, notReturned: []string{"transfer-encoding: *"}},
	{section: "9110 10.1.1", name: "an expectation without content is not passed on", sends: "GET /g HTTP/1.1\r\nExpect: 100-continue\r\n", answers: plain, notOnward: []string{"expect: *"}},
	{section: "9110 10.1.4", name: "TE names trailers alone, and Connection lists it", sends: "GET /g HTTP/1.1\r\nTE: trailers, deflate;q=0.5\r\nConnection: TE\r\n", answers: plain,
		onward: []string{"te: trailers", "connection: TE"}},
	{section: "9110 11.7", name: "credentials for proxies are relayed where nobody here asks for any", sends: "GET /g HTTP/1.1\r\nProxy-Authorization: Basic x\r\n",
		answers: "HTTP/1.1 407 X\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n", onward: []string{"proxy-authorization: Basic x"}, returned: []string{"proxy-authenticate: Basic"}},
	{section: "9110 14.2", name: "ranges are the origin's", sends: "GET /g HTTP/1.1\r\nRange: bytes=0-1\r\nIf-Range: \"a\"\r\n",
		answers: "HTTP/1.1 206 X\r\nContent-Range: bytes 0-1/5\r\nContent-Length: 2\r\n\r\nhe", onward: []string{"range: bytes=0-1", "if-range: \"a\""}, returned: []string{"content-range: bytes 0-1/5"}},
	{section: "9110 15.2", name: "1xx has no length, and none of what Connection lists", sends: "GET /g HTTP/1.1\r\n",
		answers:  "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\nConnection: x-a\r\nX-A: 1\r\nLink: </a>\r\n\r\n" + plain,
		returned: []string{"HTTP/1.1 103 Early Hints", "link: </a>"}, notReturned: []string{"content-length: *", "x-a: *", "transfer-encoding: *"}},
	{section: "9112 3.2.1", name: "the origin form goes onward", sends: "GET http://b:81/x HTTP/1.1\r\n", answers: plain, onward: []string{"GET /x HTTP/1.1", "host: b:81"}, notOnward: []string{"host: a"}},
	{section: "9112 5.1", name: "white space before a colon leaves responses", sends: "GET /g HTTP/1.1\r\n", answers: "HTTP/1.1 200 OK\r\nX-A \t: 1\r\nContent-Length: 0\r\n\r\n", returned: []string{"x-a: 1"}},
	{section: "9112 6.1", name: "no chunks for a client of 1.0", sends: "GET /g HTTP/1.0\r\n", answers: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
		returned: []string{"connection: close"}, notReturned: []string{"transfer-encoding: *"}},
	{section: "9112 6.1", name: "no chunks in 204", sends: "GET /g HTTP/1.1\r\n", answers: "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", notReturned: []string{"transfer-encoding: *"}},
	{section: "9112 9.6", name: "close is answered with close", sends: "GET /g HTTP/1.1\r\nConnection: close\r\n", answers: plain, returned: []string{"connection: close"}, notOnward: []string{"connection: *"}},
	{section: "9112 9.6", name: "close of a backend is its own", sends: "GET /g HTTP/1.1\r\n", answers: "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", notReturned: []string{"connection: *"}},
}

// TestDuties holds each in each direction, but for a pair, whose proxies speak HTTP/2 to each other.
func TestDuties(t *testing.T) {
	for _, w := range ways(t, echo)[:3] {
		for _, d := range duties {
			t.Run(w.name+" "+d.section+" "+d.name, func(t *testing.T) {
				w.backend.Answer(func(c net.Conn, r *rig.Received) bool {
					_, err := io.WriteString(c, d.answers)
					return err == nil && !strings.Contains(d.answers, "close")
				})
				c := dial(t, w.address)
				c.send(d.sends + "Host: a\r\n\r\n")
				head, err := readHead(c.r)
				if err != nil {
					t.Fatal(err)
				}
				r := w.backend.Received()
				if len(r) != 1 {
					t.Fatalf("%d requests", len(r))
				}
				sent, _, _ := strings.Cut(string(r[0].Raw), "\r\n\r\n")
				holds(t, "the backend", sent, d.onward, d.notOnward)
				holds(t, "the client", head, d.returned, d.notReturned)
			})
		}
	}
}

// holds looks for lines in a head.
func holds(t *testing.T, who, head string, must, not []string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(head), "\r\n")
	for i, l := range lines[1:] {
		name, value, _ := strings.Cut(l, ":")
		lines[i+1] = strings.ToLower(name) + ":" + value
	}
	has := func(want string) bool {
		start, open := strings.CutSuffix(want, "*")
		return slices.ContainsFunc(lines, func(l string) bool { return l == want || open && strings.HasPrefix(l, start) })
	}
	for _, want := range must {
		if !has(want) {
			t.Errorf("%s does not get %q: %q", who, want, lines)
		}
	}
	for _, bad := range not {
		if has(bad) {
			t.Errorf("%s gets %q: %q", who, bad, lines)
		}
	}
}
