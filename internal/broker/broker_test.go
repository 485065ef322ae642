package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/miekg/dns"

	"go.uber.org/goleak"

	"github.com/weftmesh/weft/internal/loopback/loopbacktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func serve(t *testing.T, opt Options, policy Policy) (*Server, Client) {
	t.Helper()
	dir, err := os.MkdirTemp("", "b") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(opt)
	t.Cleanup(func() { s.Close(); os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	if _, err := s.Serve(path, policy); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatalf("socket: %v %v", fi.Mode(), err)
	}
	return s, Client{Path: path}
}

// say connects to an address and expects the greeting of whoever accepts next.
func say(t *testing.T, conn net.Conn, want string) {
	t.Helper()
	defer conn.Close()
	got, err := io.ReadAll(conn)
	if err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got, err, want)
	}
}

func greet(t *testing.T, l net.Listener, text string) {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, text)
	c.Close()
}

func TestListenOutlivesItsGateway(t *testing.T) {
	published := netip.MustParseAddrPort(loopbacktest.Address(t)).Port() // which nobody else takes once it is released
	s, c := serve(t, Options{Publish: map[uint16]uint16{80: published}}, Policy{Listen: true})
	first, err := c.Listen(80)
	if err != nil {
		t.Fatal(err)
	}
	at := s.Published()
	if len(at) != 1 || at[0].Port != 80 || at[0].Address != first.Addr().String() {
		t.Fatalf("published %v, listener at %v", at, first.Addr())
	}
	first.Close()

	conn, err := net.Dial("tcp", at[0].Address) // nobody accepts now
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.Listen(80)
	if err != nil {
		t.Fatal(err)
	}
	greet(t, second, "second")
	say(t, conn, "second")

	if err := c.Release(80); err != nil {
		t.Fatal(err)
	}
	second.Close()
	if _, err := net.Dial("tcp", at[0].Address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("dial after release: %v", err)
	}
}

func TestListenPacket(t *testing.T) {
	s, c := serve(t, Options{Publish: map[uint16]uint16{443: 0}}, Policy{Listen: true})
	first, err := c.ListenPacket(443)
	if err != nil {
		t.Fatal(err)
	}
	at := s.Published()
	if len(at) != 1 || at[0].Address != first.LocalAddr().String() {
		t.Fatalf("published %v, UDP socket at %v", at, first.LocalAddr())
	}
	if _, err := c.ListenPacket(443); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("while another has it: %v", err)
	}
	first.Close()
	second, err := c.ListenPacket(443)
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
}

func TestDatagramPortOutlivesItsGateway(t *testing.T) {
	s, c := serve(t, Options{Publish: map[uint16]uint16{53: 0}}, Policy{Listen: true})
	first, err := c.ListenDatagrams(53)
	if err != nil {
		t.Fatal(err)
	}
	at := s.Published()
	if len(at) != 1 || !at[0].UDP || at[0].Address != first.LocalAddr().String() {
		t.Fatalf("published %v, socket at %v", at, first.LocalAddr())
	}
	first.Close()
	client, err := net.Dial("udp", at[0].Address) // nobody reads now
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := io.WriteString(client, "waits"); err != nil {
		t.Fatal(err)
	}
	second, err := c.ListenDatagrams(53)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 10)
	if n, _, err := second.ReadFrom(buf); err != nil || string(buf[:n]) != "waits" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	second.Close()
	if err := c.ReleaseDatagrams(53); err != nil {
		t.Fatal(err)
	}
	if at := s.Published(); len(at) != 0 {
		t.Errorf("published after the release: %v", at)
	}
}

