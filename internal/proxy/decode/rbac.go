package decode

import (
	"maps"
	"slices"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	templatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode/walk"
)

// policies decodes the enforced and the dry-run policies of a filter, in this order, as far as they are there.
func (d *decoder) policies(rules, shadow *rbacv3.RBAC) (out []*conf.RBAC) {
	if rules != nil {
		d.At("rules", func() { out = append(out, d.rbac(rules, false)) })
	}
	if shadow != nil {
		d.At("shadow_rules", func() { out = append(out, d.rbac(shadow, true)) })
	}
	return out
}

// httpPolicies decodes those of a filter of that name.
func (d *decoder) httpPolicies(filter string, m *httprbacv3.RBAC) []*conf.RBAC {
	d.Only(m, "rules", "shadow_rules", "rules_stat_prefix", "shadow_rules_stat_prefix")
	out := d.policies(m.GetRules(), m.GetShadowRules())
	for _, set := range out {
		set.Filter = filter
	}
	return out
}

func (d *decoder) rbac(m *rbacv3.RBAC, shadow bool) *conf.RBAC {
	d.Only(m, "action", "policies")
	r := &conf.RBAC{Shadow: shadow}
	switch a := m.GetAction(); a {
	case rbacv3.RBAC_ALLOW:
	case rbacv3.RBAC_DENY:
		r.Action = conf.Deny
	case rbacv3.RBAC_LOG:
		r.Action = conf.LogOnly
	default:
		d.At("action", func() { d.Fail("%s is not supported", a) })
	}
	for _, name := range slices.Sorted(maps.Keys(m.GetPolicies())) {
		d.At("policies["+name+"]", func() { r.Policies = append(r.Policies, d.policy(name, m.GetPolicies()[name])) })
	}
	return r
}

func (d *decoder) policy(name string, m *rbacv3.Policy) conf.RBACPolicy {
	d.Only(m, "permissions", "principals")
	p := conf.RBACPolicy{Name: name}
	walk.Each(d.Walk, "permissions", m.GetPermissions(), func(r *rbacv3.Permission) { p.Permissions = append(p.Permissions, d.permission(r, 0)) })
	walk.Each(d.Walk, "principals", m.GetPrincipals(), func(r *rbacv3.Principal) { p.Principals = append(p.Principals, d.principal(r, 0)) })
	if len(p.Permissions) == 0 || len(p.Principals) == 0 {
		d.Fail("permissions and principals are required")
	}
	return p
}

// maxDepth bounds the nesting of rules.
const maxDepth = 32

func (d *decoder) permission(m *rbacv3.Permission, depth int) *conf.Rule {
	d.Only(m, "and_rules", "or_rules", "any", "header", "url_path", "destination_ip", "destination_port", "not_rule",
		"requested_server_name", "uri_template")
	if depth > maxDepth {
		d.Failed(errTooDeep)
		return &conf.Rule{}
	}
	r := &conf.Rule{}
	switch p := m.GetRule().(type) {
	case *rbacv3.Permission_AndRules:
		r.And = rules(d, "and_rules", "rules", p.AndRules.GetRules(), depth, d.permission)
	case *rbacv3.Permission_OrRules:
		r.Or = rules(d, "or_rules", "rules", p.OrRules.GetRules(), depth, d.permission)
	case *rbacv3.Permission_Any:
		r.Any = d.anything(p.Any)
	case *rbacv3.Permission_Header:
		h := d.HeaderMatch(p.Header)
		r.Header = &h
	case *rbacv3.Permission_UrlPath:
		r.Path = d.pathMatch(p.UrlPath)
	case *rbacv3.Permission_DestinationIp:
		c := d.CIDR(p.DestinationIp)
		r.DestinationIP = &c
	case *rbacv3.Permission_DestinationPort:
		if r.Port = d.Port("destination_port", p.DestinationPort); r.Port == 0 {
			d.At("destination_port", func() { d.Failed(walk.ErrRequired) })
		}
	case *rbacv3.Permission_NotRule:
		d.At("not_rule", func() { r.Not = d.permission(p.NotRule, depth+1) })
	case *rbacv3.Permission_RequestedServerName:
		s := d.StringMatch("requested_server_name", p.RequestedServerName)
		r.SNI = &s
	case *rbacv3.Permission_UriTemplate:
		d.At("uri_template", func() {
			t := &templatev3.UriTemplateMatchConfig{}
			if d.Typed(p.UriTemplate.GetTypedConfig(), t) {
				d.Only(t, "path_template")
				r.Path, _ = d.template(t.GetPathTemplate())
			}
		})
	default:
		d.Fail("rule: is required")
	}
	return r
}

// rules decodes the set that a field has, which may not be empty; part is the field of the set.
func rules[M any](d *decoder, field, part string, list []M, depth int, rule func(M, int) *conf.Rule) []*conf.Rule {
	out := []*conf.Rule{}
	walk.Each(d.Walk, field+"."+part, list, func(m M) { out = append(out, rule(m, depth+1)) })
	d.atLeastOne(field, len(out))
	return out
}

func (d *decoder) atLeastOne(field string, n int) {
	if n == 0 {
		d.At(field, func() { d.Fail("may not be empty") })
	}
}

func (d *decoder) anything(v bool) bool {
	if !v {
		d.At("any", func() { d.Fail("may only be true") })
	}
	return v
}

func (d *decoder) principal(m *rbacv3.Principal, depth int) *conf.Rule {
	d.Only(m, "and_ids", "or_ids", "any", "authenticated", "source_ip", "direct_remote_ip", "remote_ip", "header", "url_path", "not_id")
	if depth > maxDepth {
		d.Failed(errTooDeep)
		return &conf.Rule{}
	}
	r := &conf.Rule{}
	switch p := m.GetIdentifier().(type) {
	case *rbacv3.Principal_AndIds:
		r.And = rules(d, "and_ids", "ids", p.AndIds.GetIds(), depth, d.principal)
	case *rbacv3.Principal_OrIds:
		r.Or = rules(d, "or_ids", "ids", p.OrIds.GetIds(), depth, d.principal)
	case *rbacv3.Principal_Any:
		r.Any = d.anything(p.Any)
	case *rbacv3.Principal_Authenticated_:
		d.At("authenticated", func() { d.authenticated(p.Authenticated, r) })
	case *rbacv3.Principal_SourceIp:
		c := d.CIDR(p.SourceIp)
		r.SourceIP = &c
	case *rbacv3.Principal_DirectRemoteIp:
		c := d.CIDR(p.DirectRemoteIp)
		r.SourceIP = &c
	case *rbacv3.Principal_RemoteIp:
		c := d.CIDR(p.RemoteIp)
		r.RemoteIP = &c
	case *rbacv3.Principal_Header:
		h := d.HeaderMatch(p.Header)
		r.Header = &h
	case *rbacv3.Principal_UrlPath:
		r.Path = d.pathMatch(p.UrlPath)
	case *rbacv3.Principal_NotId:
		d.At("not_id", func() { r.Not = d.principal(p.NotId, depth+1) })
	default:
		d.Fail("identifier: is required")
	}
	return r
}

func (d *decoder) authenticated(m *rbacv3.Principal_Authenticated, r *conf.Rule) {
	d.Only(m, "principal_name")
	if m.GetPrincipalName() == nil {
		r.Authenticated = true
		return
	}
	s := d.StringMatch("principal_name", m.GetPrincipalName())
	r.Principal = &s
}

func (d *decoder) pathMatch(m *matcherv3.PathMatcher) *conf.StringMatch {
	d.Only(m, "path")
	s := d.StringMatch("url_path.path", m.GetPath())
	return &s
}
