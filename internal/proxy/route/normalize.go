package route

import (
	"strings"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// NormalizePath gives the canonical form of a request target, so that routes and policies see what the workload will see: escapes
// of unreserved characters undone (RFC 3986 section 6.2.2.2), backslashes turned, dot segments removed (section 5.2.4), and with
// mergeSlashes runs of slashes made one. The query stays as it is. ok is false for targets that have no canonical form: with an
// escaped NUL, or leading out of the root. Targets that are canonical are returned without allocation; those that are no paths
// ("*", "") are left alone.
func NormalizePath(target string, mergeSlashes bool) (canonical string, ok bool) {
	path := pathOf(target)
	if path == "" || path[0] != '/' || isCanonical(path, mergeSlashes) {
		return target, true
	}
	decoded, ok := decodeUnreserved(path)
	if !ok {
		return "", false
	}
	out := make([]byte, 0, len(target))
	segments := strings.Split(decoded[1:], "/")
	for i, seg := range segments {
		last := i == len(segments)-1
		switch {
		case seg == "." || seg == "" && mergeSlashes:
			if last {
				out = slashEnd(out)
			}
		case seg == "..":
			if len(out) == 0 {
				return "", false
			}
			out = out[:strings.LastIndexByte(string(out), '/')]
			if last {
				out = slashEnd(out)
			}
		default:
			out = append(append(out, '/'), seg...)
		}
	}
	if len(out) == 0 {
		out = append(out, '/')
	}
	return string(append(out, target[len(path):]...)), true
}

// Canonical gives the path of a target the form that h asks for: escaped slashes are unescaped, then it is normalized, then slashes
// are merged, as far as each is asked for. elsewhere says that the client is to ask for canonical itself. ok is false for a path
// that is refused.
func Canonical(h *conf.HTTP, target string) (canonical string, elsewhere, ok bool) {
	canonical = target
	if h.EscapedSlashes != conf.KeepEscaped {
		canonical = unescapeSlashes(target)
		if canonical != target && h.EscapedSlashes == conf.RefuseEscaped {
			return "", false, false
		}
		elsewhere = canonical != target && h.EscapedSlashes == conf.RedirectUnescaped
	}
	switch {
	case h.NormalizePath:
		canonical, ok = NormalizePath(canonical, h.MergeSlashes)
		return canonical, elsewhere, ok
	case h.MergeSlashes:
		canonical = mergeSlashes(canonical)
	}
	return canonical, elsewhere, true
}

func unescapeSlashes(target string) string {
	path := pathOf(target)
	if !strings.Contains(path, "%2") && !strings.Contains(path, "%5") {
		return target
	}
	return escapedSlashes.Replace(path) + target[len(path):]
}

var escapedSlashes = strings.NewReplacer("%2F", "/", "%2f", "/", "%5C", "\\", "%5c", "\\")

func mergeSlashes(target string) string {
	path := pathOf(target)
	if !strings.Contains(path, "//") {
		return target
	}
	out := make([]byte, 0, len(target))
	for i := range len(path) {
		if path[i] != '/' || i == 0 || path[i-1] != '/' {
			out = append(out, path[i])
		}
	}
	return string(append(out, target[len(path):]...))
}

func slashEnd(out []byte) []byte {
	if n := len(out); n == 0 || out[n-1] != '/' {
		out = append(out, '/')
	}
	return out
}

// isCanonical may say no to a canonical path, never yes to another.
func isCanonical(path string, mergeSlashes bool) bool {
	for i := 0; i < len(path); i++ {
		switch path[i] {
		case '%', '\\':
			return false
		case '/':
			if i+1 < len(path) && (path[i+1] == '.' || mergeSlashes && path[i+1] == '/') {
				return false
			}
		}
	}
	return true
}

func decodeUnreserved(path string) (string, bool) {
	out := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '\\' {
			c = '/'
		}
		if c == '%' && i+2 < len(path) {
			hi, lo := message.Unhex(path[i+1]), message.Unhex(path[i+2])
			if v := hi<<4 | lo; hi < 16 && lo < 16 {
				if v == 0 {
					return "", false
				}
				if unreserved(v) {
					c = v
					i += 2
				}
			}
		}
		out = append(out, c)
	}
	return string(out), true
}

// unreserved are the characters of RFC 3986 section 2.3.
func unreserved(c byte) bool {
	return 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}
