package listen

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/conn/conntest"
)

// hello gives the ClientHello that crypto/tls sends for the name.
func hello(t testing.TB, name string, alpn ...string) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer server.Close()
	go func() { // ends when server closes
		defer client.Close()
		_ = tls.Client(client, &tls.Config{ServerName: name, NextProtos: alpn, InsecureSkipVerify: true}).Handshake()
	}()
	buf := make([]byte, 16<<10)
	n, err := io.ReadAtLeast(server, buf, recordHeader)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

// split cuts one record's message into many records.
func split(record []byte, size int) []byte {
	var out []byte
	for body := record[recordHeader:]; len(body) > 0; {
		n := min(size, len(body))
		out = append(out, recordHandshake, 3, 1, byte(n>>8), byte(n))
		out = append(out, body[:n]...)
		body = body[n:]
	}
	return out
}

func TestClassify(t *testing.T) {
	h := hello(t, "Reviews.default.svc.cluster.local", "istio-http/1.1", "istio")
	for _, c := range []struct {
		name  string
		bytes []byte
		want  Protocol
		sni   string
	}{
		{"get", []byte("GET / HTTP/1.1\r\n"), HTTP1, ""},
		{"options star", []byte("OPTIONS * HTTP/1.1\r\n"), HTTP1, ""},
		{"absolute form", []byte("GET http://a/ HTTP/1.1\r\n"), HTTP1, ""},
		{"extension method", []byte("PURGE /x HTTP/1.1\r\n"), HTTP1, ""},
		{"post and not the preface", []byte("POST /x"), HTTP1, ""},
		{"method like the preface", []byte("PROPFIND /x HTTP/1.1\r\n"), HTTP1, ""},
		{"preface", []byte(preface), HTTP2, ""},
		{"redis inline", []byte("GET key\r\n"), Unknown, ""},
		{"redis", []byte("*1\r\n$4\r\nPING\r\n"), Unknown, ""},
		{"binary", []byte{0, 0, 0, 4}, Unknown, ""},
		{"smtp", []byte("EHLO a.example\r\n"), Unknown, ""},
		{"hello", h, TLS, "reviews.default.svc.cluster.local"},
		{"hello in many records", split(h, 37), TLS, "reviews.default.svc.cluster.local"},
		{"handshake byte, no tls", []byte{22, 9, 9, 9, 9}, Unknown, ""},
		{"not a client hello", []byte{22, 3, 3, 0, 4, 2, 0, 0, 0}, Unknown, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, sure := classify(c.bytes)
			if !sure || s.Protocol != c.want || s.ServerName != c.sni {
				t.Fatalf("got %+v, sure %v", s, sure)
			}
			if c.want == TLS && !slices.Equal(s.ALPN, []string{"istio-http/1.1", "istio"}) {
				t.Fatalf("ALPN %v", s.ALPN)
			}
			// Any shorter beginning gives the same answer or none.
			for n := range c.bytes {
				if s, sure := classify(c.bytes[:n]); sure && s.Protocol != c.want {
					t.Fatalf("%q: sure of %v", c.bytes[:n], s.Protocol)
				}
			}
		})
	}
	if _, sure := classify([]byte(strings.Repeat("x", maxLine))); !sure {
		t.Fatal("looks for a line end without bound")
	}
	if _, sure := classify(split(append(make([]byte, recordHeader), append([]byte{1, 0, 63, 0}, make([]byte, 17000)...)...), 1)); !sure {
		t.Fatal("joins records without bound")
	}
}

func pipe(t *testing.T) (net.Conn, conn.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, conn.FromNet(conntest.Adopt(t, conntest.Engine(t), server))
}

func TestSniffConsumesNothing(t *testing.T) {
	client, server := pipe(t)
	if s, _, err := Sniff(server, 0, time.Second); err != nil || s.Protocol != Silent {
		t.Fatalf("before a byte: %v, %v", s.Protocol, err)
	}
	message := []byte("GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
	if _, err := client.Write(message); err != nil {
		t.Fatal(err)
	}
	client.Close()
	s, c, err := Sniff(server, time.Minute, time.Minute)
	if err != nil || s.Protocol != HTTP1 {
		t.Fatalf("%v, %v", s.Protocol, err)
	}
	got, err := io.ReadAll(conn.ToNet(c))
	if err != nil || !bytes.Equal(got, message) {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestSniffOfHalfAHelloIsUnknown(t *testing.T) {
	client, server := pipe(t)
	h := hello(t, "a.example")
	if _, err := client.Write(h[:40]); err != nil {
		t.Fatal(err)
	}
	client.Close()
	s, c, err := Sniff(server, time.Minute, time.Minute)
	if err != nil || s.Protocol != Unknown {
		t.Fatalf("%v, %v", s.Protocol, err)
	}
	if got, err := io.ReadAll(conn.ToNet(c)); err != nil || !bytes.Equal(got, h[:40]) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}

func TestFirst(t *testing.T) {
	for _, want := range []Speaker{ClientFirst, ServerFirst} {
		client, down := pipe(t)
		server, up := pipe(t)
		speaker := map[Speaker]net.Conn{ClientFirst: client, ServerFirst: server}[want]
		if _, err := speaker.Write([]byte("hi")); err != nil {
			t.Fatal(err)
		}
		got, err := First(down, up)
		if err != nil || got != want {
			t.Fatalf("got %v, %v; want %v", got, err, want)
		}
		// Neither is left with a deadline, and nothing was consumed.
		for c, peer := range map[conn.Conn]net.Conn{down: client, up: server} {
			if peer != speaker {
				if _, err := peer.Write([]byte("hi")); err != nil {
					t.Fatal(err)
				}
			}
			b := make([]byte, 2)
			if n, err := c.Read(b); err != nil || string(b[:n]) != "hi" {
				t.Fatalf("%q, %v", b[:n], err)
			}
		}
	}
}

func FuzzClassify(f *testing.F) {
	f.Add(hello(f, "a.example", "h2"))
	f.Add(split(hello(f, "a.example", "h2"), 5))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Add([]byte(preface))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, sure := classify(b)
		if s.Protocol != TLS && (s.ServerName != "" || s.ALPN != nil) {
			t.Fatalf("%+v without TLS", s)
		}
		if !sure && len(b) > maxHello+maxRecord+recordHeader {
			t.Fatalf("not sure after %d bytes", len(b))
		}
	})
}
