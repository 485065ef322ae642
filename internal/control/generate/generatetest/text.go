// Package generatetest shows messages to tests: as text that is the same each time, after Envoy's own rules have been applied to them.
package generatetest

import (
	"regexp"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// Text renders a message for a golden file.
func Text(t *testing.T, m proto.Message) string {
	t.Helper()
	b, err := prototext.MarshalOptions{Multiline: true, Indent: "  "}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return afterName.ReplaceAllString(string(b), "$1 ")
}

// afterName is where prototext puts one space or two, at random so that nobody relies on it.
var afterName = regexp.MustCompile(`(?m)^(\s*[\w.\[\]/]+:) +`)

// Validate applies Envoy's own validation rules to a message and to all that are packed into it. Where names it in failures.
func Validate(t *testing.T, where string, m proto.Message) {
	t.Helper()
	if v, ok := m.(interface{ ValidateAll() error }); ok {
		if err := v.ValidateAll(); err != nil {
			t.Errorf("%s: %v", where, err)
		}
	}
	walk(m.ProtoReflect(), func(a *anypb.Any) {
		inner, err := a.UnmarshalNew()
		if err != nil {
			t.Errorf("%s: %v", where, err)
			return
		}
		Validate(t, where+" > "+string(a.MessageName()), inner)
	})
}

func walk(m protoreflect.Message, found func(*anypb.Any)) {
	if a, ok := m.Interface().(*anypb.Any); ok {
		found(a)
		return
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap() && f.MapValue().Message() != nil:
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool { walk(v.Message(), found); return true })
		case f.IsList() && f.Message() != nil:
			for i := range v.List().Len() {
				walk(v.List().Get(i).Message(), found)
			}
		case !f.IsMap() && !f.IsList() && f.Message() != nil:
			walk(v.Message(), found)
		}
		return true
	})
}
