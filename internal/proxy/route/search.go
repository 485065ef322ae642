package route

import (
	"strings"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// search looks for the first route of a host that matches. best is the position of the earliest one so far; tried counts the
// routes whose conditions were evaluated.
type search struct {
	routes []*conf.Route
	r      *Request
	best   int
	tried  int
}

// first is the position of the first matching route, or -1, and how many routes were tried. With an index it takes the lists of
// candidates one after the other; each is in ascending order, so that a list is left as soon as it cannot improve on what was
// found.
func first(h *conf.VirtualHost, r *Request) (position, tried int) {
	ix := h.Index
	if ix == nil {
		for i, rt := range h.Routes {
			if check(&rt.Match, r).part == matched {
				return i, i + 1
			}
		}
		return -1, len(h.Routes)
	}
	s := search{routes: h.Routes, r: r, best: len(h.Routes)}
	path := pathOf(r.Path)
	s.candidates(ix.Exact[path])
	descend(&s, ix.Prefix, path)
	if len(ix.FoldedExact) > 0 || ix.FoldedPrefix != nil {
		var buf [1024]byte // longer paths cost an allocation
		folded := lower(buf[:0], path)
		s.candidates(ix.FoldedExact[string(folded)])
		descend(&s, ix.FoldedPrefix, folded)
	}
	s.candidates(&ix.Rest)
	if s.best == len(h.Routes) {
		return -1, s.tried
	}
	return s.best, s.tried
}

// descend tries the routes of every prefix of a path, the shortest first.
func descend[T string | []byte](s *search, n *conf.PrefixNode, path T) {
	for n != nil {
		if len(path) < len(n.Text) || string(path[:len(n.Text)]) != n.Text {
			return
		}
		s.candidates(n.Routes)
		if path = path[len(n.Text):]; len(path) == 0 {
			return
		}
		n = n.Child(path[0])
	}
}

func (s *search) candidates(c *conf.Candidates) {
	if c == nil {
		return
	}
	s.try(c.All)
	if c.Field == "" {
		return
	}
	value, present := s.r.Lookup(c.Field)
	if !present {
		return
	}
	s.try(c.ByValue[value])
	if strings.IndexByte(value, ',') < 0 {
		return
	}
	for alone := range s.r.Header.Values(c.Field) {
		s.try(c.ByValue[alone])
	}
}

func (s *search) try(positions []int32) {
	for _, p := range positions {
		if int(p) >= s.best {
			return
		}
		s.tried++
		if check(&s.routes[p].Match, s.r).part == matched {
			s.best = int(p)
			return
		}
	}
}
