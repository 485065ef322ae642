package fields

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// Gather compares what the fields of two messages say anywhere in them, whichever element of a list it is that says it. A field that
// one element says and another does not is no difference to its being said by all.
func Gather(before, after proto.Message, ignore func(path string) bool) (out []Change) {
	b, a := gathered{}, gathered{}
	ignore = remembering(ignore)
	b.message("", before.ProtoReflect(), ignore)
	a.message("", after.ProtoReflect(), ignore)
	paths := map[string]bool{}
	for _, g := range []gathered{b, a} {
		for path := range g {
			paths[path] = true
		}
	}
	for _, path := range sortedKeys(paths) {
		gone, come := without(b[path], a[path]), without(a[path], b[path])
		if gone != come {
			out = append(out, Change{path, gone, come})
		}
	}
	return out
}

// remembering asks about each path once: a message with very many elements has few paths.
func remembering(ignore func(string) bool) func(string) bool {
	known := map[string]bool{}
	return func(path string) bool {
		answer, asked := known[path]
		if !asked {
			answer = ignore(path)
			known[path] = answer
		}
		return answer
	}
}

// without writes the values that the other side does not have.
func without(values, other map[string]bool) string {
	list := slices.DeleteFunc(sortedKeys(values), func(v string) bool { return other[v] })
	if len(list) == 0 {
		return None
	}
	return shorten(strings.Join(list, ", "))
}

// gathered are the values of each path.
type gathered map[string]map[string]bool

func (g gathered) add(path, value string) {
	if g[path] == nil {
		g[path] = map[string]bool{}
	}
	g[path][value] = true
}

func (g gathered) message(path string, m protoreflect.Message, ignore func(string) bool) {
	if packed, ok := m.Interface().(*anypb.Any); ok {
		if in, err := packed.UnmarshalNew(); err == nil {
			g.message(path, in.ProtoReflect(), ignore)
		} else {
			g.add(path, packed.GetTypeUrl()+" "+Digest(packed.GetValue()))
		}
		return
	}
	if m.Descriptor().ParentFile().Package() == "google.protobuf" {
		g.add(path, compact(m))
		return
	}
	for f, v := range m.Range {
		at := join(path, string(f.Name()))
		switch {
		case ignore(at):
		case f.IsMap():
			for k, v := range v.Map().Range {
				g.element(at+"["+k.String()+"]", f.MapValue(), v, ignore)
			}
		case f.IsList():
			for i := range v.List().Len() {
				g.element(at, f, v.List().Get(i), ignore)
			}
		default:
			g.element(at, f, v, ignore)
		}
	}
}

func (g gathered) element(path string, f protoreflect.FieldDescriptor, v protoreflect.Value, ignore func(string) bool) {
	switch {
	case ignore(path):
	case f.Message() != nil:
		g.message(path, v.Message(), ignore)
	default:
		g.add(path, value(path, f, v))
	}
}
