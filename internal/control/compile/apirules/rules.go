// Package apirules has the rules of the Gateway API, of Ingresses and of Services that a Kubernetes API server applies before anybody reads an
// object: those that validation expressions of the definitions hold, as far as conversion does not need to know them. Objects of files meet
// them here; what the definitions say beside expressions is held by package schema, when objects are read.
package apirules

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/source"
)

// Say takes an error about a field: a code, where it is, what to do, and what is wrong.
type Say func(code, field, hint, format string, args ...any)

// Check judges an object of any kind.
func Check(o *source.Object, say Say) {
	c := checker{o, say}
	switch k := o.Kube.(type) {
	case *corev1.Service:
		c.service(&k.Spec)
	case *gatewayv1.HTTPRoute:
		c.route(&k.Spec.CommonRouteSpec, k.Spec.Hostnames)
		n := 0
		for i := range k.Spec.Rules {
			n += max(1, len(k.Spec.Rules[i].Matches)) // one that says nothing is there by default
			c.httpRule(&k.Spec.Rules[i], at("spec.rules", i))
		}
		c.matches(n)
	case *gatewayv1.GRPCRoute:
		c.route(&k.Spec.CommonRouteSpec, k.Spec.Hostnames)
		n := 0
		for i := range k.Spec.Rules {
			n += len(k.Spec.Rules[i].Matches)
			c.grpcRule(&k.Spec.Rules[i], at("spec.rules", i))
		}
		c.matches(n)
	case *gatewayv1.TLSRoute:
		c.route(&k.Spec.CommonRouteSpec, k.Spec.Hostnames)
		for i := range k.Spec.Rules {
			c.backends(k.Spec.Rules[i].BackendRefs, at("spec.rules", i))
		}
	case *gatewayv1.TCPRoute:
		c.route(&k.Spec.CommonRouteSpec, nil)
		for i := range k.Spec.Rules {
			c.backends(k.Spec.Rules[i].BackendRefs, at("spec.rules", i))
		}
	case *gatewayv1.UDPRoute:
		c.route(&k.Spec.CommonRouteSpec, nil)
		for i := range k.Spec.Rules {
			c.backends(k.Spec.Rules[i].BackendRefs, at("spec.rules", i))
		}
	case *gatewayv1.Gateway:
		if k.Spec.GatewayClassName == "" {
			say("MissingField", "spec.gatewayClassName", "use weft or istio to have this mesh serve it", "a class is needed")
		}
	case *gatewayv1.ListenerSet:
		if k.Spec.ParentRef.Name == "" {
			say("MissingField", "spec.parentRef.name", "", "a Gateway is needed")
		}
		for i := range k.Spec.Listeners {
			c.listener((*gatewayv1.Listener)(&k.Spec.Listeners[i]), at("spec.listeners", i))
		}
	case *gatewayv1.BackendTLSPolicy:
		c.backendTLS(&k.Spec)
	case *gatewayv1.ReferenceGrant:
		c.grant(&k.Spec)
	}
}

// checker judges one object.
type checker struct {
	*source.Object
	say Say
}

