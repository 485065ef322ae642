package route

import (
	"strings"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// part is the kind of condition that failed.
type part uint8

const (
	matched part = iota
	pathPart
	headerPart
	queryPart
	cookiePart
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
		if !matchHeader(h, r) {
			return outcome{headerPart, i}
		}
	}
	if len(m.Query) > 0 {
		query := queryOf(r.Path)
		for i := range m.Query {
			if value, present := message.RawParam(query, m.Query[i].Name); !m.Query[i].Match(value, present) {
				return outcome{queryPart, i}
			}
		}
	}
	for i := range m.Cookies {
		if value, present := lookCookie(&r.Header, m.Cookies[i].Name); !m.Cookies[i].Match(value, present) {
			return outcome{cookiePart, i}
		}
	}
	if m.Never || m.Fraction > 0 && r.Random >= m.Fraction {
		return outcome{part: fractionPart}
	}
	return outcome{}
}

// matchHeader takes the values of a field that occurs several times joined (RFC 9110 section 5.3) and, as newer Envoys do, each
// alone: it suffices that one of these fulfils the condition, or with an inverted condition none of them may.
func matchHeader(h *conf.HeaderMatch, r *Request) bool {
	value, present := r.Lookup(h.Name)
	joined := h.Match(value, present)
	if joined != h.Invert || strings.IndexByte(value, ',') < 0 {
		return joined
	}
	for alone := range r.Header.Values(h.Name) {
		if h.Match(alone, true) != joined {
			return !joined
		}
	}
	return joined
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
