package http3

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	quichttp "github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"
)

// raw is a client that sends any field in any frame.
type raw struct {
	t    *testing.T
	conn *quic.Conn
}

// Frames of RFC 9114 section 7.2.
const (
	dataFrame     = 0
	headersFrame  = 1
	settingsFrame = 4
	goAwayFrame   = 7
)

// dialRaw connects as the client of a rig would. It has sent SETTINGS.
func (r *rig) dialRaw(t *testing.T) *raw {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	roots := r.client.Transport.(*quichttp.Transport).TLSClientConfig.RootCAs
	c, err := quic.DialAddr(ctx, strings.TrimPrefix(r.url, "https://"), tlsFor(roots), &quic.Config{HandshakeIdleTimeout: patience, MaxIdleTimeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseWithError(0, "") })
	control, err := c.OpenUniStream()
	if err == nil {
		_, err = control.Write(frame(frame(nil, 0, nil)[:1], settingsFrame, nil)) // stream type 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return &raw{t, c}
}

func frame(b []byte, kind uint64, payload []byte) []byte {
	return append(quicvarint.Append(quicvarint.Append(b, kind), uint64(len(payload))), payload...)
}

// fields is a section of literal fields with literal names (RFC 9204 section 4.5.6), from name, value, name, value.
func fields(pairs ...string) []byte {
	b := []byte{0, 0}
	integer := func(first byte, bits uint, n int) {
		most := 1<<bits - 1
		if n < most {
			b = append(b, first|byte(n))
			return
		}
		b = append(b, first|byte(most))
		for n -= most; n >= 128; n >>= 7 {
			b = append(b, byte(n)|128)
		}
		b = append(b, byte(n))
	}
	for i := 0; i < len(pairs); i += 2 {
		integer(0x20, 3, len(pairs[i]))
		b = append(b, pairs[i]...)
		integer(0, 7, len(pairs[i+1]))
		b = append(b, pairs[i+1]...)
	}
	return b
}

// ask sends frames as one request, and gives "200" or another status, or "reset" when the stream or the connection was broken off.
func (c *raw) ask(frames []byte) string {
	c.t.Helper()
	var broken *quic.StreamError
	var closed *quic.ApplicationError
	s, err := c.conn.OpenStreamSync(c.t.Context())
	switch {
	case errors.As(err, &closed):
		return "reset"
	case err != nil:
		c.t.Fatal(err)
	}
	s.SetDeadline(time.Now().Add(patience))
	s.Write(frames) // a server that has refused the beginning need not read the end
	s.Close()
	got, err := io.ReadAll(s)
	switch {
	case errors.As(err, &broken), errors.As(err, &closed):
		return "reset"
	case err != nil:
		c.t.Fatal(err)
	}
	r := bytes.NewReader(got)
	kind, err1 := quicvarint.Read(r)
	size, err2 := quicvarint.Read(r)
	section := make([]byte, size)
	if _, err := io.ReadFull(r, section); errors.Join(err, err1, err2) != nil || kind != headersFrame {
		c.t.Fatalf("%q, %v", got, err)
	}
	return status(section)
}

// status finds the status among what a server writes of it: an index of the static table (RFC 9204 appendix A), or a literal value.
func status(section []byte) string {
	for known, index := range map[string]string{"200": "\xd9", "400": "\xff\x04", "503": "\xdc", "404": "\xdb"} {
		if strings.HasPrefix(string(section[2:]), index) {
			return known
		}
	}
	return fmt.Sprintf("%q", section)
}

// tlsFor trusts the certificates of the rig.
func tlsFor(roots *x509.CertPool) *tls.Config {
	return &tls.Config{RootCAs: roots, ServerName: "shop.example", NextProtos: []string{NextProto}}
}

// TestMalformedRequests sends requests that would be two, or another one, if they were written as HTTP/1.1 without care (RFC 9114
// sections 4.2 and 4.3, RFC 9110), and others that are odd but right.
func TestMalformedRequests(t *testing.T) {
	came := make(chan string, 100)
	r := start(t, Options{Handle: func(_ any, s *Stream) {
		q := s.Request()
		expect, told := q.Header.Get("Expect")
		line := fmt.Sprintf("%s %s %s %s", q.Method, q.Authority, q.Path, readOrBroken(s))
		if told {
			line += " expecting " + expect
		}
		came <- line
		if strings.HasSuffix(line, "broken") {
			s.Reset()
			return
		}
		respond(t, s, 200, "", nil)
	}})
	base := []string{":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/g"}
	with := func(pairs ...string) []string { return slices.Concat(base, pairs) }
	instead := func(name, value string) []string {
		p := slices.Clone(base)
		p[slices.Index(p, name)+1] = value
		return p
	}
	without := func(name string) []string {
		i := slices.Index(base, name)
		return slices.Delete(slices.Clone(base), i, i+2)
	}
	refused := map[string][]string{
		"CRLF in a value": with("x", "a\r\nb: c"), "LF in a value": with("x", "a\nb"), "NUL in a value": with("x", "a\x00"), "CR in a value": with("x", "a\rb"),
		"CRLF in a name": with("x\r\ny", "a"), "colon in a name": with("x:y", "a"), "space in a name": with("x y", "a"), "upper case in a name": with("X", "a"),
		"empty name": with("", "a"), "high byte in a name": with("x\xff", "a"),
		"transfer-encoding": with("transfer-encoding", "chunked"), "connection": with("connection", "close"), "keep-alive": with("keep-alive", "1"),
		"proxy-connection": with("proxy-connection", "x"), "upgrade": with("upgrade", "websocket"), "te beyond trailers": with("te", "gzip"),
		"lengths that differ": with("content-length", "0", "content-length", "1"), "length with sign": with("content-length", "+0"),
		"length of a list": with("content-length", "0, 0"), "length that is no number": with("content-length", "x"),
		"host that differs": with("host", "b"), "two hosts": with("host", "a", "host", "a"),
		"two methods": with(":method", "POST"), "two paths": with(":path", "/x"), "two authorities": with(":authority", "b"), "two schemes": with(":scheme", "http"),
		"pseudo-header that is unknown": with(":x", "a"), "pseudo-header of responses": with(":status", "200"),
		"pseudo-header behind a field": slices.Concat(base[:6], []string{"x", "a", ":path", "/g"}),
		"CRLF in the path":             instead(":path", "/g HTTP/1.1\r\nHost: b\r\n\r\nGET /smuggled"),
		"space in the path":            instead(":path", "/g HTTP/1.1"), "empty path": instead(":path", ""), "path that is absolute": instead(":path", "http://b/g"),
		"path that is relative": instead(":path", "g"), "path with a fragment": instead(":path", "/g#f"), "path with a high byte": instead(":path", "/\xff"),
		"asterisk with GET":  instead(":path", "*"),
		"CRLF in the method": instead(":method", "GET / HTTP/1.1\r\nHost: b\r\n\r\nGET"), "space in the method": instead(":method", "GET /smuggled"),
		"empty method":          instead(":method", ""),
		"CRLF in the authority": instead(":authority", "a\r\nx: y"), "userinfo in the authority": instead(":authority", "u@a"),
		"path in the authority": instead(":authority", "a/b"), "space in the authority": instead(":authority", "a b"),
		"query in the authority": instead(":authority", "a?b"), "fragment in the authority": instead(":authority", "a#b"),
		"escape in the authority": instead(":authority", "a%2eb"), "list of authorities": instead(":authority", "a, b"),
		"port that is none": instead(":authority", "a:x"), "port too large": instead(":authority", "a:65536"), "bracket open": instead(":authority", "[::1"),
		"empty authority": instead(":authority", ""), "no method": without(":method"), "no path": without(":path"), "no authority, no host": without(":authority"),
		"CONNECT with a path": instead(":method", "CONNECT"), "protocol without CONNECT": with(":protocol", "websocket"),
		"a bad host instead of the authority": append(without(":authority"), "host", "a/b"),
	}
	for name, head := range refused {
		t.Run(name, func(t *testing.T) {
			if got := r.dialRaw(t).ask(frame(nil, headersFrame, fields(head...))); got != "reset" && got != "400" {
				t.Errorf("got %s", got)
			}
		})
	}
	if res, _ := r.do(t, "GET", "/g", nil, "Expect", "nothing"); res.StatusCode != http.StatusExpectationFailed {
		t.Errorf("an unknown expectation got %d", res.StatusCode)
	}
	select {
	case line := <-came:
		t.Errorf("reached the handler: %q", line)
	default:
	}
	post := instead(":method", "POST")
	hello := func(head ...string) []byte {
		return frame(frame(nil, headersFrame, fields(head...)), dataFrame, []byte("hello"))
	}
	for _, c := range []struct {
		name   string
		frames []byte
		gets   string
		sees   string
	}{
		{"plain", frame(nil, headersFrame, fields(base...)), "200", "GET a /g "},
		{"host beside the authority", frame(nil, headersFrame, fields(with("host", "a")...)), "200", "GET a /g "},
		{"host instead of the authority", frame(nil, headersFrame, fields(append(without(":authority"), "host", "a")...)), "200", "GET a /g "},
		{"scheme in upper case", frame(nil, headersFrame, fields(instead(":scheme", "HTTPS")...)), "200", "GET a /g "},
		{"asterisk", frame(nil, headersFrame, fields(":method", "OPTIONS", ":scheme", "https", ":authority", "a", ":path", "*")), "200", "OPTIONS a * "},
		{"an expectation without content", frame(nil, headersFrame, fields(with("expect", "100-continue")...)), "200", "GET a /g "},
		{"an expectation of no content", frame(nil, headersFrame, fields(append(slices.Clone(post), "expect", "100-continue", "content-length", "0")...)), "200", "POST a /g "},
		{"content", hello(post...), "200", "POST a /g hello"},
		{"length", hello(append(slices.Clone(post), "content-length", "5")...), "200", "POST a /g hello"},
		{"length too small", hello(append(slices.Clone(post), "content-length", "4")...), "reset", "POST a /g broken"},
		{"length too large", hello(append(slices.Clone(post), "content-length", "6")...), "reset", "POST a /g broken"},
		{"trailers", frame(hello(post...), headersFrame, fields("t", "v")), "200", "POST a /g hello"},
		{"a frame that is unknown", frame(hello(post...), 0x21, []byte("x")), "200", "POST a /g hello"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := r.dialRaw(t).ask(c.frames)
			if saw := <-came; got != c.gets || saw != c.sees {
				t.Errorf("got %s, want %s; the handler saw %q, want %q", got, c.gets, saw, c.sees)
			}
		})
	}
}

// readOrBroken gives the body, or "broken".
func readOrBroken(s *Stream) string {
	var all []byte
	var buf [100]byte
	for {
		n, err := s.ReadBody(buf[:])
		all = append(all, buf[:n]...)
		if err == io.EOF {
			return string(all)
		}
		if err != nil {
			return "broken"
		}
	}
}
