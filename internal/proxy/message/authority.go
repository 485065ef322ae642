package message

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// hostChar is what uri-host may hold outside brackets: RFC 3986 section 3.2.2 without pct-encoded, which some decode and others do
// not, so that they would route by different names. No name that resolves needs it.
var hostChar = func() (c [256]bool) {
	for _, b := range []byte("-._~!$&'()*+,;=0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") {
		c[b] = true
	}
	return c
}()

// ValidAuthority takes uri-host [":" port] (RFC 3986 section 3.2 without userinfo), the host not empty.
func ValidAuthority(s string) bool {
	host, port := s, ""
	if s != "" && s[0] == '[' {
		end := strings.IndexByte(s, ']')
		if end < 2 || !validLiteral(s[1:end]) {
			return false
		}
		port = s[end+1:]
	} else {
		if i := strings.IndexByte(s, ':'); i >= 0 {
			host, port = s[:i], s[i:]
		}
		if host == "" || !hostChars(host) {
			return false
		}
	}
	return port == "" || port[0] == ':' && validPort(port[1:])
}

func hostChars(s string) bool {
	for i := 0; i < len(s); i++ {
		if !hostChar[s[i]] {
			return false
		}
	}
	return true
}

// validLiteral takes IPv6address without a zone, and the characters of IPvFuture.
func validLiteral(s string) bool {
	if s[0] == 'v' || s[0] == 'V' {
		return hostChars(strings.ReplaceAll(s, ":", ""))
	}
	a, err := netip.ParseAddr(s)
	return err == nil && a.Is6() && a.Zone() == ""
}

// validPort takes the empty port too, which RFC 3986 section 3.2.3 allows.
func validPort(s string) bool {
	n, ok := ParseLength(s)
	return s == "" || ok && n <= 65535 && len(s) <= 5
}

// HostPort splits an authority; port is 0 when there is none. An IPv6 host loses its brackets.
func HostPort(authority string) (host string, port uint16) {
	host = authority
	if h, p, err := net.SplitHostPort(authority); err == nil {
		if n, err := strconv.ParseUint(p, 10, 16); err == nil {
			return h, uint16(n)
		}
		return h, 0
	}
	return strings.Trim(host, "[]"), 0
}
