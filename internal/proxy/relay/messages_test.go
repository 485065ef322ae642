package relay

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

func TestMessagesAreCountedHoweverTheyAreCut(t *testing.T) {
	var body []byte
	for _, n := range []int{0, 1, 5, 70000, 0, 300} {
		body = append(body, 0)
		body = binary.BigEndian.AppendUint32(body, uint32(n))
		body = append(body, make([]byte, n)...)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var m Messages
		for rest := body; len(rest) > 0; {
			n := min(len(rest), 1+random.IntN(1+random.IntN(9000)))
			m.See(rest[:n])
			rest = rest[n:]
		}
		if m.Count() != 6 {
			t.Fatalf("%d messages, want 6", m.Count())
		}
	}
	var cut Messages
	cut.See(body[:4])
	if cut.Count() != 0 {
		t.Fatal("a prefix that is not whole counts as a message")
	}
}
