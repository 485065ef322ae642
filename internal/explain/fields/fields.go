// Package fields compares messages field by field, for people. It knows no kind of message: elements of lists are told apart by their
// names where they have any, packed messages are looked into, and contents too long to be read are told by a digest.
package fields

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// Change is a field that two messages do not have alike. Path names it from the message on, with "[name]" or "[number]" for elements
// of lists; a side that does not have it says None.
type Change struct{ Path, Before, After string }

// None stands for a field that is not set.
const None = "none"

// Compare lists the fields of two messages of one type that differ. Ignore says which paths do not count, with all that is in them.
func Compare(before, after proto.Message, ignore func(path string) bool) []Change {
	c := &comparison{ignore: ignore}
	c.messages("", before.ProtoReflect(), after.ProtoReflect())
	return c.changes
}

type comparison struct {
	ignore  func(path string) bool
	changes []Change
}

func (c *comparison) say(path, before, after string) {
	if before != after {
		c.changes = append(c.changes, Change{path, before, after})
	}
}

func (c *comparison) messages(path string, b, a protoreflect.Message) {
	if b.Descriptor() != a.Descriptor() {
		c.say(path, compact(b), compact(a))
		return
	}
	if packed, ok := b.Interface().(*anypb.Any); ok {
		c.packed(path, packed, a.Interface().(*anypb.Any))
		return
	}
	if b.Descriptor().ParentFile().Package() == "google.protobuf" { // durations, numbers that may be absent, free structures
		c.say(path, compact(b), compact(a))
		return
	}
	list := b.Descriptor().Fields()
	for i := range list.Len() {
		f := list.Get(i)
		if at := join(path, string(f.Name())); (b.Has(f) || a.Has(f)) && !c.ignore(at) {
			c.field(at, f, b, a)
		}
	}
}

func (c *comparison) packed(path string, b, a *anypb.Any) {
	mb, err1 := b.UnmarshalNew()
	ma, err2 := a.UnmarshalNew()
	if err1 != nil || err2 != nil {
		if !proto.Equal(b, a) {
			c.say(path, b.GetTypeUrl()+" "+Digest(b.GetValue()), a.GetTypeUrl()+" "+Digest(a.GetValue()))
		}
		return
	}
	c.messages(path, mb.ProtoReflect(), ma.ProtoReflect())
}

func (c *comparison) field(path string, f protoreflect.FieldDescriptor, b, a protoreflect.Message) {
	switch {
	case f.IsMap():
		c.maps(path, f, b.Get(f).Map(), a.Get(f).Map())
	case f.IsList():
		c.lists(path, f, b.Get(f).List(), a.Get(f).List())
	case f.Message() == nil:
		c.say(path, scalar(path, f, b), scalar(path, f, a))
	case !b.Has(f):
		c.say(path, None, compact(a.Get(f).Message()))
	case !a.Has(f):
		c.say(path, compact(b.Get(f).Message()), None)
	default:
		c.messages(path, b.Get(f).Message(), a.Get(f).Message())
	}
}

func scalar(path string, f protoreflect.FieldDescriptor, m protoreflect.Message) string {
	if !m.Has(f) && (f.HasPresence() || f.Kind() == protoreflect.StringKind || f.Kind() == protoreflect.BytesKind) {
		return None
	}
	return value(path, f, m.Get(f))
}

func value(path string, f protoreflect.FieldDescriptor, v protoreflect.Value) string {
	switch f.Kind() {
	case protoreflect.EnumKind:
		if d := f.Enum().Values().ByNumber(v.Enum()); d != nil {
			return string(d.Name())
		}
	case protoreflect.BytesKind:
		return Digest(v.Bytes())
	case protoreflect.StringKind:
		if s := v.String(); strings.Contains(path, "private_key") {
			return "a key (" + Digest([]byte(s)) + ")"
		} else if len(s) > maxText || strings.Contains(s, "\n") {
			return Digest([]byte(s))
		}
	}
	return v.String()
}

// maxText bounds what is shown of a value.
const maxText = 100

// compact writes a message in one line.
func compact(m protoreflect.Message) string {
	if d, ok := m.Interface().(interface{ AsMap() map[string]any }); ok {
		return shorten(fmt.Sprint(d.AsMap()))
	}
	if m.Descriptor().ParentFile().Package() == "google.protobuf" {
		if f := m.Descriptor().Fields().ByName("value"); f != nil && f.Message() == nil && m.Descriptor().Fields().Len() == 1 {
			return shorten(m.Get(f).String())
		}
		if d, ok := m.Interface().(interface{ AsDuration() time.Duration }); ok {
			return d.AsDuration().String()
		}
	}
	if s, ok := only(m); ok {
		return shorten(s)
	}
	text := strings.Join(strings.Fields(prototext.MarshalOptions{}.Format(m.Interface())), " ")
	if strings.Contains(text, "PRIVATE KEY") || len(text) > maxText {
		return "set (" + Digest([]byte(exact(m))) + ")"
	}
	return cmp.Or(text, "set")
}

// only gives the one text that a message holds, besides choices.
func only(m protoreflect.Message) (text string, ok bool) {
	for f, v := range m.Range {
		if f.Kind() == protoreflect.EnumKind {
			continue
		}
		if ok || f.IsList() || f.IsMap() {
			return "", false
		}
		switch {
		case f.Kind() == protoreflect.StringKind && !strings.Contains(v.String(), "PRIVATE KEY"):
			text, ok = v.String(), true
		case f.Message() != nil:
			text, ok = only(v.Message())
		}
		if !ok {
			return "", false
		}
	}
	return text, ok
}

