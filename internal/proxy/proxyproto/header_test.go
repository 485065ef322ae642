package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
)

var (
	client4, server4 = netip.MustParseAddrPort("203.0.113.7:51000"), netip.MustParseAddrPort("10.0.0.1:443")
	client6, server6 = netip.MustParseAddrPort("[2001:db8::7]:51000"), netip.MustParseAddrPort("[2001:db8::1]:443")
)

func TestVersion1(t *testing.T) {
	for in, want := range map[string]Header{
		"PROXY TCP4 203.0.113.7 10.0.0.1 51000 443\r\nGET": {1, false, client4, server4},
		"PROXY TCP6 2001:db8::7 2001:db8::1 51000 443\r\n": {1, false, client6, server6},
		"PROXY UNKNOWN\r\n": {Version: 1, Local: true},
		"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\nanything": {Version: 1, Local: true},
	} {
		h, n, err := Parse([]byte(in))
		if err != nil || h != want || n != strings.Index(in, "\r\n")+2 {
			t.Errorf("%q: %+v, %d, %v", in, h, n, err)
		}
	}
}

func TestVersion1IsStrict(t *testing.T) {
	for _, in := range []string{
		"PROXY TCP4  203.0.113.7 10.0.0.1 51000 443\r\n", "PROXY TCP4 203.0.113.7 10.0.0.1 51000\r\n",
		"PROXY TCP4 203.0.113.7 10.0.0.1 51000 443 \r\n", "PROXY TCP4 2001:db8::7 2001:db8::1 51000 443\r\n",
		"PROXY TCP6 203.0.113.7 10.0.0.1 51000 443\r\n", "PROXY TCP4 203.0.113.07 10.0.0.1 51000 443\r\n",
		"PROXY TCP4 203.0.113.7 10.0.0.1 051000 443\r\n", "PROXY TCP4 203.0.113.7 10.0.0.1 65536 443\r\n",
		"PROXY TCP4 203.0.113.7 10.0.0.1 +1 443\r\n", "PROXY TCP4 203.0.113.7 10.0.0.1 -1 443\r\n",
		"PROXY TCP6 fe80::1%eth0 2001:db8::1 51000 443\r\n", "PROXY UDP4 203.0.113.7 10.0.0.1 51000 443\r\n",
		"PROXY \r\n", "PROXY TCP4\r\n", "PROXY TCP4 203.0.113.7 10.0.0.1 51000 443\n" + strings.Repeat("x", 107),
		"PROXY UNKNOWN" + strings.Repeat("x", 107) + "\r\n",
	} {
		if h, n, err := Parse([]byte(in)); err == nil || errors.Is(err, ErrNone) || n != 0 {
			t.Errorf("%q is taken: %+v, %d, %v", in, h, n, err)
		}
	}
}

// with adds extensions to a header of version 2.
func with(header []byte, tlvs ...byte) []byte {
	out := append(bytes.Clone(header), tlvs...)
	binary.BigEndian.PutUint16(out[fixed2-2:], uint16(len(out)-fixed2))
	return out
}

func withChecksum(header []byte) []byte {
	out := with(header, typeChecksum, 0, 4, 0, 0, 0, 0)
	binary.BigEndian.PutUint32(out[len(out)-4:], crc32.Checksum(out, crc32.MakeTable(crc32.Castagnoli)))
	return out
}

func TestVersion2(t *testing.T) {
	plain := Append(nil, 2, client4, server4)
	local := append([]byte(begin2), command2Local, familyUnspec, 0, 0)
	for name, c := range map[string]struct {
		in   []byte
		want Header
	}{
		"IPv4":       {plain, Header{2, false, client4, server4}},
		"IPv6":       {Append(nil, 2, client6, server6), Header{2, false, client6, server6}},
		"extensions": {with(plain, 4, 0, 2, 9, 9, 0xe0, 0, 0), Header{2, false, client4, server4}},
		"checksum":   {withChecksum(with(plain, 4, 0, 1, 0)), Header{2, false, client4, server4}},
		"local":      {local, Header{Version: 2, Local: true}},
		"local with addresses": {append(append([]byte(begin2), command2Local, familyTCP4, 0, 12), plain[fixed2:]...),
			Header{Version: 2, Local: true}},
		"unix socket": {append(append([]byte(begin2), command2Proxy, familyStream, 0, 216), make([]byte, 216)...), Header{Version: 2, Local: true}},
	} {
		h, n, err := Parse(append(bytes.Clone(c.in), "more"...))
		if err != nil || h != c.want || n != len(c.in) {
			t.Errorf("%s: %+v, %d of %d, %v", name, h, n, len(c.in), err)
		}
		for i := 1; i < len(c.in); i++ {
			if _, n, err := Parse(c.in[:i]); n != 0 || err != nil {
				t.Errorf("%s: of %d bytes: %d, %v", name, i, n, err)
			}
		}
	}
}

