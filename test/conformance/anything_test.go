package conformance

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weftmesh/weft/test/rig"
)

// writer makes requests that are nearly right, of parts that parsers have been known to disagree on.
type writer struct{ *rand.Rand }

func (w writer) of(list ...string) string { return list[w.IntN(len(list))] }

// framings are ways to say how long a body is, right and wrong ones.
var framings = []string{
	"Content-Length: %d", "Content-Length: 0", "Content-Length: 5", "Content-Length: +5", "Content-Length: -5", "Content-Length: 05", "Content-Length: 5 ", "Content-Length:5",
	"Content-Length: 5,5", "Content-Length: 5, 6", "Content-Length: 0x5", "Content-Length: 5\r\nContent-Length: 5", "Content-Length: 5\r\nContent-Length: 6",
	"Content-Length : 5", "Content-Length\t: 5", " Content-Length: 5", "Content_Length: 5", "content-length: 5", "Content-Length: \v5", "Content-Length: 5\x00", "Content-Length:\r\n 5",
	"Content-Length: 99999999999999999999", "Content-Length: 18446744073709551621", "Content-Length:", "X: y\r\n Content-Length: 5", "X: y\rContent-Length: 5", "X: y\nContent-Length: 5",
	"Transfer-Encoding: chunked", "transfer-encoding: CHUNKED", "Transfer-Encoding:chunked", "Transfer-Encoding: chunked ", "Transfer-Encoding:\tchunked", "Transfer-Encoding : chunked", "Transfer-Encoding\t: chunked",
	" Transfer-Encoding: chunked", "Transfer-Encoding: xchunked", "Transfer-Encoding: chunkedx", "Transfer-Encoding: x", "Transfer-Encoding: identity", "Transfer-Encoding: identity, chunked", "Transfer-Encoding: chunked, identity",
	"Transfer-Encoding: chunked, chunked", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: chunked\r\nTransfer-Encoding: x", "Transfer-Encoding: x\r\nTransfer-Encoding: chunked", "Transfer-Encoding: \"chunked\"", "Transfer-Encoding: 'chunked'",
	"Transfer-Encoding: chunked;q=1", "Transfer-Encoding: ,chunked", "Transfer-Encoding: chunked,", "Transfer-Encoding:\vchunked", "Transfer-Encoding: \x00chunked", "Transfer-Encoding: chunk\r\n ed", "Transfer-Encoding:\r\n chunked", "Transfer_Encoding: chunked", "X: y\rTransfer-Encoding: chunked", "X: y\nTransfer-Encoding: chunked", "Transfer-Encoding\x00: chunked", "Transfer-Encoding: chunked\r", "Transfer-Encoding: \xc3\xa7hunked", "\xefTransfer-Encoding: chunked", "TransferEncoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 5", "Content-Length: 5\r\nTransfer-Encoding: chunked", "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked", "Connection: Content-Length\r\nContent-Length: 5",
}

var others = []string{
	"X: y", "X:", "Cookie: a=b", "Expect: 100-continue", "Expect: x", "Connection: close", "Connection: keep-alive", "Connection: X, Host", "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__", "Connection: Upgrade\r\nUpgrade: websocket",
	"Connection: Upgrade\r\nUpgrade: x", "Host: b", "Host: a", "host: a", " X: y", "X : y", "X: y\r\n z", "X\x00: y", "X: \x00", "X: a\rb", "X: a\nb", ":path: /x", "X: \x7f", "X: \xff", "TE: trailers", "TE: chunked", "Trailer: X", "Keep-Alive: timeout=5", "Proxy-Connection: close", "X-Http-Method-Override: DELETE", "Max-Forwards: 0", "Content-Type: application/grpc", "X-Forwarded-Proto: gopher", "Content-Encoding: gzip", "X_Y: z", "Upgrade: websocket", "HTTP2-Settings: x",
}

var lines = []string{
	"GET /g HTTP/1.1", "POST /p HTTP/1.1", "PUT /p HTTP/1.1", "OPTIONS * HTTP/1.1", "GET http://a/g HTTP/1.1", "GET /g HTTP/1.0", "POST /p HTTP/1.0", "TRACE /t HTTP/1.1", "DELETE /d HTTP/1.1", "PRI * HTTP/2.0", "CONNECT a:80 HTTP/1.1", "GET  /g HTTP/1.1", "GET /g", "GET /g HTTP/1.1 ", "GET /a b HTTP/1.1", "GET /\x00 HTTP/1.1", "GET\t/g\tHTTP/1.1", "GET /g HTTP/1.1\r", "GET //a/g HTTP/1.1", "GET /g#x HTTP/1.1", "GET http://b/g HTTP/1.1", "GET /g HTTP/1.2", "GET ?x HTTP/1.1", "POST /p?a=%0d%0aX:%20y HTTP/1.1",
}