// shorten keeps the beginning of a text, and a digest of the whole.
func shorten(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "... (" + Digest([]byte(s)) + ")"
}

func (c *comparison) maps(path string, f protoreflect.FieldDescriptor, b, a protoreflect.Map) {
	keys := map[string]protoreflect.MapKey{}
	for _, m := range []protoreflect.Map{b, a} {
		for k := range m.Range {
			keys[k.String()] = k
		}
	}
	if sameValues(b, a, f.MapValue()) {
		return // only the keys differ, which are names
	}
	for _, name := range sortedKeys(keys) {
		k, at := keys[name], path+"["+name+"]"
		switch v := f.MapValue(); {
		case c.ignore(at):
		case v.Message() != nil && b.Has(k) && a.Has(k):
			c.messages(at, b.Get(k).Message(), a.Get(k).Message())
		default:
			c.say(at, mapped(at, v, b, k), mapped(at, v, a, k))
		}
	}
}

func mapped(path string, f protoreflect.FieldDescriptor, m protoreflect.Map, k protoreflect.MapKey) string {
	if !m.Has(k) {
		return None
	}
	return element(path, f, m.Get(k))
}

// sameValues reports whether maps of messages hold the same ones, under whatever keys.
func sameValues(b, a protoreflect.Map, f protoreflect.FieldDescriptor) bool {
	if f.Message() == nil || b.Len() != a.Len() {
		return false
	}
	var lists [2][]string
	for i, m := range []protoreflect.Map{b, a} {
		for _, v := range m.Range {
			lists[i] = append(lists[i], exact(v.Message()))
		}
		slices.Sort(lists[i])
	}
	return slices.Equal(lists[0], lists[1])
}

func exact(m protoreflect.Message) string {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m.Interface())
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

func (c *comparison) lists(path string, f protoreflect.FieldDescriptor, b, a protoreflect.List) {
	if f.Message() == nil {
		c.say(path, all(path, f, b, a), all(path, f, a, b))
		return
	}
	bn, an := namesOf(b), namesOf(a)
	if bn != nil && an != nil {
		c.named(path, f, b, a, bn, an)
		return
	}
	if b.Len() == a.Len() && !plain(b) {
		for i := range b.Len() {
			at := path
			if b.Len() > 1 {
				at = fmt.Sprintf("%s[%d]", path, i)
			}
			c.messages(at, b.Get(i).Message(), a.Get(i).Message())
		}
		return
	}
	c.say(path, all(path, f, b, a), all(path, f, a, b))
}

// plain reports whether a list's elements are texts, wrapped in messages or not.
func plain(l protoreflect.List) bool {
	for i := range l.Len() {
		if _, ok := only(l.Get(i).Message()); !ok {
			return false
		}
	}
	return true
}

// all writes a list in one line; of a long one, what the other does not have.
func all(path string, f protoreflect.FieldDescriptor, l, other protoreflect.List) string {
	if l.Len() == 0 {
		return None
	}
	list, others := texts(path, f, l), texts(path, f, other)
	if text := strings.Join(list, ", "); len(text) <= maxText {
		return text
	}
	own := slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(others, s) })
	if len(own) == 0 {
		return fmt.Sprintf("%d (%s)", len(list), Digest([]byte(strings.Join(list, ", "))))
	}
	return fmt.Sprintf("%d, among them %s", len(list), shorten(strings.Join(own, ", ")))
}

func texts(path string, f protoreflect.FieldDescriptor, l protoreflect.List) (out []string) {
	for i := range l.Len() {
		out = append(out, element(path, f, l.Get(i)))
	}
	return out
}

func element(path string, f protoreflect.FieldDescriptor, v protoreflect.Value) string {
	if f.Message() != nil {
		return compact(v.Message())
	}
	return value(path, f, v)
}

// namesOf gives the names of a list's elements; nil where they have none, or not one each.
func namesOf(l protoreflect.List) []string {
	names := []string{}
	for i := range l.Len() {
		m := l.Get(i).Message()
		f := m.Descriptor().Fields().ByName("name")
		if f == nil || f.Kind() != protoreflect.StringKind || !m.Has(f) || slices.Contains(names, m.Get(f).String()) {
			return nil
		}
		names = append(names, m.Get(f).String())
	}
	return names
}

func (c *comparison) named(path string, f protoreflect.FieldDescriptor, b, a protoreflect.List, bn, an []string) {
	var left, right []string // of those that both have, in order
	for i, name := range bn {
		at := path + "[" + name + "]"
		switch j := slices.Index(an, name); {
		case c.ignore(at):
		case j < 0:
			c.say(at, element(at, f, b.Get(i)), None)
		default:
			left = append(left, name)
			c.messages(at, b.Get(i).Message(), a.Get(j).Message())
		}
	}
	for j, name := range an {
		at := path + "[" + name + "]"
		switch {
		case c.ignore(at):
		case slices.Contains(bn, name):
			right = append(right, name)
		default:
			c.say(at, None, element(at, f, a.Get(j)))
		}
	}
	if !slices.Equal(left, right) {
		c.say(path+" in order", strings.Join(left, ", "), strings.Join(right, ", "))
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
