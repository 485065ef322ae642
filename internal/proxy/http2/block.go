package http2

import "sync"

// block is a pooled buffer, in which b[r:w] waits to be read.
type block struct {
	b    []byte
	r, w int
	next *block
}

// blockSizes leave room for frame heads in the large ones.
var blockSizes = [...]int{1 << 10, 4 << 10, 16 << 10, 66 << 10, 132 << 10}

var blockPools [len(blockSizes)]sync.Pool

// getBlock gives an empty block of at least n bytes.
func getBlock(n int) *block {
	for i, size := range blockSizes {
		if n <= size {
			if k, ok := blockPools[i].Get().(*block); ok {
				return k
			}
			return &block{b: make([]byte, size)}
		}
	}
	return &block{b: make([]byte, n)}
}

func putBlock(k *block) {
	k.r, k.w, k.next = 0, 0, nil
	for i, size := range blockSizes {
		if len(k.b) == size {
			blockPools[i].Put(k)
			return
		}
	}
}

// queue is bytes in a chain of blocks.
type queue struct {
	first, last *block
	n           int
}

func (q *queue) add(p []byte) {
	q.n += len(p)
	for len(p) > 0 {
		if q.last == nil || q.last.w == len(q.last.b) {
			k := getBlock(min(len(p), 16<<10))
			if q.last == nil {
				q.first = k
			} else {
				q.last.next = k
			}
			q.last = k
		}
		n := copy(q.last.b[q.last.w:], p)
		q.last.w += n
		p = p[n:]
	}
}

func (q *queue) read(p []byte) int {
	total := 0
	for q.first != nil && total < len(p) {
		k := q.first
		n := copy(p[total:], k.b[k.r:k.w])
		k.r += n
		total += n
		if k.r == k.w {
			q.drop()
		}
	}
	q.n -= total
	return total
}

func (q *queue) drop() { putBlock(q.unlink()) }

func (q *queue) unlink() *block {
	k := q.first
	if q.first = k.next; q.first == nil {
		q.last = nil
	}
	return k
}

// take gives the first block, which is the caller's from then on, or nil.
func (q *queue) take() *block {
	if q.first == nil {
		return nil
	}
	k := q.unlink()
	q.n -= k.w - k.r
	return k
}

// clear drops all and gives how much there was.
func (q *queue) clear() int {
	n := q.n
	for q.first != nil {
		q.drop()
	}
	q.n = 0
	return n
}
