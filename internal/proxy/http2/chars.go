package http2

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

func (c *class) all(s string) bool {
	for i := 0; i < len(s); i++ {
		if !c[s[i]] {
			return false
		}
	}
	return true
}

const (
	lower = "0123456789abcdefghijklmnopqrstuvwxyz"
	upper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	marks = "!#$%&'*+-.^_`|~" // of tchar, RFC 9110 section 5.6.2
)

var (
	lowerToken = classOf(lower + marks)
	tchar      = classOf(lower + upper + marks)
	// targetChar is visible ASCII without "#": what breaks no message in HTTP/1.1 either.
	targetChar = func() (c class) {
		for b := '!'; b <= '~'; b++ {
			c[b] = b != '#'
		}
		return c
	}()
)

func token(s string) bool { return s != "" && tchar.all(s) }

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// validValue is stricter than RFC 9113 section 8.2.1, as RFC 9110 section 5.5 is: no control character but HTAB, and no white
// space at either end.
func validValue(v string) bool {
	if n := len(v); n > 0 && (blank(v[0]) || blank(v[n-1])) {
		return false
	}
	b := unsafe.Slice(unsafe.StringData(v), len(v))
	for len(b) >= 8 {
		x := binary.LittleEndian.Uint64(b)
		del := x ^ (ones * 0x7f)
		if ((x-ones*0x20)&^x|(del-ones)&^del)&highs != 0 && !validSlow(b[:8]) {
			return false
		}
		b = b[8:]
	}
	return validSlow(b)
}

func validSlow(v []byte) bool {
	for _, b := range v {
		if b < 0x20 && b != '\t' || b == 0x7f {
			return false
		}
	}
	return true
}

func blank(b byte) bool { return b == ' ' || b == '\t' }

// str gives b as a string that shares its memory.
func str(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
