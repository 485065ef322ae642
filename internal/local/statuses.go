package local

import (
	"net/netip"
	"strings"
	"sync"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/status"
)

// statuses remembers what was told of each object, so that conditions keep the time at which they were first seen as they are.
type statuses struct {
	kept func(*source.Object) status.Status // nil for nowhere

	mu   sync.Mutex
	told map[source.Key]status.Status // of objects that are still there
}

// now gives the status of each object that has one.
func (s *statuses) now(in status.Input) map[source.Key]status.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	told := map[source.Key]status.Status{}
	wanted := status.Compute(in)
	for _, o := range in.Objects {
		key := o.Key()
		if wanted[key] == nil {
			continue
		}
		has := s.told[key]
		if s.kept != nil {
			if kept := s.kept(o); kept != nil {
				has = kept
			}
		}
		told[key], _ = status.Merge(has, wanted[key], o.Born, time.Now())
	}
	s.told = told
	return told
}

// withStatus puts a status below an object's document. One that somebody wrote into it, or a document in JSON, stays as it is.
func withStatus(document string, s status.Status) string {
	if s == nil || strings.HasPrefix(strings.TrimSpace(document), "{") || strings.HasPrefix(document, "status:") || strings.Contains(document, "\nstatus:") {
		return document
	}
	raw, err := yaml.Marshal(map[string]any{"status": s})
	if err != nil { // these types always marshal
		panic(err)
	}
	return strings.TrimRight(document, "\n") + "\n" + string(raw)
}

// Addresses of the gateways: that of the machine on which they listen.
func (m *Mesh) Addresses() []string {
	for _, p := range m.runtime.Published() {
		return hostOf(p.Address)
	}
	return nil
}

// hostOf gives an address without its port.
func hostOf(address string) []string {
	if a, err := netip.ParseAddrPort(address); err == nil {
		address = a.Addr().String()
	}
	return []string{address}
}
