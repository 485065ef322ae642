package parts

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/model"
)

// Limit checks that a number is not negative.
func (p *Part) Limit(n int32, field string) uint32 {
	if n < 0 {
		p.Err("InvalidValue", field, "", "%d is negative", n)
		return 0
	}
	return uint32(n)
}

// OrEmpty gives what an optional string holds.
func OrEmpty[T ~string](v *T) string {
	if v == nil {
		return ""
	}
	return string(*v)
}

// NamespaceOr gives an optional namespace, or the other one.
func NamespaceOr(v *gatewayv1.Namespace, otherwise string) string {
	if OrEmpty(v) == "" {
		return otherwise
	}
	return string(*v)
}

// maxName bounds paths and names, in bytes; the Gateway API's own bound of a path.
const maxName = 1024

// NotTooBig refuses a text from which proxies would have to make too big a pattern.
func (p *Part) NotTooBig(v, field string) {
	if len(v) > maxName {
		p.Err("InvalidValue", field, "", "it has %d bytes, more than %d", len(v), maxName)
	}
}

// Named adds a condition. A second one for a name has no effect, as the Gateway API says.
func (p *Part) Named(list []model.NamedMatch, name, value, kind, field string) []model.NamedMatch {
	for _, have := range list {
		if have.Name == name {
			p.Warn("IgnoredMatch", field, "", "a second condition on %q has no effect", name)
			return list
		}
	}
	m := model.StringMatch{Exact: value, IsExact: true}
	switch kind {
	case "", "Exact":
	case "RegularExpression":
		p.Regex(value, field+".value")
		m = model.StringMatch{Regex: value}
	default:
		p.Err("InvalidValue", field+".type", "", "%q is neither Exact nor RegularExpression", kind)
	}
	return append(list, model.NamedMatch{Name: name, Match: m})
}

// SortedKeys gives the keys of a map in order.
func SortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// SplitList gives what stands between commas.
func SplitList(s string) []string {
	if s == "" {
		return nil
	}
	list := strings.Split(s, ",")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return list
}

// LabelList writes labels as selectors are written: a=b,c=d.
func LabelList(labels map[string]string) string {
	var list []string
	for _, k := range SortedKeys(labels) {
		list = append(list, k+"="+labels[k])
	}
	return strings.Join(list, ",")
}

// methods are those of RFC 9110 and PATCH.
var methods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}

// MethodMatches tells of a method that is written in another case than those of requests are.
func (p *Part) MethodMatches(method, field string) {
	if right := strings.ToUpper(method); method != right && slices.Contains(methods, right) {
		p.Warn("MethodNeverMatches", field, "write "+right, "%q is never the method of a request: methods are told apart by case", method)
	}
}
