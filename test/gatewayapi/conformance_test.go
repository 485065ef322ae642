package gatewayapi

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientset "k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/gateway-api/conformance/utils/config"
	"sigs.k8s.io/gateway-api/conformance/utils/grpc"
	"sigs.k8s.io/gateway-api/conformance/utils/roundtripper"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"

	"sigs.k8s.io/gateway-api/pkg/features"

	"github.com/weftmesh/weft/internal/control/status"
)

// noTraffic ends tests where they begin to send.
type noTraffic struct{}

func (noTraffic) CaptureRoundTrip(r roundtripper.Request) (*roundtripper.CapturedRequest, *roundtripper.CapturedResponse, error) {
	if r.T != nil {
		r.T.Skip("statuses held; requests are not sent")
	}
	return nil, nil, errors.New("requests are not sent")
}

func (noTraffic) SendRPC(t *testing.T, _ string, _ grpc.ExpectedResponse, _ time.Duration) (*grpc.Response, error) {
	t.Skip("statuses held; calls are not made")
	return nil, nil
}

func (noTraffic) Close() {}

// TestConformance has a cluster in memory.
func TestConformance(t *testing.T) {
	c := newCluster(t)
	for _, o := range prepared() {
		if err := c.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	conform(t, c, quick())
}

const class = "weft-conformance"

// prepared is what tests find: the class, and a gateway with an address.
func prepared() []client.Object {
	gateway := pod("istio-system", "ingress", map[string]string{"istio": "ingressgateway"})
	gateway.Annotations = map[string]string{"weft.dev/gateway": "true"}
	return []client.Object{
		gateway,
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "istio-system", Name: "ingress"},
			Spec:   corev1.ServiceSpec{Selector: gateway.Labels, ClusterIP: "10.96.0.99", Ports: []corev1.ServicePort{{Name: "http", Port: 80}}, Type: corev1.ServiceTypeLoadBalancer},
			Status: corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "127.0.0.1"}}}}},
		&gatewayv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: class}, Spec: gatewayv1.GatewayClassSpec{ControllerName: "weft.dev/gateway-controller"}},
	}
}

func conform(t *testing.T, c client.Client, within config.TimeoutConfig) {
	ip := gatewayv1.IPAddressType
	s, err := suite.NewConformanceTestSuite(suite.ConformanceOptions{
		Client: c, RoundTripper: noTraffic{}, GRPCClient: noTraffic{}, Clientset: clientset.NewClientset(), ManifestFS: []fs.FS{&conformance.Manifests},
		ConfigurableOptions: suite.ConfigurableOptions{
			GatewayClassName: class, SupportedFeatures: supported(), CleanupTestResources: true, AllowCRDsMismatch: true,
			DisableParallelTests: true, TimeoutConfig: within,
			UsableNetworkAddresses:   []gatewayv1.GatewaySpecAddress{{Type: &ip, Value: "127.0.0.1"}},
			UnusableNetworkAddresses: []gatewayv1.GatewaySpecAddress{{Type: &ip, Value: "192.0.2.99"}},
		}})
	if err != nil {
		t.Fatal(err)
	}
	s.Setup(t, tests.ConformanceTests)
	for _, test := range tests.ConformanceTests {
		t.Run(test.ShortName, func(t *testing.T) {
			if why := past[test.ShortName]; why != "" {
				t.Skip(why)
			}
			test.Run(t, s)
		})
	}
}

// past are tests that open connections by themselves after the statuses which they demand first: those held, when it was last looked
// at, and nothing else of them can.
var past = map[string]string{
	"HTTPRouteBackendProtocolWebSocket": "dials", "HTTPRouteRequestMirror": "reads the log of a pod", "HTTPRouteRequestMultipleMirrors": "reads the log of a pod",
	"TCPRouteMultipleRoutesAttachment": "dials", "TCPRouteParentRefAttachAll": "dials", "TCPRouteParentRefPortAndSectionName": "dials",
	"UDPRoute": "dials", "UDPRouteMultipleRoutesAttachment": "dials", "UDPRouteParentRefAttachAllListeners": "dials",
	"UDPRouteParentRefPortAndSectionName": "dials", "UDPRouteReferenceGrant": "dials", "UDPRouteWeightedRouting": "dials",
	"TCPRouteReferenceGrant": "dials", "TCPRouteWeightedRouting": "dials", "TLSRouteHostnameIntersection": "dials",
	"TLSRouteInvalidBackendRefNonexistent": "dials", "TLSRouteInvalidBackendRefUnknownKind": "dials",
	"TLSRouteMixedTerminationSameNamespace": "dials", "TLSRouteSimpleSameNamespace": "dials", "TLSRouteTerminateSimpleSameNamespace": "dials",
}

// quick are bounds for a control plane that has settled when a change returns.
func quick() config.TimeoutConfig {
	const all = time.Second
	return config.TimeoutConfig{CreateTimeout: all, DeleteTimeout: all, GetTimeout: all, GatewayMustHaveAddress: all, GatewayMustHaveCondition: all,
		GatewayStatusMustHaveListeners: all, GatewayListenersMustHaveConditions: all, ListenerSetMustHaveCondition: all,
		ListenerSetListenersMustHaveConditions: all, GWCMustBeAccepted: all, HTTPRouteMustNotHaveParents: all, HTTPRouteMustHaveCondition: all,
		TLSRouteMustHaveCondition: all, TCPRouteMustHaveCondition: all, UDPRouteMustHaveCondition: all, RouteMustHaveParents: all, ManifestFetchTimeout: all,
		MaxTimeToConsistency: all, NamespacesMustBeReady: all, RequestTimeout: all, LatestObservedGenerationSet: all, DefaultTestTimeout: all,
		DefaultPollInterval: 10 * time.Millisecond, RequiredConsecutiveSuccesses: 1}
}

// supported is what we say of ourselves. The usable address of the tests is our only one, so that they may ask for it.
func supported() []features.FeatureName {
	out := []features.FeatureName{"GatewayStaticAddresses"}
	for _, f := range status.Features {
		if strings.HasPrefix(string(f), "Mesh") {
			continue // their tests run commands in pods
		}
		out = append(out, features.FeatureName(f))
	}
	return out
}
