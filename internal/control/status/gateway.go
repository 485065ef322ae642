package status

import (
	"fmt"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/gatewayapi"
	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// Conditions and reasons that several kinds share.
const (
	accepted     = "Accepted"
	programmed   = "Programmed"
	resolvedRefs = "ResolvedRefs"
	conflicted   = "Conflicted"
	invalid      = "Invalid"
	listenersBad = "ListenersNotValid"
)

func (s *state) gatewayClass(o *source.Object, k *gatewayv1.GatewayClass) *gatewayv1.GatewayClassStatus {
	if !ours(k.Spec.ControllerName) {
		return nil
	}
	c := conditions{generation: o.GetGeneration()}
	reason, message := "", ""
	if bad := errorsOf(s.findings[o.Ref()]); len(bad) > 0 {
		reason, message = string(gatewayv1.GatewayClassReasonInvalidParameters), words(bad)
	}
	c.add(accepted, accepted, reason, message)
	out := &gatewayv1.GatewayClassStatus{Conditions: c.list}
	for _, name := range Features {
		out.SupportedFeatures = append(out.SupportedFeatures, gatewayv1.SupportedFeature{Name: name})
	}
	return out
}

// Features are what the Gateway API's conformance calls optional and we have, in alphabetical order. It is never changed.
var Features = []gatewayv1.FeatureName{
	"BackendTLSPolicy", "BackendTLSPolicySANValidation", "GRPCRoute", "GRPCRouteNamedRouteRule", "Gateway", "GatewayAddressEmpty",
	"GatewayBackendClientCertificate", "GatewayFrontendClientCertificateValidation", "GatewayFrontendClientCertificateValidationInsecureFallback",
	"GatewayHTTPListenerIsolation", "GatewayHTTPSListenerDetectMisdirectedRequests", "GatewayPort8080", "HTTPRoute", "HTTPRoute303RedirectStatusCode", "HTTPRoute307RedirectStatusCode",
	"HTTPRoute308RedirectStatusCode", "HTTPRouteBackendProtocolH2C", "HTTPRouteBackendProtocolWebSocket", "HTTPRouteBackendRequestHeaderModification",
	"HTTPRouteBackendTimeout", "HTTPRouteCORS", "HTTPRouteDestinationPortMatching", "HTTPRouteHostRewrite", "HTTPRouteMethodMatching",
	"HTTPRouteNamedRouteRule", "HTTPRouteParentRefPort", "HTTPRoutePathRedirect", "HTTPRoutePathRewrite", "HTTPRoutePortRedirect",
	"HTTPRouteQueryParamMatching", "HTTPRouteRequestMirror", "HTTPRouteRequestMultipleMirrors", "HTTPRouteRequestPercentageMirror",
	"HTTPRouteRequestTimeout", "HTTPRouteResponseHeaderModification", "HTTPRouteRetry", "HTTPRouteRetryBackendTimeout",
	"HTTPRouteRetryConnectionError", "HTTPRouteSchemeRedirect", "ListenerSet", "Mesh", "MeshClusterIPMatching", "MeshConsumerRoute",
	"MeshHTTPRouteBackendRequestHeaderModification", "MeshHTTPRouteNamedRouteRule", "MeshHTTPRouteQueryParamMatching", "MeshHTTPRouteRedirectPath",
	"MeshHTTPRouteRedirectPort", "MeshHTTPRouteRewritePath", "MeshHTTPRouteSchemeRedirect", "ReferenceGrant", "TCPRoute", "TLSRoute",
	"TLSRouteModeMixed", "TLSRouteModeTerminate", "UDPRoute",
}

func (s *state) gateway(o *source.Object, k *gatewayv1.Gateway) *gatewayv1.GatewayStatus {
	if !ours(s.controller(string(k.Spec.GatewayClassName))) {
		return nil
	}
	out := &gatewayv1.GatewayStatus{}
	good, unresolved := 0, false
	for i := range k.Spec.Listeners {
		l := s.listener(o, k, &k.Spec.Listeners[i], parts.At("spec.listeners", i))
		out.Listeners = append(out.Listeners, l.ListenerStatus)
		if l.accepted {
			good++
		}
		unresolved = unresolved || !l.resolved
	}
	c := conditions{generation: o.GetGeneration()}
	s.gatewayAccepted(&c, o, k, good)
	out.Addresses = s.gatewayProgrammed(&c, o, k, good)
	s.gatewayResolved(&c, o, unresolved)
	if gatewayapi.AcceptsAnyClient(k) {
		c.add(string(gatewayv1.GatewayConditionInsecureFrontendValidationMode), string(gatewayv1.GatewayReasonConfigurationChanged), "",
			"clients' certificates are asked for and not verified")
	}
	out.Conditions = c.list
	n := s.attachedSets(o.Ref())
	out.AttachedListenerSets = &n
	return out
}

func (s *state) gatewayAccepted(c *conditions, o *source.Object, k *gatewayv1.Gateway, good int) {
	bad := errorsOf(s.findings[o.Ref()])
	switch {
	case len(coded(bad, "UnsupportedAddress")) > 0:
		c.add(accepted, accepted, "UnsupportedAddress", words(bad))
	case len(coded(bad, "InvalidParameters")) > 0:
		c.add(accepted, accepted, "InvalidParameters", words(bad))
	case len(bad) > 0:
		c.add(accepted, accepted, invalid, words(bad))
	case good == 0:
		c.add(accepted, accepted, listenersBad, "no listener is in force")
	case good < len(k.Spec.Listeners):
		c.add(accepted, listenersBad, "", fmt.Sprintf("%d of %d listeners are in force", good, len(k.Spec.Listeners)))
	default:
		c.add(accepted, accepted, "", "")
	}
}

// gatewayProgrammed says whether a gateway's workloads serve it, and gives the addresses at which they do.
func (s *state) gatewayProgrammed(c *conditions, o *source.Object, k *gatewayv1.Gateway, good int) []gatewayv1.GatewayStatusAddress {
	addresses, unusable := s.usable(k.Spec.Addresses)
	switch {
	case s.gateways[o.Ref()] == nil || good == 0:
		c.add(programmed, programmed, invalid, "it is not in force")
		return nil
	case len(unusable) > 0:
		c.add(programmed, programmed, string(gatewayv1.GatewayReasonAddressNotUsable), "the ingress gateway does not have the address "+strings.Join(unusable, ", "))
	case len(addresses) == 0:
		c.add(programmed, programmed, string(gatewayv1.GatewayReasonAddressNotAssigned), "no ingress gateway with an address is running")
	default:
		c.add(programmed, programmed, "", "")
	}
	return addresses
}

func (s *state) gatewayResolved(c *conditions, o *source.Object, listeners bool) {
	const field = "spec.tls.backend.clientCertificateRef"
	bad := coded(s.within(o.Ref(), field), "RefNotPermitted", string(gatewayv1.GatewayReasonInvalidClientCertificateRef))
	switch {
	case len(bad) > 0:
		c.add(resolvedRefs, resolvedRefs, bad[0].Code, words(bad))
	case listeners:
		c.add(resolvedRefs, resolvedRefs, string(gatewayv1.GatewayReasonListenersNotResolved), "a listener refers to what is not to be had")
	default:
		c.add(resolvedRefs, resolvedRefs, "", "")
	}
}

// attachedSets counts the ListenerSets that are in force at a Gateway.
func (s *state) attachedSets(gateway model.Ref) int32 {
	n := int32(0)
	for _, o := range s.in.Objects {
		k, ok := o.Kube.(*gatewayv1.ListenerSet)
		if !ok || s.rootOf(k) != gateway || s.gateways[o.Ref()] == nil {
			continue
		}
		if st := s.listenerSet(o, k); st != nil && st.Conditions[0].Status == "True" {
			n++
		}
	}
	return n
}

func (s *state) rootOf(k *gatewayv1.ListenerSet) model.Ref {
	return model.Ref{Kind: "Gateway.k8s", Namespace: parts.NamespaceOr(k.Spec.ParentRef.Namespace, k.Namespace), Name: string(k.Spec.ParentRef.Name)}
}

// parentOf gives the Gateway of a ListenerSet, if it is ours.
func (s *state) parentOf(k *gatewayv1.ListenerSet) *gatewayv1.Gateway {
	if o := s.objects[s.rootOf(k)]; o != nil {
		if g, ok := o.Kube.(*gatewayv1.Gateway); ok && ours(s.controller(string(g.Spec.GatewayClassName))) {
			return g
		}
	}
	return nil
}

func (s *state) listenerSet(o *source.Object, k *gatewayv1.ListenerSet) *gatewayv1.ListenerSetStatus {
	g := s.parentOf(k)
	if g == nil {
		return nil
	}
	out := &gatewayv1.ListenerSetStatus{}
	c := conditions{generation: o.GetGeneration()}
	notAllowed := coded(s.findings[o.Ref()], string(gatewayv1.ListenerSetReasonNotAllowed))
	bad := errorsOf(s.findings[o.Ref()])
	refuse := func(reason, message string) *gatewayv1.ListenerSetStatus {
		c.add(accepted, accepted, reason, message)
		c.add(programmed, programmed, reason, message)
		out.Conditions = c.list
		return out
	}
	switch {
	case len(notAllowed) > 0:
		return refuse(string(gatewayv1.ListenerSetReasonNotAllowed), words(notAllowed))
	case len(bad) > 0:
		return refuse(invalid, words(bad))
	case s.gateways[s.rootOf(k)] == nil:
		return refuse(string(gatewayv1.ListenerSetReasonParentNotAccepted), "its Gateway is not in force")
	}
	good := 0
	list := gatewayapi.SetListeners(k)
	for i := range list {
		l := s.listener(o, g, &list[i], parts.At("spec.listeners", i))
		out.Listeners = append(out.Listeners, gatewayv1.ListenerEntryStatus(l.ListenerStatus))
		if l.accepted && l.resolved {
			good++
		}
	}
	switch {
	case good == 0:
		return refuse(listenersBad, "no listener is in force")
	case good < len(list):
		c.add(accepted, listenersBad, "", fmt.Sprintf("%d of %d listeners are in force", good, len(list)))
	default:
		c.add(accepted, accepted, "", "")
	}
	c.add(programmed, programmed, "", "")
	out.Conditions = c.list
	return out
}

// listenerStatus is a listener's, with what the object's own conditions depend on.
type listenerStatus struct {
	gatewayv1.ListenerStatus
	accepted, resolved bool
}

// listener judges one of an object's listeners, at a field of it; g is the Gateway that it belongs to.
func (s *state) listener(o *source.Object, g *gatewayv1.Gateway, l *gatewayv1.Listener, field string) listenerStatus {
	at := place{o.Ref(), string(l.Name)}
	out := listenerStatus{ListenerStatus: gatewayv1.ListenerStatus{Name: l.Name, AttachedRoutes: int32(len(s.attached[at])), SupportedKinds: []gatewayv1.RouteGroupKind{}}}
	kinds, _ := gatewayapi.RouteKinds(l)
	for _, k := range kinds {
		group := gatewayv1.Group(source.GroupGateway)
		out.SupportedKinds = append(out.SupportedKinds, gatewayv1.RouteGroupKind{Group: &group, Kind: gatewayv1.Kind(k)})
	}
	c := conditions{generation: o.GetGeneration()}
	conflict := coded(s.within(o.Ref(), field), gatewayapi.HostnameConflict, gatewayapi.ProtocolConflict)
	reason, message := s.listenerAccepted(o, field, conflict)
	c.add(accepted, accepted, reason, message)
	unresolved, why := s.listenerResolved(o, g, l, field)
	out.accepted, out.resolved = reason == "", unresolved == ""
	switch {
	case len(conflict) > 0:
		c.add(programmed, programmed, conflict[0].Code, words(conflict))
	case !out.accepted || !s.served(at):
		c.add(programmed, programmed, invalid, "it is not in force")
	default:
		c.add(programmed, programmed, "", "")
	}
	c.add(resolvedRefs, resolvedRefs, unresolved, why)
	if len(conflict) > 0 {
		c.put(conflicted, "True", conflict[0].Code, words(conflict))
	} else {
		c.put(conflicted, "False", string(gatewayv1.ListenerReasonNoConflicts), "")
	}
	out.Conditions = c.list
	return out
}

// refusals are the codes of findings that leave a listener out, with the reasons that the API has for them.
var refusals = map[string]string{
	gatewayapi.UnsupportedProtocol: gatewayapi.UnsupportedProtocol, gatewayapi.UnsupportedValue: gatewayapi.UnsupportedValue,
	"PortCollision": string(gatewayv1.ListenerReasonPortUnavailable), "NoValidCACertificate": "NoValidCACertificate",
}

// listenerAccepted gives why a listener is not accepted; nothing when it is.
func (s *state) listenerAccepted(o *source.Object, field string, conflict []model.Finding) (reason, message string) {
	if len(conflict) > 0 {
		return conflict[0].Code, words(conflict)
	}
	found := s.within(o.Ref(), field)
	for _, f := range found {
		if reason := refusals[f.Code]; reason != "" && f.Severity == model.Warning {
			return reason, words([]model.Finding{f})
		}
	}
	if bad := errorsOf(found); len(bad) > 0 {
		return gatewayapi.UnsupportedValue, words(bad)
	}
	if s.gateways[o.Ref()] == nil {
		return string(gatewayv1.ListenerReasonPending), "the " + o.Kind.Name + " is not in force"
	}
	return "", ""
}

// listenerResolved gives why a listener's references are not resolved; nothing when they are.
func (s *state) listenerResolved(o *source.Object, g *gatewayv1.Gateway, l *gatewayv1.Listener, field string) (reason, message string) {
	if bad := coded(s.within(o.Ref(), field), gatewayapi.InvalidRouteKinds); len(bad) > 0 {
		return gatewayapi.InvalidRouteKinds, words(bad)
	}
	certificates := coded(s.within(o.Ref(), field+".tls"), "RefNotPermitted", gatewayapi.InvalidCertificate, "CredentialNotFound", "CredentialInvalid")
	if len(certificates) > 0 {
		if certificates[0].Code == "RefNotPermitted" {
			return "RefNotPermitted", words(certificates)
		}
		return gatewayapi.InvalidCertificate, words(certificates)
	}
	v, at := gatewayapi.FrontendValidation(g, l.Port)
	if v == nil || l.Protocol != gatewayv1.HTTPSProtocolType {
		return "", ""
	}
	root := model.Ref{Kind: "Gateway.k8s", Namespace: g.Namespace, Name: g.Name}
	authorities := coded(s.within(root, at+".caCertificateRefs"), "RefNotPermitted", string(gatewayv1.ListenerReasonInvalidCACertificateRef),
		string(gatewayv1.ListenerReasonInvalidCACertificateKind))
	if len(authorities) > 0 {
		return authorities[0].Code, words(authorities)
	}
	return "", ""
}

// served reports whether connections to a listener can succeed: it is open, and has a certificate where it needs one.
func (s *state) served(at place) bool {
	g := s.gateways[at.owner]
	return g != nil && slices.ContainsFunc(g.Servers, func(v model.Server) bool {
		if v.Name != at.section {
			return false
		}
		t := v.TLS
		return t == nil || t.Mode == model.TLSPassthrough || t.Mode == model.TLSIstioMutual || len(t.Certificate) > 0
	})
}
