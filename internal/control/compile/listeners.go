package compile

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/gatewayapi"
	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// listenerSetKind is how the model calls the kind.
const listenerSetKind = "ListenerSet"

// opened is a Gateway of the Gateway API, or a ListenerSet, that is in force.
type opened struct {
	part      *part
	root      *part // the Gateway: the part itself, or the ListenerSet's parent
	gateway   *model.Gateway
	listeners []listener // refused ones included: routes attach to them all the same
	group     []*opened  // the Gateway and its ListenerSets, in the order of their precedence
}

// listener is one of a Gateway or ListenerSet, judged among all that it shares ports with.
type listener struct {
	*parts.APIListener
	refused bool
}

// openGateway puts a Gateway into the mesh, unless it belongs to another implementation.
func (c *gatewayJoin) openGateway(p *part) {
	g, ok := p.Kube.(*gatewayv1.Gateway)
	if !ok {
		return
	}
	if class := string(g.Spec.GatewayClassName); !c.isOurs(class, "GatewayClass") {
		p.Info("NotOurs", "spec.gatewayClassName", `use class "istio" or "weft" to have this mesh serve it`, "class %q belongs to another implementation", class)
		return
	}
	if p.Gateway == nil {
		gatewayapi.Gateway(p, g)
	}
	if p.Failed() {
		return
	}
	c.open(p, p, g)
}

// openListenerSet adds a ListenerSet's listeners to those of its Gateway, if that allows it.
func (c *gatewayJoin) openListenerSet(p *part) {
	s, ok := p.Kube.(*gatewayv1.ListenerSet)
	if !ok || p.Gateway == nil {
		return
	}
	ref := s.Spec.ParentRef
	if group, kind := parts.OrEmpty(ref.Group), parts.OrEmpty(ref.Kind); group != "" && group != source.GroupGateway || kind != "" && kind != "Gateway" {
		p.Warn("InvalidKind", "spec.parentRef.kind", "use a Gateway", "a %s (%s) has no listeners to add to", kind, group)
		return
	}
	namespace := parts.NamespaceOr(ref.Namespace, p.GetNamespace())
	name := namespace + "/" + string(ref.Name)
	root := c.parts[model.Ref{Kind: "Gateway.k8s", Namespace: namespace, Name: string(ref.Name)}]
	if root == nil {
		p.Warn("GatewayNotFound", "spec.parentRef.name", "", "there is no Gateway %s: these listeners are not in force", name)
		return
	}
	g, ok := root.Kube.(*gatewayv1.Gateway)
	if !ok || c.opened[root.Ref()] == nil {
		return // another implementation's, or refused, which is said at the Gateway
	}
	if !c.allowsListeners(g, p.GetNamespace()) {
		p.Warn(string(gatewayv1.ListenerSetReasonNotAllowed), "spec.parentRef", "", "Gateway %s takes no listeners of namespace %s (see its spec.allowedListeners)", name, p.GetNamespace())
		return
	}
	c.open(p, root, g)
}

// allowsListeners reports whether a Gateway takes ListenerSets of a namespace; by default it takes none.
func (c *compiler) allowsListeners(g *gatewayv1.Gateway, namespace string) bool {
	a := g.Spec.AllowedListeners
	if a == nil || a.Namespaces == nil || a.Namespaces.From == nil {
		return false
	}
	return c.inScope(*a.Namespaces.From, a.Namespaces.Selector, g.Namespace, namespace)
}

// open makes a gateway of the model of what a Gateway, the root, or one of its ListenerSets says.
func (c *gatewayJoin) open(p, root *part, g *gatewayv1.Gateway) {
	o := &opened{part: p, root: root}
	out := *p.Gateway
	o.gateway = &out
	if c.announcesOtherwise(p) {
		return
	}
	for _, l := range c.distinct(o) {
		l.refused = l.refused || c.unavailable(p, l)
		s := l.Server
		if s.TLS != nil && !l.refused {
			s.TLS = c.listenerTLS(o, l, g)
			l.refused = s.TLS == nil
		}
		o.listeners = append(o.listeners, l)
		if !l.refused {
			out.Servers = append(out.Servers, s)
		}
	}
	if p == root {
		out.Client = c.clientCertificate(p, g)
	} else {
		out.HTTP3, out.ProxyProtocol = root.Gateway.HTTP3, root.Gateway.ProxyProtocol
	}
	c.opened[p.Ref()] = o
	c.groups[root] = append(c.groups[root], o)
	c.force(&out, p)
}

