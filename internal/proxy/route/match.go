package route

import (
	"strings"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// part is the kind of condition that failed.
type part uint8

const (
	matched part = iota
	pathPart
	headerPart
	queryPart
	fractionPart
	grpcPart
	presentedPart
	validatedPart
)

// outcome says which condition of a match failed first; index is its position among its kind.
type outcome struct {
	part  part
	index int
}

// check evaluates the conditions of m in a fixed order and stops at the first that fails. Find and FindTrace both end up here.
func check(m *conf.Match, r *Request) outcome {
	if !matchPath(m, pathOf(r.Path)) {
		return outcome{part: pathPart}
	}
	if m.GRPC && !r.GRPC {
		return outcome{part: grpcPart}
	}
	if m.Presented != nil && *m.Presented != r.Presented {
		return outcome{part: presentedPart}
	}
	if m.Validated != nil && *m.Validated != r.Validated {
		return outcome{part: validatedPart}
	}
	for i := range m.Headers {
		h := &m.Headers[i]
		if value, present := r.Lookup(h.Name); !h.Match(value, present) {
			return outcome{headerPart, i}
		}
	}
	if len(m.Query) > 0 {
		query := queryOf(r.Path)
		for i := range m.Query {
			if value, present := param(query, m.Query[i].Name); !present || !m.Query[i].Value.Match(value) {
				return outcome{queryPart, i}
			}
		}
	}
	if m.Never || m.Fraction > 0 && r.Random >= m.Fraction {
		return outcome{part: fractionPart}
	}
	return outcome{}
}

func matchPath(m *conf.Match, path string) bool {
	if !m.Path.Match(path) {
		return false
	}
	if n := len(m.Path.Value); m.PathSeparatedPrefix && m.Path.Kind == conf.PrefixOf {
		return len(path) == n || path[n] == '/'
	}
	return true
}

// pathOf is the path without query and fragment.
func pathOf(target string) string {
	if i := strings.IndexAny(target, "?#"); i >= 0 {
		return target[:i]
	}
	return target
}

func queryOf(target string) string {
	if i := strings.IndexByte(target, '#'); i >= 0 {
		target = target[:i]
	}
	_, query, _ := strings.Cut(target, "?")
	return query
}

// param gives the first value of a query parameter, with percent-encoding undone (allocating only then). A plus sign is itself, as
// in Envoy.
func param(query, name string) (value string, present bool) {
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

// unescape undoes percent-encoding; malformed escapes stay as they are.
func unescape(s string) string {
	i := strings.IndexByte(s, '%')
	if i < 0 {
		return s
	}
	out := append(make([]byte, 0, len(s)), s[:i]...)
	for ; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if hi, lo := unhex(s[i+1]), unhex(s[i+2]); hi < 16 && lo < 16 {
				out = append(out, hi<<4|lo)
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	}
	return 0xff
}
