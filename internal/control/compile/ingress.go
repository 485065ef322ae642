package compile

import (
	"cmp"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/gatewayapi"
	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// controllerOf gives the controller of a class.
func controllerOf(o *source.Object) string {
	switch k := o.Kube.(type) {
	case *gatewayv1.GatewayClass:
		return string(k.Spec.ControllerName)
	case *networkingv1.IngressClass:
		return k.Spec.Controller
	}
	return ""
}

// ingressGateway gives the gateway of an Ingress that is ours.
func (c *compiler) ingressGateway(p *part) (*model.Gateway, bool) {
	in, ok := p.Kube.(*networkingv1.Ingress)
	if !ok {
		return nil, false
	}
	class, field := gatewayapi.IngressClass(in)
	if c.settings.Ingress.Off {
		p.Info("NotOurs", field, "", "Ingress objects are not served: the mesh's ingressControllerMode is OFF")
		return nil, false
	}
	ours := gatewayapi.OurIngressClass(class, c.settings)
	if c.object(model.Ref{Kind: "IngressClass", Name: class}) != nil {
		ours = c.isOurs(class, "IngressClass")
	}
	if !ours && class == "" {
		p.Info("NotOurs", "spec.ingressClassName", "use class "+cmp.Or(c.settings.Ingress.Class, "istio")+" or weft to have this mesh serve it", "there is no class: nobody serves it")
		return nil, false
	}
	if !ours {
		p.Info("NotOurs", field, "use class "+cmp.Or(c.settings.Ingress.Class, "istio")+" or weft to have this mesh serve it", "class %q belongs to another implementation", class)
		return nil, false
	}
	if p.Gateway == nil {
		gatewayapi.Ingress(p, in)
	}
	return p.Gateway, !p.Failed()
}

// ingressRoutes makes a set of routes for each host of an Ingress.
func (c *compiler) ingressRoutes(p *part, in *networkingv1.Ingress) (sets []*model.RouteSet) {
	byHost := map[string]*model.RouteSet{}
	for i, rule := range in.Spec.Rules {
		field := parts.At("spec.rules", i)
		host := "*"
		if rule.Host != "" {
			if host = strings.ToLower(rule.Host); !p.ValidHost(host, field+".host", false) {
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
			f := parts.At(field+".http.paths", j)
			rs.HTTP = append(rs.HTTP, model.HTTPRoute{Field: f,
				Matches:      []model.HTTPMatch{{Field: f, Path: gatewayapi.IngressPath(p, path, f)}},
				Destinations: []model.WeightedDestination{c.ingressBackend(p, &path.Backend, f+".backend")}})
		}
	}
	if b := in.Spec.DefaultBackend; b != nil {
		c.defaultBackend(p, b, byHost)
	}
	if p.Failed() {
		return nil
	}
	for _, host := range parts.SortedKeys(byHost) {
		sets = append(sets, byHost[host])
	}
	return sets
}

// defaultBackend takes what no rule takes: of the hosts named, and of all others.
func (c *compiler) defaultBackend(p *part, b *networkingv1.IngressBackend, byHost map[string]*model.RouteSet) {
	if byHost["*"] == nil {
		byHost["*"] = &model.RouteSet{Ref: p.Ref(), Namespace: p.GetNamespace(), Hosts: []string{"*"}, ByPrecedence: true, Created: p.Born,
			Gateways: []model.GatewayRef{{Kind: "Ingress", Namespace: p.GetNamespace(), Name: p.GetName()}}}
	}
	d := c.ingressBackend(p, b, "spec.defaultBackend")
	for _, rs := range byHost {
		rs.HTTP = append(rs.HTTP, model.HTTPRoute{Field: "spec.defaultBackend", Last: true, Destinations: []model.WeightedDestination{d}})
	}
}

func (c *compiler) ingressBackend(p *part, b *networkingv1.IngressBackend, field string) model.WeightedDestination {
	if b.Service == nil {
		p.Unsupported(field, "use a service")
		return model.WeightedDestination{}
	}
	d := model.WeightedDestination{Host: parts.ServiceHost(b.Service.Name, p.GetNamespace(), c.settings), Weight: 1}
	if b.Service.Port.Number > 0 {
		d.Port = p.ValidPort(uint32(b.Service.Port.Number), field+".service.port.number")
	}
	if d.Port == 0 && b.Service.Port.Name == "" {
		p.Err("MissingField", field+".service.port", "name a port, or give its number", "a port is needed")
	}
	s := c.service(d.Host)
	if s == nil {
		p.Warn("HostNotFound", field+".service.name", "", "there is no Service %s: requests get 503", b.Service.Name)
		return d
	}
	s = c.behind(s, p.GetNamespace())
	for _, port := range s.Ports {
		if b.Service.Port.Name != "" && port.Name == b.Service.Port.Name {
			d.Port = port.Number
		}
	}
	if s.Port(d.Port) == nil {
		p.Warn("PortNotFound", field+".service.port", "", "Service %s has no such port: requests get 503", b.Service.Name)
	}
	return d
}