// TestPortOfTwoGateways: a port stays open until nobody wants it any more, though a process of each end on its own.
func TestPortOfTwoGateways(t *testing.T) {
	s, one := serve(t, Options{Publish: map[uint16]uint16{80: 0}}, Policy{Listen: true})
	two := Client{Path: one.Path + "2"}
	stop, err := s.Serve(two.Path, Policy{Listen: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []Client{one, two} {
		l, err := c.Listen(80)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	before := s.Published()
	for range 2 { // the second changes nothing
		if err := one.Release(80); err != nil {
			t.Fatal(err)
		}
	}
	if now := s.Published(); len(now) != 1 || now[0] != before[0] {
		t.Errorf("published %v, then %v", before, now)
	}
	stop()
	if now := s.Published(); len(now) != 0 {
		t.Errorf("published for nobody: %v", now)
	}
}

func TestOnlyGatewaysListen(t *testing.T) {
	_, c := serve(t, Options{Publish: map[uint16]uint16{80: 0}}, Policy{})
	if _, err := c.Listen(80); !errors.Is(err, syscall.EACCES) {
		t.Fatalf("listen: %v", err)
	}
	if err := c.Release(80); !errors.Is(err, syscall.EACCES) {
		t.Fatalf("release: %v", err)
	}
}

func TestListenInUse(t *testing.T) {
	l, err := net.Listen("tcp", loopbacktest.Address(t)) // which nobody else takes once it is closed
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, c := serve(t, Options{Publish: map[uint16]uint16{80: uint16(l.Addr().(*net.TCPAddr).Port)}}, Policy{Listen: true})
	if _, err := c.Listen(80); !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("listen: %v", err)
	}
	un := s.Unpublished()
	if len(un) != 1 || un[0].Port != 80 || un[0].Address != l.Addr().String() || !errors.Is(un[0].Err, syscall.EADDRINUSE) {
		t.Errorf("unpublished: %+v", un)
	}
	l.Close()
	free, err := c.Listen(80)
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	if un := s.Unpublished(); len(un) != 0 {
		t.Errorf("unpublished once it is free: %+v", un)
	}
}

func TestDialDatagrams(t *testing.T) {
	echo, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	alias := netip.MustParseAddr("10.77.0.1")
	s, c := serve(t, Options{HostAlias: alias}, Policy{Listen: true})
	at := netip.MustParseAddrPort(echo.LocalAddr().String())
	for _, to := range []netip.AddrPort{at, netip.AddrPortFrom(alias, at.Port())} {
		u, err := c.DialDatagrams(t.Context(), to)
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		if _, err := u.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 10)
		if n, from, err := echo.ReadFrom(buf); err != nil || string(buf[:n]) != "hello" || from.String() != u.LocalAddr().String() {
			t.Errorf("%s: %q from %v, %v", to, buf[:n], from, err)
		}
	}
	sidecar := Client{Path: c.Path + "2"}
	if _, err := s.Serve(sidecar.Path, Policy{}); err != nil {
		t.Fatal(err)
	}
	if _, err := sidecar.DialDatagrams(t.Context(), at); err == nil {
		t.Error("a sidecar gets a socket for datagrams")
	}
}

func TestDial(t *testing.T) {
	l, err := net.Listen("tcp", loopbacktest.Address(t)) // which nobody else takes once it is closed
	if err != nil {
		t.Fatal(err)
	}
	_, c := serve(t, Options{HostAlias: netip.MustParseAddr("10.77.0.1"), HostName: "host.example"}, Policy{})
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	for _, addr := range []string{l.Addr().String(), "localhost:" + port, "10.77.0.1:" + port, "Host.example:" + port} {
		conn, err := c.Dial(t.Context(), "tcp4", addr)
		if err != nil {
			t.Fatalf("%s: %v", addr, err)
		}
		greet(t, l, "hello")
		say(t, conn, "hello")
	}
	l.Close()
	if _, err := c.Dial(t.Context(), "tcp", "127.0.0.1:"+port); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("closed port: %v", err)
	}
	var op *net.OpError
	if _, err := c.Dial(t.Context(), "unix", "/x"); !errors.As(err, &op) {
		t.Errorf("unix: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Dial(ctx, "tcp", "192.0.2.1:80"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestLookupErrorSurvives(t *testing.T) {
	f := faultOf(&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "x.example", IsNotFound: true}})
	var dns *net.DNSError
	if err := f.error(); !errors.As(err, &dns) || !dns.IsNotFound || dns.Name != "x.example" {
		t.Fatalf("got %v", err)
	}
}

