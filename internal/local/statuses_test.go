package local

import (
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

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
		text := withStatus(o, first[o.Key()])
		if before, _, ok := strings.Cut(text, "status:\n"); !ok || before != document(o) {
			t.Errorf("%s: no status below what was written\n%s", o.Key(), text)
		}
		again, findings := source.Decode(source.LayerApplied, "again.yaml", []byte(text))
		if len(findings) > 0 || len(again) != 1 {
			t.Fatalf("%s: %v\n%s", o.Key(), findings, text)
		}
		if twice := withStatus(again[0], first[o.Key()]); strings.Count(twice, "\nstatus:") != 1 {
			t.Errorf("%s: a status is written twice:\n%s", o.Key(), twice)
		}
	}
	for key, s := range told.now(in) {
		if _, changed := status.Merge(first[key], s, time.Time{}, time.Now()); changed {
			t.Errorf("%s: changed without a reason", key)
		}
	}
}

// TestStatusesThatFilesBring are not shown: whatever the form of the file, the status is the mesh's own, or none for kinds without.
func TestStatusesThatFilesBring(t *testing.T) {
	const old = `status: {conditions: [{type: Reconciled, status: "False", reason: Old, message: ""}]}`
	const head = "apiVersion: networking.istio.io/v1\nkind: VirtualService\n"
	const spec = "spec: {hosts: [r], http: [{directResponse: {status: 200}}]}\n"
	const deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n" +
		"spec: {selector: {matchLabels: {app: d}}, template: {metadata: {labels: {app: d}}, spec: {containers: [{name: d, image: d}]}}}\n"
	for name, c := range map[string]struct{ text, kept string }{
		"first":        {head + old + "\nmetadata: {name: r} # mine\n" + spec, "# mine"},
		"last":         {head + "metadata: {name: r}\n" + spec + old + "\n", spec},
		"flow":         {"{" + strings.ReplaceAll(head, "\n", ", ") + old + ", metadata: {name: r}, " + spec + "}\n", "hosts: [r]"},
		"json":         {`{"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "r"}, "spec": {"hosts": ["r"], "http": [{"directResponse": {"status": 200}}]}}`, `"status": 200`},
		"indented":     {"  apiVersion: networking.istio.io/v1\n  kind: VirtualService\n  metadata: {name: r}\n  " + spec, strings.TrimSpace(spec)},
		"kind without": {deployment + "status: {conditions: [{type: Old, status: \"True\"}]}\n", deployment},
		"kind read":    {"apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{name: http, port: 80}]}\nstatus: {loadBalancer: {ingress: [{ip: 1.2.3.4}]}}\n", "ip: 1.2.3.4"},
	} {
		objects, findings := source.Decode(source.LayerFile, "in.yaml", []byte(c.text))
		if len(findings) > 0 || len(objects) != 1 {
			t.Fatalf("%s: %v", name, findings)
		}
		mesh, found := compile.Compile(compile.Input{Objects: objects})
		told := (&statuses{}).now(status.Input{Objects: objects, Mesh: mesh, Findings: found})[objects[0].Key()]
		text := withStatus(objects[0], told)
		var doc struct {
			Kind   string
			Status map[string]any
		}
		if err := yaml.Unmarshal([]byte(text), &doc); err != nil || strings.Contains(text, "Old") || !strings.Contains(text, c.kept) ||
			(len(doc.Status) > 0) != (doc.Kind != "Deployment") {
			t.Errorf("%s: %v\n%s", name, err, text)
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
