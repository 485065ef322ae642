package workloads

import (
	"cmp"
	"slices"

	"github.com/weftmesh/weft/internal/control/model"
)

// Targets gathers where the ports of a workload's services lead.
type Targets struct {
	known map[model.Target]bool // without Number
	moved []model.Target
}

// Add adds the ports of a service that has a workload as an endpoint. Of several services with a port, the one that is added first counts.
func (t *Targets) Add(s *model.Service, ep *model.Endpoint) {
	if _, apart := s.Labels[model.PortTranslationLabel]; apart {
		return
	}
	t.add(s.Ports, ep.Ports, false)
	t.add(s.UDP, ep.UDP, true)
}

func (t *Targets) add(ports []model.Port, to map[uint16]uint16, udp bool) {
	for _, port := range ports {
		target, ok := to[port.Number]
		key := model.Target{Port: port.Number, UDP: udp}
		if !ok || t.known[key] {
			continue
		}
		if t.known == nil {
			t.known = map[model.Target]bool{}
		}
		t.known[key] = true
		if target != port.Number {
			t.moved = append(t.moved, model.Target{Port: port.Number, UDP: udp, Number: target})
		}
	}
}

// List gives those that lead to another number, sorted by protocol and port; nil for none.
func (t *Targets) List() []model.Target {
	slices.SortFunc(t.moved, func(a, b model.Target) int {
		switch {
		case a.UDP == b.UDP:
			return cmp.Compare(a.Port, b.Port)
		case b.UDP:
			return -1
		}
		return 1
	})
	return slices.Clip(t.moved)
}
