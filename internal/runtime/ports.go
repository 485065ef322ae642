package runtime

import (
	"net"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/weftmesh/weft/internal/runtime/demand"
	"github.com/weftmesh/weft/internal/wire"
)

// portPlan is a pod's share of the host's ports in ports mode. A nil plan is that of a pod with its own network. It is fixed when
// the pod is made: services that come later are reached through the forward proxy (HTTP_PROXY), by name.
type portPlan struct {
	app      map[uint16]uint16      // container port to the port that the application is told to listen on
	inbound  map[uint16]uint16      // container port to the sidecar's listener
	outbound map[outboundKey]uint16 // service port to the sidecar's listener
	proxy    uint16
	admin    uint16
	sidecar  bool
}

type outboundKey struct {
	service demand.Key
	port    uint16
}

// planPorts chooses the ports; mu is held.
func (r *Runtime) planPorts(p *pod) (*portPlan, error) {
	plan := &portPlan{app: map[uint16]uint16{}, inbound: map[uint16]uint16{}, outbound: map[outboundKey]uint16{}, sidecar: p.sidecar != nil}
	var failed error
	free := func() uint16 {
		port, err := r.ports.Take()
		if err != nil {
			failed = err
		}
		return port
	}
	for _, port := range r.containerPorts(p) {
		plan.app[port] = free()
		plan.inbound[port] = plan.app[port]
		if plan.sidecar {
			plan.inbound[port] = free()
		}
	}
	if plan.sidecar {
		plan.admin = free()
	}
	if plan.sidecar && !p.w.Gateway {
		plan.proxy = free()
		for _, s := range r.services {
			for _, sp := range s.Spec.Ports {
				if s.Namespace == p.Namespace && (sp.Protocol == "" || sp.Protocol == corev1.ProtocolTCP) {
					plan.outbound[outboundKey{keyOf(s), uint16(sp.Port)}] = free()
				}
			}
		}
	}
	return plan, failed
}

// containerPorts are the ports that a pod's containers declare, and those that services aim at by number.
func (r *Runtime) containerPorts(p *pod) []uint16 {
	var out []uint16
	add := func(n int32) {
		if n > 0 && !slices.Contains(out, uint16(n)) {
			out = append(out, uint16(n))
		}
	}
	for _, c := range p.w.Apps {
		for _, port := range c.Ports {
			add(port.ContainerPort)
		}
	}
	if len(p.w.Apps) == 0 {
		return nil
	}
	for _, s := range r.services {
		if !r.selects(s, p) {
			continue
		}
		for _, port := range s.Spec.Ports {
			if t := port.TargetPort; t.Type == intstr.Int {
				add(firstPort(t.IntVal, port.Port))
			}
		}
	}
	return out
}

func firstPort(a, b int32) int32 {
	if a != 0 {
		return a
	}
	return b
}

// all lists every port of the plan.
func (p *portPlan) all() []uint16 {
	if p == nil {
		return nil
	}
	out := []uint16{p.proxy, p.admin}
	for port, app := range p.app {
		out = append(out, app, p.inbound[port])
	}
	for _, port := range p.outbound {
		out = append(out, port)
	}
	return out
}

// appPort is where the application itself listens for a container port.
func (p *portPlan) appPort(port uint16) uint16 {
	if p == nil || p.app[port] == 0 {
		return port
	}
	return p.app[port]
}

// endpointPort is where others reach a container port.
func (p *portPlan) endpointPort(port uint16) uint16 {
	if p == nil || p.inbound[port] == 0 {
		return port
	}
	return p.inbound[port]
}

// env tells a container its ports: PORT for its first, PORT_9080 for each, and the forward proxy.
func (p *portPlan) env(c *demand.Container, e *environment) {
	var first uint16
	for _, port := range c.Ports {
		first = uint16(port.ContainerPort)
		break
	}
	for port, app := range p.app {
		e.set("PORT_"+strconv.Itoa(int(port)), strconv.Itoa(int(app)))
		if len(c.Ports) == 0 && (first == 0 || port < first) {
			first = port
		}
	}
	if app := p.app[first]; app != 0 {
		e.set("PORT", strconv.Itoa(int(app)))
	}
	if p.proxy == 0 {
		return
	}
	url := "http://127.0.0.1:" + strconv.Itoa(int(p.proxy))
	e.set("HTTP_PROXY", url)
	e.set("http_proxy", url)
	e.set("NO_PROXY", "localhost,127.0.0.1,::1")
	e.set("no_proxy", "localhost,127.0.0.1,::1")
}

func (p *portPlan) bootstrap(b *wire.Bootstrap) {
	local := func(port uint16) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))) }
	b.Admin = local(p.admin)
	if p.proxy == 0 {
		return
	}
	b.ForwardProxy = local(p.proxy)
	for port, listen := range p.inbound {
		b.InboundPorts = append(b.InboundPorts, wire.PortMap{Listen: local(listen), Destination: local(p.app[port]), Port: port})
	}
	for k, listen := range p.outbound {
		host := k.service.Name + "." + k.service.Namespace + ".svc.cluster.local"
		b.OutboundPorts = append(b.OutboundPorts, wire.PortMap{Listen: local(listen), Destination: wire.ListenerName(host, k.port)})
	}
	order := func(a, b wire.PortMap) int { return int(a.Port) - int(b.Port) }
	slices.SortFunc(b.InboundPorts, order)
}
