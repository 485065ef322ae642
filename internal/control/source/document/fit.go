package document

import (
	"encoding"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"gopkg.in/yaml.v3"

	"github.com/weftmesh/weft/internal/control/model"
)

// Walker compares a document with the type it must fit, and builds the JSON value that the type's own decoder takes. The typed
// decoders ignore what they do not know and cannot name lines; the walk does both.
type Walker struct {
	File     string
	Ref      model.Ref
	Findings []model.Finding // an error each, but for MoreFindings
	// Words are booleans that are written in words which YAML 1.2 takes for texts: yes, no, on, off. Only who knows the type can tell.
	Words []*yaml.Node
}

// Add says what is wrong with a node, or that there is more to say, unless enough has been said.
func (w *Walker) Add(n *yaml.Node, code, path, message, hint string) {
	if w.Full() {
		return
	}
	f := model.Finding{Severity: model.Error, Code: code, Object: w.Ref, File: w.File, Line: n.Line, Field: path, Message: message, Hint: hint}
	if len(w.Findings) == model.MaxFindings {
		f = f.AndMore()
	}
	w.Findings = append(w.Findings, f)
}

// Full reports whether there was more to say than was kept.
func (w *Walker) Full() bool { return len(w.Findings) > model.MaxFindings }

// Object walks a whole document, which must fit what a pointer points to, and gives its JSON value.
func (w *Walker) Object(root *yaml.Node, into any) any {
	return w.value(root, reflect.TypeOf(into).Elem(), "")
}

var (
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
	protoMessage    = reflect.TypeFor[proto.Message]()
)

// value walks a node that must fit a Go type.
func (w *Walker) value(n *yaml.Node, t reflect.Type, path string) any {
	if isNull(n) {
		return nil
	}
	if t.Kind() == reflect.Pointer {
		return w.value(n, t.Elem(), path)
	}
	ptr := reflect.PointerTo(t)
	if ptr.Implements(protoMessage) {
		return w.Message(n, reflect.New(t).Interface().(proto.Message).ProtoReflect().Descriptor(), path)
	}
	if ptr.Implements(jsonUnmarshaler) || ptr.Implements(textUnmarshaler) {
		return w.leaf(n, t, path)
	}
	switch t.Kind() {
	case reflect.Struct:
		return w.structure(n, t, path)
	case reflect.Map:
		return w.mapping(n, path, func(v *yaml.Node, path string) any { return w.value(v, t.Elem(), path) })
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return w.bytes(n, path)
		}
		return w.sequence(n, path, func(v *yaml.Node, path string) any { return w.value(v, t.Elem(), path) })
	case reflect.String:
		return w.str(n, path)
	case reflect.Bool:
		return w.boolean(n, path)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return w.integer(n, path, -1<<(t.Bits()-1), 1<<(t.Bits()-1)-1)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return w.integer(n, path, 0, 1<<min(t.Bits(), 63)-1)
	case reflect.Float32, reflect.Float64:
		return w.number(n, path)
	default:
		return w.free(n, path)
	}
}

func (w *Walker) structure(n *yaml.Node, t reflect.Type, path string) any {
	fields := map[string]reflect.Type{}
	jsonFields(t, fields)
	return w.fields(n, path, func(name string) func(*yaml.Node, string) any {
		ft, ok := fields[name]
		if !ok {
			return nil
		}
		return func(v *yaml.Node, path string) any { return w.value(v, ft, path) }
	}, func() []string { return slices.Sorted(maps.Keys(fields)) })
}

// jsonFields collects the JSON names of a struct, embedded ones included.
func jsonFields(t reflect.Type, into map[string]reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-":
		case name != "":
			into[name] = f.Type
		case f.Anonymous:
			jsonFields(f.Type, into)
		}
	}
}

// fields walks a mapping whose keys are known: lookup gives the walk for a field, or nil when there is no such field.
func (w *Walker) fields(n *yaml.Node, path string, lookup func(string) func(*yaml.Node, string) any, names func() []string) any {
	if n.Kind != yaml.MappingNode {
		w.wrongType(n, path, "an object")
		return nil
	}
	out := make(map[string]any, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		at := Join(path, k.Value)
		walk := lookup(k.Value)
		if walk == nil {
			w.Add(k, "UnknownField", at, fmt.Sprintf("there is no field %q here", k.Value), DidYouMean(k.Value, names()))
			continue
		}
		if isNull(v) {
			continue // as if it were not written
		}
		out[k.Value] = walk(v, at)
	}
	return out
}

// mapping walks a mapping with free keys.
func (w *Walker) mapping(n *yaml.Node, path string, walk func(*yaml.Node, string) any) any {
	if n.Kind != yaml.MappingNode {
		w.wrongType(n, path, "an object")
		return nil
	}
	out := make(map[string]any, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		out[k.Value] = walk(n.Content[i+1], Join(path, k.Value))
	}
	return out
}

