package compile

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert"
	"github.com/weftmesh/weft/internal/control/model"
)

// resolveCredentials fills in what a part's credentials name, from the first of the namespaces that has the Secret. What is
// missing is a warning: the port or destination then refuses connections, as in Istio.
func (c *compiler) resolveCredentials(p *part, namespaces []string) {
	for _, cred := range p.Credentials {
		in := namespaces
		if cred.Namespace != "" {
			in = []string{cred.Namespace}
			if !c.granted(p, cred.Namespace, "", "Secret", cred.Name) {
				p.Warn("RefNotPermitted", cred.Field, "make a ReferenceGrant there", "namespace %s does not permit its Secret %s to be used here: TLS connections fail",
					cred.Namespace, cred.Name)
				continue
			}
		}
		s, ok := c.findSecret(in, cred.Name)
		if !ok {
			p.Warn("CredentialNotFound", cred.Field, "make a Secret of type kubernetes.io/tls", "there is no Secret %s in namespace %s: TLS connections fail",
				cred.Name, joinWords(in))
			continue
		}
		if problem := s.Check(cred); problem != "" {
			p.Warn("CredentialInvalid", cred.Field, "", "Secret %s %s: TLS connections fail", cred.Name, problem)
			continue
		}
		cred.Take(s)
	}
}

func (c *compiler) findSecret(namespaces []string, name string) (convert.Secret, bool) {
	for _, ns := range namespaces {
		p := c.byRef[model.Ref{Kind: "Secret", Namespace: ns, Name: name}]
		if p == nil {
			continue
		}
		k, ok := p.Kube.(*corev1.Secret)
		if !ok {
			continue
		}
		s := convert.Secret{Certificate: k.Data["tls.crt"], Key: k.Data["tls.key"], CA: k.Data["ca.crt"]}
		// Istio's other spellings, and its separate Secret for the authority.
		if s.Certificate == nil {
			s.Certificate, s.Key = k.Data["cert"], k.Data["key"]
		}
		if s.CA == nil {
			s.CA = k.Data["cacert"]
		}
		if other := c.byRef[model.Ref{Kind: "Secret", Namespace: ns, Name: name + "-cacert"}]; other != nil && s.CA == nil {
			if k, ok := other.Kube.(*corev1.Secret); ok {
				if s.CA = k.Data["ca.crt"]; s.CA == nil {
					s.CA = k.Data["cacert"]
				}
			}
		}
		return s, true
	}
	return convert.Secret{}, false
}

// gatewayNamespaces are where a gateway's Secrets are looked for: beside its workloads, in its own namespace, in the root one.
func (c *compiler) gatewayNamespaces(g *model.Gateway) []string {
	var list []string
	for _, name := range sortedKeys(c.mesh.Workloads) {
		w := c.mesh.Workloads[name]
		if w.Gateway && selects(g.Selector, w.Labels) && (g.SelectorNamespace == "" || g.SelectorNamespace == w.Namespace) &&
			!slices.Contains(list, w.Namespace) {
			list = append(list, w.Namespace)
		}
	}
	for _, ns := range []string{g.Ref.Namespace, c.settings.RootNamespace} {
		if !slices.Contains(list, ns) {
			list = append(list, ns)
		}
	}
	return list
}

func joinWords(list []string) string {
	out := ""
	for i, s := range list {
		switch {
		case i == 0:
		case i == len(list)-1:
			out += " or "
		default:
			out += ", "
		}
		out += s
	}
	return out
}
