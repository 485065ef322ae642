package status

import (
	"slices"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// mostAncestors is what the API takes.
const mostAncestors = 16

// backendTLSPolicy says the same to each Gateway that sends to a target, or where none does to the targets themselves: sidecars do.
func (s *state) backendTLSPolicy(o *source.Object, k *gatewayv1.BackendTLSPolicy) *gatewayv1.PolicyStatus {
	out := &gatewayv1.PolicyStatus{Ancestors: []gatewayv1.PolicyAncestorStatus{}}
	for _, a := range s.ancestors(o, k) {
		c := conditions{generation: o.GetGeneration()}
		s.policyAccepted(&c, o, k)
		bad := coded(s.within(o.Ref(), "spec.validation.caCertificateRefs"), "InvalidKind", string(gatewayv1.BackendTLSPolicyReasonInvalidCACertificateRef))
		if len(bad) > 0 {
			c.add(resolvedRefs, resolvedRefs, bad[0].Code, words(bad))
		} else {
			c.add(resolvedRefs, resolvedRefs, "", "")
		}
		out.Ancestors = append(out.Ancestors, gatewayv1.PolicyAncestorStatus{AncestorRef: a.ref, ControllerName: a.controller, Conditions: c.list})
	}
	return out
}

func (s *state) policyAccepted(c *conditions, o *source.Object, k *gatewayv1.BackendTLSPolicy) {
	all := s.findings[o.Ref()]
	bad, none := errorsOf(all), coded(all, string(gatewayv1.BackendTLSPolicyReasonNoValidCACertificate))
	conflicts, absent := coded(all, conflicted), coded(s.within(o.Ref(), "spec.targetRefs"), string(gatewayv1.PolicyReasonTargetNotFound), "InvalidKind")
	switch {
	case len(bad) > 0:
		c.add(accepted, accepted, invalid, words(bad))
	case len(none) > 0:
		c.add(accepted, accepted, none[0].Code, words(none))
	case len(conflicts) > 0:
		c.add(accepted, accepted, conflicted, words(conflicts))
	case len(absent) > 0 && len(absent) == len(k.Spec.TargetRefs):
		reason := absent[0].Code
		if reason == "InvalidKind" {
			reason = invalid
		}
		c.add(accepted, accepted, reason, words(absent))
	default:
		c.add(accepted, accepted, "", words(absent))
	}
}

func (s *state) ancestors(o *source.Object, k *gatewayv1.BackendTLSPolicy) []parent {
	hosts := map[string]bool{}
	for _, t := range k.Spec.TargetRefs {
		hosts[parts.ServiceHost(string(t.Name), o.GetNamespace(), s.in.Mesh.Settings)] = true
	}
	var gateways []model.Ref
	for _, rs := range s.in.Mesh.RouteSets {
		for _, g := range rs.Gateways {
			root := s.root(ownerOf(g))
			if root.Kind == "Gateway.k8s" && sendsTo(rs, hosts) && !slices.Contains(gateways, root) {
				gateways = append(gateways, root)
			}
		}
	}
	var out []parent
	group, kind := gatewayv1.Group(source.GroupGateway), gatewayv1.Kind("Gateway")
	for _, g := range gateways {
		namespace := gatewayv1.Namespace(g.Namespace)
		out = append(out, parent{controller: s.controllerOf(g),
			ref: gatewayv1.ParentReference{Group: &group, Kind: &kind, Namespace: &namespace, Name: gatewayv1.ObjectName(g.Name)}})
	}
	if len(out) == 0 {
		for _, t := range k.Spec.TargetRefs {
			namespace := gatewayv1.Namespace(o.GetNamespace())
			out = append(out, parent{controller: parts.GatewayController,
				ref: gatewayv1.ParentReference{Group: &t.Group, Kind: &t.Kind, Namespace: &namespace, Name: t.Name, SectionName: t.SectionName}})
		}
	}
	return out[:min(len(out), mostAncestors)]
}

// root gives the Gateway of a ListenerSet, and anything else as it is.
func (s *state) root(owner model.Ref) model.Ref {
	if o := s.objects[owner]; o != nil {
		if k, ok := o.Kube.(*gatewayv1.ListenerSet); ok {
			return s.rootOf(k)
		}
	}
	return owner
}

func sendsTo(rs *model.RouteSet, hosts map[string]bool) bool {
	to := func(list []model.WeightedDestination) bool {
		return slices.ContainsFunc(list, func(d model.WeightedDestination) bool { return hosts[d.Host] })
	}
	for i := range rs.HTTP {
		if to(rs.HTTP[i].Destinations) || slices.ContainsFunc(rs.HTTP[i].Mirrors, func(m model.Mirror) bool { return hosts[m.Destination.Host] }) {
			return true
		}
	}
	return slices.ContainsFunc(rs.TLS, func(r model.TLSRoute) bool { return to(r.Destinations) }) ||
		slices.ContainsFunc(rs.TCP, func(r model.TCPRoute) bool { return to(r.Destinations) }) ||
		slices.ContainsFunc(rs.UDP, func(r model.UDPRoute) bool { return to(r.Destinations) })
}
