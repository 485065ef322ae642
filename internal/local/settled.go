package local

import (
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/weftmesh/weft/internal/control"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/serve"
)

// settled reports whether the mesh that is served has every instance that is ready, and all proxies were sent what there is, and have
// answered it; that one refuses something does not unsettle the rest.
func (m *Mesh) settled(c *control.Control) bool {
	mesh := c.Served() // first: what is published after it was looked at is owed to somebody, or concerns nobody
	if mesh == nil {
		mesh = c.Mesh() // there is nothing to serve
	}
	return m.fed.Load() && mesh != nil && hasReady(mesh, m.runtime.Observed().EndpointSlices) && !slices.ContainsFunc(c.Clients(), func(c serve.Client) bool { return c.Owed })
}

// hasReady reports whether every instance that is ready in the slices of its namespace is so in the mesh.
func hasReady(mesh *model.Mesh, observed []*discoveryv1.EndpointSlice) bool {
	type instance struct{ namespace, name string }
	ready := map[instance]bool{}
	for _, s := range mesh.Services.All() {
		for _, e := range s.Endpoints {
			if e.Ready {
				ready[instance{e.Namespace, e.Instance}] = true
			}
		}
	}
	for _, s := range observed {
		for _, e := range s.Endpoints {
			if e.TargetRef == nil || e.TargetRef.Namespace != "" && e.TargetRef.Namespace != s.Namespace {
				continue
			}
			if e.Conditions.Ready != nil && *e.Conditions.Ready && !ready[instance{s.Namespace, e.TargetRef.Name}] {
				return false
			}
		}
	}
	return true
}
