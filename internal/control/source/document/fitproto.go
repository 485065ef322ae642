package document

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"gopkg.in/yaml.v3"
)

// Message walks a node that must fit a protobuf message, in its JSON form.
func (w *Walker) Message(n *yaml.Node, d protoreflect.MessageDescriptor, path string) any {
	if d.FullName() == "google.protobuf.Duration" {
		return w.duration(n, path)
	}
	if d.ParentFile().Package() == "google.protobuf" {
		return w.wellKnown(n, d, path)
	}
	out := w.fields(n, path, func(name string) func(*yaml.Node, string) any {
		f := d.Fields().ByJSONName(name)
		if f == nil {
			return nil
		}
		return func(v *yaml.Node, path string) any { return w.protoField(v, f, path) }
	}, func() []string { return jsonNames(d) })
	w.oneofs(n, d, path)
	return out
}

func jsonNames(d protoreflect.MessageDescriptor) []string {
	names := make([]string, d.Fields().Len())
	for i := range names {
		names[i] = d.Fields().Get(i).JSONName()
	}
	return names
}

// oneofs refuses two fields of which only one can be set.
func (w *Walker) oneofs(n *yaml.Node, d protoreflect.MessageDescriptor, path string) {
	if n.Kind != yaml.MappingNode {
		return
	}
	set := map[protoreflect.FullName]string{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		f := d.Fields().ByJSONName(k.Value)
		if f == nil || f.ContainingOneof() == nil || isNull(n.Content[i+1]) {
			continue
		}
		of := f.ContainingOneof().FullName()
		if other, ok := set[of]; ok {
			w.Add(k, "ConflictingFields", Join(path, k.Value), fmt.Sprintf("only one of %s and %s can be set", other, k.Value), "")
		}
		set[of] = k.Value
	}
}

func (w *Walker) protoField(n *yaml.Node, f protoreflect.FieldDescriptor, path string) any {
	switch {
	case f.IsMap():
		w.keys(n, f.MapKey().Kind(), path)
		return w.mapping(n, path, func(v *yaml.Node, path string) any { return w.protoValue(v, f.MapValue(), path) })
	case f.IsList():
		return w.sequence(n, path, func(v *yaml.Node, path string) any { return w.protoValue(v, f, path) })
	}
	return w.protoValue(n, f, path)
}

// keys checks those of a map that are not texts. They must be written in the one way that does not depend on the reader: 8080, not 08080.
func (w *Walker) keys(n *yaml.Node, kind protoreflect.Kind, path string) {
	var want string
	var fits func(key string) bool
	switch kind {
	case protoreflect.StringKind:
		return
	case protoreflect.BoolKind:
		want, fits = "true or false", func(key string) bool { return key == "true" || key == "false" }
	default:
		low, high := wholeNumbers(kind)
		want, fits = fmt.Sprintf("a whole number between %d and %d", low, high), func(key string) bool {
			i, err := strconv.ParseInt(key, 10, 64)
			return err == nil && i >= low && i <= high && strconv.FormatInt(i, 10) == key
		}
	}
	if n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if k := n.Content[i]; !fits(k.Value) {
			w.Add(k, "WrongType", Join(path, k.Value), "want "+want+" as key, got "+Describe(k), "")
		}
	}
}

// wholeNumbers gives the bounds of a kind of whole numbers.
func wholeNumbers(kind protoreflect.Kind) (low, high int64) {
	switch kind {
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return math.MinInt32, math.MaxInt32
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return 0, math.MaxUint32
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return 0, math.MaxInt64
	}
	return math.MinInt64, math.MaxInt64
}

func (w *Walker) protoValue(n *yaml.Node, f protoreflect.FieldDescriptor, path string) any {
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		if isNull(n) {
			return map[string]any{} // `key:` with nothing after it, as a map's value: present and empty
		}
		return w.Message(n, f.Message(), path)
	case protoreflect.EnumKind:
		return w.enum(n, f.Enum(), path)
	case protoreflect.StringKind:
		return w.str(n, path)
	case protoreflect.BytesKind:
		return w.bytes(n, path)
	case protoreflect.BoolKind:
		return w.boolean(n, path)
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return w.number(n, path)
	default:
		low, high := wholeNumbers(f.Kind())
		return w.integer(n, path, low, high)
	}
}

// unoffered are values that are known and refused.
var unoffered = []protoreflect.FullName{"istio.mesh.v1alpha1.MeshConfig.OutboundTrafficPolicy.ALLOW_ANY_DYNAMIC_DNS"}

func (w *Walker) enum(n *yaml.Node, e protoreflect.EnumDescriptor, path string) any {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" && e.Values().ByName(protoreflect.Name(n.Value)) != nil {
		return n.Value
	}
	var names []string
	for i := range e.Values().Len() {
		if v := e.Values().Get(i).FullName(); !slices.Contains(unoffered, v) {
			names = append(names, string(v.Name()))
		}
	}
	w.Add(n, "InvalidValue", path, Describe(n)+" is not one of "+strings.Join(names, ", "), "")
	return nil
}

// written is a duration in the right form, however long.
var written = regexp.MustCompile(`^[-+]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$`)

// duration takes what Istio's API server takes: "7s", "1h30m", "100ms".
func (w *Walker) duration(n *yaml.Node, path string) any {
	if tag := n.ShortTag(); n.Kind == yaml.ScalarNode && (tag == "!!int" || tag == "!!float") {
		w.Add(n, "WrongType", path, "want a duration, got "+Describe(n), fmt.Sprintf("write a number with its unit: %q, if seconds are meant", n.Value+"s"))
		return nil
	}
	s, ok := w.str(n, path).(string)
	if !ok {
		return nil
	}
	length, err := time.ParseDuration(s)
	switch {
	case err != nil && written.MatchString(s):
		w.Add(n, "InvalidValue", path, s+" is too long", "write less than ten years")
		return nil
	case err != nil:
		w.Add(n, "InvalidValue", path, fmt.Sprintf("%q is not a duration", s), `write a number with its unit: "500ms", "7s", "1h"`)
		return nil
	}
	return seconds(length)
}

// seconds writes a duration as protobuf's JSON does.
func seconds(d time.Duration) string {
	sign := ""
	if d < 0 {
		sign = "-"
	}
	whole, rest := (d / time.Second).Abs(), (d % time.Second).Abs()
	if rest == 0 {
		return fmt.Sprintf("%s%ds", sign, int64(whole))
	}
	return fmt.Sprintf("%s%d.%09ds", sign, int64(whole), int64(rest))
}

// wellKnown takes one of protobuf's own messages: of a wrapper the value, as definitions have it, who do not take numbers in quotes; others
// (Struct, Timestamp) go to protobuf's decoder.
func (w *Walker) wellKnown(n *yaml.Node, d protoreflect.MessageDescriptor, path string) any {
	if d.ParentFile().Path() == "google/protobuf/wrappers.proto" {
		return w.protoValue(n, d.Fields().ByName("value"), path)
	}
	v := w.free(n, path)
	data, err := json.Marshal(v)
	if err == nil {
		err = protojson.Unmarshal(data, dynamicpb.NewMessage(d))
	}
	if err != nil {
		w.Add(n, "WrongType", path, fmt.Sprintf("%s does not fit here (%s)", Describe(n), d.Name()), "")
	}
	return v
}
