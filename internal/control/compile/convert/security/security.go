package security

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	typeapi "istio.io/api/type/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

var mtlsModes = map[securityapi.PeerAuthentication_MutualTLS_Mode]model.MTLSMode{
	securityapi.PeerAuthentication_MutualTLS_UNSET: model.MTLSUnset, securityapi.PeerAuthentication_MutualTLS_DISABLE: model.MTLSDisable,
	securityapi.PeerAuthentication_MutualTLS_PERMISSIVE: model.MTLSPermissive, securityapi.PeerAuthentication_MutualTLS_STRICT: model.MTLSStrict,
}

// peerAuthentication converts a PeerAuthentication. In the root namespace and without a selector it is the mesh's.
func (p converter) peerAuthentication(pa *security.PeerAuthentication) {
	spec := &pa.Spec
	p.Only(spec, "spec", "selector", "mtls", "portLevelMtls")
	out := &model.PeerAuthentication{Ref: p.Ref(), Namespace: pa.Namespace, Mode: mtlsModes[spec.Mtls.GetMode()], Created: p.Born,
		Selector: p.workloadSelector(spec.Selector)}
	if len(out.Selector) == 0 && pa.Namespace == p.Mesh.RootNamespace {
		out.Namespace = ""
	}
	if len(spec.PortLevelMtls) > 0 && len(out.Selector) == 0 {
		p.Err("MissingField", "spec.selector", "", "portLevelMtls needs a selector: ports belong to workloads")
	}
	for _, port := range parts.SortedKeys(spec.PortLevelMtls) {
		field := "spec.portLevelMtls." + strconv.FormatUint(uint64(port), 10)
		if out.Ports == nil {
			out.Ports = map[uint16]model.MTLSMode{}
		}
		out.Ports[p.ValidPort(port, field)] = mtlsModes[spec.PortLevelMtls[port].GetMode()]
	}
	p.PeerAuthentication = out
}

func (p converter) workloadSelector(s *typeapi.WorkloadSelector) map[string]string {
	if s == nil || len(s.MatchLabels) == 0 {
		return nil
	}
	return p.ValidLabels(s.MatchLabels, "spec.selector.matchLabels")
}

var actions = map[securityapi.AuthorizationPolicy_Action]model.AuthAction{
	securityapi.AuthorizationPolicy_ALLOW: model.AuthAllow, securityapi.AuthorizationPolicy_DENY: model.AuthDeny,
	securityapi.AuthorizationPolicy_AUDIT: model.AuthAudit,
}

// authorizationPolicy converts an AuthorizationPolicy. What cannot be enforced is refused: a policy that is skipped in part
// would allow what its author denies.
func (p converter) authorizationPolicy(ap *security.AuthorizationPolicy) {
	spec := &ap.Spec
	p.Only(spec, "spec", "selector", "rules", "action")
	out := &model.AuthorizationPolicy{Ref: p.Ref(), Namespace: ap.Namespace, Selector: p.workloadSelector(spec.Selector), Created: p.Born,
		DryRun: p.dryRun(spec.Action)}
	if ap.Namespace == p.Mesh.RootNamespace {
		out.Namespace = ""
	}
	action, ok := actions[spec.Action]
	if !ok {
		p.Unsupported("spec.action", "use one of ALLOW, DENY, AUDIT")
	}
	out.Action = action
	for i, r := range spec.Rules {
		out.Rules = append(out.Rules, p.authRule(r, parts.At("spec.rules", i)))
	}
	if len(out.Rules) == 0 && action != model.AuthAllow {
		p.Warn("PolicyNeverMatches", "spec.rules", "use `rules: [{}]` to match everything", "a policy without rules matches nothing")
	}
	p.AuthorizationPolicy = out
}

const dryRunAnnotation = "istio.io/dry-run"

