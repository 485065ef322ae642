package proxy

import (
	"io"
	"net/netip"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/http2"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// streamPath is a connection of HTTP/2 through a sidecar to a server of HTTP/2, or of HTTP/1.
type streamPath struct {
	t    testing.TB
	conn *http2.ClientConn
	req  message.Request
	res  message.Response
	buf  [4096]byte
}

func newStreamPath(t testing.TB, upstream conf.Version) *streamPath {
	p := newPlainPath(t)
	m := p.client.m
	p.client.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		c := *s.Clusters["reviews"]
		c.Speaks, c.Version = upstream, "2"
		if upstream == conf.HTTP2 {
			server := p.client.bare("10.0.0.3")
			server.serveStreams(9080)
			c.Localities = meshCluster("reviews", 9080, server).Localities
		}
		s.Clusters["reviews"] = &c
	})
	nc, err := p.client.Dial(t.Context(), netip.MustParseAddrPort(vip+":9080"))
	if err != nil {
		t.Fatal(err)
	}
	s := &streamPath{t: t, conn: http2.NewClientConn(conn.FromNet(nc), nil)}
	done := make(chan struct{})
	go func() { defer close(done); s.conn.Run() }() // ends with the connection
	m.t.Cleanup(func() { s.conn.Close(); <-done })
	s.req = message.Request{Method: "GET", Scheme: "http", Authority: "reviews:9080", Path: "/reviews/0"}
	for _, f := range [][2]string{{"user-agent", "curl/8.0"}, {"accept", "*/*"}, {"accept-encoding", "gzip"}, {"x-request-id", "3f2c"}, {"cookie", "session=1"}} {
		s.req.Header.Add(f[0], f[1])
	}
	return s
}

// serveStreams answers every request of HTTP/2 by hello, without allocating.
func (p *pod) serveStreams(port uint16) {
	l, err := p.Listen(netip.AddrPortFrom(p.Addr(), port))
	if err != nil {
		p.m.t.Fatal(err)
	}
	hello := []byte("hello")
	done := make(chan struct{})
	go func() { // ends with the listener and its one connection
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		http2.NewServerConn(conn.FromNet(c), "http", nil).Serve(func(s *http2.ServerStream) {
			r := message.Response{Status: 200, Body: message.Body{Kind: message.Sized, Length: int64(len(hello))}}
			if s.WriteResponse(&r) == nil && s.WriteBody(hello) == nil {
				s.FinishBody(nil)
			}
		})
	}()
	p.m.t.Cleanup(func() { l.Close(); p.stop(); <-done })
}

func (p *streamPath) roundTrip() {
	s, err := p.conn.Open()
	if err == nil {
		err = s.WriteRequest(&p.req)
	}
	if err == nil {
		err = s.FinishBody(nil)
	}
	if err == nil {
		err = s.ReadResponse(&p.res)
	}
	n := 0
	for err == nil {
		var m int
		m, err = s.ReadBody(p.buf[n:])
		n += m
	}
	if err != io.EOF || p.res.Status != 200 || string(p.buf[:n]) != "hello" {
		p.t.Fatalf("%d %q, %v", p.res.Status, p.buf[:n], err)
	}
	s.EndExchange()
}

func TestStreamsDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool drop items at random")
	}
	for name, upstream := range map[string]conf.Version{"to HTTP/1": conf.HTTP1, "to HTTP/2": conf.HTTP2} {
		t.Run(name, func(t *testing.T) {
			p := newStreamPath(t, upstream)
			for range 100 {
				p.roundTrip()
			}
			if n := testing.AllocsPerRun(2000, p.roundTrip); n >= 1 {
				t.Fatalf("%v allocations per request", n)
			}
		})
	}
}

func BenchmarkStreams(b *testing.B) {
	for name, upstream := range map[string]conf.Version{"to HTTP/1": conf.HTTP1, "to HTTP/2": conf.HTTP2} {
		b.Run(name, func(b *testing.B) {
			p := newStreamPath(b, upstream)
			p.roundTrip()
			b.ReportAllocs()
			for b.Loop() {
				p.roundTrip()
			}
		})
	}
}
