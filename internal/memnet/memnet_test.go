package memnet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"
)

var (
	hostA = netip.MustParseAddr("10.0.0.1")
	hostB = netip.MustParseAddr("10.0.0.2")
)

func at(ip netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(ip, port) }

// connect gives both ends of a connection from hostA to a listener of hostB.
func connect(t *testing.T, n *Network, to netip.AddrPort) (client, server *Conn) {
	t.Helper()
	l, err := n.Listen(to)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := n.Dial(t.Context(), hostA, l.AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*Conn), s.(*Conn)
}

func TestAddresses(t *testing.T) {
	c, s := connect(t, New(), at(hostB, 80))
	if got := c.RemoteAddr().String(); got != "10.0.0.2:80" || s.LocalAddr().String() != got {
		t.Errorf("server side is %v and %v", got, s.LocalAddr())
	}
	if got := c.LocalAddr().(*net.TCPAddr); got.Port < firstEphemeral || got.String() != s.RemoteAddr().String() {
		t.Errorf("client side is %v and %v", got, s.RemoteAddr())
	}
	if s.OriginalDst() != at(hostB, 80) {
		t.Errorf("original destination %v", s.OriginalDst())
	}
}

func TestDialErrors(t *testing.T) {
	n := New()
	n.Host(hostB)
	for _, c := range []struct {
		to   netip.AddrPort
		want error
	}{{at(hostB, 81), syscall.ECONNREFUSED}, {netip.MustParseAddrPort("10.9.9.9:80"), syscall.EHOSTUNREACH}} {
		if _, err := n.Dial(t.Context(), hostA, c.to); !errors.Is(err, c.want) {
			t.Errorf("dial %v: %v, want %v", c.to, err, c.want)
		}
	}
	l, err := n.Listen(at(hostB, 82))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Listen(at(hostB, 82)); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("second listener: %v", err)
	}
	if _, err := n.Host(hostA).Listen(at(hostB, 83)); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("other host's address: %v", err)
	}
	l.Close()
	if _, err := n.Dial(t.Context(), hostA, at(hostB, 82)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial a closed listener: %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
}

func TestLoopbackIsPerHost(t *testing.T) {
	n := New()
	lo := netip.MustParseAddrPort("127.0.0.1:9000")
	la, err := n.Host(hostA).Listen(lo)
	if err != nil {
		t.Fatal(err)
	}
	defer la.Close()
	if _, err := n.Dial(t.Context(), hostB, lo); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("other host reached it: %v", err)
	}
	if _, err := n.Dial(t.Context(), hostA, lo); err != nil {
		t.Error(err)
	}
}

func TestHalfCloseAndClose(t *testing.T) {
	c, s := connect(t, New(), at(hostB, 80))
	c.Write([]byte("request"))
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(s); string(b) != "request" || err != nil {
		t.Fatalf("%q, %v", b, err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write after CloseWrite: %v", err)
	}
	s.Write([]byte("response"))
	s.Close()
	if b, err := io.ReadAll(c); string(b) != "response" || err != nil {
		t.Fatalf("%q, %v", b, err)
	}
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after Close: %v", err)
	}
}

func TestCloseWithUnreadBytesResets(t *testing.T) {
	c, s := connect(t, New(), at(hostB, 80))
	c.Write([]byte("never read"))
	s.Write([]byte("lost"))
	s.Close()
	if _, err := c.Read(make([]byte, 8)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v", err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("write: %v", err)
	}
}

func TestReset(t *testing.T) {
	c, s := connect(t, New(), at(hostB, 80))
	s.Write([]byte("lost"))
	s.Reset()
	for _, end := range []*Conn{c, s} {
		if _, err := end.Read(make([]byte, 8)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read: %v", err)
		}
		if end.Quiet() {
			t.Error("quiet after a reset")
		}
	}
}

func TestBackPressureAndDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := connect(t, New(), at(hostB, 80))
		start := time.Now()
		c.SetWriteDeadline(start.Add(time.Minute))
		n, err := c.Write(make([]byte, window+1))
		if n != window || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Minute {
			t.Fatalf("wrote %d, %v after %v", n, err, time.Since(start))
		}
		if _, err := io.ReadFull(s, make([]byte, window)); err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(time.Second))
		if err := c.Wait(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("wait: %v", err)
		}
		c.SetReadDeadline(time.Time{})
		go func() {
			time.Sleep(time.Hour)
			s.Write([]byte("late"))
		}()
		if err := c.Wait(); err != nil || c.Quiet() {
			t.Fatalf("wait: %v", err)
		}
	})
}

func TestBacklogBlocksUntilContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		l, err := n.Listen(at(hostB, 80))
		if err != nil {
			t.Fatal(err)
		}
		for range backlog {
			if _, err := n.Dial(t.Context(), hostA, at(hostB, 80)); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := n.Dial(ctx, hostA, at(hostB, 80)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("full backlog: %v", err)
		}
		l.Close()
	})
}

func TestCapture(t *testing.T) {
	n := New()
	a, b := n.Host(hostA), n.Host(hostB)
	app, dst := at(hostB, 9080), at(hostB, 9080)
	listen := func(h *Host, addr netip.AddrPort) *Listener {
		l, err := h.Listen(addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	outbound := listen(a, netip.MustParseAddrPort("127.0.0.1:15001"))
	inbound := listen(b, netip.MustParseAddrPort("0.0.0.0:15006"))
	program := listen(b, app)
	a.CaptureOutbound(func(to netip.AddrPort) (netip.AddrPort, bool) {
		return outbound.AddrPort(), to.Port() == 9080
	})
	b.CaptureInbound(func(to netip.AddrPort) (netip.AddrPort, bool) {
		return netip.AddrPortFrom(hostB, 15006), to.Port() != 22
	})
	for _, c := range []struct {
		name string
		dial func(context.Context, netip.AddrPort) (net.Conn, error)
		at   *Listener
	}{
		{"program to its sidecar", a.Dial, outbound},
		{"sidecar to the other sidecar", a.DialDirect, inbound},
		{"sidecar to its program", b.DialDirect, program},
	} {
		conn, err := c.dial(t.Context(), dst)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := len(c.at.queue); got != 1 {
			t.Fatalf("%s: %d connections arrived where expected", c.name, got)
		}
		accepted, _ := c.at.Accept()
		if got := accepted.(*Conn).OriginalDst(); got != dst {
			t.Errorf("%s: original destination %v", c.name, got)
		}
		if conn.RemoteAddr().String() != dst.String() {
			t.Errorf("%s: the dialler sees %v", c.name, conn.RemoteAddr())
		}
	}
}

func TestBehavesAsNetConn(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		c, s := pair(at(hostA, 1), at(hostB, 2), at(hostB, 2))
		return c, s, func() { c.Close(); s.Close() }, nil
	})
}
