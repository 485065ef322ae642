package source

import (
	"reflect"
	"slices"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	networkingbeta "istio.io/client-go/pkg/apis/networking/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/source/weftapi"
)

// API groups.
const (
	GroupNetworking = "networking.istio.io"
	GroupSecurity   = "security.istio.io"
	GroupGateway    = "gateway.networking.k8s.io"
	GroupIngress    = "networking.k8s.io"
	GroupApps       = "apps"
	GroupDiscovery  = "discovery.k8s.io"
)

// Kind is a kind of object that the mesh reads. All its versions decode into one type.
type Kind struct {
	Group, Name   string
	Versions      []string // the first is the preferred one
	ClusterScoped bool
	// LabelName asks for a DNS label rather than a subdomain as the object's name.
	LabelName bool
	New       func() Kube
}

// RefName is how findings and the model call the kind: its name, save that the two kinds of Gateway are told apart.
func (k *Kind) RefName() string {
	switch {
	case k.Name == "Gateway" && k.Group == GroupNetworking:
		return "Gateway.istio"
	case k.Name == "Gateway":
		return "Gateway.k8s"
	}
	return k.Name
}

// APIVersion gives the preferred "group/version".
func (k *Kind) APIVersion() string {
	if k.Group == "" {
		return k.Versions[0]
	}
	return k.Group + "/" + k.Versions[0]
}

var (
	istioNetworking = []string{"v1", "v1beta1", "v1alpha3"}
	istioSecurity   = []string{"v1", "v1beta1"}
	gatewayAPI      = []string{"v1", "v1beta1"}
	onlyV1          = []string{"v1"}
)

// kinds lists what is read. It is never changed.
var kinds = []*Kind{
	{Name: "Service", Versions: onlyV1, LabelName: true, New: func() Kube { return &corev1.Service{} }},
	{Name: "ServiceAccount", Versions: onlyV1, New: func() Kube { return &corev1.ServiceAccount{} }},
	{Name: "Pod", Versions: onlyV1, New: func() Kube { return &corev1.Pod{} }},
	{Name: "Secret", Versions: onlyV1, New: func() Kube { return &corev1.Secret{} }},
	{Name: "ConfigMap", Versions: onlyV1, New: func() Kube { return &corev1.ConfigMap{} }},
	{Name: "Namespace", Versions: onlyV1, ClusterScoped: true, LabelName: true, New: func() Kube { return &corev1.Namespace{} }},
	{Group: GroupApps, Name: "Deployment", Versions: onlyV1, New: func() Kube { return &appsv1.Deployment{} }},
	{Group: GroupDiscovery, Name: "EndpointSlice", Versions: onlyV1, New: func() Kube { return &discoveryv1.EndpointSlice{} }},
	{Group: GroupIngress, Name: "Ingress", Versions: onlyV1, New: func() Kube { return &networkingv1.Ingress{} }},
	{Group: GroupIngress, Name: "IngressClass", Versions: onlyV1, ClusterScoped: true,
		New: func() Kube { return &networkingv1.IngressClass{} }},
	{Group: GroupNetworking, Name: "VirtualService", Versions: istioNetworking, New: func() Kube { return &networking.VirtualService{} }},
	{Group: GroupNetworking, Name: "DestinationRule", Versions: istioNetworking, New: func() Kube { return &networking.DestinationRule{} }},
	{Group: GroupNetworking, Name: "Gateway", Versions: istioNetworking, New: func() Kube { return &networking.Gateway{} }},
	{Group: GroupNetworking, Name: "ServiceEntry", Versions: istioNetworking, New: func() Kube { return &networking.ServiceEntry{} }},
	{Group: GroupNetworking, Name: "WorkloadEntry", Versions: istioNetworking, New: func() Kube { return &networking.WorkloadEntry{} }},
	{Group: GroupNetworking, Name: "WorkloadGroup", Versions: istioNetworking, New: func() Kube { return &networking.WorkloadGroup{} }},
	{Group: GroupNetworking, Name: "ProxyConfig", Versions: []string{"v1beta1"}, New: func() Kube { return &networkingbeta.ProxyConfig{} }},
	{Group: GroupNetworking, Name: "Sidecar", Versions: istioNetworking, New: func() Kube { return &networking.Sidecar{} }},
	{Group: GroupSecurity, Name: "PeerAuthentication", Versions: istioSecurity, New: func() Kube { return &security.PeerAuthentication{} }},
	{Group: GroupSecurity, Name: "AuthorizationPolicy", Versions: istioSecurity, New: func() Kube { return &security.AuthorizationPolicy{} }},
	{Group: weftapi.GroupNetworking, Name: "RateLimit", Versions: []string{weftapi.Version}, New: func() Kube { return &weftapi.RateLimit{} }},
	{Group: GroupGateway, Name: "GatewayClass", Versions: gatewayAPI, ClusterScoped: true,
		New: func() Kube { return &gatewayv1.GatewayClass{} }},
	{Group: GroupGateway, Name: "Gateway", Versions: gatewayAPI, New: func() Kube { return &gatewayv1.Gateway{} }},
	{Group: GroupGateway, Name: "HTTPRoute", Versions: gatewayAPI, New: func() Kube { return &gatewayv1.HTTPRoute{} }},
	{Group: GroupGateway, Name: "GRPCRoute", Versions: onlyV1, New: func() Kube { return &gatewayv1.GRPCRoute{} }},
	{Group: GroupGateway, Name: "TLSRoute", Versions: []string{"v1", "v1alpha3", "v1alpha2"}, New: func() Kube { return &gatewayv1.TLSRoute{} }},
	{Group: GroupGateway, Name: "TCPRoute", Versions: []string{"v1", "v1alpha2"}, New: func() Kube { return &gatewayv1.TCPRoute{} }},
	{Group: GroupGateway, Name: "UDPRoute", Versions: []string{"v1", "v1alpha2"}, New: func() Kube { return &gatewayv1.UDPRoute{} }},
	{Group: GroupGateway, Name: "ListenerSet", Versions: onlyV1, New: func() Kube { return &gatewayv1.ListenerSet{} }},
	{Group: GroupGateway, Name: "BackendTLSPolicy", Versions: []string{"v1", "v1alpha3"}, New: func() Kube { return &gatewayv1.BackendTLSPolicy{} }},
	{Group: GroupGateway, Name: "ReferenceGrant", Versions: gatewayAPI, New: func() Kube { return &gatewayv1.ReferenceGrant{} }},
}

// Kinds lists the kinds that the mesh reads.
func Kinds() []*Kind { return slices.Clone(kinds) }

// LookupKind finds a kind by group and name; nil when the mesh does not read it.
func LookupKind(group, name string) *Kind {
	for _, k := range kinds {
		if k.Group == group && k.Name == name {
			return k
		}
	}
	return nil
}

// kindsByType finds a kind by the type of its objects. It is never changed.
var kindsByType = func() map[reflect.Type]*Kind {
	m := map[reflect.Type]*Kind{}
	for _, k := range kinds {
		m[reflect.TypeOf(k.New())] = k
	}
	m[reflect.TypeFor[*Pod]()] = LookupKind("", "Pod")
	return m
}()
