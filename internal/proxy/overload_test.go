package proxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/listen"
	"github.com/weftmesh/weft/internal/wire"
)

func TestRequestsBeyondTheLimitAreRefused(t *testing.T) {
	m := newMesh(t)
	client := m.pod("productpage", "10.0.0.1", nil)
	server := m.pod("reviews", "10.0.0.2", func(b *wire.Bootstrap) { b.MaxRequests = 1 })
	begun, finish := make(chan struct{}), make(chan struct{})
	server.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(begun)
			<-finish
		}
	}))
	client.cluster("reviews", 9080, server)
	client.knows("reviews", 9080, forwardTo("reviews"))
	c := client.client()
	slow := make(chan int)
	go func() { // ends with its request
		status, _, _ := client.get(c, "http://reviews:9080/slow")
		slow <- status
	}()
	<-begun
	if status, body, h := client.get(c, "http://reviews:9080/"); status != 503 || h.Get("X-Envoy-Local-Overloaded") != "true" {
		t.Errorf("a second request at once: %d %q %v", status, body, h)
	}
	status, _, h := client.do(c, "POST", "http://reviews:9080/svc/Method", nil, "content-type", "application/grpc")
	if status != 200 || h.Get("Grpc-Status") != "14" {
		t.Errorf("gRPC: %d %v", status, h)
	}
	close(finish)
	if got := <-slow; got != 200 {
		t.Errorf("the first request: %d", got)
	}
	eventually(t, "served again", func() bool { status, _, _ := client.get(c, "http://reviews:9080/"); return status == 200 })
	eventually(t, "logged", func() bool { return server.logged(" OM ", "overload") })
}

func TestConnectionsBeyondTheLimitAreClosed(t *testing.T) {
	m := newMesh(t)
	server := m.pod("reviews", "10.0.0.2", func(b *wire.Bootstrap) { b.MaxListenerConnections = 2 })
	server.accepts(permissive(9080))
	server.serve(9080, hello("reviews"))
	outside := bare(m, "192.168.0.9")
	talks := func(c net.Conn) bool {
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: reviews\r\n\r\n")
		n, err := c.Read(make([]byte, 1))
		return n == 1 && err == nil
	}
	var open []net.Conn
	for i := range 3 {
		c, err := outside.Dial(t.Context(), netip.MustParseAddrPort("10.0.0.2:9080"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if talks(c) != (i < 2) {
			t.Errorf("connection %d", i)
		}
		open = append(open, c)
	}
	open[0].Close()
	eventually(t, "the place that became free is taken", func() bool {
		c, err := outside.Dial(t.Context(), netip.MustParseAddrPort("10.0.0.2:9080"))
		if err != nil {
			return false
		}
		defer c.Close()
		return talks(c)
	})
}

// full is a listener whose process has no descriptor left for a while.
type full struct {
	net.Listener
	fails int
	calls chan struct{}
}

func (f *full) Accept() (net.Conn, error) {
	f.calls <- struct{}{}
	if f.fails--; f.fails >= 0 {
		return nil, &net.OpError{Op: "accept", Err: emfile{}}
	}
	return f.Listener.Accept()
}

type emfile struct{}

func (emfile) Error() string   { return "too many open files" }
func (emfile) Temporary() bool { return true }
func (emfile) Timeout() bool   { return false }

func TestFullDescriptorTableOnlyDelays(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	s := &listen.Server{Log: newMesh(t).pod("a", "10.0.0.1", nil).proxy.log, Handle: func(listen.Accepted) { close(served) }}
	f := &full{Listener: l, fails: 4, calls: make(chan struct{}, 100)}
	done := make(chan error)
	go func() { done <- s.Serve(f) }() // ends with the listener
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	<-served
	if n := len(f.calls); n > 6 {
		t.Errorf("%d calls of accept: it spins", n)
	}
	l.Close()
	if err := <-done; err != nil && !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	s.Wait()
}
