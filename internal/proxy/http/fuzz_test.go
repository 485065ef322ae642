package http1

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/message"
)

// FuzzRequest parses a stream whole and byte by byte, which must agree, and compares what it accepts with net/http: method,
// host, target, fields, body and where the next request starts. What only one accepts is no finding, but whoever accepts
// must understand the same.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: b\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: v\r\n\r\nGET",
		"GET http://b.example:80/x HTTP/1.1\r\nHost: a\r\nConnection: close, x\r\n\r\n",
		"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: [::1]:8080\r\nExpect: 100-continue\r\n\r\n",
		"GET / HTTP/1.0\r\nX: \t a\xff \r\n\r\n",
		"\r\nGET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		whole, wholeErr := digestRequest(in, 0)
		cut, cutErr := digestRequest(in, 1)
		if whole != cut || status(wholeErr) != status(cutErr) && !limitRace(wholeErr, cutErr) {
			t.Fatalf("read whole: %q, %v\nbyte by byte: %q, %v", whole, wholeErr, cut, cutErr)
		}
		if wholeErr == nil {
			compareRequest(t, in, whole)
		}
	})
}

// limitRace: an input with several faults may be refused for another one of them when it arrives in pieces.
func limitRace(a, b error) bool { return status(a) != 0 && status(b) != 0 }

// digestRequest says in one string what was understood, with the bytes that were left.
func digestRequest(in []byte, step int) (string, error) {
	sc := &script{in: bytes.Clone(in), step: step}
	s := NewServerConn(sc, "http", nil)
	var r message.Request
	if err := s.ReadRequest(&r); err != nil {
		return "", err
	}
	var d strings.Builder
	d.WriteString(r.Method + " " + r.Authority + " " + r.Path + "\n")
	for f := range r.Header.All() {
		if !framingName(f.Name) {
			d.WriteString(f.Name + ":" + f.Value + "\n")
		}
	}
	body, err := readAll(s)
	if err != nil {
		return "", err
	}
	rest, _ := io.ReadAll(readerFunc(s.mustHijack().Read))
	d.WriteString(body + "\n" + string(rest))
	return d.String(), nil
}

func (s *ServerConn) mustHijack() interface{ Read([]byte) (int, error) } {
	c, err := s.Hijack()
	if err != nil {
		panic(err)
	}
	return c
}

func compareRequest(t *testing.T, in []byte, ours string) {
	br := bufio.NewReader(bytes.NewReader(in))
	if bytes.HasPrefix(in, []byte("\r\n")) {
		br.Discard(2) // net/http's server does not skip it
	}
	r, err := http.ReadRequest(br)
	if err != nil {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	rest, _ := io.ReadAll(br)
	parts := strings.SplitN(ours, "\n", 2)
	words := strings.Split(parts[0], " ")
	if words[0] != r.Method {
		t.Fatalf("method %q, net/http has %q", words[0], r.Method)
	}
	if words[1] != r.Host && words[1] != "" {
		t.Fatalf("authority %q, net/http has %q", words[1], r.Host)
	}
	if path := r.RequestURI; strings.HasPrefix(path, "/") && words[2] != path {
		t.Fatalf("path %q, net/http has %q", words[2], path)
	}
	if tail := string(body) + "\n" + string(rest); !strings.HasSuffix(ours, tail) {
		t.Fatalf("understood %q, net/http ends it with %q", ours, tail)
	}
}

// FuzzResponse parses a response whole and byte by byte, and compares what both accept with net/http.
func FuzzResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nT: v\r\n\r\n",
		"HTTP/1.0 404 Not Found\r\n\r\nuntil the end",
		"HTTP/1.1 204\r\nConnection: close\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		whole, wholeErr := digestResponse(in, 0)
		cut, cutErr := digestResponse(in, 1)
		if whole != cut || (wholeErr == nil) != (cutErr == nil) {
			t.Fatalf("read whole: %q, %v\nbyte by byte: %q, %v", whole, wholeErr, cut, cutErr)
		}
		if wholeErr != nil || bytes.HasPrefix(in, []byte("HTTP/1.1 1")) || bytes.HasPrefix(in, []byte("HTTP/1.0 1")) {
			return
		}
		r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(in)), nil)
		if err != nil {
			return
		}
		body, err := io.ReadAll(r.Body)
		if err == nil && !strings.HasSuffix(whole, "\n"+string(body)) {
			t.Fatalf("understood %q, net/http has the body %q", whole, body)
		}
	})
}

func digestResponse(in []byte, step int) (string, error) {
	c := NewClientConn(&script{in: bytes.Clone(in), step: step}, nil)
	if err := c.WriteRequest(&message.Request{Method: "GET", Authority: "a", Path: "/"}); err != nil {
		return "", err
	}
	var r message.Response
	if err := c.ReadResponse(&r); err != nil {
		return "", err
	}
	var d strings.Builder
	for f := range r.Header.All() {
		d.WriteString(f.Name + ":" + f.Value + "\n")
	}
	body, err := readAll(c)
	return d.String() + "\n" + body, err
}

// FuzzChunks reads chunked bodies: whole and byte by byte must agree, and what is accepted must survive being written again.
func FuzzChunks(f *testing.F) {
	for _, s := range []string{"0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", "1;a=b\r\nx\r\nA;\"q\"\r\n0123456789\r\n000\r\nT: v\r\n\r\n", "ffffffffffffffff\r\n", "5\r\nhelloXX"} {
		f.Add([]byte(s))
	}
	const head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
	f.Fuzz(func(t *testing.T, in []byte) {
		_, whole, _, wholeErr := readRequest(head+string(in), 0)
		_, cut, _, cutErr := readRequest(head+string(in), 1)
		if (wholeErr == nil) != (cutErr == nil) || wholeErr == nil && whole != cut {
			t.Fatalf("read whole: %q, %v\nbyte by byte: %q, %v", whole, wholeErr, cut, cutErr)
		}
		if wholeErr != nil {
			return
		}
		sc := &script{}
		c := NewClientConn(sc, nil)
		if err := c.WriteRequest(&message.Request{Method: "POST", Authority: "a", Path: "/", Body: message.Body{Kind: message.Chunked}}); err != nil {
			t.Fatal(err)
		}
		if err := c.WriteBody([]byte(whole)); err != nil {
			t.Fatal(err)
		}
		if err := c.FinishBody(nil); err != nil {
			t.Fatal(err)
		}
		if _, again, _, err := readRequest(sc.out.String(), 0); err != nil || again != whole {
			t.Fatalf("%q was written as %q: %v", whole, sc.out.String(), err)
		}
	})
}