// dryRun reports whether a policy is only to be counted. What it says must be understood: a policy in force instead would refuse what it should not.
func (p converter) dryRun(action securityapi.AuthorizationPolicy_Action) bool {
	value, there := p.GetAnnotations()[dryRunAnnotation]
	if !there {
		return false
	}
	field := parts.Key("metadata.annotations", dryRunAnnotation)
	dry, err := strconv.ParseBool(value)
	switch {
	case err != nil:
		p.Err("InvalidValue", field, `use "true" or "false"`, "%q is neither", value)
	case action != securityapi.AuthorizationPolicy_ALLOW && action != securityapi.AuthorizationPolicy_DENY:
		p.Err("ConflictingFields", field, "remove it", "only policies that allow or deny can be tried")
	}
	return dry
}

func (p converter) authRule(r *securityapi.Rule, field string) model.AuthRule {
	var out model.AuthRule
	// An empty list is no list for who reads the message, and what is no list matches everything.
	for name, n := range map[string]int{"from": len(r.From), "to": len(r.To)} {
		if n == 0 && p.Written(field+"."+name) {
			p.Err("MissingField", field+"."+name, "leave it out to match anything", "the list is empty")
		}
	}
	for i, f := range r.From {
		out.From = append(out.From, p.authSource(f.Source, parts.At(field+".from", i)+".source"))
	}
	for i, t := range r.To {
		out.To = append(out.To, p.authOperation(t.Operation, parts.At(field+".to", i)+".operation"))
	}
	for i, w := range r.When {
		out.When = append(out.When, p.authCondition(w, parts.At(field+".when", i)))
	}
	return out
}

func (p converter) authSource(s *securityapi.Source, field string) model.AuthSource {
	if s == nil {
		p.Err("MissingField", field, "", "a source is missing")
		return model.AuthSource{}
	}
	for _, jwt := range []struct {
		name string
		set  []string
	}{{"requestPrincipals", s.RequestPrincipals}, {"notRequestPrincipals", s.NotRequestPrincipals}} {
		if len(jwt.set) > 0 {
			p.Err("Unsupported", field+"."+jwt.name, "use principals", "cannot be enforced: tokens are not checked yet (RequestAuthentication)")
		}
	}
	p.Only(s, field, "principals", "notPrincipals", "namespaces", "notNamespaces", "serviceAccounts", "notServiceAccounts",
		"trustDomains", "notTrustDomains", "ipBlocks", "notIpBlocks", "remoteIpBlocks", "notRemoteIpBlocks", "requestPrincipals", "notRequestPrincipals")
	if (len(s.ServiceAccounts) > 0 || len(s.NotServiceAccounts) > 0) && len(s.Principals)+len(s.NotPrincipals)+len(s.Namespaces)+len(s.NotNamespaces) > 0 {
		p.Err("ConflictingFields", field+".serviceAccounts", "", "cannot be combined with principals or namespaces")
	}
	out := model.AuthSource{
		Principals: p.patterns(s.Principals, field+".principals"), NotPrincipals: p.patterns(s.NotPrincipals, field+".notPrincipals"),
		Namespaces: p.patterns(s.Namespaces, field+".namespaces"), NotNamespaces: p.patterns(s.NotNamespaces, field+".notNamespaces"),
		ServiceAccounts:    p.serviceAccounts(s.ServiceAccounts, field+".serviceAccounts"),
		NotServiceAccounts: p.serviceAccounts(s.NotServiceAccounts, field+".notServiceAccounts"),
		TrustDomains:       p.trustDomains(s.TrustDomains, field+".trustDomains"),
		NotTrustDomains:    p.trustDomains(s.NotTrustDomains, field+".notTrustDomains"),
		IPBlocks:           p.prefixes(s.IpBlocks, field+".ipBlocks"), NotIPBlocks: p.prefixes(s.NotIpBlocks, field+".notIpBlocks"),
		RemoteIPBlocks:    p.prefixes(s.RemoteIpBlocks, field+".remoteIpBlocks"),
		NotRemoteIPBlocks: p.prefixes(s.NotRemoteIpBlocks, field+".notRemoteIpBlocks"),
	}
	p.bare(s.Principals, field+".principals")
	p.bare(s.NotPrincipals, field+".notPrincipals")
	if isEmpty(s) {
		p.Err("MissingField", field, "leave `from` out to match any source", "the source has no condition")
	}
	return out
}