func TestVersion2IsStrict(t *testing.T) {
	plain := Append(nil, 2, client4, server4)
	change := func(at int, to byte) []byte {
		b := bytes.Clone(plain)
		b[at] = to
		return b
	}
	summed := withChecksum(plain)
	summed[fixed2] ^= 1
	for name, in := range map[string][]byte{
		"version 1 in binary": change(12, 0x11), "unknown command": change(12, 0x22), "unknown family": change(13, 0x41),
		"addresses too short": append(append([]byte(begin2), command2Proxy, familyTCP6, 0, 12), plain[fixed2:]...),
		"too long":            append(append([]byte(begin2), command2Proxy, familyTCP4, 0xff, 0xff), plain[fixed2:]...),
		"truncated extension": with(plain, 4, 0), "extension beyond the header": with(plain, 4, 0, 9, 1), "wrong checksum": summed,
		"short checksum": with(plain, typeChecksum, 0, 2, 0, 0), "two checksums": withChecksum(withChecksum(plain)),
	} {
		if h, n, err := Parse(in); err == nil || n != 0 {
			t.Errorf("%s is taken: %+v, %d", name, h, n)
		}
	}
}

func TestNoHeader(t *testing.T) {
	for _, in := range []string{"GET / HTTP/1.1\r\n", "PROXx", "\r\n\r\n\x00\r\nQUIX", "\x16\x03\x01"} {
		if _, _, err := Parse([]byte(in)); !errors.Is(err, ErrNone) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestAppendOfMixedAndUnknownAddresses(t *testing.T) {
	for _, version := range []uint8{1, 2} {
		h, _, err := Parse(Append(nil, version, client4, server6))
		if err != nil || h.Local || h.Source.Addr().Unmap() != client4.Addr() || h.Destination != server6 {
			t.Errorf("mixed families: %+v, %v", h, err)
		}
		h, _, err = Parse(Append(nil, version, netip.AddrPort{}, server4))
		if err != nil || !h.Local {
			t.Errorf("unknown: %+v, %v", h, err)
		}
		mapped := netip.AddrPortFrom(netip.AddrFrom16(client4.Addr().As16()), client4.Port())
		if h, _, err = Parse(Append(nil, version, mapped, server4)); err != nil || h.Source != client4 {
			t.Errorf("mapped: %+v, %v", h, err)
		}
	}
}

func TestRead(t *testing.T) {
	pair := func(write string) (conn.Conn, net.Conn) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		out, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		in, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { out.Close(); in.Close() })
		if _, err := io.WriteString(out, write); err != nil {
			t.Fatal(err)
		}
		return conn.FromNet(in), out
	}
	c, out := pair("PROXY TCP4 203.0.113.7 10.0.0.1 51000 443\r\nhello")
	h, c, err := Read(c, time.Minute)
	if err != nil || h.Source != client4 {
		t.Fatalf("%+v, %v", h, err)
	}
	out.Close()
	var body []byte
	buf := make([]byte, 16)
	for {
		n, err := c.Read(buf)
		body = append(body, buf[:n]...)
		if err != nil {
			break
		}
	}
	if string(body) != "hello" {
		t.Errorf("after the header: %q", body)
	}
	c, _ = pair("GET / HTTP/1.1\r\n\r\n")
	_, c, err = Read(c, time.Minute)
	if n, readErr := c.Read(buf); !errors.Is(err, ErrNone) || readErr != nil || !strings.HasPrefix("GET / HTTP/1.1", string(buf[:min(n, 3)])) {
		t.Errorf("%v, %v, %q", err, readErr, buf[:n])
	}
	c, out = pair("PROXY TC")
	out.Close()
	if _, _, err = Read(c, time.Minute); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut off: %v", err)
	}
	c, _ = pair("PROXY TC")
	var timeout net.Error
	if _, _, err = Read(c, 20*time.Millisecond); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("stalled: %v", err)
	}
}

// FuzzParse checks that no header is longer than its bytes, that one byte less is never a whole header, and that what is read can
// be written and read again.
func FuzzParse(f *testing.F) {
	f.Add([]byte("PROXY TCP4 203.0.113.7 10.0.0.1 51000 443\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\nx"))
	f.Add(Append(nil, 2, client4, server4))
	f.Add(withChecksum(Append(nil, 2, client6, server6)))
	f.Add(append([]byte(begin2), command2Local, familyUnspec, 0, 3, 1, 2, 3))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := Parse(b)
		if n < 0 || n > len(b) || err != nil && n != 0 {
			t.Fatalf("%d of %d, %v", n, len(b), err)
		}
		if n == 0 {
			return
		}
		if _, short, err := Parse(b[:n-1]); short != 0 || err != nil {
			t.Fatalf("one byte less is %d, %v", short, err)
		}
		if h.Local != (!h.Source.IsValid() && !h.Destination.IsValid()) {
			t.Fatalf("%+v", h)
		}
		again, _, err := Parse(Append(nil, h.Version, h.Source, h.Destination))
		if err != nil || again.Local != h.Local || again.Source.Addr().Unmap() != h.Source.Addr().Unmap() || again.Source.Port() != h.Source.Port() {
			t.Fatalf("%+v became %+v, %v", h, again, err)
		}
	})
}
