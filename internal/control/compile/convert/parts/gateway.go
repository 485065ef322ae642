package parts

import "github.com/weftmesh/weft/internal/control/model"

// ingressSelector picks the workloads that serve Ingress objects and the Gateway API's gateways: Istio's ingress gateway, and the
// one that the local runtime starts.
var ingressSelector = map[string]string{IstioLabel: "ingressgateway"}

// ServerSecret asks for a Secret of a server. Its certificate is one more where another Secret was found already.
func (p *Part) ServerSecret(c Credential, index int) {
	g := p.Gateway
	c.Pair = true
	c.Take = func(s Secret) {
		t := g.Servers[index].TLS
		if t.Certificate == nil {
			t.Certificate, t.Key = s.Certificate, s.Key
		} else {
			t.More = append(t.More, model.KeyPair{Certificate: s.Certificate, Key: s.Key})
		}
		if c.CA {
			t.CA, t.CRL = s.CA, s.CRL
		}
	}
	p.Credentials = append(p.Credentials, c)
}

// PortUse is a port's use that cannot be shared with another.
func PortUse(s model.Server) string {
	switch {
	case s.Protocol.IsHTTP():
		return "HTTP"
	case s.Protocol == model.HTTPS || s.Protocol == model.TLS:
		return "TLS"
	case s.Protocol == model.UDP:
		return "UDP"
	}
	return "TCP"
}

// Collide reports whether two servers with one port number cannot both have it. Ports of UDP are others than those of TCP.
func Collide(a, b model.Server) bool {
	x, y := PortUse(a), PortUse(b)
	if x == "UDP" || y == "UDP" {
		return x == y
	}
	return x != y || x == "TCP"
}

// TakesUDP reports whether a server of one gateway has HTTP/3 at the port of UDP that a server of another is for.
func TakesUDP(a *model.Gateway, x model.Server, b *model.Gateway, y model.Server) bool {
	return a.HTTP3 && x.TerminatesHTTPS() && y.Protocol == model.UDP || b.HTTP3 && y.TerminatesHTTPS() && x.Protocol == model.UDP
}

// ServersField is the list that a gateway's servers were written in.
func (p *Part) ServersField() string {
	if p.Gateway.Ref.Kind == "Gateway.k8s" {
		return "spec.listeners"
	}
	return "spec.servers"
}

// IngressSelector gives the labels of the workloads that serve the Gateway API's gateways and Ingresses. It must not be changed.
func IngressSelector() map[string]string { return ingressSelector }
