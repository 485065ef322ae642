package message

import "encoding/binary"

// Chars is a set of bytes.
type Chars [256]bool

// CharsOf gives the set of the bytes of a text.
func CharsOf(text string) (c Chars) {
	for i := range len(text) {
		c[text[i]] = true
	}
	return c
}

// All reports whether s holds no others.
func (c *Chars) All(s string) bool {
	for i := 0; i < len(s); i++ {
		if !c[s[i]] {
			return false
		}
	}
	return true
}

var (
	// TokenChars is tchar of RFC 9110 section 5.6.2.
	TokenChars = CharsOf("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
	// TargetChars is visible ASCII without "#". RFC 3986 forbids some more, of which browsers send several unescaped
	// ("|", "{", "^", '"'); they end no token and cannot be misread. A fragment or a byte over 0x7e can.
	TargetChars = func() (c Chars) {
		for b := '!'; b <= '~'; b++ {
			c[b] = b != '#'
		}
		return c
	}()
)

// IsToken reports whether s is a token of RFC 9110 section 5.6.2.
func IsToken(s string) bool { return s != "" && TokenChars.All(s) }

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// ValidValue reports whether v holds no control character but HTAB (RFC 9110 section 5.5), eight bytes at a time.
func ValidValue(v []byte) bool {
	for len(v) >= 8 {
		x := binary.LittleEndian.Uint64(v)
		del := x ^ (ones * 0x7f)
		if ((x-ones*0x20)&^x|(del-ones)&^del)&highs != 0 && !validSlow(v[:8]) {
			return false
		}
		v = v[8:]
	}
	return validSlow(v)
}

func validSlow(v []byte) bool {
	for _, b := range v {
		if b < 0x20 && b != '\t' || b == 0x7f {
			return false
		}
	}
	return true
}

// UsualMethod gives the usual methods as constants, so that they outlive the exchange, and any else as it is.
func UsualMethod(s string) string {
	switch s {
	case "GET":
		return "GET"
	case "POST":
		return "POST"
	case "PUT":
		return "PUT"
	case "DELETE":
		return "DELETE"
	case "HEAD":
		return "HEAD"
	case "OPTIONS":
		return "OPTIONS"
	case "PATCH":
		return "PATCH"
	case "CONNECT":
		return "CONNECT"
	}
	return s
}
