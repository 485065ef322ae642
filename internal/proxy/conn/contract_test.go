package conn_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/memnet"
	"github.com/weftmesh/weft/internal/proxy/conn"
)

// transports are the ways to make a connected pair. Each must behave as Conn says.
func transports() []transport {
	all := []transport{
		{"tcp", func(t *testing.T) (conn.Conn, conn.Conn) { return overNet(tcpPair(t)) }},
		{"unix", func(t *testing.T) (conn.Conn, conn.Conn) { return overNet(listenPair(t, "unix", t.TempDir()+"/s")) }},
		{"memnet", func(t *testing.T) (conn.Conn, conn.Conn) { return overNet(memPair(t)) }},
		{"tls over tcp", func(t *testing.T) (conn.Conn, conn.Conn) { return overTLS(t, overNet2(tcpPair(t))) }},
		{"tls over memnet", func(t *testing.T) (conn.Conn, conn.Conn) { return overTLS(t, overNet2(memPair(t))) }},
		{"prefixed", func(t *testing.T) (conn.Conn, conn.Conn) {
			a, b := overNet(tcpPair(t))
			a, b = conn.WithPrefix(a, []byte("x")), conn.WithPrefix(b, []byte("y"))
			for _, c := range []conn.Conn{a, b} {
				if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
			}
			return a, b
		}},
	}
	return append(all, polled()...)
}

type transport struct {
	name string
	pair func(*testing.T) (a, b conn.Conn)
}

func tcpPair(t testing.TB) (net.Conn, net.Conn) { return listenPair(t, "tcp", "127.0.0.1:0") }

func listenPair(t testing.TB, network, addr string) (net.Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return closing(t, a, b)
}

func memPair(t *testing.T) (net.Conn, net.Conn) {
	t.Helper()
	n, addr := memnet.New(), netip.MustParseAddrPort("10.0.0.1:80")
	l, err := n.Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := n.Dial(t.Context(), netip.MustParseAddr("10.0.0.2"), addr)
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return closing(t, a, b)
}

func closing(t testing.TB, a, b net.Conn) (net.Conn, net.Conn) {
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func overNet(a, b net.Conn) (conn.Conn, conn.Conn) { return conn.FromNet(a), conn.FromNet(b) }
func overNet2(a, b net.Conn) [2]conn.Conn          { return [2]conn.Conn{conn.FromNet(a), conn.FromNet(b)} }

// overTLS runs crypto/tls over the pair.
func overTLS(t testing.TB, c [2]conn.Conn) (conn.Conn, conn.Conn) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"peer"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(parsed)
	client := tls.Client(conn.ToNet(c[0]), &tls.Config{RootCAs: roots, ServerName: "peer"})
	server := tls.Server(conn.ToNet(c[1]), &tls.Config{
		Certificates:           []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		SessionTicketsDisabled: true,
	})
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return conn.FromNet(client), conn.FromNet(server)
}

func TestContract(t *testing.T) {
	for _, tr := range transports() {
		for _, c := range []struct {
			name string
			test func(t *testing.T, a, b conn.Conn)
		}{
			{"carries bytes both ways", carries},
			{"waits without consuming", waits},
			{"half-closes", halfCloses},
			{"keeps deadlines", keepsDeadlines},
			{"is woken by Close", wokenByClose},
			{"knows when it is quiet", knowsQuiet},
			{"rests without a goroutine", rests},
		} {
			t.Run(tr.name+"/"+c.name, func(t *testing.T) {
				a, b := tr.pair(t)
				c.test(t, a, b)
			})
		}
	}
}

func carries(t *testing.T, a, b conn.Conn) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	for _, dir := range [][2]conn.Conn{{a, b}, {b, a}} {
		failed := make(chan error, 1)
		go func() {
			_, err := dir[0].Write(big)
			failed <- err
		}()
		got := make([]byte, len(big))
		if _, err := io.ReadFull(dir[1], got); err != nil {
			t.Fatal(err)
		}
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, big) {
			t.Fatal("bytes changed on the way")
		}
	}
	if a.RemoteAddr() != b.LocalAddr() || a.LocalAddr() != b.RemoteAddr() {
		t.Errorf("addresses %v-%v and %v-%v", a.LocalAddr(), a.RemoteAddr(), b.LocalAddr(), b.RemoteAddr())
	}
}

func waits(t *testing.T, a, b conn.Conn) {
	for range 3 {
		woken := make(chan error, 1)
		go func() { woken <- b.Wait() }()
		if _, err := a.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if err := <-woken; err != nil {
			t.Fatal(err)
		}
		if err := b.Wait(); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(b, got); err != nil || string(got) != "hello" {
			t.Fatalf("%q, %v", got, err)
		}
	}
}

