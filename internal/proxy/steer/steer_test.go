package steer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/goleak"
	"golang.org/x/net/ipv4"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds waits for what should come soon.
const patience = 2 * time.Minute

// process is one that serves its share of a port: it answers each stream with its name and what it was sent.
type process struct {
	t    *testing.T
	name string
	conn *Conn
	tr   *quic.Transport
	end  func()
}

func config(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"a.example"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"echo"}},
		&tls.Config{RootCAs: roots, ServerName: "a.example", NextProtos: []string{"echo"}}
}

func begin(t *testing.T, name string, c *Conn, conf *tls.Config) *process {
	t.Helper()
	p := &process{t: t, name: name, conn: c, tr: &quic.Transport{Conn: c, ConnectionIDGenerator: c}}
	l, err := p.tr.Listen(conf, nil)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // ends with the listener
		defer close(done)
		for {
			q, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			go p.serve(q) // ends with the connection
		}
	}()
	ended := false
	p.end = func() {
		if ended {
			return
		}
		ended = true
		l.Close()
		<-done
		p.tr.Close()
		c.Close()
	}
	t.Cleanup(p.end)
	return p
}

func (p *process) serve(q *quic.Conn) {
	for {
		s, err := q.AcceptStream(context.Background())
		if err != nil {
			return
		}
		body, err := io.ReadAll(s)
		if err == nil {
			_, err = io.WriteString(s, p.name+" "+string(body))
		}
		if err == nil {
			s.Close()
		}
	}
}

// next is the process that takes the place of p, with what those before it still have.
func (p *process) next(name string, number byte, conf *tls.Config, gone func()) *process {
	p.t.Helper()
	dup := func(c interface{ File() (*os.File, error) }) *os.File {
		f, err := c.File()
		if err != nil {
			p.t.Fatal(err)
		}
		return f
	}
	f := dup(p.conn.UDPConn)
	defer f.Close()
	pc, err := net.FilePacketConn(f)
	if err != nil {
		p.t.Fatal(err)
	}
	c, err := New(pc.(*net.UDPConn), number, false)
	if err != nil {
		p.t.Fatal(err)
	}
	outs := map[byte]*net.UnixConn{p.conn.number: p.conn.Out()}
	p.conn.mu.Lock()
	for n, out := range p.conn.before {
		outs[n] = out
	}
	p.conn.mu.Unlock()
	for n, out := range outs {
		end, err := End(dup(out))
		if err != nil {
			p.t.Fatal(err)
		}
		c.Pass(n, end, gone)
	}
	q := begin(p.t, name, c, conf)
	p.conn.Yield()
	c.Take()
	return q
}

// TestTakeover: connections stay with the processes that made them, whoever reads the port.
func TestTakeover(t *testing.T) {
	serverTLS, clientTLS := config(t)
	port, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(port, 0, true)
	if err != nil {
		t.Fatal(err)
	}
	dial := func() *quic.Conn {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		q, err := quic.DialAddr(ctx, port.LocalAddr().String(), clientTLS, &quic.Config{HandshakeIdleTimeout: patience, MaxIdleTimeout: patience})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { q.CloseWithError(0, "") })
		return q
	}
	long := strings.Repeat("0123456789", 50_000)
	who := func(q *quic.Conn) string {
		t.Helper()
		s, err := q.OpenStreamSync(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.SetDeadline(time.Now().Add(patience))
		go func() {
			io.WriteString(s, long)
			s.Close()
		}()
		got, err := io.ReadAll(s)
		name, ok := strings.CutSuffix(string(got), " "+long)
		if err != nil || !ok {
			t.Fatalf("%d bytes that begin %.10q, %v", len(got), got, err)
		}
		return name
	}
	ask := func(q *quic.Conn, want string) {
		t.Helper()
		if got := who(q); got != want {
			t.Fatalf("answered by %s, want %s", got, want)
		}
	}
	// after dials when one process has taken the place of another, which may have been reading the port just then: once.
	after := func(before, want string) *quic.Conn {
		t.Helper()
		q := dial()
		if got := who(q); got != want && got != before {
			t.Fatalf("answered by %s, want %s", got, want)
		} else if got == before {
			q = dial()
		}
		ask(q, want)
		return q
	}
	gone := make(chan struct{}, 10)
	ended := func() { gone <- struct{}{} }
	first := begin(t, "first", c, serverTLS)
	one := dial()
	ask(one, "first")
	second := first.next("second", 1, serverTLS, ended)
	two := after("first", "second")
	ask(one, "first")
	third := second.next("third", 2, serverTLS, ended)
	three := after("second", "third")
	for range 3 {
		ask(three, "third")
		ask(one, "first")
		ask(two, "second")
	}
	two.CloseWithError(0, "")
	second.end()
	<-gone // heard by the third; the second has left what it passed on to the first by itself
	ask(one, "first")
	ask(three, "third")
	third.end()
	ask(one, "first") // which reads for itself again
	first.end()
	for len(gone) > 0 {
		<-gone
	}
}

// TestOwner: the number of a process is read from connection ids of its length alone.
func TestOwner(t *testing.T) {
	for _, c := range []struct {
		name   string
		packet []byte
		number byte
		told   bool
	}{
		{"short", []byte{0x40, 7, 1, 2, 3, 4, 5, 6, 0}, 7, true},
		{"long", []byte{0xc0, 0, 0, 0, 1, 7, 9, 1, 2, 3, 4, 5, 6, 0}, 9, true},
		{"a client's first", []byte{0xc0, 0, 0, 0, 1, 8, 9, 1, 2, 3, 4, 5, 6, 0}, 0, false},
		{"cut off", []byte{0x40, 7, 1, 2, 3, 4, 5}, 0, false},
		{"long, cut off", []byte{0xc0, 0, 0, 0, 1, 7, 9, 1, 2, 3}, 0, false},
		{"empty", nil, 0, false},
	} {
		if number, told := owner(c.packet); number != c.number || told != c.told {
			t.Errorf("%s: %d, %v", c.name, number, told)
		}
	}
}

// TestBadFrames: what cannot be a packet that was passed on is an empty one.
func TestBadFrames(t *testing.T) {
	port, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(port, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m := []ipv4.Message{{Buffers: [][]byte{make([]byte, 100)}, OOB: make([]byte, 10)}}
	head := make([]byte, frameHead)
	long := append([]byte(nil), head...)
	long[19] = 200
	for _, b := range [][]byte{{1}, head[:frameHead-1], long} {
		if _, err := c.out.Write(b); err != nil {
			t.Fatal(err)
		}
		if n, err := c.ReadBatch(m, 0); n != 1 || err != nil || m[0].N != 0 {
			t.Errorf("%d, %v, %d bytes", n, err, m[0].N)
		}
	}
	c.SetReadDeadline(longAgo)
	var late net.Error
	if _, err := c.ReadBatch(m, 0); !errors.As(err, &late) || !late.Timeout() {
		t.Error(err)
	}
}
