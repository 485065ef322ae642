package conf

import (
	"maps"
	"regexp/syntax"
	"slices"
	"strings"
)

// RouteIndex finds, for a virtual host with many routes, those that a path can match, whatever their number. Every route is in
// exactly one of the lists.
type RouteIndex struct {
	Exact  map[string]*Candidates // by whole path
	Prefix *PrefixNode            // by how the path begins; regular expressions by the text that each match begins with
	// FoldedExact and FoldedPrefix are the same for conditions that ignore case. Their keys are folded.
	FoldedExact  map[string]*Candidates
	FoldedPrefix *PrefixNode
	Rest         Candidates // routes without such a condition on the path
}

// Candidates are positions in VirtualHost.Routes, each list in ascending order. Where many routes share a path, those that ask
// for an exact value of one field are listed by that value.
type Candidates struct {
	All     []int32
	Field   string // empty where ByValue is
	ByValue map[string][]int32
}

// PrefixNode is a node of a radix tree over prefixes. A node stands for the texts of all nodes from the root down to it, one after
// the other.
type PrefixNode struct {
	Text   string
	Routes *Candidates   // nil where only longer prefixes occur
	Next   []*PrefixNode // sorted by the first byte of Text, no two of which are equal
}

// Child gives the node to which byte c leads, or nil.
func (n *PrefixNode) Child(c byte) *PrefixNode {
	lo, hi := 0, len(n.Next)
	for lo < hi {
		mid := (lo + hi) / 2
		if n.Next[mid].Text[0] < c {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(n.Next) && n.Next[lo].Text[0] == c {
		return n.Next[lo]
	}
	return nil
}

// indexedFrom is the number of routes from which an index pays.
const indexedFrom = 8

func newRouteIndex(routes []*Route) *RouteIndex {
	if len(routes) < indexedFrom {
		return nil
	}
	ix := &RouteIndex{Exact: map[string]*Candidates{}, FoldedExact: map[string]*Candidates{}}
	for i, r := range routes {
		c := ix.place(&r.Match)
		c.All = append(c.All, int32(i))
	}
	for _, m := range []map[string]*Candidates{ix.Exact, ix.FoldedExact} {
		for _, c := range m {
			c.divide(routes)
		}
	}
	ix.Prefix.each(func(c *Candidates) { c.divide(routes) })
	ix.FoldedPrefix.each(func(c *Candidates) { c.divide(routes) })
	ix.Rest.divide(routes)
	return ix
}

// place gives the list that a route with this match belongs to.
func (ix *RouteIndex) place(m *Match) *Candidates {
	exact, tree, p := ix.Exact, &ix.Prefix, &m.Path
	if p.IgnoreCase {
		exact, tree = ix.FoldedExact, &ix.FoldedPrefix
	}
	switch p.Kind {
	case Exact:
		if exact[p.Value] == nil {
			exact[p.Value] = &Candidates{}
		}
		return exact[p.Value]
	case PrefixOf:
		return insert(tree, p.Value)
	case Regex:
		pattern := strings.TrimSuffix(strings.TrimPrefix(p.Regexp.String(), "^(?:"), ")$") // as Regexp says that it is anchored
		if start := literalPrefix(pattern); start != "" {
			return insert(&ix.Prefix, start)
		}
	}
	return &ix.Rest
}

// literalPrefix gives the text that every match of a regular expression begins with; it may be empty.
func literalPrefix(pattern string) string {
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return ""
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return ""
	}
	prefix, _ := prog.Prefix()
	return prefix
}

// insert gives the list of a prefix, which is made if need be. Nodes are split where prefixes part.
func insert(at **PrefixNode, prefix string) *Candidates {
	for {
		n := *at
		if n == nil {
			n = &PrefixNode{Text: prefix, Routes: &Candidates{}}
			*at = n
			return n.Routes
		}
		common := 0
		for common < min(len(n.Text), len(prefix)) && n.Text[common] == prefix[common] {
			common++
		}
		if common < len(n.Text) {
			lower := *n
			lower.Text = n.Text[common:]
			*n = PrefixNode{Text: n.Text[:common], Next: []*PrefixNode{&lower}}
		}
		if prefix = prefix[common:]; prefix == "" {
			if n.Routes == nil {
				n.Routes = &Candidates{}
			}
			return n.Routes
		}
		i, found := slices.BinarySearchFunc(n.Next, prefix[0], func(c *PrefixNode, b byte) int { return int(c.Text[0]) - int(b) })
		if !found {
			n.Next = slices.Insert(n.Next, i, nil)
		}
		at = &n.Next[i]
	}
}

func (n *PrefixNode) each(f func(*Candidates)) {
	if n == nil {
		return
	}
	if n.Routes != nil {
		f(n.Routes)
	}
	for _, c := range n.Next {
		c.each(f)
	}
}

// divide moves routes of a long list to ByValue, by the field that tells the most of them apart.
func (c *Candidates) divide(routes []*Route) {
	if len(c.All) < indexedFrom {
		return
	}
	values := map[string]map[string]bool{}
	for _, i := range c.All {
		for j := range routes[i].Match.Headers {
			if h := &routes[i].Match.Headers[j]; h.demands() {
				if values[h.Name] == nil {
					values[h.Name] = map[string]bool{}
				}
				values[h.Name][h.Value.Value] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if len(values[name]) > max(1, len(values[c.Field])) {
			c.Field = name
		}
	}
	if c.Field == "" {
		return
	}
	all := c.All
	c.All, c.ByValue = nil, map[string][]int32{}
	for _, i := range all {
		if v, ok := demanded(&routes[i].Match, c.Field); ok {
			c.ByValue[v] = append(c.ByValue[v], i)
		} else {
			c.All = append(c.All, i)
		}
	}
}

// demands reports whether the condition holds for one value of the field only, and never without the field.
func (m *HeaderMatch) demands() bool {
	return m.Value.Kind == Exact && m.Range == nil && !m.Value.IgnoreCase && !m.Invert && !m.MissingAsEmpty
}

func demanded(m *Match, field string) (string, bool) {
	for i := range m.Headers {
		if h := &m.Headers[i]; h.Name == field && h.demands() {
			return h.Value.Value, true
		}
	}
	return "", false
}
