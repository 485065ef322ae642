package message

import (
	"iter"
	"unsafe"
)

// Field is one header field line, its name in the case in which it was received.
type Field struct {
	Name, Value string
	// Sensitive fields came with the request that no recipient compress them together with others (RFC 7541 section 7.1.3).
	Sensitive bool

	plain bool   // see AddPlain
	line  uint32 // length of the line that AddLine was told of, which begins with Name; 0 for none
}

// Header is the ordered list of a message's fields. Names compare without regard to ASCII case; order and case are kept
// because some peers depend on them. The zero value is empty and ready to use.
type Header struct {
	fields []Field
	seen   uint64 // the traces of all names that were added
}

// trace gives a bit for the length of a name and one for two of its letters in any case. Most names that are looked for are not there, and
// are found out by that. Upper and lower case differ by 32.
func trace(name string) uint64 {
	bit := uint64(1) << (len(name) & 31)
	if len(name) < 3 {
		return bit
	}
	return bit | 1<<32<<((5*name[0]+name[2])&31)
}

// MayHave is false if no field has that name, and seldom true without one.
func (h *Header) MayHave(name string) bool { return trace(name)&^h.seen == 0 }

// MayBegin is MayHave for the beginning of a name, which has at least three letters.
func (h *Header) MayBegin(prefix string) bool { return trace(prefix)>>32<<32&^h.seen == 0 }

// Len is the number of field lines.
func (h *Header) Len() int { return len(h.fields) }

// At gives field line i, 0 <= i < Len.
func (h *Header) At(i int) Field {
	f := h.fields[i]
	f.plain, f.line = false, 0 // fields are compared
	return f
}

// Line gives what AddLine was told of field i, "" if it was added or changed otherwise.
func (h *Header) Line(i int) string {
	f := &h.fields[i]
	return unsafe.String(unsafe.StringData(f.Name), f.line)
}

// Plain reports whether field i is as AddPlain has added it.
func (h *Header) Plain(i int) bool { return h.fields[i].plain }

// Name gives the name of field i.
func (h *Header) Name(i int) string { return h.fields[i].Name }

// All yields the field lines in order.
func (h *Header) All() iter.Seq[Field] {
	return func(yield func(Field) bool) {
		for i := range h.fields {
			if !yield(h.At(i)) {
				return
			}
		}
	}
}

// Get gives the value of the first field of that name.
func (h *Header) Get(name string) (value string, ok bool) {
	if !h.MayHave(name) {
		return "", false
	}
	for i := range h.fields {
		if EqualFold(h.fields[i].Name, name) {
			return h.fields[i].Value, true
		}
	}
	return "", false
}

// Values yields the values of every field of that name, in order.
func (h *Header) Values(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		if !h.MayHave(name) {
			return
		}
		for i := range h.fields {
			if f := &h.fields[i]; EqualFold(f.Name, name) && !yield(f.Value) {
				return
			}
		}
	}
}

// Add appends a field.
func (h *Header) Add(name, value string) {
	h.seen |= trace(name)
	h.fields = append(h.fields, Field{Name: name, Value: value})
}

// AddLine appends the field that a valid line of HTTP/1 consists of, in its plainest form: the name, a colon and a space, the value,
// CRLF. The strings are parts of the line. Who writes HTTP/1 may copy it as it is.
func (h *Header) AddLine(line string, name, value string) {
	h.seen |= trace(name)
	h.fields = append(h.fields, Field{Name: name, Value: value, line: uint32(len(line))})
}

// AddPlain appends a field of which its reader knows what every writer asks: the name is a token in lower case, the value valid, and
// both are the message's own and not its connection's.
func (h *Header) AddPlain(name, value string, sensitive bool) {
	h.seen |= trace(name)
	h.fields = append(h.fields, Field{Name: name, Value: value, Sensitive: sensitive, plain: true})
}

// AddSensitive appends a field that must not be put into a compression table.
func (h *Header) AddSensitive(name, value string) {
	h.seen |= trace(name)
	h.fields = append(h.fields, Field{Name: name, Value: value, Sensitive: true})
}

// Set replaces the first field of that name in place, drops its other occurrences, or appends.
func (h *Header) Set(name, value string) {
	if !h.MayHave(name) {
		h.Add(name, value)
		return
	}
	for i := range h.fields {
		if EqualFold(h.fields[i].Name, name) {
			f := &h.fields[i]
			f.Value, f.plain, f.line = value, false, 0
			h.fields = append(h.fields[:i+1], deleteNamed(h.fields[i+1:], name)...)
			return
		}
	}
	h.Add(name, value)
}

// Del removes every field of that name.
func (h *Header) Del(name string) {
	if h.MayHave(name) {
		h.fields = deleteNamed(h.fields, name)
	}
}

// DelFunc removes every field whose name is one that which selects.
func (h *Header) DelFunc(which func(name string) bool) {
	first := 0
	for first < len(h.fields) && !which(h.fields[first].Name) {
		first++
	}
	if first == len(h.fields) {
		return
	}
	kept := h.fields[:first]
	for i := first + 1; i < len(h.fields); i++ {
		if !which(h.fields[i].Name) {
			kept = append(kept, h.fields[i])
		}
	}
	clear(h.fields[len(kept):])
	h.fields = kept
}

// Reset removes all fields and keeps the storage.
func (h *Header) Reset() {
	if len(h.fields) > 0 {
		clear(h.fields)
		h.fields = h.fields[:0]
	}
	h.seen = 0
}

// CopyFrom makes h equal to src, reusing h's storage. The strings are shared.
func (h *Header) CopyFrom(src *Header) {
	h.fields, h.seen = append(h.fields[:0], src.fields...), src.seen
}

func deleteNamed(fs []Field, name string) []Field {
	first := 0
	for first < len(fs) && !EqualFold(fs[first].Name, name) {
		first++
	}
	kept := fs[:first]
	for _, f := range fs[first:] {
		if !EqualFold(f.Name, name) {
			kept = append(kept, f)
		}
	}
	clear(fs[len(kept):])
	return kept
}

// EqualFold reports whether a and b are equal without regard to ASCII case (RFC 9110 section 5.1). It does not fold other
// letters: strings.EqualFold would take the Kelvin sign for a k.
func EqualFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		x, y := a[i], b[i]
		if x == y {
			continue
		}
		if x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z' {
			return false
		}
	}
	return true
}
