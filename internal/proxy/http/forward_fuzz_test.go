package http1

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/message"
)

// FuzzForwardRequest passes on what it accepts as the proxy does. net/http has to read the very same request from it, and nothing
// behind it: what it read otherwise would be the half of a smuggling attack.
func FuzzForwardRequest(f *testing.F) {
	for _, s := range requestSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		s := NewServerConn(&script{in: bytes.Clone(in)}, "http", nil)
		var r message.Request
		if s.ReadRequest(&r) != nil {
			return
		}
		body, err := readAll(s)
		if err != nil || r.Method == "CONNECT" || r.Authority == "" {
			return
		}
		StripHopByHop(&r.Header)
		out := &script{}
		c := NewClientConn(out, nil)
		if err := c.WriteRequest(&r); err != nil {
			t.Fatalf("%q was accepted and cannot be written: %v", in, err)
		}
		if err := c.WriteBody([]byte(body)); err == nil {
			if err := c.FinishBody(s.Trailers()); err != nil {
				t.Fatalf("%q: the body cannot be ended: %v", in, err)
			}
		} else if r.Body.Kind != message.NoBody || body != "" {
			t.Fatalf("%q: the body cannot be written: %v", in, err)
		}
		br := bufio.NewReader(bytes.NewReader(out.out.Bytes()))
		got, err := http.ReadRequest(br)
		if err != nil {
			// net/http takes no target that is not a URL, and no Host with odd characters: only then may it refuse.
			if strings.Contains(err.Error(), "parse ") || strings.Contains(err.Error(), "Host") || strings.Contains(err.Error(), "method") {
				return
			}
			t.Fatalf("%q was forwarded as %q: %v", in, out.out.Bytes(), err)
		}
		gotBody, err := io.ReadAll(got.Body)
		rest, _ := io.ReadAll(br)
		if err != nil || string(gotBody) != body || len(rest) > 0 || got.Method != r.Method || got.Host != r.Authority || got.RequestURI != r.Path {
			t.Fatalf("%q was forwarded as %q: net/http read %s %s of %s with %q and left %q, %v", in, out.out.Bytes(), got.Method,
				got.RequestURI, got.Host, gotBody, rest, err)
		}
		compareFields(t, &r.Header, got.Header)
		compareFields(t, s.Trailers(), got.Trailer)
	})
}

// compareFields holds the fields that are not the codec's own against what net/http has read, in order.
func compareFields(t *testing.T, ours *message.Header, theirs http.Header) {
	t.Helper()
	byName := map[string][]string{}
	for h := range ours.All() {
		if !framingName(h.Name) && !message.EqualFold(h.Name, "Trailer") {
			name := http.CanonicalHeaderKey(h.Name)
			byName[name] = append(byName[name], strings.TrimSpace(h.Value))
		}
	}
	for name, want := range byName {
		if got := theirs[name]; !slices.Equal(got, want) && len(theirs) > 0 {
			t.Fatalf("%s: net/http read %q, not %q", name, got, want)
		}
	}
}

var requestSeeds = []string{
	"GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nx-a: 2\r\n\r\n",
	"POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: b\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: v\r\nContent-Length: 9\r\n\r\nGET",
	"GET http://b.example:80/x HTTP/1.1\r\nHost: a\r\nConnection: close, x\r\nX: gone\r\n\r\n",
	"OPTIONS * HTTP/1.1\r\nHost: [::1]:8080\r\nExpect: 100-continue\r\n\r\n",
	"PATCH /x HTTP/1.1\r\nConnection: host, content-length, transfer-encoding\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
	"GET / HTTP/1.0\r\nHost: a\r\nX: \t a\xff \r\n\r\n",
	"\r\nGET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade, te\r\nTE: trailers\r\n\r\n",
	"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: a\r\n\r\nA\r\n0123456789\r\n000\r\n\r\n",
	"POST / HTTP/1.1\r\nhost:a\r\ncontent-length:\t03 \r\n\r\nabc",
}

// FuzzForwardResponse does the same for responses: to a client of 1.1 and of 1.0, in answer to GET and to HEAD.
func FuzzForwardResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nSet-Cookie: a\r\nset-cookie: b\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n5\r\nhello\r\n0\r\nT: v\r\nHost: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.0 404 Not Found\r\nX : y\r\n\r\nuntil the end",
		"HTTP/1.1 204\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.1 299  \xff\r\nConnection: content-length, x\r\nX: y\r\nContent-Length: 2\r\n\r\nhi",
	} {
		for _, head := range []bool{false, true} {
			f.Add([]byte(s), head, head)
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, head, old bool) {
		method, version := "GET", "1.1"
		if head {
			method = "HEAD"
		}
		if old {
			version = "1.0"
		}
		c := NewClientConn(&script{in: bytes.Clone(in)}, nil)
		if err := c.WriteRequest(&message.Request{Method: method, Authority: "a", Path: "/"}); err != nil {
			t.Fatal(err)
		}
		var r message.Response
		if c.ReadResponse(&r) != nil || r.Status < 200 {
			return
		}
		body, err := readAll(c)
		if err != nil {
			return
		}
		out := passOn(t, in, &r, method, version, body, c.Trailers())
		br := bufio.NewReader(bytes.NewReader(out))
		got, err := http.ReadResponse(br, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("%q was passed on as %q: %v", in, out, err)
		}
		gotBody, err := io.ReadAll(got.Body)
		rest, _ := io.ReadAll(br)
		if err != nil || string(gotBody) != body || len(rest) > 0 || got.StatusCode != r.Status {
			t.Fatalf("%q was passed on as %q: net/http read %d with %q and left %q, %v", in, out, got.StatusCode, gotBody, rest, err)
		}
		compareFields(t, &r.Header, got.Header)
	})
}

// passOn gives what a client reads.
func passOn(t *testing.T, in []byte, r *message.Response, method, version, body string, trailers *message.Header) []byte {
	t.Helper()
	down := &script{in: fmt.Appendf(nil, "%s / HTTP/%s\r\nHost: a\r\n\r\n", method, version)}
	s := NewServerConn(down, "http", nil)
	var q message.Request
	if err := s.ReadRequest(&q); err != nil {
		t.Fatal(err)
	}
	StripHopByHop(&r.Header)
	if err := s.WriteResponse(r); err != nil {
		t.Fatalf("%q was accepted and cannot be written: %v", in, err)
	}
	if err := s.WriteBody([]byte(body)); err != nil && body != "" {
		t.Fatalf("%q: the body cannot be written: %v", in, err)
	}
	if err := s.FinishBody(trailers); err != nil {
		t.Fatalf("%q: the body cannot be finished: %v", in, err)
	}
	return down.out.Bytes()
}
