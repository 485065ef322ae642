// Package access says the rules of authorization policies in those of Envoy's RBAC filters.
package access

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/model"
)

// Rule translates one rule. On TCP, conditions on requests cannot be evaluated. The rule of an ALLOW policy that has one is
// then left out as a whole, since it can never be shown to match; that of a DENY or AUDIT policy is kept without the condition, so
// that it refuses more rather than less. Istio does the same.
type Rule struct {
	TrustDomain func() string // of the mesh
	TCP         bool
	Narrow      bool // the rule is one of an ALLOW policy
	failed      bool // a condition cannot be evaluated
}

// Policy gives the rule; nil when it can never match.
func (b *Rule) Policy(r model.AuthRule) *rbacv3.Policy {
	out := &rbacv3.Policy{}
	froms, tos := r.From, r.To
	if len(froms) == 0 {
		froms = []model.AuthSource{{}}
	}
	if len(tos) == 0 {
		tos = []model.AuthOperation{{}}
	}
	for _, to := range tos {
		all := b.operation(to)
		for _, w := range r.When {
			all = append(all, b.permissionCondition(w)...)
		}
		out.Permissions = append(out.Permissions, permitting.all(all))
	}
	for _, from := range froms {
		all := b.source(from)
		for _, w := range r.When {
			all = append(all, b.principalCondition(w)...)
		}
		out.Principals = append(out.Principals, identifying.all(all))
	}
	if b.failed && b.Narrow {
		return nil
	}
	return out
}

// requestOnly reports whether a condition on requests must be left out here.
func (b *Rule) requestOnly() bool {
	if b.TCP {
		b.failed = true
	}
	return b.TCP
}

func (b *Rule) operation(o model.AuthOperation) []*rbacv3.Permission {
	var all []*rbacv3.Permission
	if len(o.Hosts)+len(o.NotHosts) > 0 && !b.requestOnly() {
		host := func(v string) *rbacv3.Permission { return headerPermission(":authority", v, true) }
		all = append(all, permissions(o.Hosts, o.NotHosts, host)...)
	}
	if len(o.Methods)+len(o.NotMethods) > 0 && !b.requestOnly() {
		method := func(v string) *rbacv3.Permission { return headerPermission(":method", v, false) }
		all = append(all, permissions(o.Methods, o.NotMethods, method)...)
	}
	if len(o.Paths)+len(o.NotPaths) > 0 && !b.requestOnly() {
		all = append(all, permissions(o.Paths, o.NotPaths, pathPermission)...)
	}
	return append(all, permissions(o.Ports, o.NotPorts, portPermission)...)
}

func (b *Rule) source(s model.AuthSource) []*rbacv3.Principal {
	var all []*rbacv3.Principal
	all = append(all, principals(s.Principals, s.NotPrincipals, b.principal)...)
	all = append(all, principals(s.ServiceAccounts, s.NotServiceAccounts, b.serviceAccount)...)
	all = append(all, principals(s.Namespaces, s.NotNamespaces, namespacePrincipal)...)
	all = append(all, principals(s.TrustDomains, s.NotTrustDomains, b.trustDomain)...)
	all = append(all, principals(s.RemoteIPBlocks, s.NotRemoteIPBlocks, remoteIP)...)
	return append(all, principals(s.IPBlocks, s.NotIPBlocks, directIP)...)
}

// permissionCondition translates a "when" entry that is about the destination; none for the others.
func (b *Rule) permissionCondition(w model.AuthCondition) []*rbacv3.Permission {
	switch {
	case w.Key == "destination.port":
		return permissions(w.Values, w.NotValues, func(v string) *rbacv3.Permission {
			n, err := strconv.ParseUint(v, 10, 16)
			if err != nil {
				return permitting.never()
			}
			return portPermission(uint16(n))
		})
	case w.Key == "destination.ip":
		return permissions(w.Values, w.NotValues, func(v string) *rbacv3.Permission {
			p, ok := parseBlock(v)
			if !ok {
				return permitting.never()
			}
			return &rbacv3.Permission{Rule: &rbacv3.Permission_DestinationIp{DestinationIp: message.CIDR(p)}}
		})
	case w.Key == "connection.sni":
		return permissions(w.Values, w.NotValues, func(v string) *rbacv3.Permission {
			return &rbacv3.Permission{Rule: &rbacv3.Permission_RequestedServerName{RequestedServerName: valueMatch(v, "", false)}}
		})
	}
	return nil
}

