package matching

import "iter"

// Index finds what is stored under a key, and under all that are wider.
type Index[V any] struct {
	at    map[Key]V
	paths map[Path]int // of so many keys: most prefixes of a path are not there, with whatever conditions
}

// Get gives what is stored under a key; the zero value when that is nothing.
func (x *Index[V]) Get(k Key) V { return x.at[k] }

// Set stores something under a key.
func (x *Index[V]) Set(k Key, v V) {
	if x.at == nil {
		x.at, x.paths = map[Key]V{}, map[Path]int{}
	}
	if _, there := x.at[k]; !there {
		x.paths[k.Path]++
	}
	x.at[k] = v
}

// Delete forgets a key.
func (x *Index[V]) Delete(k Key) {
	if _, there := x.at[k]; !there {
		return
	}
	delete(x.at, k)
	if x.paths[k.Path]--; x.paths[k.Path] == 0 {
		delete(x.paths, k.Path)
	}
}

// Wider gives what is stored under keys of matches that every request fulfils which fulfils that of a key: the same, and those that ask
// for less.
func (x *Index[V]) Wider(k Key) iter.Seq[V] {
	return func(yield func(V) bool) {
		fewer := k.Other.fewer()
		for path := range k.Path.wider() {
			if x.paths[path] == 0 {
				continue
			}
			for _, other := range fewer {
				if v, there := x.at[Key{path, other}]; there && !yield(v) {
					return
				}
			}
		}
	}
}
