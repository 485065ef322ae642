package istio

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// sidecar converts a Sidecar.
func (p converter) sidecar(sc *networking.Sidecar) {
	spec := &sc.Spec
	p.Only(spec, "spec", "workloadSelector", "ingress", "egress", "inboundConnectionPool", "outboundTrafficPolicy")
	out := &model.Sidecar{Ref: p.Ref(), Namespace: sc.Namespace, Created: p.Born}
	if s := spec.WorkloadSelector; s != nil {
		out.Selector = p.ValidLabels(s.Labels, "spec.workloadSelector.labels")
		if len(s.Labels) == 0 {
			out.Selector = nil
			p.Warn("MissingField", "spec.workloadSelector.labels", "leave workloadSelector out, or write labels", "without labels it is for all workloads of the namespace")
		}
	}
	if out.Selector == nil && sc.Namespace == p.Mesh.RootNamespace {
		out.Namespace = ""
	}
	if len(spec.Ingress)+len(spec.Egress) == 0 && spec.OutboundTrafficPolicy == nil && spec.InboundConnectionPool == nil {
		p.Err("MissingField", "spec", "", "one of ingress, egress, inboundConnectionPool and outboundTrafficPolicy is needed")
	}
	for i, in := range spec.Ingress {
		p.sidecarIngress(in, parts.At("spec.ingress", i), out)
	}
	for i, e := range spec.Egress {
		p.sidecarEgress(e, parts.At("spec.egress", i), i == len(spec.Egress)-1, out)
	}
	out.Pool = p.inboundPool(spec.InboundConnectionPool, "spec.inboundConnectionPool")
	out.Outbound = p.sidecarOutbound(spec.OutboundTrafficPolicy, "spec.outboundTrafficPolicy")
	p.Sidecar = out
}

// sidecarPort reads the port of a listener. Protocols are as in a Gateway; without one, connections say what they
// carry, and not the port's name, as in Istio.
func (p converter) sidecarPort(port *networkingapi.SidecarPort, field string) (uint16, model.Protocol) {
	p.Only(port, field, "number", "protocol", "name")
	number := p.ValidPort(port.Number, field+".number")
	if port.Name != "" {
		p.PortName(port.Name, field+".name")
	}
	return number, p.Protocol(port.Protocol, "", field+".protocol")
}

func (p converter) sidecarIngress(in *networkingapi.IstioIngressListener, field string, out *model.Sidecar) {
	p.Only(in, field, "port", "bind", "captureMode", "defaultEndpoint", "connectionPool", "tls")
	if in.Port == nil {
		p.Err("MissingField", field+".port", "", "a port is missing")
		return
	}
	if in.Tls != nil {
		p.Unsupported(field+".tls", "have clients outside the mesh come by a Gateway, whose tls takes Secrets, or let the application end TLS by itself, with protocol TLS here")
	}
	number, protocol := p.sidecarPort(in.Port, field+".port")
	for _, other := range out.Ingress {
		if other.Port == number {
			p.Err("DuplicatePort", field+".port.number", "", "port %d is given twice", number)
		}
	}
	i := model.Ingress{Port: number, Protocol: protocol,
		Endpoint: p.defaultEndpoint(in.DefaultEndpoint, field+".defaultEndpoint"), Pool: p.inboundPool(in.ConnectionPool, field+".connectionPool")}
	i.Bind, i.Open = p.ingressBind(in, field)
	if i.Open {
		p.leadsAway(&i, field)
	}
	out.Ingress = append(out.Ingress, i)
	if in.ConnectionPool.GetHttp() != nil && !protocol.IsHTTP() {
		p.Warn("NoEffect", field+".connectionPool.http", "", "the port is not declared as HTTP: only settings of connections count")
	}
}

// bindAddress reads an address to listen at; the zero Addr where none is given, or a bad one.
func (p converter) bindAddress(bind, field string) netip.Addr {
	if bind == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(bind)
	if err != nil || a.Zone() != "" {
		p.Err("InvalidAddress", field, "", "%q is not an IP address", bind)
		return netip.Addr{}
	}
	return a.Unmap()
}

// ingressBind says where a port is listened at. Captured connections are taken at whatever address.
func (p converter) ingressBind(in *networkingapi.IstioIngressListener, field string) (bind netip.Addr, open bool) {
	if strings.HasPrefix(in.Bind, "unix:") {
		p.Err("InvalidAddress", field+".bind", "write an IP address, or leave it out", "ingress takes no unix sockets")
		return bind, false
	}
	bind, open = p.bindAddress(in.Bind, field+".bind"), in.CaptureMode == networkingapi.CaptureMode_NONE
	if !open && bind.IsValid() && !bind.IsUnspecified() {
		p.Unsupported(field+".bind", "leave it out to take what is captured, at all addresses of the workload, or write captureMode: NONE to have the proxy listen there too")
	}
	if !open {
		return netip.Addr{}, false
	}
	return bind, true
}

