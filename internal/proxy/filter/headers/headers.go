// Package headers changes header fields as routes say.
package headers

import (
	"strings"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// Lookup gives the value of a command operator (Envoy's "%NAME(argument)%"); ok is false for an operator it does not know.
type Lookup func(name, argument string) (value string, ok bool)

// Apply makes the changes: removes, then sets, then adds, then what depends on what is there. It allocates only for values with operators. change.Host is the
// caller's to apply: the authority is no field.
func Apply(h *message.Header, change *conf.HeaderChange, lookup Lookup) {
	for _, name := range change.Remove {
		h.Del(name)
	}
	for i := range change.Set {
		if v := Expand(change.Set[i].Value, lookup); v != "" || change.Set[i].Value == "" {
			h.Set(change.Set[i].Name, v)
		}
	}
	for i := range change.Add {
		if v := Expand(change.Add[i].Value, lookup); v != "" || change.Add[i].Value == "" {
			h.Add(change.Add[i].Name, v)
		}
	}
	for i := range change.Default {
		if _, ok := h.Get(change.Default[i].Name); !ok {
			if v := Expand(change.Default[i].Value, lookup); v != "" || change.Default[i].Value == "" {
				h.Add(change.Default[i].Name, v)
			}
		}
	}
	for i := range change.Replace {
		if _, ok := h.Get(change.Replace[i].Name); ok {
			if v := Expand(change.Replace[i].Value, lookup); v != "" || change.Replace[i].Value == "" {
				h.Set(change.Replace[i].Name, v)
			}
		}
	}
}

// Expand replaces the operators of a value. "%%" is a percent sign; an operator that is not known stays as it is written, and
// one without a value becomes "-", as in Envoy's formatter, unless it is the whole value: then there is no field to write and
// Expand gives the empty string.
func Expand(value string, lookup Lookup) string {
	if strings.IndexByte(value, '%') < 0 {
		return value
	}
	var b strings.Builder
	for rest := value; rest != ""; {
		i := strings.IndexByte(rest, '%')
		if i < 0 {
			b.WriteString(rest)
			break
		}
		b.WriteString(rest[:i])
		rest = rest[i+1:]
		end := operatorEnd(rest)
		if end < 0 {
			b.WriteByte('%')
			continue
		}
		operator := rest[:end]
		rest = rest[end+1:]
		switch v, ok := operate(operator, lookup); {
		case operator == "":
			b.WriteByte('%')
		case !ok:
			b.WriteString("%" + operator + "%")
		case v == "" && len(operator)+2 == len(value):
			return ""
		case v == "":
			b.WriteByte('-')
		default:
			b.WriteString(v)
		}
	}
	return b.String()
}

// operatorEnd is the position of the closing percent sign; arguments in parentheses may hold any character but ")".
func operatorEnd(s string) int {
	if open := strings.IndexByte(s, '('); open >= 0 && open < strings.IndexByte(s+"%", '%') {
		if shut := strings.IndexByte(s[open:], ')'); shut >= 0 {
			if i := strings.IndexByte(s[open+shut:], '%'); i >= 0 {
				return open + shut + i
			}
			return -1
		}
	}
	return strings.IndexByte(s, '%')
}

func operate(operator string, lookup Lookup) (string, bool) {
	if lookup == nil {
		return "", false
	}
	name, argument, has := strings.Cut(operator, "(")
	if has {
		argument, _, _ = strings.Cut(argument, ")")
	}
	return lookup(name, argument)
}
