package status

import (
	"fmt"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/gatewayapi"
	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// notAttached are the codes of findings about a parent that does not take a route, with the reasons that the API has for them.
var notAttached = map[string]string{
	"NoMatchingParent": "NoMatchingParent", "NotAllowedByListeners": "NotAllowedByListeners", "NoMatchingListenerHostname": "NoMatchingListenerHostname",
	gatewayapi.HostnameConflict: gatewayapi.HostnameConflict, "GatewayNotFound": "NoMatchingParent", "HostNotFound": "NoMatchingParent", "PortNotFound": "NoMatchingParent",
	"InvalidKind": "NoMatchingParent",
}

// unresolved are the codes of findings about backends, alike.
var unresolved = map[string]string{
	"RefNotPermitted": "RefNotPermitted", "BackendNotFound": "BackendNotFound", "InvalidKind": "InvalidKind", "PortNotFound": "BackendNotFound",
}

// parent is what a route names as its parent, if it is ours.
type parent struct {
	ref        gatewayv1.ParentReference
	field      string
	controller gatewayv1.GatewayController
	owner      model.Ref // a Gateway or ListenerSet; zero for a Service or ServiceEntry
}

// route gives what each of a route's parents that are ours says of it.
func (s *state) route(o *source.Object, spec *gatewayv1.CommonRouteSpec) *gatewayv1.RouteStatus {
	out := &gatewayv1.RouteStatus{Parents: []gatewayv1.RouteParentStatus{}}
	for _, p := range s.parents(o, spec) {
		c := conditions{generation: o.GetGeneration()}
		s.routeAccepted(&c, o, p)
		s.routeResolved(&c, o, p)
		s.routePartly(&c, o)
		out.Parents = append(out.Parents, gatewayv1.RouteParentStatus{ParentRef: p.ref, ControllerName: p.controller, Conditions: c.list})
	}
	if len(out.Parents) == 0 {
		return nil
	}
	return out
}

func (s *state) parents(o *source.Object, spec *gatewayv1.CommonRouteSpec) []parent {
	var out []parent
	for i, ref := range spec.ParentRefs {
		p := parent{ref: ref, field: parts.At("spec.parentRefs", i)}
		group, kind := parts.ParentKind(ref)
		namespace := parts.NamespaceOr(ref.Namespace, o.GetNamespace())
		switch {
		case group == source.GroupGateway && kind == "Gateway":
			p.owner = model.Ref{Kind: "Gateway.k8s", Namespace: namespace, Name: string(ref.Name)}
		case group == source.GroupGateway && kind == "ListenerSet":
			p.owner = model.Ref{Kind: "ListenerSet", Namespace: namespace, Name: string(ref.Name)}
		case (group == "" || group == "core") && kind == "Service", group == source.GroupNetworking && kind == "ServiceEntry":
			p.controller = parts.GatewayController
		}
		if p.owner != (model.Ref{}) {
			p.controller = s.controllerOf(p.owner)
		}
		if ours(p.controller) {
			out = append(out, p)
		}
	}
	if spec.UseDefaultGateways == gatewayv1.GatewayDefaultScopeAll {
		out = append(out, s.defaultParents(o, spec)...)
	}
	return out
}

func (s *state) defaultParents(o *source.Object, spec *gatewayv1.CommonRouteSpec) []parent {
	var out []parent
	named := &parts.APIRoute{Parents: spec.ParentRefs}
	for _, g := range s.in.Objects {
		if !gatewayapi.IsDefaultGateway(g.Kube) || s.gateways[g.Ref()] == nil {
			continue
		}
		if ref := gatewayapi.DefaultParent(g); !named.Names(ref, o.GetNamespace()) {
			out = append(out, parent{ref: ref, field: "spec.useDefaultGateways", controller: s.controllerOf(g.Ref()), owner: g.Ref()})
		}
	}
	return out
}

// controllerOf is the name by which we write about a Gateway or ListenerSet; empty when there is none.
func (s *state) controllerOf(owner model.Ref) gatewayv1.GatewayController {
	o := s.objects[owner]
	if o == nil {
		return ""
	}
	switch k := o.Kube.(type) {
	case *gatewayv1.Gateway:
		return s.controller(string(k.Spec.GatewayClassName))
	case *gatewayv1.ListenerSet:
		if g := s.parentOf(k); g != nil {
			return s.controller(string(g.Spec.GatewayClassName))
		}
	}
	return ""
}

func (s *state) routeAccepted(c *conditions, o *source.Object, p parent) {
	bad := errorsOf(s.findings[o.Ref()])
	inForce := len(s.sets[o.Ref()]) > 0
	if len(bad) > 0 && !inForce {
		reason := gatewayv1.RouteReasonUnsupportedValue
		if filters := coded(bad, "ConflictingFields"); len(filters) > 0 && strings.Contains(filters[0].Field, "ilter") {
			reason = gatewayv1.RouteReasonIncompatibleFilters
		}
		c.add(accepted, accepted, string(reason), words(bad))
		return
	}
	for _, f := range s.within(o.Ref(), p.field) {
		reason := notAttached[f.Code]
		if p.owner == (model.Ref{}) && f.Code == "NoEffect" {
			reason = "NoMatchingParent"
		}
		if reason != "" {
			c.add(accepted, accepted, reason, words([]model.Finding{f}))
			return
		}
	}
	if p.owner != (model.Ref{}) && s.gateways[p.owner] == nil {
		c.add(accepted, accepted, string(gatewayv1.RouteReasonNoMatchingParent), fmt.Sprintf("%s is not in force", p.owner))
		return
	}
	c.add(accepted, accepted, "", words(warned(s.within(o.Ref(), p.field))))
}

func warned(list []model.Finding) []model.Finding {
	return slices.DeleteFunc(list, func(f model.Finding) bool { return f.Severity != model.Warning })
}

// routeResolved speaks of backends; references of one parent are those of all, but only gateways need to be permitted them.
func (s *state) routeResolved(c *conditions, o *source.Object, p parent) {
	var bad []model.Finding
	for _, f := range s.within(o.Ref(), "spec.rules[") {
		if p.owner == (model.Ref{}) && f.Code == "RefNotPermitted" {
			continue
		}
		if unresolved[f.Code] != "" && strings.Contains(f.Field, "ackendRef") {
			bad = append(bad, f)
		}
	}
	if len(bad) > 0 {
		c.add(resolvedRefs, resolvedRefs, unresolved[bad[0].Code], words(bad))
		return
	}
	c.add(resolvedRefs, resolvedRefs, "", "")
}

// routePartly says that what is in force is not what is written now.
func (s *state) routePartly(c *conditions, o *source.Object) {
	if bad := errorsOf(s.findings[o.Ref()]); len(bad) > 0 && len(s.sets[o.Ref()]) > 0 {
		c.put(string(gatewayv1.RouteConditionPartiallyInvalid), "True", string(gatewayv1.RouteReasonUnsupportedValue), "Fall Back: what was accepted before is in force: "+words(bad))
	}
}

// ingress says where an Ingress of ours is served.
func (s *state) ingress(o *source.Object, _ *networkingv1.Ingress) *networkingv1.IngressStatus {
	if s.gateways[o.Ref()] == nil {
		return nil
	}
	out := &networkingv1.IngressStatus{}
	for _, a := range s.addresses {
		if *a.Type == gatewayv1.IPAddressType {
			out.LoadBalancer.Ingress = append(out.LoadBalancer.Ingress, networkingv1.IngressLoadBalancerIngress{IP: a.Value})
		} else {
			out.LoadBalancer.Ingress = append(out.LoadBalancer.Ingress, networkingv1.IngressLoadBalancerIngress{Hostname: a.Value})
		}
	}
	return out
}
