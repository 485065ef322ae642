package decode

import (
	"maps"
	"slices"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	templatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// policies decodes the enforced and the dry-run policies of a filter, in this order, as far as they are there.
func (d *decoder) policies(rules, shadow *rbacv3.RBAC) (out []*conf.RBAC) {
	if rules != nil {
		d.at("rules", func() { out = append(out, d.rbac(rules, false)) })
	}
	if shadow != nil {
		d.at("shadow_rules", func() { out = append(out, d.rbac(shadow, true)) })
	}
	return out
}

// httpPolicies decodes those of a filter of that name.
func (d *decoder) httpPolicies(filter string, m *httprbacv3.RBAC) []*conf.RBAC {
	d.only(m, "rules", "shadow_rules", "rules_stat_prefix", "shadow_rules_stat_prefix")
	out := d.policies(m.GetRules(), m.GetShadowRules())
	for _, set := range out {
		set.Filter = filter
	}
	return out
}

func (d *decoder) rbac(m *rbacv3.RBAC, shadow bool) *conf.RBAC {
	d.only(m, "action", "policies")
	r := &conf.RBAC{Shadow: shadow}
	switch a := m.GetAction(); a {
	case rbacv3.RBAC_ALLOW:
	case rbacv3.RBAC_DENY:
		r.Action = conf.Deny
	case rbacv3.RBAC_LOG:
		r.Action = conf.LogOnly
	default:
		d.at("action", func() { d.fail("%s is not supported", a) })
	}
	for _, name := range slices.Sorted(maps.Keys(m.GetPolicies())) {
		d.at("policies["+name+"]", func() { r.Policies = append(r.Policies, d.policy(name, m.GetPolicies()[name])) })
	}
	return r
}

func (d *decoder) policy(name string, m *rbacv3.Policy) conf.RBACPolicy {
	d.only(m, "permissions", "principals")
	p := conf.RBACPolicy{Name: name}
	each(d, "permissions", m.GetPermissions(), func(r *rbacv3.Permission) { p.Permissions = append(p.Permissions, d.permission(r, 0)) })
	each(d, "principals", m.GetPrincipals(), func(r *rbacv3.Principal) { p.Principals = append(p.Principals, d.principal(r, 0)) })
	if len(p.Permissions) == 0 || len(p.Principals) == 0 {
		d.fail("permissions and principals are required")
	}
	return p
}

// maxDepth bounds the nesting of rules.
const maxDepth = 32

func (d *decoder) permission(m *rbacv3.Permission, depth int) *conf.Rule {
	d.only(m, "and_rules", "or_rules", "any", "header", "url_path", "destination_ip", "destination_port", "not_rule",
		"requested_server_name", "uri_template")
	if depth > maxDepth {
		d.failed(errTooDeep)
		return &conf.Rule{}
	}
	r := &conf.Rule{}
	switch p := m.GetRule().(type) {
	case *rbacv3.Permission_AndRules:
		r.And = d.permissions("and_rules", p.AndRules, depth)
	case *rbacv3.Permission_OrRules:
		r.Or = d.permissions("or_rules", p.OrRules, depth)
	case *rbacv3.Permission_Any:
		r.Any = d.anything(p.Any)
	case *rbacv3.Permission_Header:
		h := d.headerMatch(p.Header)
		r.Header = &h
	case *rbacv3.Permission_UrlPath:
		r.Path = d.pathMatch(p.UrlPath)
	case *rbacv3.Permission_DestinationIp:
		c := d.cidr(p.DestinationIp)
		r.DestinationIP = &c
	case *rbacv3.Permission_DestinationPort:
		if r.Port = d.port("destination_port", p.DestinationPort); r.Port == 0 {
			d.at("destination_port", func() { d.failed(errRequired) })
		}
	case *rbacv3.Permission_NotRule:
		d.at("not_rule", func() { r.Not = d.permission(p.NotRule, depth+1) })
	case *rbacv3.Permission_RequestedServerName:
		s := d.stringMatch("requested_server_name", p.RequestedServerName)
		r.SNI = &s
	case *rbacv3.Permission_UriTemplate:
		d.at("uri_template", func() {
			t := &templatev3.UriTemplateMatchConfig{}
			if d.typed(p.UriTemplate.GetTypedConfig(), t) {
				d.only(t, "path_template")
				r.Path, _ = d.template(t.GetPathTemplate())
			}
		})
	default:
		d.fail("rule: is required")
	}
	return r
}

func (d *decoder) permissions(field string, m *rbacv3.Permission_Set, depth int) []*conf.Rule {
	out := []*conf.Rule{}
	each(d, field+".rules", m.GetRules(), func(r *rbacv3.Permission) { out = append(out, d.permission(r, depth+1)) })
	d.atLeastOne(field, len(out))
	return out
}

func (d *decoder) atLeastOne(field string, n int) {
	if n == 0 {
		d.at(field, func() { d.fail("may not be empty") })
	}
}

func (d *decoder) anything(v bool) bool {
	if !v {
		d.at("any", func() { d.fail("may only be true") })
	}
	return v
}

func (d *decoder) principal(m *rbacv3.Principal, depth int) *conf.Rule {
	d.only(m, "and_ids", "or_ids", "any", "authenticated", "source_ip", "direct_remote_ip", "remote_ip", "header", "url_path", "not_id")
	if depth > maxDepth {
		d.failed(errTooDeep)
		return &conf.Rule{}
	}
	r := &conf.Rule{}
	switch p := m.GetIdentifier().(type) {
	case *rbacv3.Principal_AndIds:
		r.And = d.principals("and_ids", p.AndIds, depth)
	case *rbacv3.Principal_OrIds:
		r.Or = d.principals("or_ids", p.OrIds, depth)
	case *rbacv3.Principal_Any:
		r.Any = d.anything(p.Any)
	case *rbacv3.Principal_Authenticated_:
		d.at("authenticated", func() { d.authenticated(p.Authenticated, r) })
	case *rbacv3.Principal_SourceIp:
		c := d.cidr(p.SourceIp)
		r.SourceIP = &c
	case *rbacv3.Principal_DirectRemoteIp:
		c := d.cidr(p.DirectRemoteIp)
		r.SourceIP = &c
	case *rbacv3.Principal_RemoteIp:
		c := d.cidr(p.RemoteIp)
		r.RemoteIP = &c
	case *rbacv3.Principal_Header:
		h := d.headerMatch(p.Header)
		r.Header = &h
	case *rbacv3.Principal_UrlPath:
		r.Path = d.pathMatch(p.UrlPath)
	case *rbacv3.Principal_NotId:
		d.at("not_id", func() { r.Not = d.principal(p.NotId, depth+1) })
	default:
		d.fail("identifier: is required")
	}
	return r
}

func (d *decoder) principals(field string, m *rbacv3.Principal_Set, depth int) []*conf.Rule {
	out := []*conf.Rule{}
	each(d, field+".ids", m.GetIds(), func(r *rbacv3.Principal) { out = append(out, d.principal(r, depth+1)) })
	d.atLeastOne(field, len(out))
	return out
}

func (d *decoder) authenticated(m *rbacv3.Principal_Authenticated, r *conf.Rule) {
	d.only(m, "principal_name")
	if m.GetPrincipalName() == nil {
		r.Authenticated = true
		return
	}
	s := d.stringMatch("principal_name", m.GetPrincipalName())
	r.Principal = &s
}

func (d *decoder) pathMatch(m *matcherv3.PathMatcher) *conf.StringMatch {
	d.only(m, "path")
	s := d.stringMatch("url_path.path", m.GetPath())
	return &s
}
