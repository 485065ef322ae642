package control

import (
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/control/source"
)

// TestGatewayThatNothingServes is told when it is applied and as long as it is so, but not of the built-in gateway before it runs.
func TestGatewayThatNothingServes(t *testing.T) {
	c := start(t, t.TempDir())
	c.report(nil)
	gateway := func(name, label string) []*source.Object {
		t.Helper()
		objects, findings := source.Decode(source.LayerApplied, "g.yaml", []byte(`
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: `+name+`}
spec: {selector: {istio: `+label+`}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
`))
		if len(findings) > 0 {
			t.Fatal(findings)
		}
		return objects
	}
	if _, findings, err := c.Apply(t.Context(), gateway("usual", "ingressgateway")); err != nil || len(findings) != 0 {
		t.Fatal(findings, err)
	}
	const want = "Gateway.istio/default/odd: spec.selector: no workload has the labels istio=edge"
	_, findings, err := c.Apply(t.Context(), gateway("odd", "edge"))
	if err != nil || len(findings) != 1 || !strings.Contains(findings[0].String(), want) {
		t.Fatal(findings, err)
	}
	if f := c.Findings(); len(f) != 1 || !strings.Contains(f[0].String(), want) {
		t.Errorf("findings %v", f)
	}
	entry, _ := source.Decode(source.LayerApplied, "e.yaml", []byte(`
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: edge-1}
spec: {address: 10.0.0.5, serviceAccount: edge, labels: {istio: edge}}
`))
	if _, findings, err := c.Apply(t.Context(), append(entry, gateway("second", "edge")...)); err != nil || len(findings) != 0 {
		t.Fatal(findings, err)
	}
	if f := c.Findings(); len(f) != 0 {
		t.Errorf("findings %v, though the gateway is there", f)
	}
}
