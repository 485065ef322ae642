package parts

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/weftmesh/weft/internal/control/model"
)

// Unreachable warns of rules and matches that earlier ones leave nothing. It looks them up rather than comparing each with each, so
// that an object may have many.
func (p *Part) Unreachable(rs *model.RouteSet) {
	p.unreachableHTTP(rs.HTTP)
	seen := earlier{}
	for _, r := range rs.TLS {
		p.unreachableL4(seen, r.Field, r.Matches)
	}
	seen = earlier{}
	for _, r := range rs.TCP {
		p.unreachableL4(seen, r.Field, r.Matches)
	}
}

// earlier finds what was taken already: by the other conditions, and the path within them.
type earlier map[string]map[string]string

func (e earlier) take(conditions, path, field string) {
	if e[conditions] == nil {
		e[conditions] = map[string]string{}
	}
	if _, ok := e[conditions][path]; !ok {
		e[conditions][path] = field
	}
}

// Paths in earlier, of prefixes and exact ones; that of the rest is empty.
const (
	prefixPath = "prefix "
	exactPath  = "exact "
	regexPath  = "regex "
)

func (p *Part) unreachableHTTP(rules []model.HTTPRoute) {
	catchAll, seen := "", earlier{}
	for i, r := range rules {
		_, delegates := p.Delegates[i]
		if delegates {
			continue // what it takes is up to the other object
		}
		if catchAll != "" {
			p.Warn("RouteUnreachable", r.Field, "put it before, or give that rule a match", "never reached: %s takes every request", catchAll)
			continue
		}
		if len(r.Matches) == 0 {
			catchAll = r.Field
		}
		for _, m := range r.Matches {
			bare, conditions := httpConditions(&m)
			if by := seen.httpTakes(&m, bare, conditions); by != "" {
				p.Warn("RouteUnreachable", m.Field, "put it before, or take it out", "never reached: %s takes these requests", by)
				continue
			}
			if matchesAll(m) {
				catchAll = m.Field
			}
			seen.take(conditions, pathKey(m.Path), m.Field)
		}
	}
}

// httpConditions are those of a match besides its path, in one text: those that say where it holds at all, and all.
func httpConditions(m *model.HTTPMatch) (bare, all string) {
	if bare = strconv.FormatBool(m.Path.IgnoreCase) + strconv.FormatBool(m.Mesh); len(m.Gateways) > 0 {
		bare += fmt.Sprintf("%+v", m.Gateways)
	}
	rest := *m
	rest.Name, rest.Field, rest.StatPrefix, rest.Path, rest.Gateways, rest.Mesh = "", "", "", model.StringMatch{}, nil, false
	if reflect.ValueOf(&rest).Elem().IsZero() {
		return bare, bare
	}
	return bare, bare + fmt.Sprintf("%+v", rest) // maps print sorted
}

func pathKey(m model.StringMatch) string {
	switch {
	case m.Regex != "":
		return regexPath + m.Regex
	case m.Prefix != "":
		return prefixPath + m.Prefix
	case m.IsExact:
		return exactPath + m.Exact
	}
	return prefixPath
}

// maxCompared bounds the prefixes of one path that are looked up.
const maxCompared = 512

// httpTakes gives the field of an earlier match that takes all that this one would.
func (e earlier) httpTakes(m *model.HTTPMatch, bare, conditions string) string {
	for _, conditions := range []string{conditions, bare} {
		paths := e[conditions]
		if len(paths) == 0 {
			continue
		}
		if by := paths[pathKey(m.Path)]; by != "" {
			return by
		}
		if by := paths[prefixPath]; by != "" {
			return by
		}
		path := m.Path.Exact + m.Path.Prefix
		for n := 1; n <= min(len(path), maxCompared) && m.Path.Regex == ""; n++ {
			if by := paths[prefixPath+path[:n]]; by != "" {
				return by
			}
		}
	}
	return ""
}

// unreachableL4 does the same for rules of connections.
func (p *Part) unreachableL4(seen earlier, field string, matches []model.L4Match) {
	const all = ""
	if by := seen[all][all]; by != "" {
		p.Warn("RouteUnreachable", field, "put it before, or give that rule a match", "never reached: %s takes every connection", by)
		return
	}
	if len(matches) == 0 {
		seen.take(all, all, field)
	}
	for i, m := range matches {
		conditions := fmt.Sprintf("%+v", m)
		if by := seen[conditions][all]; by != "" {
			p.Warn("RouteUnreachable", At(field+".match", i), "put it before, or take it out", "never reached: %s takes these connections", by)
			continue
		}
		if strings.TrimSpace(conditions) == fmt.Sprintf("%+v", model.L4Match{}) {
			seen.take(all, all, At(field+".match", i))
		}
		seen.take(conditions, all, At(field+".match", i))
	}
}

// matchesAll reports whether a match takes every request that reaches it.
func matchesAll(m model.HTTPMatch) bool {
	return (m.Path.IsZero() || m.Path.Prefix == "/" || m.Path.Regex == ".*" || m.Path.Regex == "/.*") &&
		m.Scheme.IsZero() && m.Method.IsZero() && m.Authority.IsZero() && len(m.Headers)+len(m.WithoutHeaders)+len(m.Query) == 0 &&
		m.Port == 0 && len(m.SourceLabels) == 0 && m.SourceNamespace == "" && len(m.Gateways) == 0 && !m.Mesh
}
