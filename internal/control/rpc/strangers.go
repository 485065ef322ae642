package rpc

import (
	"container/list"
	"errors"
	"sync"
)

// crowd are connections that somebody can open as many of as he likes, so they are bounded: a new one ends the oldest. One crowd are the
// strangers, whose clients have shown no certificate, or not yet: the oldest has had the most time to say who it is. Those with one and the
// same certificate are a crowd each, of which the oldest may be one whose client has forgotten it.
type crowd struct {
	most int // set once

	mu  sync.Mutex
	all list.List // of *place, the oldest first
}

// place is what one of them has in its crowd.
type place struct {
	among *crowd

	// These are guarded by among.mu.
	at   *list.Element // nil when it is none of them any more
	out  bool          // it had to make room
	turn func()        // ends it
}

// The bound of the strangers is a part of the descriptors that the process may have, since without any it could not even read files.
const (
	strangersPart  = 4
	leastStrangers = 16
	mostStrangers  = 4096
)

func bearable(descriptors int64) int {
	return int(min(max(descriptors/strangersPart, leastStrangers), mostStrangers))
}

var (
	errCrowded = errors.New("newer connections without a certificate needed its place")
	errTooMany = errors.New("newer connections with the same certificate needed its place")
)

// holders are the connections by the certificates that their clients have shown.
type holders struct {
	most int // set once

	mu sync.Mutex
	by map[string]*crowd // by the certificate's bytes
}

// add takes one more, which turn ends. leave takes it off.
func (h *holders) add(certificate []byte, turn func()) (leave func()) {
	key := string(certificate)
	h.mu.Lock()
	defer h.mu.Unlock()
	of := h.by[key]
	if of == nil {
		of = &crowd{most: h.most}
		h.by[key] = of
	}
	p := of.add(turn)
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if p.leave(); of.empty() {
			delete(h.by, key)
		}
	}
}

// add takes one more, which turn ends.
func (s *crowd) add(turn func()) *place {
	st := &place{among: s, turn: turn}
	s.mu.Lock()
	st.at = s.all.PushBack(st)
	end := func() {}
	if s.all.Len() > s.most {
		old := s.all.Remove(s.all.Front()).(*place)
		old.at, old.out = nil, true
		end = old.turn
	}
	s.mu.Unlock()
	end()
	return st
}

// becomes says that it is ended in another way from now on.
func (st *place) becomes(turn func()) {
	st.among.mu.Lock()
	st.turn = turn
	out := st.out
	st.among.mu.Unlock()
	if out {
		turn()
	}
}

// leave takes it off, because it has ended or shown a certificate.
func (st *place) leave() {
	st.among.mu.Lock()
	defer st.among.mu.Unlock()
	if st.at != nil {
		st.among.all.Remove(st.at)
		st.at = nil
	}
}

func (s *crowd) empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.Len() == 0
}
