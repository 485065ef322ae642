package status

import (
	"reflect"
	"slices"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// Computer computes statuses after each change of a mesh. What it says of an object as before is the very Status that it gave before, so
// that whoever writes them tells by one comparison that there is nothing to do. The zero value is ready; it is for one goroutine.
type Computer struct {
	last map[*source.Object]computed
}

// computed is what was said of an object, and what of.
type computed struct {
	findings []model.Finding
	status   Status
}

// Compute gives what the function of that name gives. The results must not be changed.
func (c *Computer) Compute(in Input) map[source.Key]Status {
	s := newState(in)
	now := make(map[*source.Object]computed, len(c.last))
	out := make(map[source.Key]Status, len(c.last))
	for _, o := range in.Objects {
		if in.Only != nil && !in.Only(o) {
			continue
		}
		if st := s.again(o, c.last[o]); st != nil {
			now[o] = computed{s.findings[o.Ref()], st}
			out[o.Key()] = st
		}
	}
	c.last = now
	return out
}

// again gives an object's status, the very one that was given last where it is equal.
func (s *state) again(o *source.Object, last computed) Status {
	if last.status != nil && ofIstio(o) && slices.Equal(last.findings, s.findings[o.Ref()]) {
		return last.status // it is made of nothing else
	}
	if st := s.of(o); last.status == nil || !reflect.DeepEqual(last.status, st) {
		return st
	}
	return last.status
}
