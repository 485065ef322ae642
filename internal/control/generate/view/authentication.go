package view

import (
	"github.com/weftmesh/weft/internal/control/model"
)

// MTLSMode gives what a workload demands of its peers on a port. Workload settings go before those of the namespace, and those
// before the mesh's; of several, the oldest counts. An unset mode is inherited.
func (v *View) MTLSMode(namespace string, labels map[string]string, port uint16) model.MTLSMode {
	d := demandsOf(v.mesh.PeerAuthentications(namespace), namespace, labels)
	return d.mode(port)
}

// OwnMTLSModes are what the node's own workload takes on a port: one mode as a rule, and two while a change from one to the other is on
// its way through the mesh.
func (v *View) OwnMTLSModes(port uint16) []model.MTLSMode {
	var out []model.MTLSMode
	for i, d := range v.ownDemands() {
		if m := d.mode(port); i == 0 || m != out[0] {
			out = append(out, m)
		}
	}
	return out
}

// MTLSPorts are the ports that the workload's own settings name.
func (v *View) MTLSPorts() map[uint16]bool {
	ports := map[uint16]bool{}
	for _, d := range v.ownDemands() {
		if d.workload == nil {
			continue
		}
		for p := range d.workload.Ports {
			ports[p] = true
		}
	}
	return ports
}

func (v *View) ownDemands() []demands {
	n := v.node
	out := []demands{demandsOf(v.mesh.PeerAuthentications(n.Namespace), n.Namespace, n.Labels)}
	if others, changing := v.mesh.OtherPeerAuthentications(n.Namespace); changing {
		out = append(out, demandsOf(others, n.Namespace, n.Labels))
	}
	return out
}

// demands are the settings that count for a workload, each nil for none.
type demands struct{ workload, namespace, mesh *model.PeerAuthentication }

func (d *demands) mode(port uint16) model.MTLSMode {
	if d.workload != nil {
		if m := d.workload.Ports[port]; m != model.MTLSUnset {
			return m
		}
	}
	for _, p := range []*model.PeerAuthentication{d.workload, d.namespace, d.mesh} {
		if p != nil && p.Mode != model.MTLSUnset {
			return p.Mode
		}
	}
	return model.MTLSPermissive
}

func demandsOf(list []*model.PeerAuthentication, namespace string, labels map[string]string) (d demands) {
	older := func(p, than *model.PeerAuthentication) bool { return than == nil || p.Created.Before(than.Created) }
	for _, p := range list {
		switch {
		case p.Namespace == "" && len(p.Selector) == 0:
			if older(p, d.mesh) {
				d.mesh = p
			}
		case p.Namespace != namespace:
		case len(p.Selector) == 0:
			if older(p, d.namespace) {
				d.namespace = p
			}
		case model.Selects(p.Selector, labels) && older(p, d.workload):
			d.workload = p
		}
	}
	return d
}