func (w *Walker) sequence(n *yaml.Node, path string, walk func(*yaml.Node, string) any) any {
	if n.Kind != yaml.SequenceNode {
		w.wrongType(n, path, "a list")
		return nil
	}
	out := make([]any, len(n.Content))
	for i, v := range n.Content {
		at := path + "[" + strconv.Itoa(i) + "]"
		if isNull(v) {
			w.Add(v, "WrongType", at, "an entry of the list is empty", "")
			continue
		}
		out[i] = walk(v, at)
	}
	return out
}

// leaf hands a value to the type's own decoder.
func (w *Walker) leaf(n *yaml.Node, t reflect.Type, path string) any {
	v := w.free(n, path)
	data, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(data, reflect.New(t).Interface())
	}
	if err != nil {
		w.Add(n, "InvalidValue", path, fmt.Sprintf("%s is not a %s: %v", Describe(n), strings.ToLower(t.Name()), err), "")
	}
	return v
}

// free takes anything.
func (w *Walker) free(n *yaml.Node, path string) any {
	switch {
	case isNull(n):
		return nil
	case n.Kind == yaml.MappingNode:
		return w.mapping(n, path, w.free)
	case n.Kind == yaml.SequenceNode:
		out := make([]any, len(n.Content))
		for i, v := range n.Content {
			out[i] = w.free(v, path+"["+strconv.Itoa(i)+"]")
		}
		return out
	}
	switch n.ShortTag() {
	case "!!int":
		return w.integer(n, path, math.MinInt64, math.MaxInt64)
	case "!!float":
		return w.number(n, path)
	case "!!bool":
		return w.boolean(n, path)
	}
	return n.Value
}

func (w *Walker) str(n *yaml.Node, path string) any {
	if n.Kind == yaml.ScalarNode {
		switch n.ShortTag() {
		case "!!str", "!!timestamp":
			return n.Value
		case "!!int", "!!float", "!!bool":
			w.Add(n, "WrongType", path, "want a string, got "+Describe(n), fmt.Sprintf("write %q, in quotes", n.Value))
			return nil
		}
	}
	w.wrongType(n, path, "a string")
	return nil
}

func (w *Walker) bytes(n *yaml.Node, path string) any {
	s, ok := w.str(n, path).(string)
	if !ok {
		return nil
	}
	s = strings.NewReplacer("\n", "", "\r", "", " ", "").Replace(s)
	if _, err := base64.StdEncoding.DecodeString(s); err != nil {
		w.Add(n, "InvalidValue", path, "not valid base64: "+err.Error(), "")
		return nil
	}
	return s
}

func (w *Walker) boolean(n *yaml.Node, path string) any {
	var b bool
	// The parser takes yes, no, on and off too, as Kubernetes' own does.
	if n.Kind != yaml.ScalarNode || n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0 || n.Decode(&b) != nil {
		w.wrongType(n, path, "true or false")
		return nil
	}
	if n.ShortTag() != "!!bool" {
		w.Words = append(w.Words, n)
	}
	return b
}

func (w *Walker) integer(n *yaml.Node, path string, low, high int64) any {
	var i int64
	switch {
	case n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int":
		if f, ok := wholeFloat(n); ok {
			i = f
			break
		}
		w.notNumber(n, path, "a whole number")
		return nil
	case n.Decode(&i) != nil:
		w.Add(n, "InvalidValue", path, fmt.Sprintf("%s is too large", n.Value), "")
		return nil
	}
	if i < low || i > high {
		w.Add(n, "InvalidValue", path, fmt.Sprintf("%d is not between %d and %d", i, low, high), "")
		return nil
	}
	return i
}

// wholeFloat takes 100.0 for 100, as JSON does not tell them apart.
func wholeFloat(n *yaml.Node) (int64, bool) {
	var f float64
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!float" || n.Decode(&f) != nil || math.Abs(f) > 1<<53 || f != math.Trunc(f) {
		return 0, false
	}
	return int64(f), true
}

func (w *Walker) number(n *yaml.Node, path string) any {
	var f float64
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" && n.ShortTag() != "!!float" || n.Decode(&f) != nil {
		w.notNumber(n, path, "a number")
		return nil
	}
	if math.IsNaN(f) || math.IsInf(f, 0) {
		w.Add(n, "InvalidValue", path, "want a finite number", "")
		return nil
	}
	return f
}

// notNumber says of a number in quotes that they are what is wrong.
func (w *Walker) notNumber(n *yaml.Node, path, want string) {
	hint := ""
	var number json.Number
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" && json.Unmarshal([]byte(n.Value), &number) == nil && number != "" {
		hint = "write " + n.Value + ", without quotes"
	}
	w.Add(n, "WrongType", path, "want "+want+", got "+Describe(n), hint)
}

func (w *Walker) wrongType(n *yaml.Node, path, want string) {
	w.Add(n, "WrongType", path, "want "+want+", got "+Describe(n), "")
}

// Describe names a value for messages.
func Describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "an object"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		if isNull(n) {
			return "nothing"
		}
		v := n.Value
		if len(v) > 40 {
			v = strings.ToValidUTF8(v[:40], "") + "..."
		}
		switch n.ShortTag() {
		case "!!int", "!!float":
			return "number " + v
		case "!!bool":
			return v
		}
		return strconv.Quote(v)
	}
	return "nothing"
}