// leadsAway refuses an ingress that is listened at and whose connections would come to it again, or keep the application from its port.
func (p converter) leadsAway(in *model.Ingress, field string) {
	host, port, _ := net.SplitHostPort(in.Endpoint)
	to, _ := netip.ParseAddr(host) // not valid: the address that was called
	own := in.Endpoint == "" || port == strconv.Itoa(int(in.Port)) && (!to.IsValid() || in.Bind == to || in.Bind.IsUnspecified())
	if own {
		p.Err("ConflictingFields", field+".captureMode", "have the application listen at another port, or at 127.0.0.1 where bind is another address, and write that as defaultEndpoint",
			"the proxy itself listens at port %d, and would send what comes there to itself", in.Port)
	}
}

// egressBind says at which address of its own an egress is reached, and whether the proxy listens there: connections to loopback
// addresses are not captured, so that with the default mode these are for the proxy to open.
func (p converter) egressBind(e *networkingapi.IstioEgressListener, field string) (bind netip.Addr, open bool) {
	none := e.CaptureMode == networkingapi.CaptureMode_NONE
	switch {
	case strings.HasPrefix(e.Bind, "unix:"):
		p.Unsupported(field+".bind", "write an address such as 127.0.0.1")
		return bind, false
	case e.Bind == "" && !none:
		return bind, false
	case e.Port == nil && e.Bind != "":
		p.Err("MissingField", field+".port", "", "with bind, a port is needed")
		return bind, false
	case e.Port == nil:
		p.Unsupported(field+".captureMode", "give each port at which the proxy is to listen an egress of its own, with that port")
		return bind, false
	case e.Bind == "":
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), true
	}
	if bind = p.bindAddress(e.Bind, field+".bind"); !bind.IsValid() {
		return bind, false
	}
	open = none || bind.IsLoopback() && e.CaptureMode == networkingapi.CaptureMode_DEFAULT
	switch {
	case open && !bind.IsLoopback():
		p.Warn("OpenAddress", field+".bind", "bind 127.0.0.1, which only the workload itself reaches",
			"whoever reaches this address can call the hosts there, in the workload's name")
	case !open && bind.IsUnspecified():
		return netip.Addr{}, false // whatever address a captured connection goes to
	case !open && bind.IsLoopback():
		p.Warn("NoEffect", field+".captureMode", "use NONE to have the proxy listen there", "connections to %s are not captured", bind)
	}
	return bind, open
}

// openTwice refuses two listeners of the proxy that would be one.
func (p converter) openTwice(out *model.Sidecar, e *model.Egress, field string) {
	for _, in := range out.Ingress {
		if in.Open && in.Port == e.Port && (in.Bind == e.Bind || in.Bind.IsUnspecified() || e.Bind.IsUnspecified()) {
			p.Err("DuplicatePort", field+".port.number", "", "port %d of that address is listened at for an ingress", e.Port)
		}
	}
}

// inboundPool reads a connection pool of which all is enforced between proxy and application.
func (p converter) inboundPool(c *networkingapi.ConnectionPoolSettings, field string) *model.ConnectionPool {
	if c != nil && c.Http.GetH2UpgradePolicy() == networkingapi.ConnectionPoolSettings_HTTPSettings_UPGRADE {
		p.Unsupported(field+".http.h2UpgradePolicy", "declare the port's protocol as HTTP2")
	}
	return p.pool(c, field)
}

