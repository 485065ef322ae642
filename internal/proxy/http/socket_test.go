package http1

import (
	"io"
	"net"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/conn/conntest"
	"github.com/weftmesh/weft/internal/proxy/message"
)

const (
	socketRequest  = "GET /path?query HTTP/1.1\r\nHost: service.example\r\nUser-Agent: test\r\nAccept: */*\r\nX-A: 1\r\nX-B: 2\r\n\r\n"
	socketResponse = "HTTP/1.1 200 OK\r\nServer: test\r\nContent-Type: text/plain\r\nContent-Length: 16\r\n\r\n0123456789abcdef"
)

// socketProxy serves one connection over real sockets from one backend connection that answers in fixed bytes, and gives the
// client's end.
func socketProxy(tb testing.TB) net.Conn {
	tb.Helper()
	client, down := sockets(tb)
	up, backend := sockets(tb)
	engine := conntest.Engine(tb)
	down, up = conntest.Adopt(tb, engine, down), conntest.Adopt(tb, engine, up)
	go func() { // ends with the connection
		p, response := make([]byte, 4096), []byte(socketResponse)
		for {
			if _, err := backend.Read(p); err != nil {
				return
			}
			backend.Write(response)
		}
	}()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s, c := NewServerConn(conn.FromNet(down), "http", nil), NewClientConn(conn.FromNet(up), nil)
		var (
			req  message.Request
			resp message.Response
			p    = make([]byte, 2048)
		)
		for s.WaitRequest() == nil && exchangeOnce(s, c, &req, &resp, p) == nil {
		}
	}()
	tb.Cleanup(func() {
		client.Close()
		<-done
		up.Close()
		down.Close()
		backend.Close()
	})
	return client
}

func sockets(tb testing.TB) (near, far net.Conn) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		tb.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		tb.Fatal(err)
	}
	return near, far
}

func TestSocketsAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("pools do not keep under the race detector")
	}
	client := socketProxy(t)
	request, got := []byte(socketRequest), make([]byte, len(socketResponse))
	one := func() {
		if _, err := client.Write(request); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(client, got); err != nil {
			t.Fatal(err)
		}
	}
	one()
	if string(got) != socketResponse {
		t.Fatalf("got %q", got)
	}
	if n := testing.AllocsPerRun(500, one); n >= 1 {
		t.Fatalf("%v allocations per exchange", n)
	}
}

func BenchmarkSockets(b *testing.B) {
	client := socketProxy(b)
	request, got := []byte(socketRequest), make([]byte, len(socketResponse))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.Write(request); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(client, got); err != nil {
			b.Fatal(err)
		}
	}
}
