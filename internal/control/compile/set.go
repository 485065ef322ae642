package compile

// set is a set that is small most of the time. The zero value is empty.
type set[T comparable] struct {
	few  []T
	many map[T]struct{} // in place of few, once there are more than fewEnough
}

const fewEnough = 16

func (s *set[T]) len() int { return len(s.few) + len(s.many) }

func (s *set[T]) has(x T) bool {
	if s.many != nil {
		_, ok := s.many[x]
		return ok
	}
	for _, y := range s.few {
		if x == y {
			return true
		}
	}
	return false
}

func (s *set[T]) add(x T) {
	switch {
	case s.many != nil:
		s.many[x] = struct{}{}
	case s.has(x):
	case len(s.few) < fewEnough:
		s.few = append(s.few, x)
	default:
		s.many = make(map[T]struct{}, 2*fewEnough)
		for _, y := range s.few {
			s.many[y] = struct{}{}
		}
		s.many[x] = struct{}{}
		s.few = nil
	}
}

func (s *set[T]) remove(x T) {
	if s.many != nil {
		delete(s.many, x)
		return
	}
	for i, y := range s.few {
		if x == y {
			last := len(s.few) - 1
			s.few[i] = s.few[last]
			clear(s.few[last:])
			s.few = s.few[:last]
			return
		}
	}
}

// all gives the members in no particular order.
func (s *set[T]) all(yield func(T) bool) {
	for _, x := range s.few {
		if !yield(x) {
			return
		}
	}
	for x := range s.many {
		if !yield(x) {
			return
		}
	}
}

// sets are sets by key, of which none is empty.
type sets[K, T comparable] map[K]set[T]

func (m sets[K, T]) add(k K, x T) {
	s := m[k]
	s.add(x)
	m[k] = s
}

func (m sets[K, T]) remove(k K, x T) {
	s, ok := m[k]
	if !ok {
		return
	}
	if s.remove(x); s.len() == 0 {
		delete(m, k)
		return
	}
	m[k] = s
}