// defaultEndpoint reads where a workload takes what comes to a port: its own loopback, a unix socket, or another port of the address that
// was called (0.0.0.0, [::] or no address). The result has the port alone for the last.
func (p converter) defaultEndpoint(s, field string) string {
	const hint = "use 127.0.0.1:PORT, [::1]:PORT, 0.0.0.0:PORT, [::]:PORT or unix:///PATH"
	switch {
	case s == "":
		return ""
	case strings.HasPrefix(s, "unix:"):
		p.UnixSocket(s, field)
		return s
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || !slices.Contains([]string{"", "127.0.0.1", "0.0.0.0", "::1", "::"}, host) {
		p.Err("InvalidAddress", field, hint, "%q is not an endpoint of the workload itself", s)
		return ""
	}
	n, err := strconv.ParseUint(port, 10, 32)
	if err != nil {
		n = 0
	}
	p.ValidPort(uint32(n), field)
	if a, err := netip.ParseAddr(host); err != nil || a.IsUnspecified() {
		return ":" + port
	}
	return s
}

func (p converter) sidecarEgress(e *networkingapi.IstioEgressListener, field string, last bool, out *model.Sidecar) {
	p.Only(e, field, "port", "bind", "captureMode", "hosts")
	g := model.Egress{}
	switch {
	case e.Port != nil && e.Port.Number == 0 && strings.HasPrefix(e.Bind, "unix:"): // as it is for them
	case e.Port != nil:
		g.Port, g.Protocol = p.sidecarPort(e.Port, field+".port")
	case !last:
		p.Err("ConflictingFields", field, "put it last", "the egress without a port is for all ports that no other names, and the last one")
	}
	for _, other := range out.Egress {
		if other.Port == g.Port && g.Port != 0 {
			p.Err("DuplicatePort", field+".port.number", "", "port %d is given twice", g.Port)
		}
	}
	if g.Bind, g.Open = p.egressBind(e, field); g.Open {
		p.openTwice(out, &g, field)
	}
	if len(e.Hosts) == 0 {
		p.Err("MissingField", field+".hosts", `use "*/*" for everything, "./*" for the own namespace and "~/*" for nothing`, "at least one host is needed")
	}
	seen := egressSeen{exact: map[model.EgressHost]bool{}}
	for i, h := range e.Hosts {
		if host, ok := p.egressHost(h, parts.At(field+".hosts", i)); ok {
			seen.add(p.Part, host, parts.At(field+".hosts", i))
			g.Hosts = append(g.Hosts, host)
		}
	}
	out.Egress = append(out.Egress, g)
}

// egressHost reads "namespace/host". The namespace is "*" for any, "." for the workload's own; "~" before it takes out, and "~" alone
// takes out of all namespaces.
func (p converter) egressHost(s, field string) (model.EgressHost, bool) {
	namespace, host, ok := strings.Cut(s, "/")
	if !ok {
		p.Err("InvalidHost", field, `write "./`+s+`" or "*/`+s+`"`, "%q names no namespace", s)
		return model.EgressHost{}, false
	}
	out := model.EgressHost{Namespace: namespace, Host: strings.ToLower(strings.TrimSuffix(host, "."))}
	if rest, excluded := strings.CutPrefix(namespace, "~"); excluded {
		out.Namespace, out.Excluded = cmp.Or(rest, "*"), true
	}
	if ns := out.Namespace; ns != "*" && ns != "." && len(validation.IsDNS1123Label(ns)) > 0 {
		p.Err("InvalidValue", field, "", "%q is not a namespace: %s", ns, validation.IsDNS1123Label(ns)[0])
		return out, false
	}
	if !p.ValidHost(out.Host, field, false) {
		return out, false
	}
	if !strings.Contains(out.Host, ".") && out.Host != "*" {
		full := parts.ServiceHost(out.Host, namespace, p.Mesh)
		if strings.ContainsAny(namespace, "*.~") {
			full = parts.ServiceHost(out.Host, p.GetNamespace(), p.Mesh)
		}
		p.Err("InvalidHost", field, fmt.Sprintf("did you mean %s/%s?", namespace, full), "%q is not a host in full", host)
		return out, false
	}
	return out, true
}

// egressSeen are the hosts of one egress so far.
type egressSeen struct {
	exact map[model.EgressHost]bool
	wide  []model.EgressHost // those with a wildcard that differ
}

// maxWide bounds the wildcards that each host is held against.
const maxWide = 100

// add warns of a host that others take in already.
func (e *egressSeen) add(p *parts.Part, h model.EgressHost, field string) {
	if h.Excluded {
		return
	}
	by, any := h, h
	any.Namespace = "*"
	covered := e.exact[h]
	if !covered && e.exact[any] {
		by, covered = any, true
	}
	for _, w := range e.wide {
		if covered {
			break
		}
		by = w
		covered = (w.Namespace == h.Namespace || w.Namespace == "*") && parts.HostCovers(w.Host, h.Host)
	}
	if covered {
		p.Warn("DuplicateValue", field, "", "it is within %s/%s already", by.Namespace, by.Host)
		return
	}
	e.exact[h] = true
	if strings.HasPrefix(h.Host, "*") && len(e.wide) < maxWide {
		e.wide = append(e.wide, h)
	}
}

func (p converter) sidecarOutbound(o *networkingapi.OutboundTrafficPolicy, field string) *model.OutboundPolicy {
	if o == nil {
		return nil
	}
	p.Only(o, field, "mode", "egressProxy")
	out := &model.OutboundPolicy{RegistryOnly: o.Mode == networkingapi.OutboundTrafficPolicy_REGISTRY_ONLY}
	if to := o.EgressProxy; to != nil {
		d := p.destination(to, field+".egressProxy")
		out.Proxy = &d
		if to.Port == nil {
			p.Err("MissingField", field+".egressProxy.port", "", "a port is missing")
		}
		if out.RegistryOnly {
			p.Err("ConflictingFields", field+".egressProxy", "use mode ALLOW_ANY", "mode REGISTRY_ONLY refuses what an egressProxy would take")
		}
	}
	return out
}
