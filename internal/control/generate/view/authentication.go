package view

import (
	"github.com/weftmesh/weft/internal/control/model"
)

// MTLSMode gives what a workload demands of its peers on a port. Workload settings go before those of the namespace, and those
// before the mesh's; of several, the oldest counts. An unset mode is inherited.
func (v *View) MTLSMode(namespace string, labels map[string]string, port uint16) model.MTLSMode {
	workload, ns, mesh := v.peerAuthentications(namespace, labels)
	if workload != nil {
		if m := workload.Ports[port]; m != model.MTLSUnset {
			return m
		}
	}
	for _, p := range []*model.PeerAuthentication{workload, ns, mesh} {
		if p != nil && p.Mode != model.MTLSUnset {
			return p.Mode
		}
	}
	return model.MTLSPermissive
}

// MTLSPorts are the ports that the workload's own settings name.
func (v *View) MTLSPorts() map[uint16]model.MTLSMode {
	workload, _, _ := v.peerAuthentications(v.node.Namespace, v.node.Labels)
	if workload == nil {
		return nil
	}
	return workload.Ports
}

func (v *View) peerAuthentications(namespace string, labels map[string]string) (workload, ns, mesh *model.PeerAuthentication) {
	older := func(p, than *model.PeerAuthentication) bool { return than == nil || p.Created.Before(than.Created) }
	for _, p := range v.mesh.PeerAuthentications(namespace) {
		switch {
		case p.Namespace == "" && len(p.Selector) == 0:
			if older(p, mesh) {
				mesh = p
			}
		case p.Namespace != namespace:
		case len(p.Selector) == 0:
			if older(p, ns) {
				ns = p
			}
		case Selects(p.Selector, labels) && older(p, workload):
			workload = p
		}
	}
	return workload, ns, mesh
}