// bare tells of principals that are written as URIs: they are compared with what stands behind the scheme.
func (p converter) bare(list []string, field string) {
	for i, v := range list {
		if rest, uri := strings.CutPrefix(v, "spiffe://"); uri {
			p.Warn("NoEffect", parts.At(field, i), "write "+rest, "%q is nobody's principal: they are written without spiffe://", v)
		}
	}
}

func isEmpty(s *securityapi.Source) bool {
	return len(s.Principals)+len(s.NotPrincipals)+len(s.RequestPrincipals)+len(s.NotRequestPrincipals)+len(s.Namespaces)+
		len(s.NotNamespaces)+len(s.ServiceAccounts)+len(s.NotServiceAccounts)+len(s.IpBlocks)+len(s.NotIpBlocks)+
		len(s.RemoteIpBlocks)+len(s.NotRemoteIpBlocks)+len(s.TrustDomains)+len(s.NotTrustDomains) == 0
}

func (p converter) authOperation(o *securityapi.Operation, field string) model.AuthOperation {
	if o == nil {
		p.Err("MissingField", field, "", "an operation is missing")
		return model.AuthOperation{}
	}
	p.Only(o, field, "hosts", "notHosts", "ports", "notPorts", "methods", "notMethods", "paths", "notPaths")
	if len(o.Hosts)+len(o.NotHosts)+len(o.Ports)+len(o.NotPorts)+len(o.Methods)+len(o.NotMethods)+len(o.Paths)+len(o.NotPaths) == 0 {
		p.Err("MissingField", field, "leave `to` out to match any request", "the operation has no condition")
	}
	return model.AuthOperation{
		Hosts: p.patterns(o.Hosts, field+".hosts"), NotHosts: p.patterns(o.NotHosts, field+".notHosts"),
		Ports: p.ports(o.Ports, field+".ports"), NotPorts: p.ports(o.NotPorts, field+".notPorts"),
		Methods: p.methods(o.Methods, field+".methods"), NotMethods: p.methods(o.NotMethods, field+".notMethods"),
		Paths: p.paths(o.Paths, field+".paths"), NotPaths: p.paths(o.NotPaths, field+".notPaths"),
	}
}

// patterns checks values that may start or end with "*".
func (p converter) patterns(list []string, field string) []string {
	for i, v := range list {
		p.pattern(v, parts.At(field, i))
	}
	return list
}

func (p converter) pattern(v, field string) {
	inner, cut := strings.CutPrefix(v, "*")
	if !cut {
		inner = strings.TrimSuffix(v, "*")
	}
	p.NotTooBig(v, field)
	switch {
	case v == "":
		p.Err("InvalidValue", field, "", "the value is empty")
	case strings.Contains(inner, "*"):
		p.Err("InvalidValue", field, `use "abc*", "*abc" or "*"`, `%q: "*" is only allowed at one end`, v)
	}
}

func (p converter) methods(list []string, field string) []string {
	for i, v := range list {
		p.MethodMatches(v, parts.At(field, i))
	}
	return p.patterns(list, field)
}

// paths checks patterns and templates: {*} stands for one segment, {**} for any number.
func (p converter) paths(list []string, field string) []string {
	for i, v := range list {
		if !strings.ContainsAny(v, "{}") {
			p.pattern(v, parts.At(field, i))
			if v != "" && v[0] != '/' && v[0] != '*' {
				p.Warn("PathNeverMatches", parts.At(field, i), "write /"+v, "no path begins like %q, without a slash", v)
			}
			continue
		}
		p.NotTooBig(v, parts.At(field, i))
		if problem := badTemplate(v); problem != "" {
			p.Err("InvalidValue", parts.At(field, i), "", "path template %q: %s", v, problem)
		}
	}
	return list
}

func badTemplate(v string) string {
	if !strings.HasPrefix(v, "/") {
		return `it has to start with "/"`
	}
	rest := false
	for _, segment := range strings.Split(v[1:], "/") {
		switch {
		case segment == "{**}":
			if rest {
				return "{**} can be used once"
			}
			rest = true
		case segment == "{*}":
			if rest {
				return "{*} cannot follow {**}"
			}
		case strings.ContainsAny(segment, "{}*"):
			return "a segment is a text, {*} or {**}"
		}
	}
	return ""
}

