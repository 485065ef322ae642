package compile

import (
	"cmp"

	networkingapi "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/compile/matching"
	"github.com/weftmesh/weft/internal/control/model"
)

// delegate puts in place of each rule that delegates the rules of the VirtualService that it names. A rule's conditions are both's;
// what it does is the delegate's, and where that says nothing the delegating rule's. Rules whose conditions contradict are left
// out, as in Istio.
func (c *compiler) delegate(root *part, spec *networkingapi.VirtualService) {
	if len(root.Delegates) == 0 {
		return
	}
	var merged []model.HTTPRoute
	for i := range root.Routes.HTTP {
		ref, delegates := root.Delegates[i]
		if !delegates {
			merged = append(merged, root.Routes.HTTP[i])
			continue
		}
		field := parts.At("spec.http", i) + ".delegate"
		d := c.part(ref)
		switch {
		case d == nil:
			root.Warn("DelegateNotFound", field, "", "there is no valid %s: the rule has no effect", ref)
		case len(d.Routes.Hosts) > 0:
			root.Warn("DelegateHasHosts", field, "remove its spec.hosts", "%s has hosts of its own: the rule has no effect", ref)
		case !d.Routes.ExportTo.VisibleFrom(ref.Namespace, root.GetNamespace()):
			root.Warn("DelegateNotExported", field, "add the namespace to its spec.exportTo", "%s is not exported to namespace %s: the rule has no effect",
				ref, root.GetNamespace())
		default:
			merged = append(merged, c.mergeRules(root, i, spec.Http[i], d)...)
		}
	}
	routes := *root.Routes
	routes.HTTP = merged
	root.Routes = &routes
}

// mergeRules gives the rules of a delegate as those of rule i of a VirtualService. Sharing between the two is fine: what is
// compiled is never changed.
func (c *compiler) mergeRules(root *part, i int, spec *networkingapi.HTTPRoute, d *part) []model.HTTPRoute {
	outer := &root.Routes.HTTP[i]
	vs, _ := d.Kube.(*networking.VirtualService)
	var out []model.HTTPRoute
	for j := range d.Routes.HTTP {
		inner := d.Routes.HTTP[j]
		merged, ok := matching.Merge(outer.Matches, inner.Matches)
		if !ok {
			c.about(d.Object).Warn("DelegateConflict", inner.Field, "each match has to narrow one of the delegating rule's, by exact or prefix, and to have its sourceNamespace",
				"the rule has no effect for %s: its matches contradict those of %s there", root.Ref(), outer.Field)
			continue
		}
		own := vs.Spec.Http[j]
		inner.Matches, inner.Object, inner.Name = merged, d.Ref(), matching.JoinNames(outer.Name, inner.Name)
		inner.Rewrite = cmp.Or(inner.Rewrite, outer.Rewrite)
		inner.Retries = cmp.Or(inner.Retries, outer.Retries)
		inner.Fault = cmp.Or(inner.Fault, outer.Fault)
		inner.CORS = cmp.Or(inner.CORS, outer.CORS)
		if own.Timeout == nil {
			inner.Timeout = outer.Timeout
		}
		if len(inner.Mirrors) == 0 {
			inner.Mirrors = outer.Mirrors
		}
		if own.Headers == nil {
			inner.Request, inner.Response = outer.Request, outer.Response
		}
		out = append(out, inner)
	}
	return out
}

// undelegated tells of a VirtualService without hosts that nobody delegates to.
func (c *compiler) undelegated(p *part) {
	if len(c.ask(topic{about: onDelegate, a: p.GetNamespace(), b: p.GetName()})) == 0 {
		p.Warn("NotDelegated", "spec", "add spec.hosts, or a rule with delegate to another VirtualService",
			"it has no hosts and no other VirtualService delegates to it: it has no effect")
	}
}
