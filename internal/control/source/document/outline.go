package document

import (
	"slices"

	"gopkg.in/yaml.v3"
)

// Outline says where the values of a document stand. It is what is left of the nodes once they have been decoded, at a small part of
// their size: an object may have a million of them, and they are asked for when there is something to say. It is immutable.
type Outline struct {
	spots []spot             // each value is followed by those within it; the first one is the whole document
	names []string           // of fields, each once
	inner map[uint32]innards // documents that stand in a value, by its place in spots
	// entries are the places of the entries of long sequences, by that of the sequence.
	entries map[uint32][]uint32
}

// longSequence has so many entries that going through them for each would be slow.
const longSequence = 64

// spot is where one value stands.
type spot struct {
	line uint32 // of the key where it is a field's, else of the value
	name uint32 // of the field, as a place in names
	next uint32 // place in spots of the next value that is not within this one
	kind spotKind
}

type spotKind uint8

const (
	scalarSpot spotKind = iota
	nullSpot
	mappingSpot
	sequenceSpot
)

// innards are a document within a value: the text of a literal block, whose lines are lines of the file, or nodes; see Wrap.
type innards struct {
	text string
	line int // of the text's first line
	root *yaml.Node
}

// OutlineOf makes the outline of nodes that hold no aliases.
func OutlineOf(root *yaml.Node) *Outline {
	d := drawing{Outline: &Outline{spots: make([]spot, 0, count(root))}, known: map[string]uint32{}}
	d.add(root, root.Line, 0)
	return d.Outline
}

func count(n *yaml.Node) int {
	sum := 1
	switch n.Kind {
	case yaml.MappingNode:
		for i := 1; i < len(n.Content); i += 2 {
			sum += count(n.Content[i])
		}
	case yaml.SequenceNode:
		for _, c := range n.Content {
			sum += count(c)
		}
	}
	return sum
}

// drawing is an outline that is being made.
type drawing struct {
	*Outline
	known map[string]uint32 // names, by place
}

func (d *drawing) add(n *yaml.Node, line int, name uint32) {
	at := len(d.spots)
	d.spots = append(d.spots, spot{line: uint32(line), name: name})
	kind := scalarSpot
	switch {
	case n.Kind == yaml.MappingNode:
		kind = mappingSpot
		for i := 0; i+1 < len(n.Content); i += 2 {
			d.add(n.Content[i+1], n.Content[i].Line, d.intern(n.Content[i].Value))
		}
	case n.Kind == yaml.SequenceNode:
		kind = sequenceSpot
		var entries []uint32
		for _, c := range n.Content {
			if len(n.Content) >= longSequence {
				entries = append(entries, uint32(len(d.spots)))
			}
			d.add(c, c.Line, 0)
		}
		d.list(at, entries)
	case isNull(n):
		kind = nullSpot
	case isLiteral(n):
		d.hold(at, innards{text: n.Value, line: n.Line + 1})
	}
	d.spots[at].kind, d.spots[at].next = kind, uint32(len(d.spots))
}

func (d *drawing) intern(name string) uint32 {
	i, ok := d.known[name]
	if !ok {
		i = uint32(len(d.names))
		d.known[name], d.names = i, append(d.names, name)
	}
	return i
}

func (o *Outline) list(at int, entries []uint32) {
	if entries == nil {
		return
	}
	if o.entries == nil {
		o.entries = map[uint32][]uint32{}
	}
	o.entries[uint32(at)] = slices.Clip(entries)
}

func (o *Outline) hold(at int, in innards) {
	if o.inner == nil {
		o.inner = map[uint32]innards{}
	}
	o.inner[uint32(at)] = in
}

// child gives the place of a field, or of an entry of a list.
func (o *Outline) child(at uint32, step any) (uint32, bool) {
	of := &o.spots[at]
	index, isIndex := step.(int)
	name, _ := step.(string)
	if isIndex != (of.kind == sequenceSpot) || of.kind <= nullSpot || index < 0 {
		return 0, false
	}
	if entries, long := o.entries[at]; long {
		if index >= len(entries) {
			return 0, false
		}
		return entries[index], true
	}
	for c := at + 1; c < of.next; c = o.spots[c].next {
		if isIndex && index == 0 || !isIndex && o.names[o.spots[c].name] == name {
			return c, true
		}
		index--
	}
	return 0, false
}

// follow goes along a path as far as it is written, and gives the steps that are not.
func (o *Outline) follow(path string) (at uint32, rest []any) {
	rest = steps(path)
	for len(rest) > 0 {
		next, ok := o.child(at, rest[0])
		if !ok {
			break
		}
		at, rest = next, rest[1:]
	}
	return at, rest
}

// Line of a path: that of the key of a field, of the entry of a list, or of the nearest ancestor of what is not written. It looks into
// documents that stand in a literal block.
func (o *Outline) Line(path string) int {
	at, rest := o.follow(path)
	if in, ok := o.inner[at]; ok && len(rest) > 0 {
		if n := along(in.nodes(), rest); n != nil {
			return n.Line
		}
	}
	return int(o.spots[at].line)
}

// Written reports whether a path has a value that is not null.
func (o *Outline) Written(path string) bool {
	at, rest := o.follow(path)
	return len(rest) == 0 && o.spots[at].kind != nullSpot
}

// innardsOf gives the document within the value of a path.
func (o *Outline) innardsOf(path string) (in innards, ok bool) {
	at, rest := o.follow(path)
	if len(rest) > 0 {
		return innards{}, false
	}
	in, ok = o.inner[at]
	return in, ok
}

// LastLine is where the last value stands: an item of a List may be spread over more lines than before, while its text, which is
// written anew, is equal.
func (o *Outline) LastLine() uint32 {
	if o == nil {
		return 0
	}
	return o.spots[len(o.spots)-1].line
}

// nodes of the document; nil when it has none.
func (in innards) nodes() *yaml.Node {
	if in.root != nil {
		return in.root
	}
	if roots, problem := Parse("", []byte(in.text), in.line); problem == nil && len(roots) > 0 {
		return roots[0]
	}
	return nil
}
