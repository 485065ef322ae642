package conf

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// MatchKind is how a StringMatch compares.
type MatchKind uint8

// The kinds of comparison.
const (
	Any MatchKind = iota
	Exact
	PrefixOf
	Suffix
	Contains
	Regex // full match, RE2
)

// StringMatch is a compiled condition on a string. The zero value matches anything.
type StringMatch struct {
	Kind       MatchKind
	Value      string // folded (see Fold) when IgnoreCase
	IgnoreCase bool
	Regexp     *regexp.Regexp // anchored at both ends; for Regex only
}

// Match reports whether s fulfils the condition.
func (m *StringMatch) Match(s string) bool {
	if m.IgnoreCase && m.Kind != Regex && m.Kind != Any {
		return m.matchFold(s)
	}
	switch m.Kind {
	case Any:
		return true
	case Exact:
		return s == m.Value
	case PrefixOf:
		return strings.HasPrefix(s, m.Value)
	case Suffix:
		return strings.HasSuffix(s, m.Value)
	case Contains:
		return strings.Contains(s, m.Value)
	case Regex:
		return m.Regexp.MatchString(s)
	}
	return false
}

func (m *StringMatch) matchFold(s string) bool {
	n := len(m.Value)
	switch m.Kind {
	case Exact:
		return equalFold(s, m.Value)
	case PrefixOf:
		return len(s) >= n && equalFold(s[:n], m.Value)
	case Suffix:
		return len(s) >= n && equalFold(s[len(s)-n:], m.Value)
	case Contains:
		for i := 0; i+n <= len(s); i++ {
			if equalFold(s[i:i+n], m.Value) {
				return true
			}
		}
	}
	return false
}

// equalFold compares with the letters of ASCII taken for equal in both cases, as Envoy does. folded is in lower case.
func equalFold(s, folded string) bool {
	if len(s) != len(folded) {
		return false
	}
	for i := range len(s) {
		if lowerByte(s[i]) != folded[i] {
			return false
		}
	}
	return true
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}

// Fold gives a text in the lower case that IgnoreCase compares with: that of ASCII.
func Fold(s string) string {
	b := []byte(s)
	for i := range b {
		b[i] = lowerByte(b[i])
	}
	return string(b)
}

// String describes the condition for explanations (`exact "jason"`).
func (m *StringMatch) String() string {
	name := [...]string{"any", "exact", "prefix", "suffix", "contains", "regex"}[m.Kind]
	if m.Kind == Any {
		return name
	}
	if m.IgnoreCase {
		name += " (ignoring case)"
	}
	v := m.Value
	if m.Kind == Regex && v == "" && m.Regexp != nil {
		v = m.Regexp.String()
	}
	return name + " " + strconv.Quote(v)
}

// Prefix is an address range.
type Prefix = netip.Prefix
