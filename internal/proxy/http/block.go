package http1

import "sync"

// block is a pooled buffer of one of three sizes.
type block struct{ b []byte }

const smallBlock = 4 << 10

var blockPools = [...]sync.Pool{
	{New: func() any { return &block{make([]byte, smallBlock)} }},
	{New: func() any { return &block{make([]byte, 4*smallBlock)} }},
	{New: func() any { return &block{make([]byte, 16*smallBlock)} }},
}

// getBlock gives a block of at least n bytes.
func getBlock(n int) *block {
	size := smallBlock
	for i := range blockPools {
		if n <= size {
			return blockPools[i].Get().(*block)
		}
		size *= 4
	}
	return &block{make([]byte, n)}
}

func putBlock(k *block) {
	size := smallBlock
	for i := range blockPools {
		if len(k.b) == size {
			blockPools[i].Put(k)
			return
		}
		size *= 4
	}
}
