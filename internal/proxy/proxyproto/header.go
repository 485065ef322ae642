// Package proxyproto reads and writes the header of the PROXY protocol, versions 1 and 2, by which a load balancer tells whose
// connection it passes on. Source: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, whose sections are named below.
package proxyproto

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Header is what a header says.
type Header struct {
	// Version is 1 or 2.
	Version uint8
	// Local is set when the sender speaks for itself (a health check) or does not know: the connection's own addresses count.
	Local bool
	// Source and Destination are the addresses of the connection as the sender took it in; the zero value when Local.
	Source, Destination netip.AddrPort
}

const (
	begin1 = "PROXY "
	// maxLine is the longest header of version 1 (section 2.1).
	maxLine = 107
	begin2  = "\r\n\r\n\x00\r\nQUIT\n"
	// fixed2 is the part of a header of version 2 that is always there: signature, version and command, family, length.
	fixed2 = len(begin2) + 4
	// maxExtra bounds addresses and extensions of version 2. What senders are known to add, a client certificate included, is less.
	maxExtra = 16 << 10
)

// ErrNone is what Parse reports of bytes that begin no header.
var ErrNone = errors.New("no PROXY protocol header")

// Parse reads a header at the beginning of b. n is its length; 0 without an error means that more bytes are needed, which is so
// until b holds the header whole.
func Parse(b []byte) (h Header, n int, err error) {
	switch {
	case begins(b, begin2):
		return parse2(b)
	case begins(b, begin1):
		return parse1(b)
	}
	return h, 0, ErrNone
}

// begins reports whether b agrees with the signature as far as it goes.
func begins(b []byte, signature string) bool {
	k := min(len(b), len(signature))
	return string(b[:k]) == signature[:k]
}

// parse1 reads the line of version 1 (section 2.1).
func parse1(b []byte) (h Header, n int, err error) {
	end := bytes.Index(b[:min(len(b), maxLine)], []byte("\r\n"))
	switch {
	case end < 0 && len(b) >= maxLine:
		return h, 0, fmt.Errorf("version 1: the line does not end within %d bytes", maxLine)
	case end < 0:
		return h, 0, nil
	}
	h, err = line(string(b[:end]))
	if err != nil {
		return Header{}, 0, fmt.Errorf("version 1: %w", err)
	}
	return h, end + len("\r\n"), nil
}

func line(s string) (Header, error) {
	f := strings.Split(s, " ")
	if f[1] == "UNKNOWN" {
		return Header{Version: 1, Local: true}, nil // what follows is to be ignored
	}
	if len(f) != 6 || f[1] != "TCP4" && f[1] != "TCP6" {
		return Header{}, fmt.Errorf("%q is not of the form PROXY TCP4|TCP6 source destination port port", s)
	}
	h := Header{Version: 1}
	var err error
	if h.Source, err = addrPort(f[1], f[2], f[4]); err == nil {
		h.Destination, err = addrPort(f[1], f[3], f[5])
	}
	return h, err
}

func addrPort(family, address, port string) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(address)
	if err != nil || a.Zone() != "" || a.Is4() != (family == "TCP4") {
		return netip.AddrPort{}, fmt.Errorf("%q is not an address of %s", address, family)
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil || len(port) > 1 && port[0] == '0' || port[0] == '+' {
		return netip.AddrPort{}, fmt.Errorf("%q is not a port", port)
	}
	return netip.AddrPortFrom(a, uint16(p)), nil
}

// Append adds the header of a connection from src to dst to b. Version is 1 or 2. Where the addresses are not both known and of
// one family, the header says so.
func Append(b []byte, version uint8, src, dst netip.AddrPort) []byte {
	src, dst = netip.AddrPortFrom(src.Addr().Unmap(), src.Port()), netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
	known := src.IsValid() && dst.IsValid()
	if known && src.Addr().Is4() != dst.Addr().Is4() { // as IPv6 both can be told
		src = netip.AddrPortFrom(netip.AddrFrom16(src.Addr().As16()), src.Port())
		dst = netip.AddrPortFrom(netip.AddrFrom16(dst.Addr().As16()), dst.Port())
	}
	if version == 1 {
		return append1(b, src, dst, known)
	}
	return append2(b, src, dst, known)
}

func append1(b []byte, src, dst netip.AddrPort, known bool) []byte {
	if !known {
		return append(b, "PROXY UNKNOWN\r\n"...)
	}
	b = append(b, "PROXY TCP4 "...)
	if !src.Addr().Is4() {
		b[len(b)-2] = '6'
	}
	b = src.Addr().WithZone("").AppendTo(b)
	b = dst.Addr().WithZone("").AppendTo(append(b, ' '))
	b = strconv.AppendUint(append(b, ' '), uint64(src.Port()), 10)
	b = strconv.AppendUint(append(b, ' '), uint64(dst.Port()), 10)
	return append(b, "\r\n"...)
}
