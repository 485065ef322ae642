package proxy

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/wire"
)

// plainPath is a kept client connection through a sidecar to a server, without TLS on the way.
type plainPath struct {
	client  *pod
	t       testing.TB
	conn    net.Conn
	request []byte
	buf     []byte
}

const (
	typicalRequest = "GET /reviews/0 HTTP/1.1\r\nHost: reviews:9080\r\nUser-Agent: curl/8.0\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n" +
		"Accept-Language: en\r\nX-Request-Id: 3f2c\r\nCookie: session=1\r\n\r\n"
	typicalResponse = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Length: 5\r\n\r\nhello"
)

// newPlainPath makes the path; the server reads requests of the length that the first one has and answers each.
func newPlainPath(t testing.TB, rbac ...*conf.RBAC) *plainPath {
	m := newMesh(t)
	client := m.pod("productpage", "10.0.0.1", func(b *wire.Bootstrap) { b.AccessLog = "none" })
	server := &pod{Host: m.net.Host(netip.MustParseAddr("10.0.0.2")), m: m, stop: client.stop}
	server.serveRaw(9080, func(c net.Conn) {
		buf, response := make([]byte, 64<<10), []byte(typicalResponse)
		n := 0
		for {
			k, err := c.Read(buf[n:])
			if err != nil {
				return
			}
			if n += k; bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
				n = 0
				if _, err := c.Write(response); err != nil {
					return
				}
			}
		}
	})
	server.id = client.id
	plain := meshCluster("reviews", 9080, server)
	plain.Transports = []conf.TransportMatch{{}}
	client.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) { s.Clusters["reviews"] = plain })
	r := forwardTo("reviews")
	r.Forward.Retry = istioRetries()
	client.knows("reviews", 9080, r)
	c, err := client.Dial(t.Context(), netip.MustParseAddrPort(vip+":9080"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &plainPath{client: client, t: t, conn: c, request: []byte(typicalRequest), buf: make([]byte, 64<<10)}
}

func (p *plainPath) roundTrip() {
	if _, err := p.conn.Write(p.request); err != nil {
		p.t.Fatal(err)
	}
	for n := 0; ; {
		k, err := p.conn.Read(p.buf[n:])
		if err != nil {
			p.t.Fatal(err)
		}
		if n += k; bytes.HasSuffix(p.buf[:n], []byte("hello")) {
			return
		}
	}
}

func TestPlainPathDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool drop items at random")
	}
	p := newPlainPath(t)
	for range 100 {
		p.roundTrip()
	}
	// AllocsPerRun rounds down: what happens by the clock meanwhile (sweeps, the date) is not the requests'.
	if n := testing.AllocsPerRun(2000, p.roundTrip); n >= 1 {
		t.Fatalf("%v allocations per request", n)
	}
}

func BenchmarkPlainPath(b *testing.B) {
	p := newPlainPath(b)
	p.roundTrip()
	b.ReportAllocs()
	for b.Loop() {
		p.roundTrip()
	}
}