// trustDomains checks patterns for the first part of a peer's name.
func (p converter) trustDomains(list []string, field string) []string {
	for i, v := range list {
		if strings.Contains(v, "/") {
			p.Err("InvalidValue", parts.At(field, i), "use principals", "%q is more than a trust domain", v)
		}
	}
	return p.patterns(list, field)
}

func (p converter) serviceAccounts(list []string, field string) []string {
	var out []string
	for i, v := range list {
		p.NotTooBig(v, parts.At(field, i))
		namespace, name, ok := strings.Cut(v, "/")
		if !ok {
			namespace, name = p.GetNamespace(), v
		}
		if namespace == "" || name == "" || strings.ContainsAny(v, "*") || strings.Contains(name, "/") {
			p.Err("InvalidValue", parts.At(field, i), "", "%q is not of the form namespace/name", v)
		}
		out = append(out, namespace+"/"+name)
	}
	return out
}

func (p converter) ports(list []string, field string) []uint16 {
	var out []uint16
	for i, v := range list {
		n, err := strconv.ParseUint(v, 10, 16)
		if err != nil || n == 0 {
			p.Err("InvalidPort", parts.At(field, i), "", "%q is not a port number", v)
		}
		out = append(out, uint16(n))
	}
	return out
}

func (p converter) prefixes(list []string, field string) []netip.Prefix {
	var out []netip.Prefix
	for i, v := range list {
		out = append(out, p.Prefix(v, parts.At(field, i)))
	}
	return out
}

// conditionKeys are the attributes that a condition may ask for, beside request.headers.
var conditionKeys = []string{"source.ip", "remote.ip", "source.namespace", "source.principal", "source.serviceAccount",
	"source.trustDomain", "destination.ip", "destination.port", "connection.sni"}

func (p converter) authCondition(c *securityapi.Condition, field string) model.AuthCondition {
	out := model.AuthCondition{Key: c.Key, Values: c.Values, NotValues: c.NotValues}
	if len(c.Values)+len(c.NotValues) == 0 {
		p.Err("MissingField", field+".values", "", "one of values and notValues is needed")
	}
	header, isHeader := strings.CutPrefix(c.Key, "request.headers[")
	switch {
	case c.Key == "":
		p.Err("MissingField", field+".key", "", "a key is missing")
	case strings.HasPrefix(c.Key, "request.auth."):
		p.Err("Unsupported", field+".key", "", "%s cannot be enforced: tokens are not checked yet (RequestAuthentication)", c.Key)
	case strings.HasPrefix(c.Key, "experimental."):
		p.Err("Unsupported", field+".key", "", "%s is what filters of Envoy know", c.Key)
	case isHeader:
		if name, ok := strings.CutSuffix(header, "]"); !ok || !parts.IsReadable(name) {
			p.Err("InvalidValue", field+".key", "", "%q names no header", c.Key)
		}
		p.patterns(c.Values, field+".values")
		p.patterns(c.NotValues, field+".notValues")
	case !slices.Contains(conditionKeys, c.Key):
		p.Err("InvalidValue", field+".key", "use request.headers[name] or one of "+strings.Join(conditionKeys, ", "), "%q is not an attribute", c.Key)
	case c.Key == "source.serviceAccount":
		out.Values = p.serviceAccounts(c.Values, field+".values")
		out.NotValues = p.serviceAccounts(c.NotValues, field+".notValues")
	default:
		p.conditionValues(c, field)
	}
	return out
}

func (p converter) conditionValues(c *securityapi.Condition, field string) {
	for _, list := range []struct {
		name   string
		values []string
	}{{".values", c.Values}, {".notValues", c.NotValues}} {
		switch c.Key {
		case "source.ip", "remote.ip", "destination.ip":
			p.prefixes(list.values, field+list.name)
		case "destination.port":
			p.ports(list.values, field+list.name)
		case "source.trustDomain":
			p.trustDomains(list.values, field+list.name)
		default:
			p.patterns(list.values, field+list.name)
		}
	}
}
