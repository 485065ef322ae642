package compile

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// resolveCredentials fills in what a part's credentials name, from the first of the namespaces that has the Secret. What is
// missing is a warning: the port or destination then refuses connections, as in Istio, unless there is another in its list. An object
// that names the same Secret in several places is told so once, at the first.
func (c *compiler) resolveCredentials(p *part, namespaces []string) {
	var complaints []complaint
	found, told := map[string]bool{}, map[string]bool{} // lists; problems
	for _, cred := range p.Credentials {
		s, code, hint, problem := c.credential(p, cred, namespaces)
		if problem != "" && cred.Lack != nil {
			cred.Lack(problem)
		}
		if problem == "" {
			cred.Take(s)
			found[cred.List] = true
		} else if !told[code+problem] {
			told[code+problem] = true
			complaints = append(complaints, complaint{cred, code, hint, problem})
		}
	}
	for _, at := range complaints {
		at.tell(p, at.List != "" && found[at.List])
	}
}

// complaint is about a credential that cannot be used.
type complaint struct {
	parts.Credential
	code, hint, problem string
}

// tell warns of what comes of it, which is less where there are others to use. The authority is in none of them.
func (at complaint) tell(p *part, others bool) {
	effect := "TLS connections fail"
	if others && !at.CA {
		effect = "the other certificates of the list are shown"
	}
	p.Warn(at.code, at.Field, at.hint, "%s: %s", at.problem, effect)
}

// credential finds a usable Secret, or says why there is none.
func (c *compiler) credential(p *part, cred parts.Credential, in []string) (s parts.Secret, code, hint, problem string) {
	if cred.Namespace != "" {
		in = []string{cred.Namespace}
		if !c.granted(p, cred.Namespace, "", "Secret", cred.Name) {
			return s, "RefNotPermitted", "make a ReferenceGrant there",
				fmt.Sprintf("namespace %s does not permit its Secret %s to be used here", cred.Namespace, cred.Name)
		}
	}
	s, at := c.findSecret(in, cred.Name)
	if at == "" {
		return s, "CredentialNotFound", "make a Secret of type kubernetes.io/tls",
			fmt.Sprintf("there is no Secret %s in namespace %s", cred.Name, joinWords(in))
	}
	if problem = s.Check(cred); problem != "" {
		return s, "CredentialInvalid", "", fmt.Sprintf("Secret %s in namespace %s %s", cred.Name, at, problem)
	}
	return s, "", "", ""
}

// findSecret gives the first Secret of a name, and its namespace; "" when there is none.
func (c *compiler) findSecret(namespaces []string, name string) (s parts.Secret, at string) {
	for _, ns := range namespaces {
		o := c.object(model.Ref{Kind: "Secret", Namespace: ns, Name: name})
		if o == nil {
			continue
		}
		k, ok := o.Kube.(*corev1.Secret)
		if !ok {
			continue
		}
		s = parts.Secret{Certificate: k.Data["tls.crt"], Key: k.Data["tls.key"], CA: k.Data["ca.crt"],
			CRL: k.Data["ca.crl"]}
		// Istio's other spellings, and its separate Secret for the authority.
		if s.Certificate == nil {
			s.Certificate, s.Key = k.Data["cert"], k.Data["key"]
		}
		if s.CA == nil {
			s.CA = k.Data["cacert"]
		}
		if s.CRL == nil {
			s.CRL = k.Data["crl"]
		}
		if other := c.object(model.Ref{Kind: "Secret", Namespace: ns, Name: name + "-cacert"}); other != nil && s.CA == nil {
			if k, ok := other.Kube.(*corev1.Secret); ok {
				if s.CA = k.Data["ca.crt"]; s.CA == nil {
					s.CA = k.Data["cacert"]
				}
				if s.CRL = k.Data["ca.crl"]; s.CRL == nil {
					s.CRL = k.Data["crl"]
				}
			}
		}
		return s, ns
	}
	return parts.Secret{}, ""
}

// gatewayNamespaces are where a gateway's Secrets are looked for: beside its workloads, in its own namespace, in the root one. An
// Ingress's own goes first: there Kubernetes has its Secrets, and Istio in the gateway's.
func (c *compiler) gatewayNamespaces(g *model.Gateway, workloads []string) []string {
	var list []string
	add := func(namespace string) {
		if !slices.Contains(list, namespace) {
			list = append(list, namespace)
		}
	}
	if g.Ref.Kind == "Ingress" {
		add(g.Ref.Namespace)
	}
	for _, ns := range workloads {
		add(ns)
	}
	add(g.Ref.Namespace)
	add(c.settings.RootNamespace)
	return list
}

// workloadNamespaces are those of a gateway's workloads, sorted.
func (c *compiler) workloadNamespaces(g *model.Gateway) (list []string) {
	for _, w := range c.gatewayWorkloads() {
		if selects(g.Selector, w.Labels) && (g.SelectorNamespace == "" || g.SelectorNamespace == w.Namespace) && !slices.Contains(list, w.Namespace) {
			list = append(list, w.Namespace)
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
