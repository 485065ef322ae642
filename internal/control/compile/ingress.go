package compile

import (
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/model"
)

const (
	ingressClassAnnotation = "kubernetes.io/ingress.class"
	ingressPort            = 80
	ingressTLSPort         = 443
)

// ingressClass is the class that an Ingress names, and where.
func ingressClass(in *networkingv1.Ingress) (class, field string) {
	if in.Spec.IngressClassName != nil {
		return *in.Spec.IngressClassName, "spec.ingressClassName"
	}
	return in.Annotations[ingressClassAnnotation], key("metadata.annotations", ingressClassAnnotation)
}

func controllerOf(p *part) string {
	switch k := p.Kube.(type) {
	case *gatewayv1.GatewayClass:
		return string(k.Spec.ControllerName)
	case *networkingv1.IngressClass:
		return k.Spec.Controller
	}
	return ""
}

// checkIngress converts an Ingress whose class we know by name: a gateway of its own, and routes. Backends named by port name are
// completed when services are looked up.
func (p *part) checkIngress(in *networkingv1.Ingress) {
	if class, _ := ingressClass(in); class == "istio" || class == "weft" {
		p.ingress(in)
	}
}

func (p *part) ingress(in *networkingv1.Ingress) {
	p.gateway = &model.Gateway{Ref: p.Ref(), Selector: ingressSelector, Created: p.Born, Servers: []model.Server{
		{Port: ingressPort, Name: "http", Protocol: model.HTTP, Hosts: []model.GatewayHost{{Host: "*"}}}}}
	for i, t := range in.Spec.TLS {
		p.ingressTLS(t, at("spec.tls", i))
	}
	if len(in.Spec.Rules) == 0 && in.Spec.DefaultBackend == nil {
		p.err("MissingField", "spec.rules", "", "rules or a defaultBackend are needed")
	}
}

func (p *part) ingressTLS(t networkingv1.IngressTLS, field string) {
	server := model.Server{Port: ingressTLSPort, Name: "https", Protocol: model.HTTPS, TLS: &model.ServerTLS{Mode: model.TLSSimple}}
	for i, h := range t.Hosts {
		if p.validHost(h, at(field+".hosts", i), false) {
			server.Hosts = append(server.Hosts, model.GatewayHost{Host: strings.ToLower(h)})
		}
	}
	if len(server.Hosts) == 0 {
		server.Hosts = []model.GatewayHost{{Host: "*"}}
	}
	if t.SecretName == "" {
		p.err("MissingField", field+".secretName", "", "a Secret is needed")
		return
	}
	p.gateway.Servers = append(p.gateway.Servers, server)
	p.serverSecret(p.GetNamespace(), t.SecretName, field+".secretName", false, len(p.gateway.Servers)-1)
}

// ingressGateway gives the gateway of an Ingress that is ours.
func (c *compiler) ingressGateway(p *part) (*model.Gateway, bool) {
	in, ok := p.Kube.(*networkingv1.Ingress)
	if !ok {
		return nil, false
	}
	class, field := ingressClass(in)
	if !c.isOurs(class, "IngressClass") {
		p.info("NotOurs", field, `use class "istio" or "weft" to have this mesh serve it`, "class %q belongs to another implementation", class)
		return nil, false
	}
	if p.gateway == nil {
		p.ingress(in)
	}
	return p.gateway, !p.failed()
}