// body makes one: plain, chunked, or chunked in a way that is not allowed, perhaps with a request within.
func (w writer) body() string {
	inner := w.of("hello", "", "0\r\n\r\n", smuggled, "0\r\n\r\n"+smuggled, "5\r\nhello\r\n0\r\n\r\n")
	size := strconv.FormatInt(int64(len(inner)), 16)
	size = w.of(size, size, size, size, "0"+size, "00000000000000000"+size, "+"+size, "-"+size, "0x"+size, size+" ", " "+size, size+"\t", size+";x", size+";x=\"y\"", size+";x=\"\r\n\"", size+";\nx", size+"\x00", size+";"+strings.Repeat("x", 300), "FFFFFFFFFFFFFFFF"+size, "", size+"\r", "g")
	end := w.of("0\r\n\r\n", "0\r\n\r\n", "0\r\n\r\n", "0\r\nX: y\r\n\r\n", "0\r\nContent-Length: 5\r\n\r\n", "0\r\n X: y\r\n\r\n", "0\r\nX: y\n\r\n", "0\n\n", "0\r\n", "0\r\n\r", "00\r\n\r\n", "0;x\r\n\r\n", "0\r\nHost: b\r\n\r\n", "0\r\nTransfer-Encoding: chunked\r\n\r\n", "-0\r\n\r\n", "")
	eol := w.of("\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "", "\r\n\r\n", "XX", "\n\r")
	switch w.IntN(4) {
	case 0:
		return inner
	case 1:
		return size + "\r\n" + inner + eol + end
	}
	return size + eol + inner + "\r\n" + end
}

func (w writer) request() string {
	var b strings.Builder
	b.WriteString(w.of(lines[:5]...) + "\r\n")
	if w.IntN(4) == 0 {
		b.Reset()
		b.WriteString(w.of(lines...) + w.of("\r\n", "\r\n", "\n"))
	}
	if w.IntN(12) > 0 {
		b.WriteString("Host: a\r\n")
	}
	body := ""
	for range w.IntN(3) {
		switch f := w.of(framings...); {
		case strings.Contains(f, "%d"):
			body = w.body()
			fmt.Fprintf(&b, f+"\r\n", len(body))
		case w.IntN(3) == 0:
			b.WriteString(w.of(others...) + "\r\n")
		default:
			b.WriteString(f + w.of("\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\r\n"))
		}
	}
	if w.IntN(3) == 0 {
		b.WriteString(w.of(others...) + "\r\n")
	}
	b.WriteString(w.of("\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r\n\r\n"))
	if body == "" && w.IntN(2) == 0 {
		body = w.body()
	}
	s := b.String() + body
	for w.IntN(6) == 0 && s != "" { // and a slip of the pen
		i := w.IntN(len(s))
		switch w.IntN(3) {
		case 0:
			s = s[:i] + s[i+1:]
		case 1:
			s = s[:i] + w.of("\r", "\n", "\x00", " ", "\t", ":", "\x7f", "\xff", "\r\n", ";", "0", "\v") + s[i:]
		default:
			j := min(len(s), i+w.IntN(40))
			s = s[:j] + s[i:j] + s[j:]
		}
	}
	return s
}

// canonical is what a head has to look like for a backend: nothing in it can be read in two ways.
var canonical = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+ [!-\"$-~]+ HTTP/1\\.1\r\n" +
	"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: (?:[!-~\\x{80}-\\x{ff}](?:[\t -~\\x{80}-\\x{ff}]*[!-~\\x{80}-\\x{ff}])?)?\r\n)+\r\n$")

// chunked is such a body, with trailers.
var chunkSize = regexp.MustCompile("^[0-9a-fA-F]{1,16}$")

// judge says what is wrong with the bytes of a request that reached a backend whole.
func judge(raw []byte) string {
	head, body, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
	head = append(bytes.Clone(head), "\r\n\r\n"...)
	if !canonical.MatchString(latin(head)) {
		return "the head is not canonical"
	}
	count := map[string]int{}
	length, chunked := 0, false
	for _, l := range strings.Split(string(head), "\r\n")[1:] {
		n, v, _ := strings.Cut(l, ": ")
		n = strings.ToLower(n)
		count[n]++
		switch n {
		case "content-length":
			length, _ = strconv.Atoi(v)
			if strconv.Itoa(length) != v {
				return "Content-Length: " + v
			}
		case "transfer-encoding":
			if chunked = v == "chunked"; !chunked {
				return "Transfer-Encoding: " + v
			}
		case "keep-alive", "proxy-connection", "http2-settings":
			return "hop-by-hop field " + n
		case "upgrade":
			if v == "h2c" {
				return "h2c"
			}
		}
	}
	switch {
	case count["host"] != 1 || count["content-length"] > 1 || count["transfer-encoding"] > 1 || count["content-length"]+count["transfer-encoding"] > 1:
		return fmt.Sprint("fields: ", count)
	case !chunked && len(body) != length:
		return fmt.Sprintf("%d bytes of body, %d announced", len(body), length)
	case chunked:
		return judgeChunks(string(body))
	}
	return ""
}

// latin makes a character of each byte, which is what expressions know.
func latin(b []byte) string {
	runes := make([]rune, len(b))
	for i, c := range b {
		runes[i] = rune(c)
	}
	return string(runes)
}

func judgeChunks(b string) string {
	for {
		size, rest, ok := strings.Cut(b, "\r\n")
		if !ok || !chunkSize.MatchString(size) {
			return fmt.Sprintf("chunk size %q", size)
		}
		n, _ := strconv.ParseInt(size, 16, 64)
		if n == 0 {
			b = rest
			break
		}
		if int64(len(rest)) < n+2 || rest[n:n+2] != "\r\n" {
			return "chunk end"
		}
		b = rest[n+2:]
	}
	if b == "\r\n" {
		return ""
	}
	if !canonical.MatchString(latin([]byte("GET / HTTP/1.1\r\n" + b))) {
		return fmt.Sprintf("trailers %q", b)
	}
	return ""
}

// TestAnything sends what is nearly right, in every direction. Whatever the proxy makes of it: what reaches a backend can be read in
// one way only, and a client gets no fewer answers than requests were made in its name.
func TestAnything(t *testing.T) {
	rounds := 1000
	if s := os.Getenv("ANYTHING"); s != "" {
		rounds, _ = strconv.Atoi(s)
	}
	for i, w := range ways(t, echo) {
		t.Run(w.name, func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			gen := writer{rand.New(rand.NewPCG(seed, uint64(i)))}
			reached := 0
			for range rounds {
				send := gen.request()
				if gen.IntN(3) == 0 {
					send += gen.request()
				}
				reached += w.anything(t, send, seed)
			}
			if reached < rounds/10 {
				t.Errorf("%d of %d conversations reached the backend: the test shows too little", reached, rounds)
			}
		})
	}
}