// principalCondition translates a "when" entry that is about the client or the request; none for the others. What has no value
// here, as the claims of a token where none is checked, matches no value.
func (b *Rule) principalCondition(w model.AuthCondition) []*rbacv3.Principal {
	never := func(string) *rbacv3.Principal { return identifying.never() }
	switch {
	case w.Key == "destination.port" || w.Key == "destination.ip" || w.Key == "connection.sni":
		return nil
	case w.Key == "source.ip":
		return principals(w.Values, w.NotValues, blockPrincipal(directIP))
	case w.Key == "remote.ip":
		return principals(w.Values, w.NotValues, blockPrincipal(remoteIP))
	case w.Key == "source.namespace":
		return principals(w.Values, w.NotValues, namespacePrincipal)
	case w.Key == "source.serviceAccount":
		return principals(w.Values, w.NotValues, b.serviceAccount)
	case w.Key == "source.trustDomain":
		return principals(w.Values, w.NotValues, b.trustDomain)
	case w.Key == "source.principal":
		return principals(w.Values, w.NotValues, b.principal)
	case strings.HasPrefix(w.Key, "request.headers["):
		if b.requestOnly() {
			return nil
		}
		name := strings.TrimSuffix(strings.TrimPrefix(w.Key, "request.headers["), "]")
		return principals(w.Values, w.NotValues, func(v string) *rbacv3.Principal {
			return &rbacv3.Principal{Identifier: &rbacv3.Principal_Header{Header: headerValue(name, v, false)}}
		})
	case strings.HasPrefix(w.Key, "request."):
		if b.requestOnly() {
			return nil
		}
		return principals(w.Values, w.NotValues, never)
	}
	if !b.Narrow {
		b.failed = true
		return nil // unknown attributes widen a refusal
	}
	return []*rbacv3.Principal{identifying.never()}
}

// ownTrustDomain stands in policies for the mesh's trust domain, whatever that is called.
const ownTrustDomain = "cluster.local"

// principal matches a peer's SPIFFE name.
func (b *Rule) principal(v string) *rbacv3.Principal {
	if rest, ok := strings.CutPrefix(v, ownTrustDomain+"/"); ok {
		v = b.TrustDomain() + "/" + rest
	}
	return authenticated(valueMatch(v, "spiffe://", false))
}

func (b *Rule) trustDomain(v string) *rbacv3.Principal {
	if v == ownTrustDomain {
		v = b.TrustDomain()
	}
	return authenticated(fullMatch("spiffe://" + segment(v) + "/.+"))
}

func (b *Rule) serviceAccount(v string) *rbacv3.Principal {
	ns, name, ok := strings.Cut(v, "/")
	if !ok {
		return identifying.never() // the compiler has put the policy's namespace in front
	}
	return authenticated(fullMatch("spiffe://[^/]+/ns/" + regexp.QuoteMeta(ns) + "/sa/" + regexp.QuoteMeta(name)))
}

func namespacePrincipal(v string) *rbacv3.Principal {
	return authenticated(fullMatch("spiffe://[^/]+/ns/" + segment(v) + "/sa/[^/]+"))
}

// segment gives the expression for one segment of a name, in which "*" stands for any text.
func segment(v string) string {
	texts := strings.Split(v, "*")
	for i := range texts {
		texts[i] = regexp.QuoteMeta(texts[i])
	}
	return strings.Join(texts, "[^/]*")
}

func authenticated(m *matcherv3.StringMatcher) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_Authenticated_{
		Authenticated: &rbacv3.Principal_Authenticated{PrincipalName: m}}}
}

func directIP(p netip.Prefix) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_DirectRemoteIp{DirectRemoteIp: message.CIDR(p)}}
}

func remoteIP(p netip.Prefix) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_RemoteIp{RemoteIp: message.CIDR(p)}}
}

func blockPrincipal(of func(netip.Prefix) *rbacv3.Principal) func(string) *rbacv3.Principal {
	return func(v string) *rbacv3.Principal {
		p, ok := parseBlock(v)
		if !ok {
			return identifying.never()
		}
		return of(p)
	}
}

func parseBlock(v string) (netip.Prefix, bool) {
	if a, err := netip.ParseAddr(v); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(v)
	return p, err == nil
}

func portPermission(port uint16) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_DestinationPort{DestinationPort: uint32(port)}}
}

func headerPermission(name, value string, ignoreCase bool) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_Header{Header: headerValue(name, value, ignoreCase)}}
}

func headerValue(name, value string, ignoreCase bool) *routev3.HeaderMatcher {
	if value == "*" {
		return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}}
	}
	return &routev3.HeaderMatcher{Name: name,
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: valueMatch(value, "", ignoreCase)}}
}

// pathPermission matches the path without query. Templates are "/a/{*}/b" for one segment and "{**}" for any number.
func pathPermission(v string) *rbacv3.Permission {
	m := valueMatch(v, "", false)
	if strings.Contains(v, "{*}") || strings.Contains(v, "{**}") {
		pattern := strings.ReplaceAll(regexp.QuoteMeta(v), regexp.QuoteMeta("{**}"), ".*")
		m = fullMatch(strings.ReplaceAll(pattern, regexp.QuoteMeta("{*}"), "[^/]+"))
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_UrlPath{UrlPath: &matcherv3.PathMatcher{Rule: &matcherv3.PathMatcher_Path{Path: m}}}}
}

// valueMatch translates Istio's value forms: "*" for any that is not empty, "abc*", "*abc", or the value itself. The prefix comes
// before the value where its start is known.
func valueMatch(v, prefix string, ignoreCase bool) *matcherv3.StringMatcher {
	switch {
	case v == "*":
		return fullMatch(".+")
	case strings.HasPrefix(v, "*"):
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: v[1:]}, IgnoreCase: ignoreCase}
	case strings.HasSuffix(v, "*"):
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix + v[:len(v)-1]}, IgnoreCase: ignoreCase}
	}
	return message.Exactly(prefix+v, ignoreCase)
}

func fullMatch(pattern string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: message.Regex(pattern)}}
}
