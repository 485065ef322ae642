package relay_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weftmesh/weft/internal/memnet"
	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/conn/conntest"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/relay"
)

// body is a Source that gives its parts one by one, of which some are buffered at a time.
type body struct {
	parts    []string
	buffered bool
	err      error // at the end; nil means io.EOF
	trailers message.Header
}

func (b *body) ReadBody(p []byte) (int, error) {
	if len(b.parts) == 0 {
		if b.err != nil {
			return 0, b.err
		}
		return 0, io.EOF
	}
	n := copy(p, b.parts[0])
	if b.parts[0] = b.parts[0][n:]; b.parts[0] == "" {
		b.parts = b.parts[1:]
	}
	return n, nil
}

func (b *body) BodyBuffered() int {
	if b.buffered {
		return 1
	}
	return 0
}

func (b *body) Trailers() *message.Header { return &b.trailers }

// sink is a Sink that records.
type sink struct {
	log      strings.Builder
	failAt   int // WriteBody that fails, from 1
	writes   int
	flushErr error
}

func (s *sink) WriteBody(p []byte) error {
	if s.writes++; s.writes == s.failAt {
		return syscall.EPIPE
	}
	s.log.Write(p)
	return nil
}

func (s *sink) Flush() error {
	s.log.WriteString("|")
	return s.flushErr
}

func (s *sink) FinishBody(h *message.Header) error {
	s.log.WriteString(".")
	for f := range h.All() {
		s.log.WriteString(f.Name)
	}
	return nil
}

func TestCopyFlushesBeforeItMayBlock(t *testing.T) {
	for _, c := range []struct {
		src  body
		want string
	}{
		{body{parts: []string{"a", "b"}, buffered: true}, "ab."},
		{body{parts: []string{"a", "b"}}, "|a|b|."},
	} {
		c.src.trailers.Add("T", "1")
		var dst sink
		n, err := relay.Copy(&dst, &c.src, relay.Upstream)
		if got := dst.log.String(); n != 2 || err != nil || got != c.want+"T" {
			t.Errorf("got %q, %d, %v; want %q", got, n, err, c.want+"T")
		}
	}
}

func TestCopySaysWhoFailed(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name string
		src  body
		dst  sink
		side relay.Side
		op   string
		err  error
		n    int64
	}{
		{"read", body{parts: []string{"a"}, err: broken}, sink{}, relay.Downstream, "read", broken, 1},
		{"write", body{parts: []string{"a", "b"}}, sink{failAt: 2}, relay.Upstream, "write", syscall.EPIPE, 1},
		{"flush", body{parts: []string{"a"}}, sink{flushErr: broken}, relay.Upstream, "write", broken, 0},
	} {
		n, err := relay.Copy(&c.dst, &c.src, relay.Downstream)
		var e *relay.Error
		if !errors.As(err, &e) || e.Side != c.side || e.Op != c.op || !errors.Is(err, c.err) || n != c.n {
			t.Errorf("%s: %d, %v", c.name, n, err)
		}
		if strings.Contains(c.dst.log.String(), ".") {
			t.Errorf("%s: the body was finished", c.name)
		}
	}
}

func TestCopyMovesLongBodies(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 1<<16)
	var dst sink
	n, err := relay.Copy(&dst, &body{parts: []string{long}, buffered: true}, relay.Upstream)
	if err != nil || n != int64(len(long)) || dst.log.String() != long+"." {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if dst.writes > 7 {
		t.Errorf("%d writes: the buffer did not grow", dst.writes)
	}
	var among sharedSink
	if _, err := relay.Copy(&among, &body{parts: []string{long}, buffered: true}, relay.Upstream); err != nil {
		t.Fatal(err)
	}
	if among.writes < 8 || among.writes > 12 {
		t.Errorf("%d writes of a body among others on its connection, want pieces of 128 KiB", among.writes)
	}
}

// sharedSink has others on its connection.
type sharedSink struct{ sink }

func (*sharedSink) Shared() bool { return true }