func (w *way) anything(t *testing.T, send string, seed uint64) (whole int) {
	t.Helper()
	w.backend.Take()
	c, err := net.Dial("tcp", w.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	last := "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
	io.WriteString(c, send+last)
	answers, broken := 0, false
	in := bufio.NewReader(c)
	for {
		c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := in.Peek(1); os.IsTimeout(err) {
			c.(*net.TCPConn).CloseWrite() // whoever waits for the rest of a request hears that it does not come
		}
		c.SetReadDeadline(time.Now().Add(patience))
		res, err := http.ReadResponse(in, &http.Request{Method: methodOf(w.backend.Received(), answers)})
		if err != nil {
			broken = err != io.EOF && !os.IsTimeout(err) && !strings.Contains(err.Error(), "reset") && !strings.Contains(err.Error(), "EOF")
			if broken {
				t.Errorf("seed %d: %q: answer %d: %v", seed, send, answers, err)
			}
			break
		}
		_, err = io.ReadAll(res.Body)
		if res.StatusCode == 101 || err != nil {
			break
		}
		if res.StatusCode >= 200 {
			answers++
		}
	}
	// The proxy ends the connection when it has done with all of it, so that nothing reaches the backend in the next conversation's time.
	c.(*net.TCPConn).CloseWrite()
	c.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, in); os.IsTimeout(err) {
		t.Errorf("seed %d: %q: the connection is open after %s", seed, send, patience)
	}
	for _, r := range w.backend.Take() {
		if r.Err != nil {
			continue
		}
		whole++
		if bad := judge(r.Raw); bad != "" {
			t.Errorf("seed %d: %q: the backend got %q: %s", seed, send, r.Raw, bad)
		}
	}
	if whole > answers {
		t.Errorf("seed %d: %q: %d requests reached the backend, and %d answers the client", seed, send, whole, answers)
	}
	return whole
}

// methodOf is the method of the request that is answered next: HEAD has no body.
func methodOf(seen []rig.Received, n int) string {
	if n < len(seen) && seen[n].Request != nil {
		return seen[n].Method
	}
	return "GET"
}