func at(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

func text[T ~string](v *T) string {
	if v == nil {
		return ""
	}
	return string(*v)
}

// route judges what all routes have.
func (c checker) route(common *gatewayv1.CommonRouteSpec, hostnames []gatewayv1.Hostname) {
	for i, p := range common.ParentRefs {
		if p.Name == "" {
			c.say("MissingField", at("spec.parentRefs", i)+".name", "", "a parent has a name")
		}
		if p.Port != nil && (*p.Port < 1 || *p.Port > 65535) {
			c.say("InvalidPort", at("spec.parentRefs", i)+".port", "", "port %d is not between 1 and 65535", *p.Port)
		}
		c.parent(common.ParentRefs, i)
	}
	for i, h := range hostnames {
		c.hostname(string(h), at("spec.hostnames", i))
	}
}

// parent judges a parent among those before it: of two references to one, both say which part of it they mean.
func (c checker) parent(list []gatewayv1.ParentReference, n int) {
	p, field := list[n], at("spec.parentRefs", n)
	port := func(r gatewayv1.ParentReference) int32 {
		if r.Port == nil {
			return 0
		}
		return *r.Port
	}
	for i, q := range list[:n] {
		if c.parentName(p) != c.parentName(q) {
			continue
		}
		section, other := text(p.SectionName), text(q.SectionName)
		switch {
		case section == other && port(p) == port(q) && section == "" && port(p) == 0:
			c.say("MissingField", field+".sectionName", "name a different section or port in each", "%s is named by spec.parentRefs[%d] too", p.Name, i)
		case section == other && port(p) == port(q):
			c.say("DuplicateValue", field, "", "spec.parentRefs[%d] names the same part of %s", i, p.Name)
		case (section == "") != (other == "") && (port(p) == 0) == (port(q) == 0):
			c.say("MissingField", field+".sectionName", "name a section in each", "%s is named by spec.parentRefs[%d] too: as a whole and in part", p.Name, i)
		default:
			continue
		}
		return
	}
}

func (c checker) parentName(r gatewayv1.ParentReference) string {
	group, kind, namespace := source.GroupGateway, "Gateway", c.GetNamespace()
	if r.Group != nil {
		group = string(*r.Group)
	}
	if r.Kind != nil {
		kind = string(*r.Kind)
	}
	if r.Namespace != nil {
		namespace = string(*r.Namespace)
	}
	return group + "/" + kind + "/" + namespace + "/" + string(r.Name)
}

// hostname judges what conversion takes from objects of other groups.
func (c checker) hostname(host, field string) {
	if host == "*" {
		c.say("InvalidHost", field, "leave it out to take any host", `"*" is no host name`)
	}
}

func (c checker) precise(host *gatewayv1.PreciseHostname, field string) {
	if strings.HasPrefix(text(host), "*") {
		c.say("InvalidHost", field, "", "a wildcard cannot be put in place of a host")
	}
}

var duration = regexp.MustCompile(`^([0-9]{1,5}(h|m|s|ms)){1,4}$`)

// Duration reports whether a duration has the Gateway API's form, a subset of Go's (GEP-2257).
func Duration(d string) bool { return duration.MatchString(d) }

// Gateway judges a Gateway that is ours; of others we do not know what their values mean.
func Gateway(o *source.Object, g *gatewayv1.Gateway, say Say) {
	c := checker{o, say}
	c.addresses(g.Spec.Addresses)
	if i := g.Spec.Infrastructure; i != nil {
		for _, key := range slices.Sorted(maps.Keys(i.Labels)) {
			c.qualified(string(key), "InvalidLabel", "spec.infrastructure.labels")
		}
		for _, key := range slices.Sorted(maps.Keys(i.Annotations)) {
			c.qualified(string(key), "InvalidName", "spec.infrastructure.annotations")
		}
	}
	for i := range g.Spec.Listeners {
		c.listener(&g.Spec.Listeners[i], at("spec.listeners", i))
	}
	if t := g.Spec.TLS; t != nil && t.Frontend != nil {
		c.authorities(t.Frontend.Default.Validation, "spec.tls.frontend.default.validation")
		for i, p := range t.Frontend.PerPort {
			c.authorities(p.TLS.Validation, at("spec.tls.frontend.perPort", i)+".tls.validation")
		}
	}
}

func (c checker) authorities(v *gatewayv1.FrontendTLSValidation, field string) {
	if v != nil && len(v.CACertificateRefs) == 0 {
		c.say("MissingField", field+".caCertificateRefs", "", "an authority is needed")
	}
}

func (c checker) listener(l *gatewayv1.Listener, field string) {
	if l.Protocol == "" {
		c.say("MissingField", field+".protocol", "use one of HTTP, HTTPS, TLS, TCP, UDP", "a protocol is needed")
	}
	if (l.Protocol == gatewayv1.TCPProtocolType || l.Protocol == gatewayv1.UDPProtocolType) && text(l.Hostname) != "" {
		c.say("ConflictingFields", field+".hostname", "", "protocol %s takes no hostname: nothing in a connection says it", l.Protocol)
	}
}

func (c checker) qualified(key, code, field string) {
	if problems := validation.IsQualifiedName(strings.ToLower(key)); len(problems) > 0 {
		c.say(code, fmt.Sprintf("%s[%q]", field, key), "", "%q is not valid: %s", key, problems[0])
	}
}

func (c checker) addresses(list []gatewayv1.GatewaySpecAddress) {
	kind := func(a gatewayv1.GatewaySpecAddress) gatewayv1.AddressType {
		if a.Type == nil {
			return gatewayv1.IPAddressType
		}
		return *a.Type
	}
	for i, a := range list {
		field := at("spec.addresses", i) + ".value"
		if kind(a) == gatewayv1.HostnameAddressType && a.Value != "" && !validHost(a.Value) {
			c.say("InvalidAddress", field, "", "%q is not a host name", a.Value)
		}
		if a.Value != "" && slices.ContainsFunc(list[:i], func(b gatewayv1.GatewaySpecAddress) bool { return kind(a) == kind(b) && a.Value == b.Value }) {
			c.say("DuplicateValue", field, "", "%s is there already", a.Value)
		}
	}
}

func validHost(v string) bool {
	_, err := netip.ParseAddr(v)
	return err != nil && len(validation.IsDNS1123Subdomain(strings.TrimPrefix(v, "*."))) == 0
}

func (c checker) backendTLS(s *gatewayv1.BackendTLSPolicySpec) {
	for i, t := range s.TargetRefs {
		field := at("spec.targetRefs", i)
		for j, u := range s.TargetRefs[:i] {
			if t.LocalPolicyTargetReference != u.LocalPolicyTargetReference {
				continue
			}
			if section, other := text(t.SectionName), text(u.SectionName); section == other {
				c.say("DuplicateValue", field, "", "spec.targetRefs[%d] names the same", j)
				break
			} else if section == "" || other == "" {
				c.say("MissingField", field+".sectionName", "name a section in each", "%s is named by spec.targetRefs[%d] too: as a whole and in part", t.Name, j)
				break
			}
		}
	}
	for i, n := range s.Validation.SubjectAltNames {
		field := at("spec.validation.subjectAltNames", i)
		if n.Type == gatewayv1.HostnameSubjectAltNameType && n.URI != "" {
			c.say("ConflictingFields", field+".uri", "", "a name of type Hostname has no URI")
		}
		if n.Type == gatewayv1.URISubjectAltNameType && n.Hostname != "" {
			c.say("ConflictingFields", field+".hostname", "", "a name of type URI has no hostname")
		}
	}
}

func (c checker) grant(s *gatewayv1.ReferenceGrantSpec) {
	if len(s.From) == 0 {
		c.say("MissingField", "spec.from", "", "who may refer is needed")
	}
	if len(s.To) == 0 {
		c.say("MissingField", "spec.to", "", "what may be referred to is needed")
	}
	need := func(value, field string) {
		if value == "" {
			c.say("MissingField", field, "", "it is needed")
		}
	}
	for i, f := range s.From {
		need(string(f.Kind), at("spec.from", i)+".kind")
		need(string(f.Namespace), at("spec.from", i)+".namespace")
	}
	for i, t := range s.To {
		need(string(t.Kind), at("spec.to", i)+".kind")
	}
}

// maxMatches is how many matches all rules of a route may have together.
const maxMatches = 128

func (c checker) matches(n int) {
	if n > maxMatches {
		c.say("InvalidValue", "spec.rules", "divide the route", "the rules have %d matches together, and at most %d are allowed", n, maxMatches)
	}
}
