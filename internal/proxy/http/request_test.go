package http1

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/message"
)

const hostLine = "Host: a.example\r\n"

func TestRefusedRequests(t *testing.T) {
	get := func(fields string) string { return "GET / HTTP/1.1\r\n" + hostLine + fields + "\r\n" }
	post := func(fields, body string) string { return "POST / HTTP/1.1\r\n" + hostLine + fields + "\r\n" + body }
	line := func(l string) string { return l + "\r\n" + hostLine + "\r\n" }
	for _, c := range []struct {
		name, raw string
		want      int
	}{
		{"bare LF after the request line", "GET / HTTP/1.1\n" + hostLine + "\r\n", 400},
		{"bare LF after a field", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400},
		{"bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", 400},
		{"bare LF only, without an end", "GET / HTTP/1.1\nHost: a\n\n", 400},
		{"bare CR in a value", get("X: a\rb\r\n"), 400},
		{"bare CR before CRLF", get("X: a\r\r\n"), 400},
		{"bare CR as line end", get("X: a\rY: b\r\n"), 400},
		{"obs-fold with space", get("X: a\r\n b\r\n"), 400},
		{"obs-fold with tab", get("X: a\r\n\tb\r\n"), 400},
		{"white space before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400},
		{"NUL in a value", get("X: a\x00b\r\n"), 400},
		{"control in a value", get("X: a\x01bcdefghijk\r\n"), 400},
		{"DEL in a value", get("X: abcdefghij\x7f\r\n"), 400},
		{"vertical tab before chunked", post("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"), 400},
		{"space before colon", get("X : a\r\n"), 400},
		{"tab before colon", get("X\t: a\r\n"), 400},
		{"space in a name", get("X Y: a\r\n"), 400},
		{"empty name", get(": a\r\n"), 400},
		{"no colon", get("X\r\n"), 400},
		{"NUL in a name", get("X\x00: a\r\n"), 400},
		{"non-ASCII name", get("X\u00e9: a\r\n"), 400},

		{"no method", line(" / HTTP/1.1"), 400},
		{"method with a bad character", line("GE(T / HTTP/1.1"), 400},
		{"two spaces before the target", line("GET  / HTTP/1.1"), 400},
		{"two spaces after the target", line("GET /  HTTP/1.1"), 400},
		{"tab between", line("GET\t/ HTTP/1.1"), 400},
		{"trailing space", line("GET / HTTP/1.1 "), 400},
		{"leading space", line(" GET / HTTP/1.1"), 400},
		{"no version", line("GET /"), 400},
		{"nothing but CRLFs", "\r\n\r\n\r\n", 400},
		{"lower case version", line("GET / http/1.1"), 400},
		{"long minor version", line("GET / HTTP/1.10"), 400},
		{"leading zero in version", line("GET / HTTP/01.1"), 400},
		{"version 2", line("GET / HTTP/2.0"), 505},
		{"version 0.9", line("GET / HTTP/0.9"), 505},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
		{"TLS ClientHello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\n\x03", 400},

		{"control in the target", line("GET /\x01 HTTP/1.1"), 400},
		{"non-ASCII target", line("GET /\u00e9 HTTP/1.1"), 400},
		{"fragment in the target", line("GET /a#b HTTP/1.1"), 400},
		{"relative target", line("GET a/b HTTP/1.1"), 400},
		{"asterisk for GET", line("GET * HTTP/1.1"), 400},
		{"authority-form for GET", line("GET a.example:80 HTTP/1.1"), 400},
		{"origin-form for CONNECT", line("CONNECT / HTTP/1.1"), 400},
		{"absolute-form for CONNECT", line("CONNECT http://a.example:80/ HTTP/1.1"), 400},
		{"CONNECT without a port", line("CONNECT a.example HTTP/1.1"), 400},
		{"CONNECT with an empty port", line("CONNECT a.example: HTTP/1.1"), 400},
		{"CONNECT with content", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nContent-Length: 1\r\n\r\nx", 400},
		{"other scheme", line("GET ftp://a.example/ HTTP/1.1"), 400},
		{"userinfo in the target", line("GET http://u@a.example/ HTTP/1.1"), 400},
		{"absolute-form without a host", line("GET http:///x HTTP/1.1"), 400},
		{"absolute-form without Host", "GET http://a.example/ HTTP/1.1\r\n\r\n", 400},

		{"no Host", "GET / HTTP/1.1\r\nX: a\r\n\r\n", 400},
		{"no fields at all", "GET / HTTP/1.1\r\n\r\n", 400},
		{"empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400},
		{"two Hosts", get("Host: b.example\r\n"), 400},
		{"two equal Hosts", get(hostLine), 400},
		{"Host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
		{"Host with userinfo", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400},
		{"Host with percent-encoding", "GET / HTTP/1.1\r\nHost: a%62\r\n\r\n", 400},
		{"Host with a space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
		{"Host list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400},
		{"Host with a bad port", "GET / HTTP/1.1\r\nHost: a:8x\r\n\r\n", 400},
		{"Host with port 65536", "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400},
		{"Host with an open bracket", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400},
		{"Host with junk after a bracket", "GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", 400},
		{"Host with two ports", "GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n", 400},

		{"two lengths", post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"), 400},
		{"two equal lengths", post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"), 400},
		{"listed length", post("Content-Length: 5, 5\r\n", "hello"), 400},
		{"signed length", post("Content-Length: +5\r\n", "hello"), 400},
		{"negative length", post("Content-Length: -5\r\n", "hello"), 400},
		{"hexadecimal length", post("Content-Length: 0x5\r\n", "hello"), 400},
		{"empty length", post("Content-Length:\r\n", ""), 400},
		{"length with a space within", post("Content-Length: 1 2\r\n", "hello"), 400},
		{"length over int64", post("Content-Length: 9223372036854775808\r\n", ""), 400},
		{"length and coding", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400},
		{"coding and length", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"), 400},

		{"chunked twice in a list", post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"), 400},
		{"chunked twice in fields", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400},
		{"chunked not last", post("Transfer-Encoding: chunked, gzip\r\n", "0\r\n\r\n"), 400},
		{"unknown before chunked", post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), 501},
		{"identity", post("Transfer-Encoding: identity\r\n", ""), 400},
		{"unknown coding", post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), 400},
		{"empty coding", post("Transfer-Encoding:\r\n", ""), 400},
		{"coding with a parameter", post("Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n"), 400},
		{"coding in quotes", post("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"), 400},
		{"coding with an empty element", post("Transfer-Encoding: ,chunked\r\n", "0\r\n\r\n"), 400},
		{"coding in HTTP/1.0", "POST / HTTP/1.0\r\n" + hostLine + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},

		{"chunk size empty", post("Transfer-Encoding: chunked\r\n", "\r\n"), 400},
		{"chunk size negative", post("Transfer-Encoding: chunked\r\n", "-1\r\n"), 400},
		{"chunk size with 0x", post("Transfer-Encoding: chunked\r\n", "0x5\r\nhello\r\n0\r\n\r\n"), 400},
		{"chunk size with a space before", post("Transfer-Encoding: chunked\r\n", " 5\r\nhello\r\n0\r\n\r\n"), 400},
		{"chunk size with a space after", post("Transfer-Encoding: chunked\r\n", "5 \r\nhello\r\n0\r\n\r\n"), 400},
		{"chunk size too long", post("Transfer-Encoding: chunked\r\n", "00000000000000005\r\nhello\r\n0\r\n\r\n"), 400},
		{"chunk size overflow", post("Transfer-Encoding: chunked\r\n", "ffffffffffffffff\r\nhello\r\n0\r\n\r\n"), 400},
		{"chunk size line with bare LF", post("Transfer-Encoding: chunked\r\n", "5\nhello\r\n0\r\n\r\n"), 400},
		{"chunk extension with bare LF", post("Transfer-Encoding: chunked\r\n", "5;\nhello\r\n0\r\n\r\n"), 400},
		{"chunk extension with bare CR", post("Transfer-Encoding: chunked\r\n", "5;a\rb\r\nhello\r\n0\r\n\r\n"), 400},
		{"chunk data too long", post("Transfer-Encoding: chunked\r\n", "5\r\nhelloX\r\n0\r\n\r\n"), 400},
		{"chunk data ends in bare LF", post("Transfer-Encoding: chunked\r\n", "5\r\nhello\n0\r\n\r\n"), 400},
		{"chunk data ends in other bytes", post("Transfer-Encoding: chunked\r\n", "5\r\nhelloAB0\r\n\r\n"), 400},
		{"trailer with obs-fold", post("Transfer-Encoding: chunked\r\n", "0\r\nA: b\r\n c\r\n\r\n"), 400},
		{"trailer with bare LF", post("Transfer-Encoding: chunked\r\n", "0\r\nA: b\n\r\n"), 400},
		{"trailer without a colon", post("Transfer-Encoding: chunked\r\n", "0\r\nGET / HTTP/1.1\r\n\r\n"), 400},
		{"large chunk extension", post("Transfer-Encoding: chunked\r\n", "5;"+strings.Repeat("a", 17<<10)+"\r\nhello\r\n0\r\n\r\n"), 413},
		{"many chunk extensions", post("Transfer-Encoding: chunked\r\n", strings.Repeat("1;"+strings.Repeat("a", 500)+"\r\nx\r\n", 50)), 413},
		{"large trailers", post("Transfer-Encoding: chunked\r\n", "0\r\n"+strings.Repeat("A: "+strings.Repeat("b", 500)+"\r\n", 40)+"\r\n"), 431},

		{"target too long", line("GET /" + strings.Repeat("a", 33<<10) + " HTTP/1.1"), 414},
		{"target too long without an end", "GET /" + strings.Repeat("a", 40<<10), 414},
		{"target longer than a head may be", line("GET /" + strings.Repeat("a", 70<<10) + " HTTP/1.1"), 414},
		{"field too long", get("X: " + strings.Repeat("a", 61<<10) + "\r\n"), 431},
		{"field too long without an end", "GET / HTTP/1.1\r\nX: " + strings.Repeat("a", 70<<10), 431},
		{"too many fields", get(strings.Repeat("X: a\r\n", 100)), 431},
	} {
		for _, step := range steps {
			if _, _, s, err := readRequest(c.raw, step); status(err) != c.want {
				t.Errorf("%s, in steps of %d: %v, want %d", c.name, step, err, c.want)
			} else if s.Reusable() {
				t.Errorf("%s: the connection is still used", c.name)
			}
		}
	}
}

func TestAcceptedRequests(t *testing.T) {
	type want struct {
		method, scheme, authority, path, body string
		keep, absolute, expect                bool
		upgrade                               string
	}
	for _, c := range []struct {
		name, raw string
		want      want
	}{
		{"plain", "GET /a?b=c HTTP/1.1\r\nHost: a.example:8080\r\n\r\n",
			want{method: "GET", authority: "a.example:8080", path: "/a?b=c", keep: true}},
		{"empty line first", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", want{method: "GET", authority: "a", path: "/", keep: true}},
		{"unusual method and path", "M-SEARCH /{a}|\"<>^`\\%zz HTTP/1.1\r\nHost: a\r\n\r\n",
			want{method: "M-SEARCH", authority: "a", path: "/{a}|\"<>^`\\%zz", keep: true}},
		{"path that looks absolute", "GET //b.example/ HTTP/1.1\r\nHost: a\r\n\r\n",
			want{method: "GET", authority: "a", path: "//b.example/", keep: true}},
		{"close", "GET / HTTP/1.1\r\nHost: a\r\nConnection: foo, CLOSE\r\n\r\n", want{method: "GET", authority: "a", path: "/"}},
		{"later minor version", "GET / HTTP/1.7\r\nHost: a\r\n\r\n", want{method: "GET", authority: "a", path: "/", keep: true}},
		{"HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", want{method: "GET", path: "/"}},
		{"HTTP/1.0 keep-alive", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", want{method: "GET", path: "/", keep: true}},
		{"HTTP/1.0 ignores Expect and Upgrade", "POST / HTTP/1.0\r\nExpect: 100-continue\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 1\r\n\r\nx",
			want{method: "POST", path: "/", body: "x"}},
		{"IPv6 host", "GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n", want{method: "GET", authority: "[2001:db8::1]:80", path: "/", keep: true}},
		{"underscore host", "GET / HTTP/1.1\r\nHost: a_b\r\n\r\n", want{method: "GET", authority: "a_b", path: "/", keep: true}},
		{"absolute-form wins over Host", "GET HTTP://b.example/x HTTP/1.1\r\nHost: a\r\n\r\n",
			want{method: "GET", authority: "b.example", path: "/x", keep: true, absolute: true}},
		{"absolute-form https", "GET https://b.example?x HTTP/1.1\r\nHost: a\r\n\r\n",
			want{method: "GET", scheme: "https", authority: "b.example", path: "/?x", keep: true, absolute: true}},
		{"absolute-form without a path", "GET http://b.example HTTP/1.1\r\nHost: b.example\r\n\r\n",
			want{method: "GET", authority: "b.example", path: "/", keep: true, absolute: true}},
		{"OPTIONS in absolute-form", "OPTIONS http://b.example HTTP/1.1\r\nHost: b.example\r\n\r\n",
			want{method: "OPTIONS", authority: "b.example", path: "*", keep: true, absolute: true}},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", want{method: "OPTIONS", authority: "a", path: "*", keep: true}},
		{"CONNECT", "CONNECT b.example:443 HTTP/1.1\r\nHost: other\r\n\r\n",
			want{method: "CONNECT", authority: "b.example:443", keep: true, absolute: true}},
		{"sized", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 005\r\n\r\nhello", want{method: "POST", authority: "a", path: "/", keep: true, body: "hello"}},
		{"chunked", "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\n\r\n3;a=\"b;c\"\r\nhel\r\n2 ; x\r\nlo\r\n0\r\n\r\n",
			want{method: "POST", authority: "a", path: "/", keep: true, body: "hello"}},
		{"expect", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-Continue\r\n\r\nx",
			want{method: "POST", authority: "a", path: "/", keep: true, expect: true, body: "x"}},
		{"expect without a body", "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", want{method: "GET", authority: "a", path: "/", keep: true}},
		{"upgrade", "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n",
			want{method: "GET", authority: "a", path: "/", keep: true, upgrade: "websocket"}},
		{"upgrade that Connection does not list", "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
			want{method: "GET", authority: "a", path: "/", keep: true}},
		{"upgrade to HTTP/2 is not heard", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: x\r\nUpgrade: foo, H2C\r\n\r\n",
			want{method: "GET", authority: "a", path: "/", keep: true}},
		{"tabs and obs-text in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: \t a\tb\xff\xe9 \t\r\n\r\n", want{method: "GET", authority: "a", path: "/", keep: true}},
	} {
		for _, step := range steps {
			r, body, _, err := readRequest(c.raw, step)
			if err != nil {
				t.Errorf("%s, in steps of %d: %v", c.name, step, err)
				continue
			}
			if c.want.scheme == "" {
				c.want.scheme = "http"
			}
			got := want{r.Method, r.Scheme, r.Authority, r.Path, body, r.KeepAlive, r.Absolute, r.ExpectContinue, r.Upgrade}
			if got != c.want {
				t.Errorf("%s, in steps of %d:\n got %+v\nwant %+v", c.name, step, got, c.want)
			}
			if h, ok := r.Header.Get("Host"); ok && h != r.Authority {
				t.Errorf("%s: Host %q is left beside authority %q", c.name, h, r.Authority)
			}
		}
	}
}

func TestHeaderOrderAndCaseAreKept(t *testing.T) {
	r, _, _, err := readRequest("GET / HTTP/1.1\r\nX-b:  1 \r\nhOsT: a\r\nx-B:\r\nA: 2,\t3\r\n\r\n", 0)
	if err != nil {
		t.Fatal(err)
	}
	want := []message.Field{{Name: "X-b", Value: "1"}, {Name: "hOsT", Value: "a"}, {Name: "x-B", Value: ""}, {Name: "A", Value: "2,\t3"}}
	if got := slices.Collect(r.Header.All()); !slices.Equal(got, want) {
		t.Fatalf("got %v", got)
	}
}

func TestTrailers(t *testing.T) {
	for _, step := range steps {
		_, body, s, err := readRequest("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\nx-two:  2\r\n\r\n", step)
		if err != nil || body != "hello" {
			t.Fatalf("%q, %v", body, err)
		}
		want := []message.Field{{Name: "X-Sum", Value: "1"}, {Name: "x-two", Value: "2"}}
		if got := slices.Collect(s.Trailers().All()); !slices.Equal(got, want) {
			t.Fatalf("in steps of %d: trailers %v", step, got)
		}
	}
}

func TestTruncatedRequestsAreNotEndOfStream(t *testing.T) {
	for _, raw := range []string{
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n",
	} {
		for n := range len(raw) {
			_, _, _, err := readRequest(raw[:n], 0)
			want := io.ErrUnexpectedEOF
			if n == 0 {
				want = io.EOF
			}
			if err != want {
				t.Errorf("cut at %d: %v, want %v", n, err, want)
			}
		}
	}
}
