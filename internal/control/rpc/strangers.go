package rpc

import (
	"container/list"
	"errors"
	"sync"
)

// strangers are the connections whose clients have shown no certificate, or not yet. Anybody can open them, so they are bounded: a new
// one ends the oldest, which has had the most time to say who it is. Those of the mesh are not among them and go on.
type strangers struct {
	most int // set once

	mu  sync.Mutex
	all list.List // of *stranger, the oldest first
}

// stranger is one of them.
type stranger struct {
	among *strangers

	// These are guarded by among.mu.
	at   *list.Element // nil when it is none of them any more
	out  bool          // it had to make room
	turn func()        // ends it
}

// The bound is a part of the descriptors that the process may have, since without any it could not even read files.
const (
	strangersPart  = 4
	leastStrangers = 16
	mostStrangers  = 4096
)

func bearable(descriptors int64) int {
	return int(min(max(descriptors/strangersPart, leastStrangers), mostStrangers))
}

var errCrowded = errors.New("newer connections without a certificate needed its place")

// add takes one more, which turn ends.
func (s *strangers) add(turn func()) *stranger {
	st := &stranger{among: s, turn: turn}
	s.mu.Lock()
	st.at = s.all.PushBack(st)
	end := func() {}
	if s.all.Len() > s.most {
		old := s.all.Remove(s.all.Front()).(*stranger)
		old.at, old.out = nil, true
		end = old.turn
	}
	s.mu.Unlock()
	end()
	return st
}

// becomes says that it is ended in another way from now on.
func (st *stranger) becomes(turn func()) {
	st.among.mu.Lock()
	st.turn = turn
	out := st.out
	st.among.mu.Unlock()
	if out {
		turn()
	}
}

// leave takes it off, because it has ended or shown a certificate.
func (st *stranger) leave() {
	st.among.mu.Lock()
	defer st.among.mu.Unlock()
	if st.at != nil {
		st.among.all.Remove(st.at)
		st.at = nil
	}
}