// distinct gives an object's listeners, those refused between which and others a connection could not be told apart. A ListenerSet's
// give way to those that go before it; of those of one object none wins (GatewaySpec.listeners, "Handling indistinct Listeners").
func (c *gatewayJoin) distinct(o *opened) []listener {
	var out []listener
	for _, l := range o.part.Listeners {
		out = append(out, listener{l, l.Refused || c.conflicts(o, listener{l, false})})
	}
	var lost []int
	for i, l := range out {
		for j, other := range out {
			if code, why := gatewayapi.Indistinct(l.APIListener, other.APIListener); i != j && code != "" && !l.refused && !other.refused {
				o.part.Warn(code, l.Field, "", "%s as %s: the listener is not in force", why, other.Field)
				lost = append(lost, i)
				break
			}
		}
	}
	for _, i := range lost {
		out[i].refused = true
	}
	return out
}

// conflicts refuses a ListenerSet's listener that cannot be told apart from one that goes before it: the Gateway's own, then those
// of older sets.
func (c *gatewayJoin) conflicts(o *opened, l listener) bool {
	if o.part == o.root {
		return false
	}
	for _, other := range c.groups[o.root] {
		for _, theirs := range other.listeners {
			if code, why := gatewayapi.Indistinct(l.APIListener, theirs.APIListener); code != "" && !theirs.refused {
				o.part.Warn(code, l.Field, "", "%s as a listener of %s, which goes before it: the listener is not in force", why, other.part.Ref())
				other.part.Warn(code, "", "", "listener %s of %s has the port, or the port and hostname, of listener %s, and is not in force", l.Name, o.part.Ref(), theirs.Name)
				return true
			}
		}
	}
	return false
}

// unavailable refuses a listener whose port the same workloads open already for something else.
func (c *gatewayJoin) unavailable(p *part, l listener) bool {
	for _, theirs := range c.uses[l.Server.Port] {
		other, s := theirs.gateway, *theirs.server
		if s.Bind != "" || !overlap(other, p.Gateway) {
			continue
		}
		if a, b := parts.PortUse(s), parts.PortUse(l.Server); parts.Collide(s, l.Server) || parts.TakesUDP(other, s, p.Gateway, l.Server) {
			owner := c.owner[other]
			p.Warn("PortCollision", l.Field+".port", "use another port", "port %d is for %s here, and for %s in %s, which is in force: the listener is not", l.Server.Port, b, a, owner.Ref())
			owner.Warn("PortCollision", "", "use another port", "%s, whose listener %s is refused, wants port %d for %s", p.Ref(), l.Name, l.Server.Port, b)
			return true
		}
	}
	return false
}

// listenerTLS completes the TLS of a listener; nil when it cannot be in force. A certificate that is not to be had only makes
// connections fail.
func (c *gatewayJoin) listenerTLS(o *opened, l listener, g *gatewayv1.Gateway) *model.ServerTLS {
	t := *l.Server.TLS
	if t.Mode == model.TLSPassthrough {
		return &t
	}
	pairs := c.listenerCertificates(o, l, &t)
	if len(pairs) > 0 {
		t.Certificate, t.Key, t.More = pairs[0].Certificate, pairs[0].Key, pairs[1:]
	}
	if l.Server.Protocol == model.HTTPS && !c.frontend(o, l, g, &t) {
		return nil
	}
	return &t
}

