package live

import (
	"cmp"
	"slices"
	"time"

	"github.com/weftmesh/weft/internal/proxy/ads"
)

// Status is a picture of the configuration's state for dumps and debugging.
type Status struct {
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"` // of Connected's last change
	Error     string    `json:"error,omitempty"`
	Ready     bool      `json:"ready"`
	Stream    ads.Stats `json:"stream"`
	Waits     WaitStats `json:"waits"`
	// Names are the destinations held, DNS the host names; Listeners what the node itself accepts on.
	Names     []NameStatus     `json:"names"`
	DNS       []NameStatus     `json:"dns"`
	Listeners []NameStatus     `json:"listeners"`
	Resources []ResourceStatus `json:"resources"`
}

// WaitStats counts the waits for names that were not there.
type WaitStats struct {
	Count   uint64            `json:"count"`
	Total   time.Duration     `json:"totalNanoseconds"`
	Longest time.Duration     `json:"longestNanoseconds"`
	Outcome map[string]uint64 `json:"outcome,omitempty"`
}

// NameStatus is one name.
type NameStatus struct {
	Name string `json:"name"`
	// State is "known", "unknown" (to the mesh), "pending" or "refused".
	State string `json:"state"`
	// Missing are the resources that a pending one, or the next version of a known one, waits for.
	Missing     []string `json:"missing,omitempty"`
	Error       string   `json:"error,omitempty"`
	IdleSeconds int64    `json:"idleSeconds"`
}

// ResourceStatus is one resource.
type ResourceStatus struct {
	Type    string `json:"type"`
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	State   string `json:"state"` // "pending", "held", "absent"
	// Error is why the last version was refused; the one before it is held.
	Error string `json:"error,omitempty"`
	Users int    `json:"users"`
}

// Status describes the current state.
func (l *Live) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Status{Connected: l.link.up, Since: l.link.since, Ready: l.current.Load().ready, Waits: l.waits.clone()}
	if !l.link.up && l.link.err != nil {
		s.Error = l.link.err.Error()
	}
	if l.client != nil {
		s.Stream = l.client.Stats()
	}
	s.Names, s.DNS, s.Listeners = l.nameStatus(l.names), l.nameStatus(l.dns), l.nameStatus(l.listeners)
	for k, r := range l.resources {
		s.Resources = append(s.Resources, resourceStatus(k, r))
	}
	slices.SortFunc(s.Resources, func(a, b ResourceStatus) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name))
	})
	return s
}

func (l *Live) nameStatus(roots map[string]*root) []NameStatus {
	out := make([]NameStatus, 0, len(roots))
	for name, r := range roots {
		n := NameStatus{Name: name, State: "pending", IdleSeconds: l.second.Load() - r.used.Load()}
		switch {
		case r.done && r.known():
			n.State = "known"
		case r.done:
			n.State = "unknown"
		case r.err != nil:
			n.State = "refused"
		}
		if r.err != nil {
			n.Error = r.err.Error()
		}
		for _, k := range r.missing {
			n.Missing = append(n.Missing, k.String())
		}
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b NameStatus) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func resourceStatus(k key, r *resource) ResourceStatus {
	s := ResourceStatus{Type: shortType(k.typeURL), Name: k.name, Version: r.version, State: "pending", Users: len(r.users)}
	switch {
	case r.absent:
		s.State = "absent"
	case r.value != nil:
		s.State = "held"
	}
	if r.err != nil {
		s.Error = r.err.Error()
	}
	return s
}

func (w *WaitStats) add(d time.Duration, outcome string) {
	w.Count++
	w.Total += d
	w.Longest = max(w.Longest, d)
	if w.Outcome == nil {
		w.Outcome = map[string]uint64{}
	}
	w.Outcome[outcome]++
}

func (w *WaitStats) clone() WaitStats {
	c := *w
	c.Outcome = make(map[string]uint64, len(w.Outcome))
	for k, v := range w.Outcome {
		c.Outcome[k] = v
	}
	return c
}
