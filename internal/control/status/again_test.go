package status

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

const served = `
apiVersion: v1
kind: Service
metadata: {name: a, namespace: default}
spec: {ports: [{name: http, port: 80}], selector: {app: a}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: route, namespace: default}
spec: {parentRefs: [{kind: Service, group: "", name: a}], rules: [{backendRefs: [{name: a, port: 80}]}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: rule, namespace: default}
spec: {host: a}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: entry, namespace: default}
spec: {hosts: [x.example], ports: [{number: 80, name: http}]}
`

// TestComputerRepeats: what did not change is said by the same Status, whatever else changed, and a Computer never says anything else
// than Compute.
func TestComputerRepeats(t *testing.T) {
	objects, findings := source.Text{Layer: source.LayerFile, File: "a.yaml"}.Decode([]byte(served))
	if source.HasErrors(findings) {
		t.Fatal(findings)
	}
	input := func(objects []*source.Object, more ...model.Finding) Input {
		mesh, findings := compile.Compile(compile.Input{Objects: objects})
		return Input{Objects: objects, Mesh: mesh, Findings: append(findings, more...)}
	}
	var c Computer
	last := map[source.Key]Status{}
	step := func(in Input, changed ...string) {
		t.Helper()
		got := c.Compute(in)
		if diff := cmp.Diff(Compute(in), got, protocmp.Transform()); diff != "" {
			t.Errorf("not what Compute says (-want +got):\n%s", diff)
		}
		var differ []string
		for _, o := range in.Objects {
			if k := o.Key(); got[k] != last[k] {
				differ = append(differ, k.Name)
			}
		}
		if diff := cmp.Diff(changed, differ); diff != "" {
			t.Errorf("statuses that are others (-want +got):\n%s", diff)
		}
		last = got
	}
	step(input(objects), "route", "rule", "entry")
	step(input(objects))
	wrong := model.Finding{Severity: model.Error, Code: "Wrong", Object: objects[2].Ref(), Message: "it is wrong"}
	step(input(objects, wrong), "rule")
	wrong.Message = "it is still wrong"
	step(input(objects, wrong), "rule")
	step(input(objects), "rule")
	step(input(objects[1:]), "route", "rule") // which lead nowhere without the Service
	step(input(objects), "route", "rule")
	next := objects[3].Kube.DeepCopyObject().(source.Kube)
	next.SetGeneration(2)
	step(input([]*source.Object{objects[0], objects[1], objects[2], {Kube: next, Kind: objects[3].Kind, Origin: objects[3].Origin}}), "entry")
}
