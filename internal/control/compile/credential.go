package compile

import (
	"crypto/tls"
	"crypto/x509"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/weftmesh/weft/internal/control/model"
)

// credential is a reference to a Secret that is looked up when all objects are there.
type credential struct {
	namespace string // empty for those that resolveCredentials is told
	name      string
	field     string
	pair, ca  bool // whether a certificate with its key, and an authority, are needed
	take      func(secret)
}

// secret is what a Secret holds for TLS, as PEM.
type secret struct{ certificate, key, ca []byte }

// resolveCredentials fills in what a part's credentials name, from the first of the namespaces that has the Secret. What is
// missing is a warning: the port or destination then refuses connections, as in Istio.
func (c *compiler) resolveCredentials(p *part, namespaces []string) {
	for _, cred := range p.credentials {
		in := namespaces
		if cred.namespace != "" {
			in = []string{cred.namespace}
			if !c.granted(p, cred.namespace, "", "Secret", cred.name) {
				p.warn("RefNotPermitted", cred.field, "make a ReferenceGrant there", "namespace %s does not permit its Secret %s to be used here: TLS connections fail",
					cred.namespace, cred.name)
				continue
			}
		}
		s, ok := c.findSecret(in, cred.name)
		if !ok {
			p.warn("CredentialNotFound", cred.field, "make a Secret of type kubernetes.io/tls", "there is no Secret %s in namespace %s: TLS connections fail",
				cred.name, joinWords(in))
			continue
		}
		if problem := s.check(cred); problem != "" {
			p.warn("CredentialInvalid", cred.field, "", "Secret %s %s: TLS connections fail", cred.name, problem)
			continue
		}
		cred.take(s)
	}
}

func (c *compiler) findSecret(namespaces []string, name string) (secret, bool) {
	for _, ns := range namespaces {
		p := c.byRef[model.Ref{Kind: "Secret", Namespace: ns, Name: name}]
		if p == nil {
			continue
		}
		k, ok := p.Kube.(*corev1.Secret)
		if !ok {
			continue
		}
		s := secret{certificate: k.Data["tls.crt"], key: k.Data["tls.key"], ca: k.Data["ca.crt"]}
		// Istio's other spellings, and its separate Secret for the authority.
		if s.certificate == nil {
			s.certificate, s.key = k.Data["cert"], k.Data["key"]
		}
		if s.ca == nil {
			s.ca = k.Data["cacert"]
		}
		if other := c.byRef[model.Ref{Kind: "Secret", Namespace: ns, Name: name + "-cacert"}]; other != nil && s.ca == nil {
			if k, ok := other.Kube.(*corev1.Secret); ok {
				if s.ca = k.Data["ca.crt"]; s.ca == nil {
					s.ca = k.Data["cacert"]
				}
			}
		}
		return s, true
	}
	return secret{}, false
}

// check says what is wrong with the material.
func (s secret) check(cred credential) string {
	if cred.pair {
		if s.certificate == nil || s.key == nil {
			return "has no tls.crt and tls.key"
		}
		if _, err := tls.X509KeyPair(s.certificate, s.key); err != nil {
			return "has no usable pair of certificate and key (" + err.Error() + ")"
		}
	}
	if cred.ca && (s.ca != nil || cred.pair) {
		if s.ca == nil {
			return "has no ca.crt"
		}
		if !x509.NewCertPool().AppendCertsFromPEM(s.ca) {
			return "has no certificate in ca.crt"
		}
	}
	return ""
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
