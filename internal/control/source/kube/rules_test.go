package kube

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/source/kube/kubetest"
)

// plurals of the kinds of the examples, with their versions.
var plurals = map[string][2]string{
	"HTTPRoute": {gatewayAPI, "httproutes"}, "GRPCRoute": {gatewayAPI, "grpcroutes"}, "TLSRoute": {gatewayAPI, "tlsroutes"}, "TCPRoute": {gatewayAPI, "tcproutes"}, "UDPRoute": {gatewayAPI, "udproutes"},
	"Gateway.k8s": {gatewayAPI, "gateways"}, "ListenerSet": {gatewayAPI, "listenersets"}, "BackendTLSPolicy": {gatewayAPI, "backendtlspolicies"},
	"ReferenceGrant": {"gateway.networking.k8s.io/v1", "referencegrants"}, "Ingress": {ingressAPI, "ingresses"}, "Service": {"v1", "services"},
	"VirtualService": {istioAPI, "virtualservices"}, "DestinationRule": {istioAPI, "destinationrules"}, "Gateway": {istioAPI, "gateways"},
	"ServiceEntry": {istioAPI, "serviceentries"}, "WorkloadEntry": {istioAPI, "workloadentries"}, "WorkloadGroup": {istioAPI, "workloadgroups"},
	"Sidecar": {istioAPI, "sidecars"}, "ProxyConfig": {"networking.istio.io/v1beta1", "proxyconfigs"},
	"PeerAuthentication": {"security.istio.io/v1", "peerauthentications"}, "AuthorizationPolicy": {"security.istio.io/v1", "authorizationpolicies"},
}

// parentOfSets is the Gateway that examples of ListenerSets name.
const parentOfSets = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: default}
spec: {gatewayClassName: weft, allowedListeners: {namespaces: {from: Same}}, listeners: [{name: a, port: 8080, protocol: HTTP}]}
`

// leftOut are codes of warnings of what is left out of an object by itself.
var leftOut = map[string]bool{"IgnoredMatch": true, "UnsupportedProtocol": true, "HostnameConflict": true,
	"RouteUnreachable": true} // older versions of TLSRoute, TCPRoute and UDPRoute may have several rules

// TestServerRefusesNoMoreThanWeDo holds the examples of rules that package compile has against a real server with the definitions of
// the Gateway API and of Istio: what it refuses is an error for us as well, so that files mean what they mean in a cluster.
func TestServerRefusesNoMoreThanWeDo(t *testing.T) {
	c := newCluster(t, kubetest.Own(t))
	c.definitions(t)
	text, err := os.ReadFile("../../compile/testdata/rules.txt")
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for line := range strings.Lines(string(text)) {
		rule, example, ok := strings.Cut(strings.TrimSpace(line), " :: ")
		kind, spec, _ := strings.Cut(example, " ")
		at, known := plurals[kind]
		if !ok || !known {
			continue
		}
		spec, accepted, _ := strings.Cut(spec, " :: ")
		kind, _, _ = strings.Cut(kind, ".")
		doc := "apiVersion: " + at[0] + "\nkind: " + kind + "\nmetadata: {name: x, namespace: default}\nspec: " + spec + "\n"
		no := c.tries(t, at[0], at[1], doc)
		if no == nil {
			continue
		}
		refused++
		objects, findings := source.Decode(source.LayerFile, "x.yaml", []byte(doc+"---\n"+parentOfSets))
		_, more := compile.Compile(compile.Input{Objects: objects})
		findings = append(findings, more...)
		if accepted == "" && !source.HasErrors(findings) && !slices.ContainsFunc(findings, func(f model.Finding) bool { return leftOut[f.Code] }) {
			t.Errorf("%s: %s\nthe server: %v\nours: %v", rule, example, no, findings)
		}
	}
	t.Logf("the server refuses %d of the examples", refused)
}

// tries gives why the server would not take an object; nil if it would.
func (c *cluster) tries(t *testing.T, groupVersion, plural, doc string) error {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(doc), &u.Object); err != nil {
		return err
	}
	_, err := c.resource(groupVersion, plural, "default").Create(context.WithoutCancel(t.Context()), u,
		metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict})
	return err
}
