// Package headers changes header fields as routes say.
package headers

import (
	"strings"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// Lookup gives the value of a command operator (Envoy's "%NAME(argument)%"); ok is false for an operator it does not know.
type Lookup func(name, argument string) (value string, ok bool)

// Apply makes the changes: removes, then sets, then adds. Conditions and operators see the fields after the removal, so that no
// change depends on another. It allocates only for values with operators and for more than a few changes. change.Host is the
// caller's to apply: the authority is no field.
func Apply(h *message.Header, change *conf.HeaderChange, lookup Lookup) {
	for _, name := range change.Remove {
		h.Del(name)
	}
	var few [8]write
	writes := plan(few[:0], change.Set, nil, false, lookup)
	writes = plan(writes, change.Replace, h, true, lookup)
	set := len(writes)
	writes = plan(writes, change.Default, h, false, lookup)
	writes = plan(writes, change.Add, nil, false, lookup)
	for i := range writes {
		if w := &writes[i]; i < set {
			h.Set(w.name, w.value)
		} else {
			h.Add(w.name, w.value)
		}
	}
}

// write is a field whose value is known.
type write struct{ name, value string }

// plan appends what values come to. Where there is a header, it holds for those alone whose field is there, or is not.
func plan(writes []write, values []conf.HeaderValue, h *message.Header, there bool, lookup Lookup) []write {
	for i := range values {
		v := &values[i]
		if h != nil {
			if _, ok := h.Get(v.Name); ok != there {
				continue
			}
		}
		if s := Expand(v.Value, lookup); s != "" || v.Value == "" || v.KeepEmpty {
			writes = append(writes, write{v.Name, s})
		}
	}
	return writes
}

// Expand replaces the operators of a value. "%%" is a percent sign; an operator that is not known stays as it is written, and
// one without a value becomes nothing, as in Envoy's fields (in its logs it is "-").
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
