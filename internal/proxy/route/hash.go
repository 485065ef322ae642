package route

import (
	"math/bits"
	"net/netip"
	"strconv"
	"strings"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// Hash joins the hash policies of a route to the key of consistent hashing; ok is false when none of them finds anything. It is the
// same in every proxy and at all times. wanted is a policy whose cookie the client lacks and should get, or nil: the key is then
// that of a client whose cookie has the value fresh, which NewCookie makes.
func Hash(policies []conf.HashPolicy, r *message.Request, source netip.Addr, fresh uint64) (key uint64, wanted *conf.HashPolicy, ok bool) {
	for i := range policies {
		p := &policies[i]
		part, found := uint64(0), false
		switch {
		case p.Header != "":
			part, found = hashHeader(r, p.Header)
		case p.Cookie != "":
			if v := cookie(&r.Header, p.Cookie); v != "" {
				part, found = hashText(start, v), true
			} else if p.CookieGenerate && wanted == nil {
				var b [16]byte
				wanted, part, found = p, hashText(start, string(appendValue(b[:0], fresh))), true
			}
		case p.Query != "":
			_, query := r.SplitPath()
			if v, has := message.RawParam(query, p.Query); has {
				part, found = hashText(start, v), true
			}
		case p.SourceIP && source.IsValid():
			part, found = HashSource(source), true
		}
		if found {
			key, ok = bits.RotateLeft64(key, 1)^part, true
		}
		if p.Terminal && ok {
			break
		}
	}
	return key, wanted, ok
}

// HashSource is the key of a client's address.
func HashSource(a netip.Addr) uint64 {
	b := a.As16()
	h := uint64(start)
	for _, c := range b {
		h = (h ^ uint64(c)) * prime
	}
	return h
}

// FNV-1a; who uses the key mixes it once more.
const (
	start = 14695981039346656037
	prime = 1099511628211
)

func hashText(h uint64, s string) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * prime
	}
	return h
}

// hashHeader takes all values of a field.
func hashHeader(r *message.Request, name string) (uint64, bool) {
	if strings.HasPrefix(name, ":") {
		v, ok := r.Lookup(name)
		return hashText(start, v), ok
	}
	h, found := uint64(start), false
	for v := range r.Header.Values(name) {
		h, found = hashText(h, v), true
	}
	return h, found
}

func cookie(h *message.Header, name string) string {
	v, _ := lookCookie(h, name)
	return v
}

// lookCookie finds the first value of a cookie, without the quotes around it.
func lookCookie(h *message.Header, name string) (value string, present bool) {
	for line := range h.Values("Cookie") {
		for pair := range strings.SplitSeq(line, ";") {
			if k, v, ok := strings.Cut(strings.TrimSpace(pair), "="); ok && k == name {
				return strings.Trim(v, `"`), true
			}
		}
	}
	return "", false
}

// NewCookie is the Set-Cookie field of a policy for a random value (RFC 6265 section 4.1).
func NewCookie(p *conf.HashPolicy, value uint64) string {
	b := make([]byte, 0, 96)
	b = append(append(b, p.Cookie...), '=')
	b = appendValue(b, value)
	if p.CookieTTL > 0 {
		b = append(b, "; Max-Age="...)
		b = strconv.AppendInt(b, int64(p.CookieTTL.Seconds()), 10)
	}
	if p.CookiePath != "" {
		b = append(append(b, "; Path="...), p.CookiePath...)
	}
	for _, a := range p.CookieAttributes {
		b = append(append(b, "; "...), a.Name...)
		if a.Value != "" {
			b = append(append(b, '='), a.Value...)
		}
	}
	return string(append(b, "; HttpOnly"...))
}

func appendValue(b []byte, value uint64) []byte {
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, digits[value>>shift&15])
	}
	return b
}
