package view

import (
	"github.com/weftmesh/weft/internal/control/model"
)

// Backend is what stands behind an outbound cluster.
type Backend struct {
	Service *model.Service
	Port    *model.Port
	Subset  *model.Subset
	Policy  model.TrafficPolicy
	Check   *model.HealthCheck
	// Pinned is the only endpoint, for a headless service's.
	Pinned *model.Endpoint
	host   string // as in the cluster's name
	UDP    bool
}

// Backend gives what stands behind the cluster of a port, or of a subset of it; false where there is no such thing for the node.
func (v *View) Backend(port uint16, subsetName, host string) (*Backend, bool) {
	s, pinned := v.Backing(host)
	if s == nil || s.Port(port) == nil {
		return nil, false
	}
	d := v.Destination(s)
	b := &Backend{Service: s, Port: s.Port(port), Pinned: pinned, host: host, Subset: Subset(d, subsetName)}
	if subsetName != "" && b.Subset == nil {
		return nil, false
	}
	b.Policy = v.Policy(d, b.Subset, port)
	if b.Policy.TLS == nil {
		b.Policy.TLS = s.ClientTLS(port)
	}
	if d != nil {
		b.Check = d.HealthCheck
	}
	return b, true
}

// DatagramBackend is what stands behind a cluster for datagrams. They are sent as they came: what a DestinationRule or the mesh says of
// connections, TLS among it, is not for them.
func (v *View) DatagramBackend(port uint16, host string) (*Backend, bool) {
	s := v.Service(host)
	if s == nil || s.UDPPort(port) == nil {
		return nil, false
	}
	p := v.Policy(v.Destination(s), nil, port)
	p.TLS, p.Pool, p.ProxyProtocol, p.RetryBudget = &model.ClientTLS{Mode: model.TLSDisable}, nil, 0, nil
	return &Backend{Service: s, Port: s.UDPPort(port), Policy: p, host: host, UDP: true}, true
}

// PortOf gives an instance's port.
func (b *Backend) PortOf(e *model.Endpoint) uint16 {
	ports := e.Ports
	if b.UDP {
		ports = e.UDP
	}
	if port := ports[b.Port.Number]; port != 0 {
		return port
	}
	return b.Port.Number
}

// Passthrough says that connections go to the address that the client chose.
func (b *Backend) Passthrough() bool {
	return b.Service.Resolution == model.None || b.Policy.Balancing != nil && b.Policy.Balancing.Simple == "PASSTHROUGH"
}
