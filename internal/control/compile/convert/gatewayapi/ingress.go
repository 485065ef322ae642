package gatewayapi

import (
	"cmp"
	"strconv"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/weftmesh/weft/internal/control/compile/apirules"
	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

const (
	ingressClassAnnotation = "kubernetes.io/ingress.class"
	ingressPort            = 80
	ingressTLSPort         = 443
)

// IngressClass is the class that an Ingress names, and where.
func IngressClass(in *networkingv1.Ingress) (class, field string) {
	if in.Spec.IngressClassName != nil {
		return *in.Spec.IngressClassName, "spec.ingressClassName"
	}
	return in.Annotations[ingressClassAnnotation], parts.Key("metadata.annotations", ingressClassAnnotation)
}

// checkIngress converts an Ingress whose class we know by name: a gateway of its own, and routes. Backends named by port name are
// completed when services are looked up.
func (p converter) checkIngress(in *networkingv1.Ingress) {
	if class, _ := IngressClass(in); !p.Mesh.Ingress.Off && OurIngressClass(class, p.Mesh) {
		Ingress(p.Part, in)
	}
}

// OurIngressClass reports whether a class, "" for none, is served by name: our own, and the one that the mesh's settings name.
func OurIngressClass(class string, s model.Settings) bool {
	switch class {
	case "":
		return s.Ingress.Unclassed
	case parts.OwnClass:
		return true
	}
	return class == cmp.Or(s.Ingress.Class, parts.IstioClass)
}

// Ingress converts an Ingress that is ours: to a gateway of its own.
func Ingress(part *parts.Part, in *networkingv1.Ingress) {
	p := converter{part}
	p.Gateway = &model.Gateway{Ref: p.Ref(), Selector: p.ingressPods(), Created: p.Born, Servers: []model.Server{
		{Port: ingressPort, Name: "http", Protocol: model.HTTP, Hosts: []model.GatewayHost{{Host: "*"}}}}}
	for i, t := range in.Spec.TLS {
		p.ingressTLS(t, parts.At("spec.tls", i))
	}
	if len(in.Spec.Rules) == 0 && in.Spec.DefaultBackend == nil {
		p.Err("MissingField", "spec.rules", "", "rules or a defaultBackend are needed")
	}
}

// ingressPods picks the pods that serve Ingress objects.
func (p converter) ingressPods() map[string]string {
	if s := p.Mesh.Ingress.Selector; s != "" {
		return map[string]string{parts.IstioLabel: s}
	}
	return parts.IngressSelector()
}

func (p converter) ingressTLS(t networkingv1.IngressTLS, field string) {
	server := model.Server{Port: ingressTLSPort, Name: "https-" + strconv.Itoa(len(p.Gateway.Servers)-1), Protocol: model.HTTPS, TLS: &model.ServerTLS{Mode: model.TLSSimple}}
	for i, h := range t.Hosts {
		if p.ValidHost(h, parts.At(field+".hosts", i), false) {
			server.Hosts = append(server.Hosts, model.GatewayHost{Host: strings.ToLower(h)})
		}
	}
	if len(server.Hosts) == 0 {
		server.Hosts = []model.GatewayHost{{Host: "*"}}
	}
	if t.SecretName == "" {
		p.Err("MissingField", field+".secretName", "", "a Secret is needed")
		return
	}
	p.Gateway.Servers = append(p.Gateway.Servers, server)
	p.ServerSecret(parts.Credential{Name: t.SecretName, Field: field + ".secretName"}, len(p.Gateway.Servers)-1)
}

// IngressPath converts a path with its type.
func IngressPath(p *parts.Part, path networkingv1.HTTPIngressPath, field string) model.StringMatch {
	value := path.Path
	if value == "" {
		value = "/"
	}
	if !strings.HasPrefix(value, "/") {
		p.Err("InvalidValue", field+".path", "", `%q does not start with "/"`, value)
	}
	apirules.IngressPath(&path, field, p.Err)
	kind := networkingv1.PathTypeImplementationSpecific
	if path.PathType != nil {
		kind = *path.PathType
	}
	if kind == networkingv1.PathTypePrefix && strings.ContainsAny(value, "?#") {
		p.Err("InvalidValue", field+".path", "", `%q has a "?" or "#", which no path has`, value)
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
	p.Err("InvalidValue", field+".pathType", "", "%q is not one of Exact, Prefix, ImplementationSpecific", kind)
	return model.StringMatch{}
}
