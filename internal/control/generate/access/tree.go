package access

import rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"

// permissions gives "one of values" and "none of notValues", each left out when its list is empty.
func permissions[V any](values, notValues []V, of func(V) *rbacv3.Permission) []*rbacv3.Permission {
	var all []*rbacv3.Permission
	if len(values) > 0 {
		all = append(all, anyPermission(values, of))
	}
	if len(notValues) > 0 {
		all = append(all, notPermission(anyPermission(notValues, of)))
	}
	return all
}

func anyPermission[V any](values []V, of func(V) *rbacv3.Permission) *rbacv3.Permission {
	set := &rbacv3.Permission_Set{}
	for _, v := range values {
		set.Rules = append(set.Rules, of(v))
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_OrRules{OrRules: set}}
}

func allPermissions(all []*rbacv3.Permission) *rbacv3.Permission {
	if len(all) == 0 {
		all = []*rbacv3.Permission{{Rule: &rbacv3.Permission_Any{Any: true}}}
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_AndRules{AndRules: &rbacv3.Permission_Set{Rules: all}}}
}

func notPermission(p *rbacv3.Permission) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_NotRule{NotRule: p}}
}

func neverPermission() *rbacv3.Permission {
	return notPermission(&rbacv3.Permission{Rule: &rbacv3.Permission_Any{Any: true}})
}

// principals is permissions for the other half of a policy.
func principals[V any](values, notValues []V, of func(V) *rbacv3.Principal) []*rbacv3.Principal {
	var all []*rbacv3.Principal
	if len(values) > 0 {
		all = append(all, anyPrincipal(values, of))
	}
	if len(notValues) > 0 {
		all = append(all, notPrincipal(anyPrincipal(notValues, of)))
	}
	return all
}

func anyPrincipal[V any](values []V, of func(V) *rbacv3.Principal) *rbacv3.Principal {
	set := &rbacv3.Principal_Set{}
	for _, v := range values {
		set.Ids = append(set.Ids, of(v))
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_OrIds{OrIds: set}}
}

func allPrincipals(all []*rbacv3.Principal) *rbacv3.Principal {
	if len(all) == 0 {
		all = []*rbacv3.Principal{{Identifier: &rbacv3.Principal_Any{Any: true}}}
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_AndIds{AndIds: &rbacv3.Principal_Set{Ids: all}}}
}

func notPrincipal(p *rbacv3.Principal) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_NotId{NotId: p}}
}

func neverPrincipal() *rbacv3.Principal {
	return notPrincipal(&rbacv3.Principal{Identifier: &rbacv3.Principal_Any{Any: true}})
}
