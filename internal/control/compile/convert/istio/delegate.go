package istio

import (
	networkingapi "istio.io/api/networking/v1alpha3"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// delegated checks a VirtualService without hosts: others delegate to it, and hosts and gateways are theirs to say.
func (p converter) delegated(spec *networkingapi.VirtualService) {
	const hint = "add spec.hosts, unless another VirtualService is to delegate to this one"
	if len(spec.Gateways)+len(spec.Tls)+len(spec.Tcp) > 0 {
		p.Err("MissingField", "spec.hosts", hint, "gateways, tls and tcp need hosts")
	}
}

// delegate notes that a rule leaves what it does to another VirtualService.
func (p converter) delegate(r *networkingapi.HTTPRoute, i int, delegated bool) {
	if r.Delegate == nil {
		return
	}
	field := parts.At("spec.http", i) + ".delegate"
	p.Only(r.Delegate, field, "name", "namespace")
	ref := model.Ref{Kind: "VirtualService", Namespace: r.Delegate.Namespace, Name: r.Delegate.Name}
	if ref.Namespace == "" {
		ref.Namespace = p.GetNamespace()
	}
	switch {
	case ref.Name == "":
		p.Err("MissingField", field+".name", "", "the name of a VirtualService is needed")
	case delegated:
		p.Err("ConflictingFields", field, "", "a VirtualService without hosts cannot delegate further")
	case len(r.Route) > 0 || r.Redirect != nil || r.DirectResponse != nil:
		p.Err("ConflictingFields", field, "", "a rule that delegates has no route, redirect or directResponse of its own")
	}
	if p.Delegates == nil {
		p.Delegates = map[int]model.Ref{}
	}
	p.Delegates[i] = ref
}
