package local

import (
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/status"
)

const classAndRule = `apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: mine}
spec: {controllerName: weft.dev/gateway-controller}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec: {hosts: [reviews], http: [{directResponse: {status: 200}}]}
`

// TestDocumentsShowTheirStatus reads what get prints again, as a user may apply it, and asks twice: times stay.
func TestDocumentsShowTheirStatus(t *testing.T) {
	objects, findings := source.Decode(source.LayerFile, "in.yaml", []byte(classAndRule))
	mesh, found := compile.Compile(compile.Input{Objects: objects})
	in := status.Input{Objects: objects, Mesh: mesh, Findings: append(findings, found...)}
	told := statuses{}
	first := told.now(in)
	for _, o := range objects {
		text := withStatus(document(o), first[o.Key()])
		if text == document(o) {
			t.Errorf("%s: no status in\n%s", o.Key(), text)
		}
		if _, findings := source.Decode(source.LayerApplied, "again.yaml", []byte(text)); len(findings) > 0 {
			t.Errorf("%s: %v\n%s", o.Key(), findings, text)
		}
		if again := withStatus(text, first[o.Key()]); again != text {
			t.Errorf("%s: a status is written twice", o.Key())
		}
	}
	for key, s := range told.now(in) {
		if _, changed := status.Merge(first[key], s, time.Time{}, time.Now()); changed {
			t.Errorf("%s: changed without a reason", key)
		}
	}
}

// TestStatusesOfReplicas: what is kept for all control planes has the times that each of them tells.
func TestStatusesOfReplicas(t *testing.T) {
	objects, findings := source.Decode(source.LayerFile, "in.yaml", []byte(classAndRule))
	mesh, found := compile.Compile(compile.Input{Objects: objects})
	in := status.Input{Objects: objects, Mesh: mesh, Findings: append(findings, found...)}
	before := map[source.Key]status.Status{}
	for key, wanted := range status.Compute(in) {
		before[key], _ = status.Merge(nil, wanted, time.Time{}, time.Now().Add(-time.Hour))
	}
	told := statuses{kept: func(o *source.Object) status.Status { return before[o.Key()] }}
	now := told.now(in)
	if len(now) != 2 {
		t.Errorf("%d statuses", len(now))
	}
	for key, s := range now {
		if _, changed := status.Merge(before[key], s, time.Time{}, time.Now()); changed {
			t.Errorf("%s: another time than what is kept", key)
		}
	}
}
