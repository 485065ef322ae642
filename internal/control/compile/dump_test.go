package compile

import (
	"cmp"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/weftmesh/weft/internal/control/model"
)

// dump renders what was compiled as indented text: fields that are not zero, in the order of the model's own structs.
func dump(m *model.Mesh) string {
	var b strings.Builder
	d := dumper{&b}
	d.value(reflect.ValueOf(m), 0, "mesh")
	return b.String()
}

func isDefault(settings reflect.Value) bool {
	s, ok := settings.Interface().(model.Settings)
	d := withDefaults(model.Settings{})
	return ok && s.Equal(&d)
}

type dumper struct{ b *strings.Builder }

func (d dumper) line(depth int, format string, args ...any) {
	fmt.Fprintf(d.b, "%s%s\n", strings.Repeat("  ", depth), fmt.Sprintf(format, args...))
}

func (d dumper) value(v reflect.Value, depth int, label string) {
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return
		}
		v = v.Elem()
	}
	if text, ok := scalar(v); ok {
		d.line(depth, "%s: %s", label, text)
		return
	}
	if entries, ok := tableEntries(v); ok {
		v = entries
	}
	switch v.Kind() {
	case reflect.Struct:
		d.line(depth, "%s", label)
		for i := range v.NumField() {
			f := v.Field(i)
			name := v.Type().Field(i).Name
			if f.IsZero() || f.Kind() == reflect.Map && f.Len() == 0 || f.Type() == reflect.TypeFor[model.Settings]() && isDefault(f) || name == "ByAddress" || name == "ByNetwork" || name == "Created" {
				continue
			}
			if entries, ok := tableEntries(f); ok && entries.Len() == 0 {
				continue
			}
			d.value(f, depth+1, name)
		}
	case reflect.Map:
		d.line(depth, "%s", label)
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		for _, k := range keys {
			d.value(v.MapIndex(k), depth+1, fmt.Sprint(k))
		}
	case reflect.Slice:
		for i := range v.Len() {
			d.value(v.Index(i), depth, fmt.Sprintf("%s[%d]", label, i))
		}
	}
}

// tableEntries gives the map that a model.Table, of whichever types, holds.
func tableEntries(v reflect.Value) (reflect.Value, bool) {
	if !v.CanAddr() {
		return v, false
	}
	m := v.Addr().MethodByName("Entries")
	if !m.IsValid() {
		return v, false
	}
	return m.Call(nil)[0], true
}

// scalar renders what fits on a line.
func scalar(v reflect.Value) (string, bool) {
	switch x := v.Interface().(type) {
	case time.Duration, netip.Addr, netip.Prefix, model.Ref:
		return fmt.Sprint(x), true
	case []byte:
		return fmt.Sprintf("%q", short(string(x))), true
	case model.Port:
		return fmt.Sprintf("%d %s %s", x.Number, x.Name, x.Protocol), true
	case model.GatewayRef:
		return strings.TrimSuffix(fmt.Sprintf("%s %s/%s %s:%d", x.Kind, x.Namespace, x.Name, x.Section, x.Port), " :0"), true
	case model.StringMatch:
		return matchText(x), true
	case model.NamedMatch:
		return x.Name + " " + matchText(x.Match), true
	case map[string]string:
		return fmt.Sprint(x), true
	case map[uint16]uint16:
		return fmt.Sprint(x), true
	case [][2]string, map[string]uint32:
		return fmt.Sprint(x), true
	case []string:
		return strings.Join(x, ", "), true
	}
	switch v.Kind() {
	case reflect.String:
		return v.String(), true
	case reflect.Bool, reflect.Int, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float64:
		return fmt.Sprint(v.Interface()), true
	}
	return "", false
}

func short(s string) string {
	if len(s) > 60 {
		return s[:60] + "..."
	}
	return s
}

func matchText(m model.StringMatch) string {
	var out []string
	switch {
	case m.IsExact:
		out = append(out, fmt.Sprintf("exact %q", m.Exact))
	case m.Prefix != "":
		out = append(out, fmt.Sprintf("prefix %q", m.Prefix))
	case m.Regex != "":
		out = append(out, fmt.Sprintf("regex %q", m.Regex))
	case m.Present:
		out = append(out, "present")
	}
	if m.SegmentPrefix {
		out = append(out, "by segment")
	}
	if m.IgnoreCase {
		out = append(out, "ignoring case")
	}
	return strings.Join(out, " ")
}
