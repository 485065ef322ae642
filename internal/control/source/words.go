package source

import (
	"cmp"
	"reflect"
	"slices"
	"strconv"

	"gopkg.in/yaml.v3"

	"github.com/weftmesh/weft/internal/control/source/document"
)

// plain gives the text of an object in which booleans are not written in words that other readers take for texts: what the mesh shows
// means everywhere what it means here. Raw is the text as it was written, nil to have it written anew; tree is what it was read as.
func (w *reading) plain(root *yaml.Node, raw []byte, kind *Kind, tree any) []byte {
	if raw == nil {
		for _, n := range w.Words {
			n.Value, n.Tag = truth(n), "!!bool"
		}
		// The nodes came from a parser and hold no aliases any more: they can be written.
		raw, _ = yaml.Marshal(root)
		return raw
	}
	if len(w.Words) == 0 {
		return raw
	}
	text := raw
	words := slices.Clone(w.Words)
	slices.SortFunc(words, func(a, b *yaml.Node) int { return cmp.Or(cmp.Compare(b.Line, a.Line), cmp.Compare(b.Column, a.Column)) })
	for _, n := range words { // the last first, so that places stay
		text = document.Replace(text, n.Line-root.Line, n.Column-1, n.Value, truth(n))
	}
	// An anchor's word may be a text where an alias stands.
	again := reading{document.Walker{File: w.File}}
	roots, problem := document.Parse(w.File, text, 1)
	if problem != nil || len(roots) == 0 || !reflect.DeepEqual(again.Object(judged(kind, roots[0]), kind.New()), tree) {
		return raw
	}
	return text
}

// truth gives the boolean that a word stands for.
func truth(n *yaml.Node) string {
	var b bool
	_ = n.Decode(&b) // it was, when the word was found
	return strconv.FormatBool(b)
}
