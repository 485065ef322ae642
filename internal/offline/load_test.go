package offline

import (
	"slices"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/api"
)

// TestEverythingIsSaidAtOnce has documents of the wrong shape beside others: what else is wrong with any of them is said too, and
// nothing that is there only because of the shape.
func TestEverythingIsSaidAtOnce(t *testing.T) {
	const text = `
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {ports: [{port: 9080, name: http}], clusterIP: 10.0.0.1}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  trafficPolicy:
    outlierDetection: {interval: 0s, baseEjectionTime: soon}
    conectionPool: {}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
  - {name: v2, labels: {version: v3}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, labels: {a b: c}}
spec:
  hosts: [reviews]
  http:
  - rout: []
  - route:
    - destination: {host: reviews, subset: v1}
      weight: -1
    timeout: 99999999h
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: other}
spec:
  hosts: [other.example]
  http:
  - route: [{destination: {host: reviews, subset: v1}}]
    fault: {delay: {fixedDelay: 1s, percentage: {value: 101}}}
  - route: [{destination: {host: reviews, subset: v9}}]
`
	a := Analyze([]api.Document{{Name: "a.yaml", Content: []byte(text)}}, Options{})
	var got []string
	for _, f := range a.Findings {
		if f.Severity != api.SeverityInfo {
			got = append(got, f.Object.Name+" "+f.Code+" "+f.Field)
		}
	}
	slices.Sort(got)
	want := []string{
		"other InvalidPercentage spec.http[0].fault.delay.percentage.value",
		"reviews DuplicateSubset spec.subsets[2].name",
		"reviews InvalidDuration spec.trafficPolicy.outlierDetection.interval",
		`reviews InvalidName metadata.labels["a b"]`,
		"reviews InvalidValue spec.http[1].timeout",
		"reviews InvalidValue spec.trafficPolicy.outlierDetection.baseEjectionTime",
		"reviews InvalidWeight spec.http[1].route[0].weight",
		"reviews UnknownField spec.http[0].rout",
		"reviews UnknownField spec.trafficPolicy.conectionPool",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if a.Objects != 2 {
		t.Errorf("%d objects are accepted by themselves, want 2", a.Objects)
	}
}
