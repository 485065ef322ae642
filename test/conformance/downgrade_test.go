package conformance

import (
	"bytes"
	"errors"

	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/test/rig"
)

// h2 is a client that can write any frame.
type h2 struct {
	t     *testing.T
	conn  net.Conn
	f     *http2.Framer
	block bytes.Buffer
	enc   *hpack.Encoder
}

func dialH2(t *testing.T, address string) *h2 {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	h := &h2{t: t, conn: c, f: http2.NewFramer(c, c)}
	h.enc = hpack.NewEncoder(&h.block)
	h.f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := c.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	if err := h.f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return h
}

// headers writes a header block of name, value, name, value.
func (h *h2) headers(stream uint32, end bool, pairs ...string) {
	h.t.Helper()
	h.block.Reset()
	for i := 0; i < len(pairs); i += 2 {
		if err := h.enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]}); err != nil {
			h.t.Fatal(err)
		}
	}
	if err := h.f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: h.block.Bytes(), EndHeaders: true, EndStream: end}); err != nil {
		h.t.Fatal(err)
	}
}

// outcome gives what came of a stream: its status, "reset", "goaway" or "closed".
func (h *h2) outcome(stream uint32) string {
	h.t.Helper()
	status := ""
	for {
		f, err := h.f.ReadFrame()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return "nothing"
		case err != nil:
			return "closed"
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				h.f.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			if f.StreamID == stream && f.PseudoValue("status") != "" {
				status = f.PseudoValue("status")
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == stream && f.ErrCode != http2.ErrCodeNo {
				return "reset"
			}
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				return "goaway"
			}
		}
		if f.Header().StreamID == stream && f.Header().Flags.Has(http2.FlagDataEndStream) &&
			(f.Header().Type == http2.FrameData || f.Header().Type == http2.FrameHeaders) {
			return status
		}
	}
}

var base = []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/g"}

func with(pairs ...string) []string { return slices.Concat(base, pairs) }

// instead replaces a pseudo-header.
func instead(name, value string) []string {
	p := slices.Clone(base)
	p[slices.Index(p, name)+1] = value
	return p
}

func without(name string) []string {
	i := slices.Index(base, name)
	return slices.Delete(slices.Clone(base), i, i+2)
}

// downgrades are requests of HTTP/2 that would be two, or another one, if they were written as HTTP/1.1 without care
// (RFC 9113 sections 8.2 and 8.3). Each is refused: its stream is reset, or answered with an error.
var downgrades = map[string][]string{
	"CRLF in a value":               with("x", "a\r\nTransfer-Encoding: chunked"),
	"LF in a value":                 with("x", "a\nb: c"),
	"CR in a value":                 with("x", "a\rb"),
	"NUL in a value":                with("x", "a\x00b"),
	"space before a value":          with("x", " a"),
	"space behind a value":          with("x", "a "),
	"tab behind a value":            with("x", "a\t"),
	"CRLF in a name":                with("x\r\ny", "a"),
	"colon in a name":               with("x: y", "a"),
	"colon alone in a name":         with("x:y", "a"),
	"space in a name":               with("x y", "a"),
	"upper case in a name":          with("X", "a"),
	"empty name":                    with("", "a"),
	"high byte in a name":           with("x\xff", "a"),
	"request line in a name":        with("x: y\r\n\r\nget /smuggled http/1.1\r\nhost", "a"),
	"transfer-encoding":             with("transfer-encoding", "chunked"),
	"transfer-encoding identity":    with("transfer-encoding", "identity"),
	"connection":                    with("connection", "close"),
	"connection that lists":         with("connection", "x"),
	"keep-alive":                    with("keep-alive", "timeout=5"),
	"proxy-connection":              with("proxy-connection", "keep-alive"),
	"upgrade":                       with("upgrade", "h2c"),
	"te beyond trailers":            with("te", "chunked"),
	"two lengths":                   with("content-length", "0", "content-length", "1"),
	"length with sign":              with("content-length", "+0"),
	"length of a list":              with("content-length", "0, 0"),
	"length without content":        with("content-length", "5"),
	"host that differs":             with("host", "b"),
	"scheme that is not HTTP's":     instead(":scheme", "ftp"),
	"two hosts":                     with("host", "a", "host", "a"),
	"two methods":                   with(":method", "POST"),
	"two paths":                     with(":path", "/other"),
	"two authorities":               with(":authority", "b"),
	"pseudo-header that is unknown": with(":x", "a"),
	"pseudo-header of responses":    with(":status", "200"),
	"pseudo-header behind a field":  slices.Concat(base[:6], []string{"x", "a", ":path", "/g"}),
	"CRLF in the path":              instead(":path", "/g HTTP/1.1\r\nHost: b\r\n\r\nGET /smuggled"),
	"space in the path":             instead(":path", "/g HTTP/1.1"),
	"empty path":                    instead(":path", ""),
	"path that is absolute":         instead(":path", "http://b/g"),
	"path that is relative":         instead(":path", "g"),
	"path with a fragment":          instead(":path", "/g#f"),
	"path with a high byte":         instead(":path", "/\xff"),
	"asterisk with GET":             instead(":path", "*"),
	"CRLF in the method":            instead(":method", "GET / HTTP/1.1\r\nHost: b\r\n\r\nGET"),
	"space in the method":           instead(":method", "GET /smuggled"),
	"empty method":                  instead(":method", ""),
	"CRLF in the authority":         instead(":authority", "a\r\nx: y"),
	"userinfo in the authority":     instead(":authority", "u@a"),
	"path in the authority":         instead(":authority", "a/b"),
	"space in the authority":        instead(":authority", "a b"),
	"empty authority":               instead(":authority", ""),
	"CRLF in the scheme":            instead(":scheme", "http://b/\r\nx: y"),
	"empty scheme":                  instead(":scheme", ""),
	"no method":                     without(":method"),
	"no path":                       without(":path"),
	"no scheme":                     without(":scheme"),
	"no authority, no host":         without(":authority"),
	"CONNECT with a path":           instead(":method", "CONNECT"),
	"protocol without CONNECT":      with(":protocol", "websocket"),
}

