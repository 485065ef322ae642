package document

import (
	"slices"

	"gopkg.in/yaml.v3"

	"github.com/weftmesh/weft/internal/control/model"
)

// Embedded parses a text that a field holds, with the lines that it has in the file: those of the block where it stands as it is, else
// all the one of the field. Where there is no outline, that is the given line. The root is nil when the text is empty.
func Embedded(within *Outline, file, path, text string, line int) (*yaml.Node, *model.Finding) {
	placed := false
	if within != nil {
		line = within.Line(path)
		if in, ok := within.innardsOf(path); ok && in.root != nil {
			return in.root, nil // see Wrap
		} else if ok {
			line, placed = in.line, true
		}
	}
	roots, problem := Parse(file, []byte(text), max(line, 1))
	if problem != nil || len(roots) == 0 {
		if problem != nil && !placed {
			problem.Line = line
		}
		return nil, problem
	}
	if !placed {
		flatten(roots[0], line)
	}
	return roots[0], nil
}

// isLiteral reports whether a scalar's lines are lines of the file.
func isLiteral(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Style&yaml.LiteralStyle != 0 }

// flatten puts a whole tree on one line.
func flatten(n *yaml.Node, line int) {
	n.Line = line
	for _, c := range n.Content {
		flatten(c, line)
	}
}

// Wrap gives the outline of a document that would hold a file's bare one as text in the field of the given path; Embedded then gives
// the bare one, with the file's own lines.
func Wrap(file string, data []byte, path string) (*Outline, *model.Finding) {
	roots, problem := Parse(file, data, 1)
	if problem != nil {
		return nil, problem
	}
	root := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: 1}
	if len(roots) > 0 {
		root = roots[0]
	}
	outer := &yaml.Node{Kind: yaml.ScalarNode, Line: 1}
	for _, step := range slices.Backward(steps(path)) {
		key, _ := step.(string)
		outer = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: 1,
			Content: []*yaml.Node{{Kind: yaml.ScalarNode, Tag: "!!str", Value: key, Line: 1}, outer}}
	}
	places := OutlineOf(outer)
	places.hold(len(places.spots)-1, innards{root: root}) // the innermost is the last
	return places, nil
}
