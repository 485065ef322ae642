package rpc

import (
	"errors"
	"slices"
	"testing"
	"time"
)

// TestLongTurnsGiveWay: connections that were woken go before those whose turn was not long enough, which are not starved.
func TestLongTurnsGiveWay(t *testing.T) {
	q, names := newQueue(), map[*conn]string{}
	put := func(name string, u urgency) {
		c := &conn{}
		names[c] = name
		q.put(c, u)
	}
	put("long", long)
	put("longer", long)
	for range 2 * freshTurns {
		put("fresh", fresh)
	}
	var got []string
	for range 2*freshTurns + 2 {
		c, _ := q.take()
		got = append(got, names[c])
	}
	some := slices.Repeat([]string{"fresh"}, freshTurns-1)
	want := slices.Concat(some, []string{"long"}, some, []string{"longer"}, []string{"fresh", "fresh"})
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	q.close()
	if _, more := q.take(); more {
		t.Error("it is not closed")
	}
}

// TestEndsFirst: what is to end goes before all others, and is not looked at again for having waited already.
func TestEndsFirst(t *testing.T) {
	s := &Server{queue: newQueue()}
	waits, other, last := &conn{server: s}, &conn{server: s}, &conn{server: s}
	for _, c := range []*conn{other, waits} {
		c.state.Store(queued)
		s.queue.put(c, long)
	}
	last.wake()
	ended := errors.New("ended")
	waits.cut(ended)
	waits.closed = true // so that its turn is over at once
	for i, want := range []*conn{waits, last, other, waits} {
		got, _ := s.queue.take()
		if got != want {
			t.Fatalf("the turn %d is another's", i)
		}
		if had := got.state.Load() == idle; had != (i == 3) {
			t.Errorf("turn %d: was had already: %t", i, had)
		}
		if got == waits {
			got.run(&workspace{})
		}
	}
	if waits.state.Load() != idle {
		t.Error("it waits for another turn")
	}
}

// slow has something to say at each turn, and takes its time over it.
type slow struct{ turns int }

func (s *slow) Receive([]byte) error { return nil }
func (s *slow) Closed(error)         {}
func (s *slow) Next() (bool, error) {
	s.turns++
	for start := time.Now(); time.Since(start) <= timeATurn; {
	}
	return s.turns < 3, nil
}

// TestTurnOfManyStreams: the turn of a connection ends after a while, however many streams have something to say, and each of them has its
// turn by and by.
func TestTurnOfManyStreams(t *testing.T) {
	c := &conn{server: &Server{queue: newQueue()}, space: &workspace{}, sock: &socket{}}
	var all []*slow
	for range 5 {
		h := &slow{}
		all = append(all, h)
		c.streams = append(c.streams, &Stream{conn: c, handler: h, active: true})
	}
	turns := 0
	for c.long = true; c.long; turns++ {
		c.long = false
		c.state.Store(running)
		if err := c.advance(); err != nil {
			t.Fatal(err)
		}
		spoken := 0
		for _, h := range all {
			spoken += h.turns
		}
		if spoken > turns+1 {
			t.Fatalf("%d messages in %d turns", spoken, turns+1)
		}
	}
	for _, h := range all {
		if h.turns != 3 {
			t.Errorf("a stream has had %d turns", h.turns)
		}
	}
	if turns < 15 {
		t.Errorf("all was said in %d turns", turns)
	}
}
