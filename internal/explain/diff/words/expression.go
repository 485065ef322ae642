package words

import (
	"regexp"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// Expression is what a condition on a string is as one, anchored at both ends; "" where any value will do.
func Expression(m *conf.StringMatch) string {
	s := regexp.QuoteMeta(m.Value)
	switch m.Kind {
	case conf.Any:
		return ""
	case conf.Regex:
		return m.Regexp.String()
	case conf.PrefixOf:
		s += "(?s:.*)"
	case conf.Suffix:
		s = "(?s:.*)" + s
	case conf.Contains:
		s = "(?s:.*)" + s + "(?s:.*)"
	}
	if m.IgnoreCase {
		s = "(?i:" + s + ")"
	}
	return "^(?:" + s + ")$"
}