// wellFormed are requests of HTTP/2 that are well-formed, each in an odd way, and what a backend of HTTP/1.1 gets of them.
var wellFormed = map[string]struct {
	head []string
	sees string
}{
	"host that is the authority, in another case": {with("host", "A"), "GET /g a -"},
	"host instead of the authority":               {append(without(":authority"), "host", "a"), "GET /g a -"},
	"scheme in upper case":                        {instead(":scheme", "HTTP"), "GET /g a -"},
	"an expectation without content":              {with("expect", "100-continue"), "GET /g a -"},
	"another scheme than the connection's":        {instead(":scheme", "https"), "GET /g a -"},
	"method in lower case":                        {instead(":method", "get"), "get /g a -"},
	"asterisk":                                    {[]string{":method", "OPTIONS", ":scheme", "http", ":authority", "a", ":path", "*"}, "OPTIONS * a -"},
	"pseudo-headers in another order":             {[]string{":path", "/g", ":authority", "a", ":method", "GET", ":scheme", "http"}, "GET /g a -"},
	"trailers are taken":                          {with("te", "trailers"), "GET /g a -"},
	"length zero":                                 {with("content-length", "0"), "GET /g a 0"},
	"a name of every token character":             {with("!#$%&'*+-.^_`|~09az", "v"), "GET /g a -"},
	"an empty value":                              {with("x", ""), "GET /g a -"},
}

func TestDowngradeOfWellFormed(t *testing.T) {
	for _, w := range toHTTP1(t) {
		for name, c := range wellFormed {
			t.Run(w.name+" "+name, func(t *testing.T) {
				w.backend.Take()
				cl := dialH2(t, w.address)
				cl.headers(1, true, c.head...)
				if got := cl.outcome(1); got != "200" {
					t.Errorf("outcome %q", got)
				}
				if saw := strings.Join(wholeOnes(w.backend), "|"); saw != c.sees {
					t.Errorf("the backend saw %q, want %q", saw, c.sees)
				}
			})
		}
	}
}

// toHTTP1 starts a gateway and a sidecar whose backend speaks HTTP/1.1.
func toHTTP1(t *testing.T) []way {
	t.Helper()
	all := ways(t, echo)[:2]
	for _, w := range all {
		w.proxies[0].Config.Publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
			c := rig.Cluster("backend", rig.Plain(w.backend.Addr().String()))
			c.Speaks = conf.HTTP1
			s.Clusters["backend"] = c
		})
	}
	return all
}

