package message

import "strings"

// Param gives the first value of a query parameter, with percent-encoding undone (allocating only then). A plus sign is itself, as in
// Envoy.
func Param(query, name string) (value string, present bool) {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		key, val, _ := strings.Cut(pair, "=")
		if unescape(key) == name {
			return unescape(val), true
		}
	}
	return "", false
}

// RawParam gives the first value of a query parameter as it is written, which is what Envoy's conditions on routes compare.
func RawParam(query, name string) (value string, present bool) {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		if key, val, _ := strings.Cut(pair, "="); pair != "" && key == name {
			return val, true
		}
	}
	return "", false
}

// unescape undoes percent-encoding; malformed escapes stay as they are.
func unescape(s string) string {
	i := strings.IndexByte(s, '%')
	if i < 0 {
		return s
	}
	out := append(make([]byte, 0, len(s)), s[:i]...)
	for ; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if hi, lo := Unhex(s[i+1]), Unhex(s[i+2]); hi < 16 && lo < 16 {
				out = append(out, hi<<4|lo)
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

// Unhex gives the value of a hexadecimal digit; 255 or more for anything else.
func Unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	}
	return 0xff
}
