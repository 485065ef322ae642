package generate

// Bound counts the parts of what is made under it, see Generator.Under, and says how many there may be. A resource's parts are those that
// objects may bring any number of: matches of its routes, and filter chains of routes for TCP and TLS.
type Bound struct {
	// Most is how many parts are made; 0 for any number.
	Most int
	// Pause is called after every few parts that were made, if it is not nil, so that others have their turn.
	Pause func()

	parts, made int
}

// pauseAfter is how many parts are made between two calls of Bound.Pause: less than a millisecond's.
const pauseAfter = 100

// Parts are how many there were.
func (b *Bound) Parts() int { return b.parts }

// Exceeded reports whether there were more than may be: what was made is not all.
func (b *Bound) Exceeded() bool { return b.Most > 0 && b.parts > b.Most }

// part counts one, and reports whether it is to be made.
func (b *Bound) part() bool {
	if b == nil {
		return true
	}
	b.parts++
	return !b.Exceeded()
}

// done is called when one was made.
func (b *Bound) done() {
	if b == nil || b.Pause == nil {
		return
	}
	if b.made++; b.made%pauseAfter == 0 {
		b.Pause()
	}
}

// Under gives a generator whose resources have their parts counted, together. It is not safe for concurrent use. Where the bound is
// exceeded, resources and lists are given up, and what comes of them stands for nothing.
func (g *Generator) Under(b *Bound) *Generator {
	t := *g
	t.bound = b
	return &t
}
