package matching

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"github.com/weftmesh/weft/internal/control/model"
)

// Key is equal for conditions that the same requests fulfil, whatever they are called and in whatever order they are written.
func Key(m model.HTTPMatch, last bool) string {
	byName := func(list []model.NamedMatch) []model.NamedMatch {
		return slices.SortedFunc(slices.Values(list), func(a, b model.NamedMatch) int { return strings.Compare(a.Name, b.Name) })
	}
	m.Name, m.Field, m.StatPrefix = "", "", ""
	m.Headers, m.Query = byName(m.Headers), byName(m.Query)
	if m.Path.IsZero() {
		m.Path = model.StringMatch{Prefix: "/"}
	}
	m.Path.SegmentPrefix = m.Path.SegmentPrefix && m.Path.Prefix != "/"
	h := fnv.New128a()
	fmt.Fprintf(h, "%v %+v", last, m)
	return string(h.Sum(nil))
}
