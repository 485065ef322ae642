package local

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/status"
)

// statuses remembers what was told of each object, so that conditions keep the time at which they were first seen as they are.
type statuses struct {
	kept func(*source.Object) status.Status // nil for nowhere

	mu   sync.Mutex
	told map[source.Key]status.Status // of objects that are still there
}

// now gives the status of each object that has one and is among those that are asked for.
func (s *statuses) now(in status.Input) map[source.Key]status.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	told := map[source.Key]status.Status{}
	wanted := status.Compute(in)
	for _, o := range in.Objects {
		key := o.Key()
		if in.Only != nil && !in.Only(o) {
			if before := s.told[key]; before != nil {
				told[key] = before
			}
			continue
		}
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

// withStatus gives an object's document with the status that the mesh gives the object. One that somebody wrote into the document, as
// dumps have it, says nothing of this mesh and is left out; that of Pods and Services is what the mesh goes by, their addresses.
func withStatus(o *source.Object, s status.Status) string {
	text := document(o)
	if s == nil && (statusIsRead(o.Kind) || !strings.Contains(text, "status")) {
		return text
	}
	var doc, told yaml.Node
	if yaml.Unmarshal([]byte(text), &doc) != nil || len(doc.Content) != 1 {
		return text
	}
	root := doc.Content[0]
	brought := withoutField(root, "status")
	switch {
	case s == nil && !brought:
		return text
	case s != nil:
		raw := marshal(map[string]any{"status": s})
		if !brought && root.Style&yaml.FlowStyle == 0 && root.Column == 1 { // below what the user wrote, as it is
			return strings.TrimRight(text, "\n") + "\n" + string(raw)
		}
		if err := yaml.Unmarshal(raw, &told); err != nil { // it was marshalled
			panic(err)
		}
		root.Content = append(root.Content, told.Content[0].Content...)
	}
	var b strings.Builder
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil { // its nodes were parsed
		panic(err)
	}
	return b.String()
}

func statusIsRead(k *source.Kind) bool {
	return k.Group == "" && (k.Name == "Pod" || k.Name == "Service")
}

// withoutField takes a field out of a mapping and reports whether it was there.
func withoutField(n *yaml.Node, name string) bool {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			n.Content = slices.Delete(n.Content, i, i+2)
			return true
		}
	}
	return false
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
