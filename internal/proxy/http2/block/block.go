// Package block has the pooled buffers of connections of HTTP/2, and chains of them.
package block

import "sync"

// Block is a pooled buffer, in which B[R:W] waits to be read.
type Block struct {
	B    []byte
	R, W int
	next *Block
}

// sizes leave room for frame heads in the large ones.
var sizes = [...]int{1 << 10, 4 << 10, 16 << 10, 66 << 10, 132 << 10}

var pools [len(sizes)]sync.Pool

// Get gives an empty block of at least n bytes.
func Get(n int) *Block {
	for i, size := range sizes {
		if n <= size {
			if k, ok := pools[i].Get().(*Block); ok {
				return k
			}
			return &Block{B: make([]byte, size)}
		}
	}
	return &Block{B: make([]byte, n)}
}

// Put gives a block back, which must not be used any more.
func Put(k *Block) {
	k.R, k.W, k.next = 0, 0, nil
	for i, size := range sizes {
		if len(k.B) == size {
			pools[i].Put(k)
			return
		}
	}
}

// Queue is bytes in a chain of blocks.
type Queue struct {
	first, last *Block
	n           int
}

// Len gives how much waits.
func (q *Queue) Len() int { return q.n }

// Add copies p behind the rest.
func (q *Queue) Add(p []byte) {
	q.n += len(p)
	for len(p) > 0 {
		if q.last == nil || q.last.W == len(q.last.B) {
			k := Get(min(len(p), 16<<10))
			if q.last == nil {
				q.first = k
			} else {
				q.last.next = k
			}
			q.last = k
		}
		n := copy(q.last.B[q.last.W:], p)
		q.last.W += n
		p = p[n:]
	}
}

// Read takes what fits into p.
func (q *Queue) Read(p []byte) int {
	total := 0
	for q.first != nil && total < len(p) {
		k := q.first
		n := copy(p[total:], k.B[k.R:k.W])
		k.R += n
		total += n
		if k.R == k.W {
			q.drop()
		}
	}
	q.n -= total
	return total
}

func (q *Queue) drop() { Put(q.unlink()) }

func (q *Queue) unlink() *Block {
	k := q.first
	if q.first = k.next; q.first == nil {
		q.last = nil
	}
	return k
}

// Take gives the first block, which is the caller's from then on, or nil.
func (q *Queue) Take() *Block {
	if q.first == nil {
		return nil
	}
	k := q.unlink()
	q.n -= k.W - k.R
	return k
}

// Clear drops all and gives how much there was.
func (q *Queue) Clear() int {
	n := q.n
	for q.first != nil {
		q.drop()
	}
	q.n = 0
	return n
}