func TestDowngradeSmuggling(t *testing.T) {
	for _, w := range toHTTP1(t) {
		for name, head := range downgrades {
			t.Run(w.name+" "+name, func(t *testing.T) {
				w.backend.Take()
				c := dialH2(t, w.address)
				c.headers(1, true, head...)
				got := c.outcome(1)
				if got != "reset" && got != "goaway" && got != "closed" && !strings.HasPrefix(got, "4") {
					t.Errorf("outcome %q", got)
				}
				for _, r := range w.backend.Take() {
					t.Errorf("the backend got %q", r.Raw)
				}
			})
		}
	}
}

// TestDowngradedBodies: what DATA frames and trailers say is what the backend gets, and a length that they contradict is refused.
func TestDowngradedBodies(t *testing.T) {
	post := func(pairs ...string) []string {
		return slices.Concat([]string{":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/p"}, pairs)
	}
	for _, w := range toHTTP1(t) {
		for _, c := range []struct {
			name     string
			head     []string
			data     []string
			trailers []string
			gets     string
			sees     string
		}{
			{"length", post("content-length", "5"), []string{"hel", "lo"}, nil, "200", "POST /p a 5 hello"},
			{"no length", post(), []string{"hel", "lo"}, nil, "200", "POST /p a chunked hello"},
			{"no content", post(), nil, nil, "200", "POST /p a 0"},
			{"length zero", post("content-length", "0"), []string{""}, nil, "200", "POST /p a 0"},
			{"trailers", post(), []string{"hello"}, []string{"t", "v"}, "200", "POST /p a chunked hello +T=v"},
			{"content like chunks", post(), []string{"0\r\n\r\n" + smuggled}, nil, "200", "POST /p a chunked 0\r\n\r\n" + smuggled},
			{"two lengths alike", post("content-length", "5", "content-length", "5"), []string{"hello"}, nil, "reset", ""},
			{"two lengths that differ", post("content-length", "5", "content-length", "6"), []string{"hello"}, nil, "reset", ""},
			{"length too small", post("content-length", "4"), []string{"hello"}, nil, "reset", ""},
			{"length too large", post("content-length", "6"), []string{"hello"}, nil, "reset", ""},
			{"length zero, and content", post("content-length", "0"), []string{smuggled}, nil, "reset", ""},
			{"pseudo-header in trailers", post(), []string{"hello"}, []string{":path", "/x"}, "reset", ""},
			{"CRLF in trailers", post(), []string{"hello"}, []string{"t", "v\r\n\r\n" + smuggled}, "reset", ""},
			{"upper case in trailers", post(), []string{"hello"}, []string{"T", "v"}, "reset", ""},
			{"connection in trailers", post(), []string{"hello"}, []string{"connection", "close"}, "reset", ""},
			{"transfer-encoding in trailers", post(), []string{"hello"}, []string{"transfer-encoding", "chunked"}, "reset", ""},
		} {
			t.Run(w.name+" "+c.name, func(t *testing.T) {
				w.backend.Take()
				cl := dialH2(t, w.address)
				cl.headers(1, len(c.data) == 0, c.head...)
				for i, d := range c.data {
					if err := cl.f.WriteData(1, i == len(c.data)-1 && c.trailers == nil, []byte(d)); err != nil {
						t.Fatal(err)
					}
				}
				if c.trailers != nil {
					cl.headers(1, true, c.trailers...)
				}
				got := cl.outcome(1)
				if c.gets == "reset" && (got == "goaway" || strings.HasPrefix(got, "4")) {
					got = "reset"
				}
				saw := wholeOnes(w.backend)
				if c.name == "length zero, and content" && got == "200" && strings.Join(saw, "|") == "POST /p a 0" {
					return // it was whole by its length, and answered, before its content came: that is dropped
				}
				if got != c.gets {
					t.Errorf("outcome %q, want %q", got, c.gets)
				}
				if strings.Join(saw, "|") != c.sees {
					t.Errorf("the backend saw %q, want %q", saw, c.sees)
				}
			})
		}
	}
}

// wholeOnes gives what a backend has read to the end.
func wholeOnes(b *rig.Backend) (saw []string) {
	for _, r := range b.Take() {
		if r.Err == nil {
			saw = append(saw, summary(&r))
		}
	}
	return saw
}
