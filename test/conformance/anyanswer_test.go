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
	"sync/atomic"
	"testing"
	"time"

	"github.com/weftmesh/weft/test/rig"
)

var statuses = []string{
	"HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "HTTP/1.1 404 Not Found", "HTTP/1.0 200 OK", "HTTP/1.1 204 No Content", "HTTP/1.1 304 Not Modified", "HTTP/1.1 100 Continue", "HTTP/1.1 103 Early Hints", "HTTP/1.1 101 Switching Protocols", "HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.1  200 OK", "HTTP/1.1 2000 OK", "HTTP/1.1 20 OK", "HTTP/1.1 099 x", "HTTP/1.1 600 x", "HTTP/1.1 999 x", "HTTP/2.0 200 OK", "HTTP/1.1 200 O\x00K", "HTTP/1.1 200 OK\r", "http/1.1 200 OK", "HTTP/1.1 200 \xff", "ICY 200 OK", " HTTP/1.1 200 OK", "HTTP/1.1\t200 OK", "HTTP/1.1 200\tOK", "HTTP/1.1 +200 OK", "HTTP/1.1 200.1 OK", "HTTP/1.1 205 Reset Content", "HTTP/1.1 199 x", "HTTP/1.1 000 x",
}

const smuggledAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled"

// answer makes a response that is nearly right.
func (w writer) answer() string {
	var b strings.Builder
	b.WriteString(w.of(statuses[:6]...) + "\r\n")
	if w.IntN(3) == 0 {
		b.Reset()
		b.WriteString(w.of(statuses...) + w.of("\r\n", "\r\n", "\n"))
	}
	body := ""
	for range w.IntN(3) {
		switch f := w.of(framings...); {
		case strings.Contains(f, "%d"):
			body = strings.ReplaceAll(w.body(), smuggled, smuggledAnswer)
			fmt.Fprintf(&b, f+"\r\n", len(body))
		case w.IntN(3) == 0:
			b.WriteString(w.of("X: y", "Set-Cookie: a=b\r\nSet-Cookie: c=d", "X:", " X: y", "X : y", "X: y\r\n z", "X: \x00", "Connection: close", "Connection: keep-alive", "Connection: X\r\nX: y", "Trailer: X", "Location: //b\r\nX: y", "X: a\rb", "X: a\nb", "Upgrade: x\r\nConnection: Upgrade", ":status: 200", "Keep-Alive: timeout=0") + "\r\n")
		default:
			b.WriteString(f + w.of("\r\n", "\r\n", "\r\n", "\n", "\r"))
		}
	}
	b.WriteString(w.of("\r\n", "\r\n", "\r\n", "\r\n", "\n"))
	if body == "" && w.IntN(2) == 0 {
		body = strings.ReplaceAll(w.body(), smuggled, smuggledAnswer)
	}
	s := b.String() + body + w.of("", "", smuggledAnswer)
	if w.IntN(6) == 0 {
		i := w.IntN(len(s))
		s = s[:i] + w.of("", "\r", "\n", "\x00", " ", "\x7f", "\r\n") + s[i+w.IntN(2):]
	}
	return s
}

var canonicalAnswer = regexp.MustCompile("^HTTP/1\\.1 [1-9][0-9]{2} [\\t -~\\x{80}-\\x{ff}]*\r\n" +
	"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: (?:[!-~\\x{80}-\\x{ff}](?:[\t -~\\x{80}-\\x{ff}]*[!-~\\x{80}-\\x{ff}])?)?\r\n)*\r\n$")

// TestAnyAnswer lets backends answer what is nearly right: what a client gets can be read in one way only, and is never the answer to a
// request of another.
func TestAnyAnswer(t *testing.T) {
	rounds := 60
	if s := os.Getenv("ANYTHING"); s != "" {
		rounds, _ = strconv.Atoi(s)
	}
	var next atomic.Pointer[string]
	backend := func(c net.Conn, r *rig.Received) bool {
		if r.URL.Path == "/probe" {
			_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nprobe")
			return err == nil
		}
		io.WriteString(c, *next.Load())
		return r.URL.Path == "/stay"
	}
	for i, w := range ways(t, backend) {
		t.Run(w.name, func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			gen := writer{rand.New(rand.NewPCG(seed, uint64(i)))}
			for range rounds {
				s := gen.answer()
				next.Store(&s)
				w.anyAnswer(t, gen.of("GET /stay", "GET /stay", "GET /go", "HEAD /stay", "POST /stay"), s, seed)
			}
		})
	}
}

func (w *way) anyAnswer(t *testing.T, ask, sent string, seed uint64) {
	t.Helper()
	c, err := net.Dial("tcp", w.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, ask+" HTTP/1.1\r\nHost: a\r\n"+map[bool]string{true: "Content-Length: 1\r\n\r\nx", false: "\r\n"}[ask[0] == 'P'])
	kept := &bytes.Buffer{}
	in := bufio.NewReader(io.TeeReader(c, kept))
	method, _, _ := strings.Cut(ask, " ")
	c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	for {
		res, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			if strings.Contains(err.Error(), "malformed") {
				t.Errorf("seed %d: %s: %q became %q: %v", seed, ask, sent, kept.Bytes(), err)
			}
			return
		}
		if head, _, _ := bytes.Cut(kept.Bytes(), []byte("\r\n\r\n")); !canonicalAnswer.MatchString(latin(append(bytes.Clone(head), "\r\n\r\n"...))) {
			t.Errorf("seed %d: %s: %q became %q, which is not canonical", seed, ask, sent, kept.Bytes())
		}
		if len(res.Header["Content-Length"]) > 1 || len(res.TransferEncoding) > 0 && res.Header.Get("Content-Length") != "" {
			t.Errorf("seed %d: %s: %q became %q, with two lengths", seed, ask, sent, kept.Bytes())
		}
		_, err = io.ReadAll(res.Body)
		if err != nil || res.StatusCode == 101 {
			return // broken off, and known to be
		}
		if res.StatusCode >= 200 {
			break
		}
		rest := bytes.Clone(kept.Bytes()[kept.Len()-in.Buffered():])
		kept.Reset()
		kept.Write(rest)
	}
	if n := in.Buffered(); n > 0 {
		t.Errorf("seed %d: %s: %q became %q, with %d bytes too many", seed, ask, sent, kept.Bytes(), n)
	}
	io.WriteString(c, "GET /probe HTTP/1.1\r\nHost: a\r\n\r\n")
	c.SetReadDeadline(time.Now().Add(patience))
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		if !strings.Contains(err.Error(), "EOF") && !strings.Contains(err.Error(), "reset") {
			t.Errorf("seed %d: %s: %q: the next request: %v", seed, ask, sent, err)
		}
		return
	}
	if b, _ := io.ReadAll(res.Body); string(b) != "probe" {
		t.Errorf("seed %d: %s: %q: the next request got %q", seed, ask, sent, b)
	}
}