// ingressRoutes makes a set of routes for each host of an Ingress.
func (c *compiler) ingressRoutes(p *part, in *networkingv1.Ingress) {
	byHost := map[string]*model.RouteSet{}
	for i, rule := range in.Spec.Rules {
		field := at("spec.rules", i)
		host := "*"
		if rule.Host != "" {
			if host = strings.ToLower(rule.Host); !p.validHost(host, field+".host", false) {
				continue
			}
		}
		rs := byHost[host]
		if rs == nil {
			rs = &model.RouteSet{Ref: p.Ref(), Namespace: in.Namespace, Hosts: []string{host}, ByPrecedence: true, Created: p.Born,
				Gateways: []model.GatewayRef{{Kind: "Ingress", Namespace: in.Namespace, Name: in.Name}}}
			byHost[host] = rs
		}
		if rule.HTTP == nil {
			continue
		}
		for j, path := range rule.HTTP.Paths {
			f := at(field+".http.paths", j)
			rs.HTTP = append(rs.HTTP, model.HTTPRoute{Field: f,
				Matches:      []model.HTTPMatch{{Field: f, Path: p.ingressPath(path, f)}},
				Destinations: []model.WeightedDestination{c.ingressBackend(p, &path.Backend, f+".backend")}})
		}
	}
	if b := in.Spec.DefaultBackend; b != nil {
		c.defaultBackend(p, b, byHost)
	}
	if p.failed() {
		return
	}
	for _, host := range sortedKeys(byHost) {
		c.mesh.RouteSets = append(c.mesh.RouteSets, byHost[host])
	}
}

// defaultBackend takes what no rule takes: of the hosts named, and of all others.
func (c *compiler) defaultBackend(p *part, b *networkingv1.IngressBackend, byHost map[string]*model.RouteSet) {
	if byHost["*"] == nil {
		byHost["*"] = &model.RouteSet{Ref: p.Ref(), Namespace: p.GetNamespace(), Hosts: []string{"*"}, ByPrecedence: true, Created: p.Born,
			Gateways: []model.GatewayRef{{Kind: "Ingress", Namespace: p.GetNamespace(), Name: p.GetName()}}}
	}
	d := c.ingressBackend(p, b, "spec.defaultBackend")
	for _, rs := range byHost {
		rs.HTTP = append(rs.HTTP, model.HTTPRoute{Field: "spec.defaultBackend", Destinations: []model.WeightedDestination{d}})
	}
}

func (p *part) ingressPath(path networkingv1.HTTPIngressPath, field string) model.StringMatch {
	value := path.Path
	if value == "" {
		value = "/"
	}
	if !strings.HasPrefix(value, "/") {
		p.err("InvalidValue", field+".path", "", `%q does not start with "/"`, value)
	}
	kind := networkingv1.PathTypeImplementationSpecific
	if path.PathType != nil {
		kind = *path.PathType
	}
	switch kind {
	case networkingv1.PathTypeExact:
		return model.StringMatch{Exact: value, IsExact: true}
	case networkingv1.PathTypePrefix:
		if value != "/" {
			value = strings.TrimSuffix(value, "/")
		}
		return model.StringMatch{Prefix: value, SegmentPrefix: true}
	case networkingv1.PathTypeImplementationSpecific:
		// As Istio reads it: "/a*" by prefix, "/a" exactly, and nothing at all is everything.
		if prefix, ok := strings.CutSuffix(value, "*"); ok || path.Path == "" {
			return model.StringMatch{Prefix: strings.TrimSuffix(prefix, ".")}
		}
		return model.StringMatch{Exact: value, IsExact: true}
	}
	p.err("InvalidValue", field+".pathType", "", "%q is not one of Exact, Prefix, ImplementationSpecific", kind)
	return model.StringMatch{}
}

func (c *compiler) ingressBackend(p *part, b *networkingv1.IngressBackend, field string) model.WeightedDestination {
	if b.Service == nil {
		p.unsupported(field, "use a service")
		return model.WeightedDestination{}
	}
	d := model.WeightedDestination{Host: serviceHost(b.Service.Name, p.GetNamespace(), c.settings), Weight: 1}
	if b.Service.Port.Number > 0 {
		d.Port = p.validPort(uint32(b.Service.Port.Number), field+".service.port.number")
	}
	s := c.mesh.Services[d.Host]
	if s == nil {
		p.warn("HostNotFound", field+".service.name", "", "there is no Service %s: requests get 503", b.Service.Name)
		return d
	}
	for _, port := range s.Ports {
		if b.Service.Port.Name != "" && port.Name == b.Service.Port.Name {
			d.Port = port.Number
		}
	}
	if s.Port(d.Port) == nil {
		p.warn("PortNotFound", field+".service.port", "", "Service %s has no such port: requests get 503", b.Service.Name)
	}
	return d
}
