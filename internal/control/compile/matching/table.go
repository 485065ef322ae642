package matching

import (
	"cmp"
	"iter"
	"slices"
	"strings"
)

// Table holds the claims of one place, and finds which of them leave others nothing. What it costs to look at one does not depend on
// how many there are.
type Table struct {
	same   Index[[]*Claim] // in turn
	byPath []*Claim        // then in turn
}

// Put adds a claim.
func (t *Table) Put(c *Claim) {
	t.same.Set(c.Key, insert(t.same.Get(c.Key), c, inTurn))
	t.byPath = insert(t.byPath, c, inPath)
}

// Remove takes a claim out that was put in.
func (t *Table) Remove(c *Claim) {
	if list := remove(t.same.Get(c.Key), c, inTurn); len(list) > 0 {
		t.same.Set(c.Key, list)
	} else {
		t.same.Delete(c.Key)
	}
	t.byPath = remove(t.byPath, c, inPath)
}

// Empty reports whether there are no claims.
func (t *Table) Empty() bool { return len(t.byPath) == 0 }

// Taker gives the first claim of another object that takes all requests that a claim is for, and goes before it; nil when there is none.
func (t *Table) Taker(c *Claim) (taker *Claim) {
	for list := range t.same.Wider(c.Key) {
		if i := slices.IndexFunc(list, func(o *Claim) bool { return inTurn(o, c) >= 0 || o.takes(c) }); i >= 0 && list[i].takes(c) {
			if taker == nil || inTurn(list[i], taker) < 0 {
				taker = list[i]
			}
		}
	}
	return taker
}

// After gives the claims that one may be the taker of: those for which it has to be looked for again when it comes or goes.
func (t *Table) After(c *Claim) iter.Seq[*Claim] {
	if c.turn.group >= merged {
		return after(t.same.Get(c.Key), c, inTurn, func(*Claim) bool { return true })
	}
	return after(t.byPath, c, inPath, func(o *Claim) bool { return c.Key.Path.takes(o.Key.Path) })
}

// after gives the claims of others in a list that may concern one and stand after it, as long as they are of the same run.
func after(list []*Claim, c *Claim, order func(a, b *Claim) int, run func(*Claim) bool) iter.Seq[*Claim] {
	i, _ := slices.BinarySearchFunc(list, c, order)
	return func(yield func(*Claim) bool) {
		for _, o := range list[i:] {
			if !run(o) || c.mayTake(o) && !yield(o) {
				return
			}
		}
	}
}

// inPath orders claims so that those of one path follow one another, and after them, of a prefix, those of all paths that it takes.
func inPath(a, b *Claim) int {
	x, y := a.Key.Path, b.Key.Path
	return cmp.Or(cmp.Compare(x.family(), y.family()), strings.Compare(x.text, y.text), cmp.Compare(x.form, y.form), inTurn(a, b))
}

// family tells paths apart that are not prefixes of each other.
func (p Path) family() int {
	n := 0
	if p.fold {
		n++
	}
	if p.form == regexPath {
		n += 2
	}
	return n
}

func insert(list []*Claim, c *Claim, order func(a, b *Claim) int) []*Claim {
	i, _ := slices.BinarySearchFunc(list, c, order)
	return slices.Insert(list, i, c)
}

func remove(list []*Claim, c *Claim, order func(a, b *Claim) int) []*Claim {
	i, _ := slices.BinarySearchFunc(list, c, order)
	if j := slices.Index(list[i:], c); j >= 0 { // among those that are equal in the order
		return slices.Delete(list, i+j, i+j+1)
	}
	return list
}
