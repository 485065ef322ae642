package http1

import (
	"encoding/binary"
	"unsafe"
)

// class is a set of bytes.
type class [256]bool

func classOf(chars string) (c class) {
	for i := range len(chars) {
		c[chars[i]] = true
	}
	return c
}

const alnum = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

var (
	// tchar is RFC 9110 section 5.6.2.
	tchar = classOf("!#$%&'*+-.^_`|~" + alnum)
	// targetChar is visible ASCII without "#". RFC 3986 forbids some more, of which browsers send several unescaped
	// ("|", "{", "^", '"'); they end no token and cannot be misread. A fragment or a byte over 0x7e can.
	targetChar = func() (c class) {
		for b := '!'; b <= '~'; b++ {
			c[b] = b != '#'
		}
		return c
	}()
)

func (c *class) all(s string) bool {
	for i := 0; i < len(s); i++ {
		if !c[s[i]] {
			return false
		}
	}
	return true
}

func isToken(s string) bool { return s != "" && tchar.all(s) }

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// validValue reports whether v holds no control character but HTAB (RFC 9110 section 5.5), eight bytes at a time.
func validValue(v []byte) bool {
	i := 0
	for ; i+8 <= len(v); i += 8 {
		x := binary.LittleEndian.Uint64(v[i:])
		del := x ^ (ones * 0x7f)
		if ((x-ones*0x20)&^x|(del-ones)&^del)&highs != 0 && !validSlow(v[i:i+8]) {
			return false
		}
	}
	return validSlow(v[i:])
}

func validSlow(v []byte) bool {
	for _, b := range v {
		if b < 0x20 && b != '\t' || b == 0x7f {
			return false
		}
	}
	return true
}

// str gives b as a string that shares its memory.
func str(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// raw gives the memory of s for reading.
func raw(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

func trimOWS(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}