func halfCloses(t *testing.T, a, b conn.Conn) {
	if _, err := a.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 10)
	if _, err := io.ReadFull(b, got); err != nil {
		t.Fatal(err)
	}
	if err := b.Wait(); err != nil {
		t.Fatalf("wait at the end: %v", err)
	}
	if n, err := b.Read(got); n != 0 || err != io.EOF {
		t.Fatalf("read at the end: %d, %v", n, err)
	}
	if _, err := b.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(a, got[:6]); err != nil || string(got[:6]) != "answer" {
		t.Fatalf("%q, %v", got[:6], err)
	}
}

func keepsDeadlines(t *testing.T, a, b conn.Conn) {
	a.SetReadDeadline(time.Now().Add(time.Millisecond))
	if err := a.Wait(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("wait: %v", err)
	}
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read: %v", err)
	}
	a.SetReadDeadline(time.Time{})
	b.Write([]byte("x"))
	if err := a.Wait(); err != nil {
		t.Fatalf("wait after the deadline was lifted: %v", err)
	}
	if n, err := a.Read(make([]byte, 8)); n != 1 || err != nil {
		t.Fatalf("read after the deadline was lifted: %d, %v", n, err)
	}
	a.SetWriteDeadline(time.Now().Add(time.Millisecond))
	for {
		if _, err := a.Write(make([]byte, 1<<20)); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("write: %v", err)
			}
			return
		}
	}
}

func wokenByClose(t *testing.T, a, b conn.Conn) {
	woken := make(chan error, 1)
	go func() {
		err := a.Wait()
		if err == nil {
			_, err = a.Read(make([]byte, 1))
		}
		woken <- err
	}()
	a.Close()
	if err := <-woken; !errors.Is(err, net.ErrClosed) {
		t.Errorf("reader: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

func knowsQuiet(t *testing.T, a, b conn.Conn) {
	if !conn.Quiet(a) {
		t.Fatal("a fresh connection is not quiet")
	}
	if _, err := b.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := a.Wait(); err != nil {
		t.Fatal(err)
	}
	if conn.Quiet(a) {
		t.Fatal("quiet with a byte to read")
	}
	if _, err := io.ReadFull(a, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if !conn.Quiet(a) {
		t.Fatal("not quiet after the byte was read")
	}
	b.Close()
	if err := a.Wait(); err != nil {
		t.Fatal(err)
	}
	if conn.Quiet(a) {
		t.Fatal("quiet after the peer closed")
	}
}

// rests is for those that can: OnReady comes once for data, for a deadline and for Close, and not at all when there is something
// to read already.
func rests(t *testing.T, a, b conn.Conn) {
	if !conn.Rests(b) {
		if conn.OnReady(b, func() { t.Error("ran") }) {
			t.Error("OnReady of a connection that cannot rest")
		}
		return
	}
	timeOut(t, b)
	ready := make(chan struct{}, 2)
	await := func() {
		t.Helper()
		if !conn.OnReady(b, func() { ready <- struct{}{} }) {
			t.Fatal("OnReady of an idle connection is false")
		}
	}
	await()
	if _, err := a.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	<-ready
	got := make([]byte, 5)
	if _, err := io.ReadFull(b, got); err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
	timeOut(t, b)
	await()
	b.SetReadDeadline(time.Unix(1, 0))
	<-ready
	if err := b.Wait(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	timeOut(t, b)
	await()
	b.Close()
	<-ready
	if conn.OnReady(b, func() { t.Error("ran") }) {
		t.Error("OnReady of a closed connection")
	}
	if len(ready) > 0 {
		t.Error("ran twice")
	}
}

// timeOut lets a Wait run into a deadline, which it lifts.
func timeOut(t *testing.T, c conn.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Millisecond))
	if err := c.Wait(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Time{})
}

func TestPrefixComesFirst(t *testing.T) {
	a, b := overNet(tcpPair(t))
	p := conn.WithPrefix(a, []byte("sniffed "))
	if conn.Quiet(p) || conn.NetReader(p) != nil {
		t.Error("a prefix is pending")
	}
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	b.Write([]byte("rest"))
	got := make([]byte, 12)
	if _, err := io.ReadFull(p, got); err != nil || string(got) != "sniffed rest" {
		t.Fatalf("%q, %v", got, err)
	}
	if conn.NetReader(p) == nil {
		t.Error("the socket is not reachable after the prefix")
	}
}

func TestWaitAndQuietAllocateNothing(t *testing.T) {
	a, b := overNet(tcpPair(t))
	b.Write([]byte("x"))
	n := testing.AllocsPerRun(100, func() {
		if err := a.Wait(); err != nil || conn.Quiet(a) {
			t.Fatal("nothing to read")
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
