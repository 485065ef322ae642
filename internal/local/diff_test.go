package local

import (
	"context"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/control"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/explain"
)

// bench is a Host of a control plane alone.
type bench struct{ c *control.Control }

func (b bench) Ready(ctx context.Context) (*control.Control, error)               { return AwaitMesh(ctx, b.c) }
func (bench) Findings(*control.Control) []model.Finding                           { return nil }
func (bench) Inside(_ *model.Mesh, _, raw string) string                          { return raw }
func (bench) Virtual() bool                                                       { return true }
func (bench) Ejected(context.Context, *model.Workload) map[explain.Ejected]string { return nil }
func (bench) Addresses() []string                                                 { return nil }

const service = `apiVersion: v1
kind: Service
metadata: {name: a}
spec: {selector: {app: a}, ports: [{name: http, port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: a}
spec:
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: a}}
    spec: {containers: [{name: a, image: a, ports: [{containerPort: 80}]}]}
---
`

func meshConfig(lines string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    " + strings.ReplaceAll(lines, "\n", "\n    ") + "\n"
}

// TestDiffOfTheMeshConfig: the ConfigMap is where it is when the mesh is started, whatever root namespace it tells.
func TestDiffOfTheMeshConfig(t *testing.T) {
	o := objects{bench{serving(t)}, &statuses{}}
	documents := func(text string) []api.Document { return []api.Document{{Name: "in.yaml", Content: []byte(text)}} }
	const shop = "rootNamespace: shop\n"
	reply, err := o.Apply(t.Context(), api.ChangeRequest{Documents: documents(service + meshConfig(shop))})
	if err != nil || reply.Refused {
		t.Fatal(err, reply.Findings)
	}
	for lines, want := range map[string]string{
		shop + "defaultHttpRetryPolicy: {attempts: 5}": "retries 5 on",
		shop + "trustDomain: foo":                      "the trust domain of this mesh is",
		shop:                                           "no request behaves differently",
	} {
		d, err := o.Diff(t.Context(), api.DiffRequest{Documents: documents(meshConfig(lines))})
		said := d.Text
		for _, f := range d.Findings {
			said += f.Text
		}
		if err != nil || !strings.Contains(said, want) || d.Refused != strings.Contains(lines, "foo") {
			t.Errorf("%q: want %q, got %v %v\n%s", lines, want, err, d.Refused, said)
		}
	}
}
