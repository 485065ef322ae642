package proxyless

import (
	"fmt"
	"strings"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
)

// serverFilters keeps what authorizes calls, under names of their own, as servers want them.
func serverFilters(policies []*hcmv3.HttpFilter) ([]*hcmv3.HttpFilter, error) {
	var out []*hcmv3.HttpFilter
	for _, f := range policies {
		var r httprbacv3.RBAC
		if f.Name != rbacFilter {
			return nil, fmt.Errorf("a gRPC server has no filter %s", f.Name)
		}
		if err := f.GetTypedConfig().UnmarshalTo(&r); err != nil {
			return nil, err
		}
		if r.Rules == nil || r.Rules.Action == rbacv3.RBAC_LOG {
			continue // servers do not log, nor try out
		}
		out = append(out, filter(fmt.Sprintf("%s.%d", rbacFilter, len(out)), &httprbacv3.RBAC{Rules: rules(r.Rules)}))
	}
	return append(out, filter(routerFilter, &routerv3.Router{})), nil
}

func filter(name string, m proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(m)}}
}

// rules replaces the conditions that servers refuse to evaluate (gRFC A41). What allows then allows less, and what denies denies more.
func rules(r *rbacv3.RBAC) *rbacv3.RBAC {
	out := &rbacv3.RBAC{Action: r.Action, Policies: map[string]*rbacv3.Policy{}}
	deny := r.Action == rbacv3.RBAC_DENY
	for name, p := range r.Policies {
		q := &rbacv3.Policy{}
		for _, x := range p.Permissions {
			q.Permissions = append(q.Permissions, permission(x, deny))
		}
		for _, x := range p.Principals {
			q.Principals = append(q.Principals, principal(x, deny))
		}
		out.Policies[name] = q
	}
	return out
}

// hidden fields are those that servers do not show to policies.
func hidden(field string) bool {
	field = strings.ToLower(field)
	return field == ":scheme" || strings.HasPrefix(field, "grpc-")
}

// permission rebuilds a condition; unknown is what a part counts as that cannot be evaluated.
func permission(p *rbacv3.Permission, unknown bool) *rbacv3.Permission {
	set := func(s *rbacv3.Permission_Set) *rbacv3.Permission_Set {
		out := &rbacv3.Permission_Set{}
		for _, r := range s.GetRules() {
			out.Rules = append(out.Rules, permission(r, unknown))
		}
		return out
	}
	switch r := p.GetRule().(type) {
	case *rbacv3.Permission_AndRules:
		return &rbacv3.Permission{Rule: &rbacv3.Permission_AndRules{AndRules: set(r.AndRules)}}
	case *rbacv3.Permission_OrRules:
		return &rbacv3.Permission{Rule: &rbacv3.Permission_OrRules{OrRules: set(r.OrRules)}}
	case *rbacv3.Permission_NotRule:
		return &rbacv3.Permission{Rule: &rbacv3.Permission_NotRule{NotRule: permission(r.NotRule, !unknown)}}
	case *rbacv3.Permission_Header:
		if !hidden(r.Header.GetName()) {
			return p
		}
	case *rbacv3.Permission_Any, *rbacv3.Permission_UrlPath, *rbacv3.Permission_DestinationIp, *rbacv3.Permission_DestinationPort,
		*rbacv3.Permission_RequestedServerName:
		return p
	}
	always := &rbacv3.Permission{Rule: &rbacv3.Permission_Any{Any: true}}
	if unknown {
		return always
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_NotRule{NotRule: always}}
}

// principal is permission for the other half of a policy.
func principal(p *rbacv3.Principal, unknown bool) *rbacv3.Principal {
	set := func(s *rbacv3.Principal_Set) *rbacv3.Principal_Set {
		out := &rbacv3.Principal_Set{}
		for _, r := range s.GetIds() {
			out.Ids = append(out.Ids, principal(r, unknown))
		}
		return out
	}
	switch r := p.GetIdentifier().(type) {
	case *rbacv3.Principal_AndIds:
		return &rbacv3.Principal{Identifier: &rbacv3.Principal_AndIds{AndIds: set(r.AndIds)}}
	case *rbacv3.Principal_OrIds:
		return &rbacv3.Principal{Identifier: &rbacv3.Principal_OrIds{OrIds: set(r.OrIds)}}
	case *rbacv3.Principal_NotId:
		return &rbacv3.Principal{Identifier: &rbacv3.Principal_NotId{NotId: principal(r.NotId, !unknown)}}
	case *rbacv3.Principal_Header:
		if !hidden(r.Header.GetName()) {
			return p
		}
	case *rbacv3.Principal_Any, *rbacv3.Principal_Authenticated_, *rbacv3.Principal_DirectRemoteIp, *rbacv3.Principal_RemoteIp,
		*rbacv3.Principal_UrlPath:
		return p
	}
	always := &rbacv3.Principal{Identifier: &rbacv3.Principal_Any{Any: true}}
	if unknown {
		return always
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_NotId{NotId: always}}
}