// rig is a tunnel between a client and a server, in the middle of two connections.
type rig struct {
	client, server net.Conn
	cancel         context.CancelCauseFunc
	done           chan struct{}
	counts         relay.Counts
	err            error
}

// dials are the ways to make connections.
var dials = map[string]func(t *testing.T) (near, far net.Conn){"tcp": overTCP, "memory": inMemory, "tls": overTLS}

func overTLS(t *testing.T) (net.Conn, net.Conn) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"far"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	near, far := overTCP(t)
	client := tls.Client(near, &tls.Config{RootCAs: roots, ServerName: "far"})
	server := tls.Server(conn.ToNet(conn.FromNet(far)), &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	shaken := make(chan error, 1)
	go func() { shaken <- client.Handshake() }()
	if err := server.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	return client, server
}

func overTCP(t *testing.T) (net.Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, far := accept(t, l, a)
	return near, conntest.Adopt(t, conntest.Engine(t), far)
}

func inMemory(t *testing.T) (net.Conn, net.Conn) {
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
	return accept(t, l, a)
}

func accept(t *testing.T, l net.Listener, a net.Conn) (net.Conn, net.Conn) {
	t.Helper()
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func start(t *testing.T, dial func(*testing.T) (near, far net.Conn), idle time.Duration) *rig {
	t.Helper()
	r := &rig{done: make(chan struct{})}
	var down, up net.Conn
	r.client, down = dial(t)
	r.server, up = dial(t)
	var ctx context.Context
	ctx, r.cancel = context.WithCancelCause(t.Context())
	go func() {
		defer close(r.done)
		r.counts, r.err = relay.Tunnel(ctx, conn.WithPrefix(conn.FromNet(down), []byte("sniffed ")), conn.FromNet(up), idle)
	}()
	return r
}

func TestTunnelHalfCloses(t *testing.T) {
	for name, dial := range dials {
		t.Run(name, func(t *testing.T) {
			r := start(t, dial, time.Hour)
			r.client.Write([]byte("question"))
			r.client.(interface{ CloseWrite() error }).CloseWrite()
			if got, err := io.ReadAll(r.server); string(got) != "sniffed question" || err != nil {
				t.Fatalf("%q, %v", got, err)
			}
			r.server.Write([]byte("answer"))
			r.server.Close()
			if got, err := io.ReadAll(r.client); string(got) != "answer" || err != nil {
				t.Fatalf("%q, %v", got, err)
			}
			<-r.done
			if r.err != nil || r.counts != (relay.Counts{FromDownstream: 16, FromUpstream: 6}) {
				t.Fatalf("%+v, %v", r.counts, r.err)
			}
		})
	}
}

func TestTunnelMovesLongStreamsBothWays(t *testing.T) {
	const size = 40 << 20
	for name, dial := range dials {
		t.Run(name, func(t *testing.T) {
			r := start(t, dial, time.Hour)
			chunk := bytes.Repeat([]byte("0123456789abcdef"), 1<<12)
			send := func(c net.Conn) {
				for range size / len(chunk) {
					if _, err := c.Write(chunk); err != nil {
						t.Error(err)
						return
					}
				}
				c.(interface{ CloseWrite() error }).CloseWrite()
			}
			go send(r.client)
			go send(r.server)
			sums := make(chan [32]byte, 2)
			receive := func(c net.Conn, skip int64) {
				h := sha256.New()
				io.CopyN(io.Discard, c, skip)
				if n, err := io.Copy(h, c); n != size || err != nil {
					t.Errorf("%d bytes, %v", n, err)
				}
				sums <- [32]byte(h.Sum(nil))
			}
			go receive(r.client, 0)
			go receive(r.server, 8)
			if a, b := <-sums, <-sums; a != b {
				t.Error("the streams differ")
			}
			<-r.done
			if r.err != nil || r.counts != (relay.Counts{FromDownstream: size + 8, FromUpstream: size}) {
				t.Fatalf("%+v, %v", r.counts, r.err)
			}
		})
	}
}

func TestTunnelEndsWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, inMemory, time.Minute)
		for range 10 { // bytes in either direction keep it alive
			time.Sleep(50 * time.Second)
			r.server.Write([]byte("x"))
			io.ReadFull(r.client, make([]byte, 1))
		}
		last := time.Now()
		<-r.done
		if !errors.Is(r.err, relay.ErrIdle) || r.counts.FromUpstream != 10 {
			t.Fatalf("%+v, %v", r.counts, r.err)
		}
		if idle := time.Since(last); idle < time.Minute || idle > 90*time.Second {
			t.Fatalf("ended after %v", idle)
		}
	})
}

func TestTunnelEndsWhenAReceiverStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, inMemory, time.Minute)
		r.client.Write(make([]byte, 60<<10))
		r.client.Write(make([]byte, 60<<10))
		r.client.(interface{ CloseWrite() error }).CloseWrite()
		<-r.done
		if !errors.Is(r.err, relay.ErrIdle) {
			t.Fatal(r.err)
		}
	})
}

func TestTunnelEndsWithItsContext(t *testing.T) {
	for name, dial := range dials {
		t.Run(name, func(t *testing.T) {
			r := start(t, dial, 0)
			drained := errors.New("drained")
			r.cancel(drained)
			<-r.done
			if !errors.Is(r.err, drained) {
				t.Fatal(r.err)
			}
			if _, err := io.ReadAll(r.client); err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Fatal(err)
			}
		})
	}
}

func TestTunnelSaysWhoReset(t *testing.T) {
	for side, pick := range map[relay.Side]func(*rig) net.Conn{
		relay.Downstream: func(r *rig) net.Conn { return r.client },
		relay.Upstream:   func(r *rig) net.Conn { return r.server },
	} {
		r := start(t, inMemory, 0)
		pick(r).(*memnet.Conn).Reset()
		<-r.done
		var e *relay.Error
		if !errors.As(r.err, &e) || e.Side != side || !errors.Is(e, syscall.ECONNRESET) {
			t.Errorf("%v reset: %v", side, r.err)
		}
	}
}

// TestTunnelThatBreaksOffLooksLikeIt: what broke off on one side does not seem whole on the other.
func TestTunnelThatBreaksOffLooksLikeIt(t *testing.T) {
	for name, dial := range dials {
		t.Run(name, func(t *testing.T) {
			r := start(t, dial, 0)
			r.server.Write([]byte("half"))
			if _, err := io.ReadFull(r.client, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
			if c, ok := r.server.(*tls.Conn); ok {
				c.NetConn().Close() // no close_notify
			} else {
				r.server.(interface{ SetLinger(int) error }).SetLinger(0)
				r.server.Close()
			}
			if n, err := r.client.Read(make([]byte, 1)); err == nil || err == io.EOF {
				t.Fatalf("%d, %v", n, err)
			}
			<-r.done
		})
	}
}

// TestTunnelThatIsCutOffLooksLikeIt: so does what was ended from here, but for silence.
func TestTunnelThatIsCutOffLooksLikeIt(t *testing.T) {
	for name, dial := range dials {
		t.Run(name, func(t *testing.T) {
			r := start(t, dial, 0)
			r.cancel(errors.New("drained"))
			<-r.done
			if n, err := r.client.Read(make([]byte, 1)); err == nil || err == io.EOF {
				t.Fatalf("%d, %v", n, err)
			}
		})
	}
	r := start(t, overTCP, 50*time.Millisecond)
	if n, err := r.client.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("silent: %d, %v", n, err)
	}
	<-r.done
}

func TestTunnelWithoutHalfCloseEndsBoth(t *testing.T) {
	client, down := inMemory(t)
	server, up := net.Pipe()
	defer server.Close()
	done := make(chan error, 1)
	go func() {
		_, err := relay.Tunnel(t.Context(), conn.FromNet(down), conn.FromNet(up), 0)
		done <- err
	}()
	client.(*memnet.Conn).CloseWrite()
	if _, err := io.ReadAll(server); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
