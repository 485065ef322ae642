package api

import "strings"

// shortKinds are the abbreviations that kubectl's users know.
var shortKinds = map[string]string{
	"vs": "virtualservice", "dr": "destinationrule", "gw": "gateway", "se": "serviceentry", "we": "workloadentry",
	"pa": "peerauthentication", "ap": "authorizationpolicy", "svc": "service", "deploy": "deployment", "sa": "serviceaccount",
	"ing": "ingress", "po": "pod", "cm": "configmap", "ns": "namespace", "ep": "endpointslice", "wg": "workloadgroup",
	"gtw": "gateway", "gc": "gatewayclass", "refgrant": "referencegrant", "btlspolicy": "backendtlspolicy", "lset": "listenerset",
}

// KindMatches reports whether a kind is the one that was asked for: its name in any case, singular or plural, with or without its
// group, or kubectl's abbreviation.
func KindMatches(kind, asked string) bool {
	asked, _, _ = strings.Cut(strings.ToLower(asked), ".")
	if full, ok := shortKinds[asked]; ok {
		asked = full
	}
	kind = strings.ToLower(kind)
	return kind == asked || kind+"s" == asked || kind+"es" == asked || strings.TrimSuffix(kind, "y")+"ies" == asked
}

// Kinds lists the kinds of objects that a mesh may hold.
func Kinds() []string {
	return []string{"AuthorizationPolicy", "BackendTLSPolicy", "ConfigMap", "Deployment", "DestinationRule", "EndpointSlice",
		"GRPCRoute", "Gateway", "GatewayClass", "HTTPRoute", "Ingress", "IngressClass", "ListenerSet", "Namespace",
		"PeerAuthentication", "Pod", "ProxyConfig", "RateLimit", "ReferenceGrant", "Secret", "Service", "ServiceAccount", "ServiceEntry",
		"Sidecar", "TCPRoute", "TLSRoute", "UDPRoute", "VirtualService", "WorkloadEntry", "WorkloadGroup"}
}
