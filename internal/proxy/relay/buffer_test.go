package relay

import (
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/spare"
)

// TestBuffersGrowOnlyWhereMemoryCanBeSpared: and what was grown shrinks when it is short, or the stream slow.
func TestBuffersGrowOnlyWhereMemoryCanBeSpared(t *testing.T) {
	t.Cleanup(func() { spare.Limit(0); spare.Short(false) })
	before := spare.Taken()
	fill := func(b *buffer) int {
		for range 2 * fullReads {
			b.note(len(b.p))
		}
		return len(b.p)
	}
	spare.Limit(before + longBuffer + largeBuffer)
	one, two, three := buffer{alone: true}, buffer{alone: true}, buffer{}
	for _, c := range []struct {
		b    *buffer
		want int
	}{{&one, longBuffer}, {&two, smallBuffer}, {&three, largeBuffer}} {
		c.b.take(false)
		if got := fill(c.b); got != c.want {
			t.Errorf("a buffer of %d bytes, want %d", got, c.want)
		}
	}
	spare.Short(true)
	if got := fill(&one); got != smallBuffer || spare.Taken() != before+largeBuffer {
		t.Errorf("where memory is short: %d bytes, %d taken", got, spare.Taken()-before)
	}
	spare.Short(false)
	if got := fill(&two); got != longBuffer {
		t.Errorf("what was given back is not taken: %d bytes", got)
	}
	two.last = time.Now().Add(-2 * slowPiece)
	if two.note(longBuffer); fill(&two) != smallBuffer {
		t.Error("a slow stream keeps a large buffer")
	}
	for _, b := range []*buffer{&one, &two, &three} {
		b.drop()
	}
	if spare.Taken() != before {
		t.Errorf("%d bytes are not given back", spare.Taken()-before)
	}
}
