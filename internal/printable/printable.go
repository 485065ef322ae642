// Package printable makes text that others wrote safe to show: a terminal takes some characters as orders, and some change the order in
// which a line is read.
package printable

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text gives s with what a terminal would not print as it is (control characters, those that turn the direction of text, invalid bytes)
// as escapes of Go, such as \x1b. A line end is one of them. It gives s itself where there is nothing to escape.
func Text(s string) string { return escape(s, false) }

// Lines is Text for what has several lines.
func Lines(s string) string { return escape(s, true) }

func escape(s string, lines bool) string {
	first := strings.IndexFunc(s, func(r rune) bool { return r == utf8.RuneError || order(r, lines) })
	if first < 0 {
		return s
	}
	var b strings.Builder
	b.WriteString(s[:first])
	for i := first; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 || order(r, lines) {
			quoted := strconv.QuoteToASCII(s[i : i+n])
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteRune(r)
		}
		i += n
	}
	return b.String()
}

// order reports whether a terminal, or who lays out text, takes a character as an order.
func order(r rune, lines bool) bool {
	return unicode.IsControl(r) && !(lines && r == '\n') || unicode.Is(unicode.Bidi_Control, r)
}
