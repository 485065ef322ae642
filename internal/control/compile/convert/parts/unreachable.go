package parts

import (
	"fmt"
	"iter"

	"github.com/weftmesh/weft/internal/control/compile/matching"
	"github.com/weftmesh/weft/internal/control/model"
)

// Unreachable warns of rules and matches that earlier ones leave nothing. It looks them up rather than comparing each with each, so
// that an object may have many.
func (p *Part) Unreachable(rs *model.RouteSet) {
	p.unreachableHTTP(rs.HTTP)
	seen := map[string]string{}
	for _, r := range rs.TLS {
		p.unreachableL4(seen, r.Field, r.Matches)
	}
	seen = map[string]string{}
	for _, r := range rs.TCP {
		p.unreachableL4(seen, r.Field, r.Matches)
	}
}

func (p *Part) unreachableHTTP(rules []model.HTTPRoute) {
	catchAll, seen, looser := "", matching.Index[string]{}, matching.Looser{} // which match of the object is the first with a key
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
			key := matching.KeyOf(&m)
			by := ""
			for _, v := range looser.Variants(&m) {
				if by = first(seen.Wider(matching.KeyOf(v))); by != "" {
					break
				}
			}
			if by != "" {
				p.Warn("RouteUnreachable", m.Field, "put it before, or take it out", "never reached: %s takes these requests", by)
				continue
			}
			if key == (matching.Key{}) {
				catchAll = m.Field
			}
			seen.Set(key, m.Field)
			looser.Add(&m)
		}
	}
}

func first(fields iter.Seq[string]) string {
	for f := range fields {
		return f
	}
	return ""
}

// unreachableL4 does the same for rules of connections.
func (p *Part) unreachableL4(seen map[string]string, field string, matches []model.L4Match) {
	const all = ""
	if by := seen[all]; by != "" {
		p.Warn("RouteUnreachable", field, "put it before, or give that rule a match", "never reached: %s takes every connection", by)
		return
	}
	if len(matches) == 0 {
		seen[all] = field
	}
	for i, m := range matches {
		conditions := fmt.Sprintf("%+v", m)
		if by := seen[conditions]; by != "" {
			p.Warn("RouteUnreachable", At(field+".match", i), "put it before, or take it out", "never reached: %s takes these connections", by)
			continue
		}
		if conditions == fmt.Sprintf("%+v", model.L4Match{}) && seen[all] == "" {
			seen[all] = At(field+".match", i)
		}
		seen[conditions] = At(field+".match", i)
	}
}