// listenerCertificates gives those that can be used, and reports the others. With a mode that verifies clients, the first Secret
// holds the authority.
func (c *gatewayJoin) listenerCertificates(o *opened, l listener, t *model.ServerTLS) []model.KeyPair {
	var pairs []model.KeyPair
	var complaints []complaint
	mutual := t.Mode == model.TLSMutual || t.Mode == model.TLSOptionalMutual
	for j, ref := range l.TLS.CertificateRefs {
		field := parts.At(l.Field+".tls.certificateRefs", j)
		if parts.OrEmpty(ref.Group) != "" || ref.Kind != nil && *ref.Kind != "Secret" {
			complaints = append(complaints, complaint{parts.Credential{Field: field}, gatewayapi.InvalidCertificate, "use a Secret",
				fmt.Sprintf("a %s (%s) holds no certificate", kindOr(ref.Kind, "Secret"), parts.OrEmpty(ref.Group))})
			continue
		}
		cred := parts.Credential{Namespace: parts.NamespaceOr(ref.Namespace, o.part.GetNamespace()), Name: string(ref.Name), Field: field,
			Pair: true, CA: mutual && j == 0}
		s, code, hint, problem := c.credential(o.part, cred, nil)
		if problem != "" {
			complaints = append(complaints, complaint{cred, code, hint, problem})
			continue
		}
		pairs = append(pairs, model.KeyPair{Certificate: s.Certificate, Key: s.Key})
		if mutual && j == 0 {
			t.CA, t.CRL = s.CA, s.CRL
		}
	}
	for _, at := range complaints {
		at.tell(o.part, len(pairs) > 0)
	}
	return pairs
}

func kindOr(k *gatewayv1.Kind, otherwise string) string {
	if k == nil {
		return otherwise
	}
	return string(*k)
}

// frontend has a listener verify clients as its Gateway says; false when it cannot.
func (c *gatewayJoin) frontend(o *opened, l listener, g *gatewayv1.Gateway, t *model.ServerTLS) bool {
	v, field := gatewayapi.FrontendValidation(g, l.Port)
	if v == nil {
		return true
	}
	ca := c.authorities(o.root, v.CACertificateRefs, field+".caCertificateRefs")
	if len(ca) == 0 {
		o.part.Warn(string(gatewayv1.ListenerReasonNoValidCACertificate), l.Field, "", "no authority is to be had to verify clients with (%s of %s): the listener is not in force", field, o.root.Ref())
		return false
	}
	if v.Mode == gatewayv1.AllowInsecureFallback {
		t.AnyClient = true
		return true
	}
	t.Mode, t.CA = model.TLSMutual, ca
	return true
}

// authorities gives the certificates of those references that can be used, as PEM, and reports the others.
func (c *compiler) authorities(p *part, refs []gatewayv1.ObjectReference, field string) []byte {
	var all []byte
	for i, ref := range refs {
		at, namespace := parts.At(field, i), parts.NamespaceOr(ref.Namespace, p.GetNamespace())
		if kind := string(ref.Kind); ref.Group != "" || kind != "ConfigMap" && kind != "Secret" {
			p.Warn(string(gatewayv1.ListenerReasonInvalidCACertificateKind), at, "use a ConfigMap", "a %s (%s) holds no authority", ref.Kind, ref.Group)
			continue
		}
		if !c.granted(p, namespace, "", string(ref.Kind), string(ref.Name)) {
			p.Warn("RefNotPermitted", at, "make a ReferenceGrant there", "namespace %s does not permit its %s %s to be used here", namespace, ref.Kind, ref.Name)
			continue
		}
		pem, problem := c.authority(model.Ref{Kind: string(ref.Kind), Namespace: namespace, Name: string(ref.Name)})
		if problem != "" {
			p.Warn(string(gatewayv1.ListenerReasonInvalidCACertificateRef), at, "", "%s", problem)
			continue
		}
		all = append(all, pem...)
	}
	return all
}

