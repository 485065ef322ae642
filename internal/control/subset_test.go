package control

import (
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/control/source"
)

// TestSubsetThatNothingIsIn is told where a route leads there: when the rule is applied, by a trial of that, and until a workload with its
// labels is there or asked for.
func TestSubsetThatNothingIsIn(t *testing.T) {
	c := start(t, t.TempDir())
	c.report(map[string]string{"10.78.1.2": "v2"})
	rule := decode(t, source.LayerApplied, `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: default}
spec: {host: reviews, subsets: [{name: v2, labels: {version: v2}}, {name: v9, labels: {version: v9}}]}
`)
	if _, findings, err := c.Apply(t.Context(), rule); err != nil || len(findings) != 0 {
		t.Fatal(findings, err, "though nothing leads to the subset")
	}
	route := decode(t, source.LayerApplied, `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default}
spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v9}}]}]}
`)
	const want = `DestinationRule/default/reviews: spec.subsets[1].labels: no endpoint of reviews.default.svc.cluster.local has the labels version=v9: what VirtualService/default/reviews leads to subset "v9" gets 503`
	if _, findings, err := c.DryRun(route); err != nil || len(findings) != 1 || !strings.Contains(findings[0].String(), want) {
		t.Fatal(findings, err)
	}
	if _, findings, err := c.Apply(t.Context(), route); err != nil || len(findings) != 1 || !strings.Contains(findings[0].String(), want) {
		t.Fatal(findings, err)
	}
	said := func() (list []string) {
		for _, f := range c.Findings() {
			if f.Code == "SubsetEmpty" {
				list = append(list, f.String())
			}
		}
		return list
	}
	if f := said(); len(f) != 1 || !strings.Contains(f[0], want) {
		t.Fatalf("findings %v", f)
	}
	c.report(map[string]string{"10.78.1.2": "v2", "10.78.1.9": "v9"})
	if f := said(); len(f) != 0 {
		t.Errorf("findings %v, though there is a pod", f)
	}
	c.report(map[string]string{"10.78.1.2": "v2"})
	if f := said(); len(f) != 1 {
		t.Errorf("findings %v, though the pod is gone", f)
	}
	if _, findings, err := c.Apply(t.Context(), decode(t, source.LayerApplied, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews-v9, namespace: default}
spec:
  selector: {matchLabels: {app: reviews, version: v9}}
  template: {metadata: {labels: {app: reviews, version: v9}}, spec: {containers: [{name: app, image: reviews, command: [reviews]}]}}
`)); err != nil || len(findings) != 0 {
		t.Fatal(findings, err)
	}
	if f := said(); len(f) != 0 {
		t.Errorf("findings %v, though a Deployment is about to have pods", f)
	}
}
