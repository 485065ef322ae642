package istio

import (
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
	p.captured(in.Bind, in.CaptureMode, field)
	if in.Tls != nil {
		p.Unsupported(field+".tls", "let the application end TLS by itself, with protocol TLS here, or use a PeerAuthentication")
	}
	number, protocol := p.sidecarPort(in.Port, field+".port")
	for _, other := range out.Ingress {
		if other.Port == number {
			p.Err("DuplicatePort", field+".port.number", "", "port %d is given twice", number)
		}
	}
	out.Ingress = append(out.Ingress, model.Ingress{Port: number, Protocol: protocol,
		Endpoint: p.defaultEndpoint(in.DefaultEndpoint, field+".defaultEndpoint"), Pool: p.inboundPool(in.ConnectionPool, field+".connectionPool")})
	if in.ConnectionPool.GetHttp() != nil && !protocol.IsHTTP() {
		p.Warn("NoEffect", field+".connectionPool.http", "", "the port is not declared as HTTP: only settings of connections count")
	}
}

// captured refuses listeners of a workload's own. Proxies take the connections that a workload opens or gets, wherever to.
func (p converter) captured(bind string, mode networkingapi.CaptureMode, field string) {
	if bind != "" {
		p.Unsupported(field+".bind", "leave it out: proxies take all connections of their workloads, and open no addresses")
	}
	if mode == networkingapi.CaptureMode_NONE {
		p.Unsupported(field+".captureMode", "use DEFAULT or IPTABLES")
	}
}

// inboundPool reads a connection pool of which all is enforced between proxy and application.
func (p converter) inboundPool(c *networkingapi.ConnectionPoolSettings, field string) *model.ConnectionPool {
	if c != nil && c.Http.GetH2UpgradePolicy() == networkingapi.ConnectionPoolSettings_HTTPSettings_UPGRADE {
		p.Unsupported(field+".http.h2UpgradePolicy", "declare the port's protocol as HTTP2")
	}
	return p.pool(c, field)
}

// defaultEndpoint reads where a workload takes what comes to a port: its own loopback, or another port of the address that was
// called (0.0.0.0, [::] or no address). The result has the port alone for the latter.
func (p converter) defaultEndpoint(s, field string) string {
	const hint = "use 127.0.0.1:PORT, [::1]:PORT, 0.0.0.0:PORT or [::]:PORT"
	switch {
	case s == "":
		return ""
	case strings.HasPrefix(s, "unix:"):
		p.Unsupported(field, hint)
		return ""
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
	p.captured(e.Bind, e.CaptureMode, field)
	g := model.Egress{}
	switch {
	case e.Port != nil:
		g.Port, _ = p.sidecarPort(e.Port, field+".port")
	case !last:
		p.Err("ConflictingFields", field, "put it last", "the egress without a port is for all ports that no other names, and the last one")
	}
	for _, other := range out.Egress {
		if other.Port == g.Port && g.Port != 0 {
			p.Err("DuplicatePort", field+".port.number", "", "port %d is given twice", g.Port)
		}
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

// egressHost reads "namespace/host". The namespace is "*" for any, "." for the workload's own, "~" for none; "~" before one takes out.
func (p converter) egressHost(s, field string) (model.EgressHost, bool) {
	namespace, host, ok := strings.Cut(s, "/")
	if !ok {
		p.Err("InvalidHost", field, `write "./`+s+`" or "*/`+s+`"`, "%q names no namespace", s)
		return model.EgressHost{}, false
	}
	out := model.EgressHost{Namespace: namespace, Host: strings.ToLower(strings.TrimSuffix(host, "."))}
	if rest, excluded := strings.CutPrefix(namespace, "~"); excluded && rest != "" {
		out.Namespace, out.Excluded = rest, true
	}
	if ns := out.Namespace; ns != "*" && ns != "." && ns != "~" && len(validation.IsDNS1123Label(ns)) > 0 {
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