// clientCertificate is what a gateway shows to backends; nil for nothing.
func (c *gatewayJoin) clientCertificate(p *part, g *gatewayv1.Gateway) *model.KeyPair {
	if g.Spec.TLS == nil || g.Spec.TLS.Backend == nil || g.Spec.TLS.Backend.ClientCertificateRef == nil {
		return nil
	}
	const field = "spec.tls.backend.clientCertificateRef"
	invalid := string(gatewayv1.GatewayReasonInvalidClientCertificateRef)
	ref := g.Spec.TLS.Backend.ClientCertificateRef
	if parts.OrEmpty(ref.Group) != "" || ref.Kind != nil && *ref.Kind != "Secret" {
		p.Warn(invalid, field, "use a Secret", "a %s (%s) holds no certificate: none is shown to backends", kindOr(ref.Kind, "Secret"), parts.OrEmpty(ref.Group))
		return nil
	}
	s, code, hint, problem := c.credential(p, parts.Credential{Namespace: parts.NamespaceOr(ref.Namespace, p.GetNamespace()), Name: string(ref.Name), Pair: true}, nil)
	if problem != "" {
		if code != "RefNotPermitted" {
			code = invalid
		}
		p.Warn(code, field, hint, "%s: no certificate is shown to backends", problem)
		return nil
	}
	for _, older := range c.inForce {
		if older.Client != nil && overlap(older, p.Gateway) {
			p.Warn("NoEffect", field, "use one for all Gateways", "the same workloads show the certificate of %s, which is older", older.Ref)
			return nil
		}
	}
	return &model.KeyPair{Certificate: s.Certificate, Key: s.Key}
}

// inScope reports whether a namespace is among those that an object of namespace own allows.
func (c *compiler) inScope(from gatewayv1.FromNamespaces, selector *metav1.LabelSelector, own, namespace string) bool {
	switch from {
	case gatewayv1.NamespacesFromAll:
		return true
	case gatewayv1.NamespacesFromSame:
		return namespace == own
	case gatewayv1.NamespacesFromSelector:
		s, err := metav1.LabelSelectorAsSelector(selector)
		return err == nil && s.Matches(labelSet(c.namespaceLabels(namespace)))
	}
	return false
}

// where names a listener for people.
func (o *opened) where(l listener) string {
	return "listener " + string(l.Name) + " (port " + strconv.Itoa(int(l.Port)) + ") of " + o.part.Kind.Name + " " + o.part.GetNamespace() + "/" + o.part.GetName()
}

// same reports whether a route finds at two states of a Gateway or ListenerSet the same.
func (o *opened) same(other *opened) bool {
	return other != nil && slices.EqualFunc(o.group, other.group, func(a, b *opened) bool {
		return a.part.Ref() == b.part.Ref() && reflect.DeepEqual(a.listeners, b.listeners)
	})
}

// takenByOther reports whether requests for a host go to a more specific listener of the same port.
func (o *opened) takenByOther(l listener, host string) bool {
	own := l.Server.Hosts[0].Host
	return slices.ContainsFunc(o.group, func(s *opened) bool {
		return slices.ContainsFunc(s.listeners, func(x listener) bool {
			other := x.Server.Hosts[0].Host
			return !x.refused && x.Server.Port == l.Server.Port && other != own && parts.HostCovers(own, other) && parts.HostCovers(other, host)
		})
	})
}

// isolate tells the servers of a Gateway and its ListenerSets the hosts of each other, by port.
func isolate(group []*opened) {
	hosts := map[uint16][]string{}
	each := func(visit func(s *model.Server)) {
		for _, o := range group {
			for i := range o.gateway.Servers {
				if s := &o.gateway.Servers[i]; s.Protocol != model.UDP && s.Protocol != model.TCP {
					visit(s)
				}
			}
		}
	}
	each(func(s *model.Server) { hosts[s.Port] = append(hosts[s.Port], s.Hosts[0].Host) })
	for _, list := range hosts {
		slices.Sort(list)
	}
	each(func(s *model.Server) {
		if list := slices.Compact(hosts[s.Port]); len(list) > 1 {
			s.Others = list
		}
	})
}

// openedBy finds a Gateway of the Gateway API or a ListenerSet that is in force; nil when there is none.
func (c *compiler) openedBy(ref model.Ref) *opened {
	c.read(gatewayTopic(ref))
	return c.state.opened[ref]
}

// defaultGateways gives the Gateways that take all routes that ask for it.
func (c *compiler) defaultGateways() []*opened {
	c.read(topic{about: onDefaults})
	return c.state.defaults
}
