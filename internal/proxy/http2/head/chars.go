package head

import (
	"unsafe"

	"github.com/weftmesh/weft/internal/proxy/message"
)

// lowerToken is tchar of RFC 9110 section 5.6.2 without upper-case letters.
var lowerToken = message.CharsOf("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")

// ValidValue is stricter than RFC 9113 section 8.2.1, as RFC 9110 section 5.5 is: no control character but HTAB, and no white
// space at either end.
func ValidValue(v string) bool {
	if n := len(v); n > 0 && (blank(v[0]) || blank(v[n-1])) {
		return false
	}
	return message.ValidValue(unsafe.Slice(unsafe.StringData(v), len(v)))
}

func blank(b byte) bool { return b == ' ' || b == '\t' }