// question is a query for the root's A record.
func question(id uint16) []byte {
	return append(binary.BigEndian.AppendUint16(nil, id), 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1)
}

// dnsServer answers over UDP with the TC bit and over TCP with a long message.
func dnsServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", loopbacktest.Address(t))
	if err != nil {
		t.Fatal(err)
	}
	u, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		buf := make([]byte, 512)
		for {
			n, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			wrong := append([]byte{}, buf[:n]...)
			wrong[0]++
			wrong[2] |= 0x80
			u.WriteTo(wrong, from)
			buf[2] |= 0x82
			u.WriteTo(buf[:n], from)
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var size [2]byte
			io.ReadFull(c, size[:])
			q := make([]byte, binary.BigEndian.Uint16(size[:]))
			io.ReadFull(c, q)
			a := append(q, make([]byte, 60000)...)
			a[2] |= 0x80
			c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(a))), a...))
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); u.Close(); <-done; <-done })
	return l.Addr().String()
}

func TestDNSFallsBackToTCPAndNextServer(t *testing.T) {
	dead := loopbacktest.Address(t) // refuses at once
	_, c := serve(t, Options{Resolvers: []string{dead, dnsServer(t)}}, Policy{})
	q := question(0x1234)
	a, err := c.ExchangeDNS(t.Context(), q)
	if err != nil || len(a) != len(q)+60000 || a[0] != 0x12 {
		t.Fatalf("answer of %d bytes, %v", len(a), err)
	}
	if _, err := c.ExchangeDNS(t.Context(), q[:5]); err == nil {
		t.Fatal("a short message was forwarded")
	}
}

// TestHostName: the host's own name has an address for who asks, though no DNS server knows it.
func TestHostName(t *testing.T) {
	_, c := serve(t, Options{Resolvers: []string{dnsServer(t)}, HostAlias: netip.MustParseAddr("10.77.0.1"), HostName: "host.weft.internal"}, Policy{})
	ask := func(name string, kind uint16) *dns.Msg {
		t.Helper()
		raw, err := new(dns.Msg).SetQuestion(name, kind).Pack()
		if err != nil {
			t.Fatal(err)
		}
		if raw, err = c.ExchangeDNS(t.Context(), raw); err != nil {
			t.Fatal(err)
		}
		r := new(dns.Msg)
		if err := r.Unpack(raw); err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := ask("Host.weft.internal.", dns.TypeA)
	if len(r.Answer) != 1 || !strings.HasSuffix(r.Answer[0].String(), "\tA\t10.77.0.1") || r.Rcode != dns.RcodeSuccess {
		t.Errorf("got %v", r)
	}
	if r := ask("host.weft.internal.", dns.TypeAAAA); len(r.Answer) != 0 || r.Rcode != dns.RcodeSuccess {
		t.Errorf("got %v for IPv6", r)
	}
}

func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	s, c := serve(t, Options{Resolvers: []string{silent.LocalAddr().String()}}, Policy{})
	failed := make(chan error)
	go func() {
		_, err := c.ExchangeDNS(t.Context(), question(1))
		failed <- err
	}()
	silent.ReadFrom(make([]byte, 100)) // the exchange waits for us now
	s.Close()
	if err := <-failed; err == nil {
		t.Fatal("answered after Close")
	}
}

// TestChanged: whoever shows the published ports hears when they come and go, and may look at them then.
func TestChanged(t *testing.T) {
	seen := make(chan int, 8)
	var at atomic.Pointer[Server]
	s, c := serve(t, Options{Publish: map[uint16]uint16{80: 0}, Changed: func() { seen <- len(at.Load().Published()) }}, Policy{Listen: true})
	at.Store(s)
	for range 2 { // the second is given what is open
		l, err := c.Listen(80)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	if err := c.Release(80); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{1, 0} {
		if got := <-seen; got != want {
			t.Errorf("%d ports, want %d", got, want)
		}
	}
	if len(seen) != 0 {
		t.Errorf("%d more changes", len(seen))
	}
}
