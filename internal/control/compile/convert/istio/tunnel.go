package istio

import (
	"net"
	"strconv"

	networkingapi "istio.io/api/networking/v1alpha3"

	"github.com/weftmesh/weft/internal/control/model"
)

// tunnel converts what a forward proxy behind a destination is asked for.
func (p converter) tunnel(t *networkingapi.TrafficPolicy_TunnelSettings, field string) *model.Tunnel {
	if t == nil {
		return nil
	}
	p.Only(t, field, "protocol", "targetHost", "targetPort")
	switch t.Protocol {
	case "", "CONNECT", "POST":
	default:
		p.Err("InvalidValue", field+".protocol", "", "%q is neither CONNECT nor POST", t.Protocol)
	}
	if p.ValidHost(t.TargetHost, field+".targetHost", true) && t.TargetHost[0] == '*' {
		p.Err("InvalidHost", field+".targetHost", "", "%q: a connection goes to one host", t.TargetHost)
	}
	port := p.ValidPort(t.TargetPort, field+".targetPort")
	return &model.Tunnel{Target: net.JoinHostPort(t.TargetHost, strconv.Itoa(int(port))), Post: t.Protocol == "POST"}
}
