package workloads

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/weftmesh/weft/internal/control/model"
)

// Endpoints gathers the instances of one service.
type Endpoints struct {
	List []*model.Endpoint
	Once bool // an instance counts once, with its first address: it may have one of each family

	known map[whereabouts]*model.Endpoint
	alike map[whereabouts][]int // places in the list; nil until something is joined, then nothing is added otherwise
}

// whereabouts name an instance. The address alone does not: instances that share the host's network differ by port.
type whereabouts struct{ address, name string }

// Gather begins with some instances.
func Gather(list []*model.Endpoint) *Endpoints {
	return &Endpoints{List: slices.Clone(list), known: map[whereabouts]*model.Endpoint{}}
}

// Add adds an instance, or more ports of one that another slice named already. The ports are shared with others.
func (e *Endpoints) Add(ep *model.Endpoint, ports, udp map[uint16]uint16) {
	if len(ports) == 0 && len(udp) == 0 {
		return
	}
	at := whereabouts{ep.Address, ep.Instance}
	if e.Once && ep.Instance != "" {
		at.address = ""
	}
	have := e.known[at]
	if have == nil {
		ep.Ports, ep.UDP = ports, udp
		e.List = append(e.List, ep)
		e.known[at] = ep
		return
	}
	have.Ports, have.UDP = joined(have.Ports, ports), joined(have.UDP, udp)
}

// Join adds an endpoint, or its ports to one that is the same but for them. Those in the list may be others' too.
func (e *Endpoints) Join(ep *model.Endpoint) {
	if e.alike == nil {
		e.alike = map[whereabouts][]int{}
		for i, have := range e.List {
			at := whereabouts{have.Address, have.Instance}
			e.alike[at] = append(e.alike[at], i)
		}
	}
	at := whereabouts{ep.Address, ep.Instance}
	for _, i := range e.alike[at] {
		have := e.List[i]
		both := *have
		both.Ports = ep.Ports
		if !reflect.DeepEqual(&both, ep) {
			continue
		}
		shared := maps.Clone(have.Ports)
		maps.DeleteFunc(shared, func(port, target uint16) bool {
			other, ok := ep.Ports[port]
			return !ok || other == target
		})
		if len(shared) == 0 {
			both.Ports = joined(have.Ports, ep.Ports)
			e.List[i] = &both
			return
		}
	}
	e.alike[at] = append(e.alike[at], len(e.List))
	e.List = append(e.List, ep)
}

// joined gives both, of which neither is changed.
func joined(a, b map[uint16]uint16) map[uint16]uint16 {
	switch {
	case len(a) == 0:
		return b
	case len(b) == 0:
		return a
	}
	both := maps.Clone(a)
	maps.Copy(both, b)
	return both
}

// Compare orders endpoints.
func Compare(a, b *model.Endpoint) int {
	return cmp.Or(strings.Compare(a.Address, b.Address), strings.Compare(a.Instance, b.Instance))
}
