package apirules

import (
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/weftmesh/weft/internal/control/source"
)

// Ingress judges an object that is one, whoever serves it. Where something else is wrong with a field, that says it better.
func Ingress(o *source.Object, say Say) {
	k, ok := o.Kube.(*networkingv1.Ingress)
	if !ok {
		return
	}
	c, s := checker{o, say}, &k.Spec
	if s.DefaultBackend == nil && len(s.Rules) == 0 {
		say("MissingField", "spec.rules", "or write a defaultBackend", "it may not be empty")
	}
	if s.IngressClassName != nil {
		c.named(*s.IngressClassName, "spec.ingressClassName", validation.IsDNS1123Subdomain)
	}
	if s.DefaultBackend != nil {
		c.ingressBackend(s.DefaultBackend, "spec.defaultBackend")
	}
	for i, t := range s.TLS {
		field := at("spec.tls", i)
		for j, h := range t.Hosts {
			c.lowerHost(h, at(field+".hosts", j))
		}
		if t.SecretName != "" {
			c.named(t.SecretName, field+".secretName", validation.IsDNS1123Subdomain)
		}
	}
	for i, r := range s.Rules {
		field := at("spec.rules", i)
		if r.Host != "" {
			c.lowerHost(r.Host, field+".host")
		}
		if r.HTTP == nil {
			continue
		}
		if len(r.HTTP.Paths) == 0 {
			say("MissingField", field+".http.paths", "", "it may not be empty")
		}
		for j, p := range r.HTTP.Paths {
			field := at(field+".http.paths", j)
			if p.Path == "" && p.PathType != nil && *p.PathType != networkingv1.PathTypeImplementationSpecific {
				say("MissingField", field+".path", `write "/" for any path`, "type %s needs a path", *p.PathType)
			}
			c.ingressBackend(&p.Backend, field+".backend")
		}
	}
}

func (c checker) named(v, field string, judge func(string) []string) {
	if problems := judge(v); len(problems) > 0 {
		c.say("InvalidName", field, "", "%q is not valid: %s", v, problems[0])
	}
}

func (c checker) lowerHost(host, field string) {
	judge := validation.IsDNS1123Subdomain
	if strings.Contains(host, "*") {
		judge = validation.IsWildcardDNS1123Subdomain
	}
	if len(judge(host)) > 0 {
		c.say("InvalidHost", field, `hosts look like "www.example.com" or "*.example.com", in lower case`, "%q is not of the form that is asked for here", host)
	}
}

func (c checker) ingressBackend(b *networkingv1.IngressBackend, field string) {
	s := b.Service
	switch {
	case s == nil:
		return
	case s.Name == "":
		c.say("MissingField", field+".service.name", "", "a Service is needed")
	default:
		c.named(s.Name, field+".service.name", validation.IsDNS1123Label)
	}
	if s.Port.Name != "" {
		c.named(s.Port.Name, field+".service.port.name", validation.IsValidPortName)
	}
}

// IngressPath judges a path of an Ingress that is ours.
func IngressPath(p *networkingv1.HTTPIngressPath, field string, say Say) {
	if p.PathType == nil {
		say("MissingField", field+".pathType", "use Exact, Prefix or ImplementationSpecific", "a type is needed")
		return
	}
	bad := badPart(p.Path)
	if strings.Contains(p.Path, "//") {
		bad = "//"
	}
	if *p.PathType != networkingv1.PathTypeImplementationSpecific && bad != "" {
		say("InvalidValue", field+".path", "", "%q has %q, which no normalized path has", p.Path, bad)
	}
	if s := p.Backend.Service; s != nil && s.Port.Name != "" && s.Port.Number != 0 {
		say("ConflictingFields", field+".backend.service.port.name", "", "a port is named, or has a number")
	}
}
