package compile

import (
	"crypto/x509"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

const backendTLSPolicy = "BackendTLSPolicy"

// addBackendTLS gives a service what policies ask of its clients. Of two policies for one port, or for the whole service, the older
// one counts; one for a port goes before one for the service.
func (c *compiler) addBackendTLS(s *model.Service) {
	taken := map[string]*record{}
	for _, r := range c.ask(topic{about: onTarget, a: s.Host}) {
		policy, ok := r.Kube.(*gatewayv1.BackendTLSPolicy)
		if !ok {
			continue
		}
		silent := *r.part // its own unit tells what there is to say
		t := c.backendTLS(&silent, policy)
		for i, target := range policy.Spec.TargetRefs {
			section := parts.OrEmpty(target.SectionName)
			if !isService(target) || parts.ServiceHost(string(target.Name), policy.Namespace, c.settings) != s.Host || section != "" && portNamed(s, section) == 0 {
				continue
			}
			if older := taken[section]; older != nil && older != r {
				c.about(r.Object).Warn(string(gatewayv1.PolicyReasonConflicted), parts.At("spec.targetRefs", i), "put it into one object",
					"%s, which is %s, has this target already: the policy has no effect there", older.Ref(), age(older.Object, r.Object))
				c.about(older.Object).Warn("DuplicatePolicy", "", "put it into one object", "%s has the same target %s, where it has no effect", r.Ref(), target.Name)
				continue
			}
			taken[section] = r
			if s.TLS == nil {
				s.TLS = map[uint16]*model.ClientTLS{}
			}
			s.TLS[portNamed(s, section)] = t
		}
	}
}

// linkBackendTLS reports authorities and targets of a policy that are not there.
func (c *compiler) linkBackendTLS(p *part) {
	policy, ok := p.Kube.(*gatewayv1.BackendTLSPolicy)
	if !ok {
		return
	}
	c.backendTLS(p, policy)
	for i, target := range policy.Spec.TargetRefs {
		c.linkTarget(p, target, parts.At("spec.targetRefs", i))
	}
}

// backendTLS completes a policy with the authorities that it names. Where none is to be had, connections fail.
func (c *compiler) backendTLS(p *part, policy *gatewayv1.BackendTLSPolicy) *model.ClientTLS {
	t := *p.BackendTLS
	refs := policy.Spec.Validation.CACertificateRefs
	for i, ref := range refs {
		at := parts.At("spec.validation.caCertificateRefs", i)
		if kind := string(ref.Kind); ref.Group != "" || kind != "ConfigMap" && kind != "Secret" {
			p.Warn("InvalidKind", at, "use a ConfigMap", "a %s (%s) holds no authority", ref.Kind, ref.Group)
			continue
		}
		pem, problem := c.authority(model.Ref{Kind: string(ref.Kind), Namespace: p.GetNamespace(), Name: string(ref.Name)})
		if problem != "" {
			p.Warn(string(gatewayv1.BackendTLSPolicyReasonInvalidCACertificateRef), at, "", "%s", problem)
			continue
		}
		t.CA = append(t.CA, pem...)
	}
	if len(refs) > 0 && len(t.CA) == 0 {
		t.Refuse = "no authority is to be had"
		p.Warn(string(gatewayv1.BackendTLSPolicyReasonNoValidCACertificate), "spec.validation.caCertificateRefs", "", "%s: connections to its targets fail", t.Refuse)
	}
	return &t
}

// authority gives the certificates in the key ca.crt of a ConfigMap or Secret, as PEM, or what is wrong with it.
func (c *compiler) authority(ref model.Ref) (pem []byte, problem string) {
	name := ref.Kind + " " + ref.Namespace + "/" + ref.Name
	o := c.object(ref)
	if o == nil {
		return nil, "there is no " + name
	}
	switch k := o.Kube.(type) {
	case *corev1.ConfigMap:
		if pem = k.BinaryData["ca.crt"]; pem == nil {
			pem = []byte(k.Data["ca.crt"])
		}
	case *corev1.Secret:
		pem = k.Data["ca.crt"]
	}
	if len(pem) == 0 {
		return nil, name + " has no ca.crt"
	}
	if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		return nil, name + " has no certificate in ca.crt"
	}
	return pem, ""
}

func (c *compiler) linkTarget(p *part, target gatewayv1.LocalPolicyTargetReferenceWithSectionName, field string) {
	notFound := string(gatewayv1.PolicyReasonTargetNotFound)
	if !isService(target) {
		p.Warn("InvalidKind", field+".kind", "use a Service", "a %s (%s) cannot be a target: the policy has no effect there", target.Kind, target.Group)
		return
	}
	s := c.service(parts.ServiceHost(string(target.Name), p.GetNamespace(), c.settings))
	if s == nil {
		p.Warn(notFound, field+".name", "", "there is no Service %s/%s: the policy has no effect there", p.GetNamespace(), target.Name)
		return
	}
	if behind := c.behind(s, p.GetNamespace()); behind != s {
		p.Warn("NoEffect", field+".name", "write the policy for "+behind.Host+", in its namespace", "Service %s/%s is a further name of %s, whose policies count: this one has no effect there",
			p.GetNamespace(), target.Name, behind.Host)
		return
	}
	if section := parts.OrEmpty(target.SectionName); section != "" && portNamed(s, section) == 0 {
		p.Warn(notFound, field+".sectionName", "", "Service %s/%s has no port named %q: the policy has no effect there", p.GetNamespace(), target.Name, section)
	}
}

func isService(target gatewayv1.LocalPolicyTargetReferenceWithSectionName) bool {
	return (target.Group == "" || target.Group == "core") && target.Kind == "Service"
}

// portNamed gives the number of a port; 0 where there is none of that name.
func portNamed(s *model.Service, name string) uint16 {
	for _, port := range s.Ports {
		if name != "" && port.Name == name {
			return port.Number
		}
	}
	return 0
}
