package access

import rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"

// half is how the rules of one half of a policy are put together: R is a permission or a principal.
type half[R any] struct {
	and, or func([]R) R
	not     func(R) R
	any     func() R
}

// permitting and identifying are the two halves. They are never changed.
var (
	permitting = half[*rbacv3.Permission]{
		and: func(all []*rbacv3.Permission) *rbacv3.Permission {
			return &rbacv3.Permission{Rule: &rbacv3.Permission_AndRules{AndRules: &rbacv3.Permission_Set{Rules: all}}}
		},
		or: func(all []*rbacv3.Permission) *rbacv3.Permission {
			return &rbacv3.Permission{Rule: &rbacv3.Permission_OrRules{OrRules: &rbacv3.Permission_Set{Rules: all}}}
		},
		not: func(p *rbacv3.Permission) *rbacv3.Permission {
			return &rbacv3.Permission{Rule: &rbacv3.Permission_NotRule{NotRule: p}}
		},
		any: func() *rbacv3.Permission { return &rbacv3.Permission{Rule: &rbacv3.Permission_Any{Any: true}} },
	}
	identifying = half[*rbacv3.Principal]{
		and: func(all []*rbacv3.Principal) *rbacv3.Principal {
			return &rbacv3.Principal{Identifier: &rbacv3.Principal_AndIds{AndIds: &rbacv3.Principal_Set{Ids: all}}}
		},
		or: func(all []*rbacv3.Principal) *rbacv3.Principal {
			return &rbacv3.Principal{Identifier: &rbacv3.Principal_OrIds{OrIds: &rbacv3.Principal_Set{Ids: all}}}
		},
		not: func(p *rbacv3.Principal) *rbacv3.Principal {
			return &rbacv3.Principal{Identifier: &rbacv3.Principal_NotId{NotId: p}}
		},
		any: func() *rbacv3.Principal { return &rbacv3.Principal{Identifier: &rbacv3.Principal_Any{Any: true}} },
	}
)

// all holds where all rules of a list do, and so does an empty list.
func (h half[R]) all(list []R) R {
	if len(list) == 0 {
		list = []R{h.any()}
	}
	return h.and(list)
}

func (h half[R]) never() R { return h.not(h.any()) }

// valued gives "one of values" and "none of notValues", each left out when its list is empty.
func valued[V, R any](h half[R], values, notValues []V, of func(V) R) []R {
	var all []R
	if len(values) > 0 {
		all = append(all, oneOf(h, values, of))
	}
	if len(notValues) > 0 {
		all = append(all, h.not(oneOf(h, notValues, of)))
	}
	return all
}

func oneOf[V, R any](h half[R], values []V, of func(V) R) R {
	var list []R
	for _, v := range values {
		list = append(list, of(v))
	}
	return h.or(list)
}

func permissions[V any](values, notValues []V, of func(V) *rbacv3.Permission) []*rbacv3.Permission {
	return valued(permitting, values, notValues, of)
}

func principals[V any](values, notValues []V, of func(V) *rbacv3.Principal) []*rbacv3.Principal {
	return valued(identifying, values, notValues, of)
}
