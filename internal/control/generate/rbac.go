package generate

import (
	"fmt"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	networkrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"

	"github.com/weftmesh/weft/internal/control/generate/access"
	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/model"
)

const (
	httpRBAC    = "envoy.filters.http.rbac"
	networkRBAC = "envoy.filters.network.rbac"
)

// requestPolicies gives the filters that authorize requests to the node's workload: audit, then deny, then allow.
func (g *Generator) requestPolicies() []*hcmv3.HttpFilter {
	var out []*hcmv3.HttpFilter
	for _, f := range g.policyFilters(false) {
		out = append(out, message.HTTPFilter(httpRBAC, &httprbacv3.RBAC{Rules: f.rules, ShadowRules: f.shadow, ShadowRulesStatPrefix: f.prefix}))
	}
	return out
}

// networkPolicies gives the filters that authorize connections, by what is known of one.
func (g *Generator) networkPolicies() []*listenerv3.Filter {
	var out []*listenerv3.Filter
	for _, f := range g.policyFilters(true) {
		out = append(out, message.NetworkFilter(networkRBAC, &networkrbacv3.RBAC{Rules: f.rules, ShadowRules: f.shadow,
			ShadowRulesStatPrefix: f.prefix, StatPrefix: "tcp."}))
	}
	return out
}

// policyFilter is one action's rules: nil where no policy enforces, or none only tries.
type policyFilter struct {
	rules, shadow *rbacv3.RBAC
	prefix        string
}

func (g *Generator) policyFilters(tcp bool) []policyFilter {
	var out []policyFilter
	for _, a := range []struct {
		action model.AuthAction
		rbac   rbacv3.RBAC_Action
		prefix string
	}{
		{model.AuthAudit, rbacv3.RBAC_LOG, "istio_dry_run_audit_"},
		{model.AuthDeny, rbacv3.RBAC_DENY, "istio_dry_run_deny_"},
		{model.AuthAllow, rbacv3.RBAC_ALLOW, "istio_dry_run_allow_"},
	} {
		f := policyFilter{}
		for _, p := range g.mesh.AuthorizationPolicies(g.node.Namespace) {
			if p.Action != a.action || !g.applies(p) {
				continue
			}
			into := &f.rules
			if p.DryRun {
				into, f.prefix = &f.shadow, a.prefix
			}
			if *into == nil {
				// An ALLOW without policies allows nothing, which is what a policy without matching rules asks for.
				*into = &rbacv3.RBAC{Action: a.rbac, Policies: map[string]*rbacv3.Policy{}}
			}
			g.addRules((*into).Policies, p, tcp)
		}
		if f.rules != nil || f.shadow != nil {
			out = append(out, f)
		}
	}
	return out
}

func (g *Generator) applies(p *model.AuthorizationPolicy) bool {
	return (p.Namespace == "" || p.Namespace == g.node.Namespace) && model.Selects(p.Selector, g.node.Labels)
}

func (g *Generator) addRules(into map[string]*rbacv3.Policy, p *model.AuthorizationPolicy, tcp bool) {
	for i, r := range p.Rules {
		b := access.Rule{TrustDomain: func() string { return g.mesh.Settings().TrustDomain }, TCP: tcp, Narrow: p.Action == model.AuthAllow}
		if policy := b.Policy(r); policy != nil {
			into[fmt.Sprintf("ns[%s]-policy[%s]-rule[%d]", p.Ref.Namespace, p.Ref.Name, i)] = policy
		}
	}
}
