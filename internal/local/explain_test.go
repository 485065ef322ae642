package local

import (
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/runtime"
)

// published is a bench whose port 80 is published as 18080.
type published struct{ bench }

func (published) Inside(_ *model.Mesh, _, raw string) string {
	return strings.Replace(raw, ":18080", ":80", 1)
}

// TestExplainOfPublishedPorts: the authority is what the client writes, whatever port that leads to.
func TestExplainOfPublishedPorts(t *testing.T) {
	o := objects{published{bench{serving(t)}}, &statuses{}}
	route := `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec:
  hosts: [a]
  http:
  - match: [{authority: {exact: "a:18080"}}]
    directResponse: {status: 211}
  - match: [{authority: {exact: "b:1"}}]
    directResponse: {status: 212}
  - directResponse: {status: 213}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: a-1}
spec: {address: 10.1.0.1, labels: {app: a}, serviceAccount: a}
`
	reply, err := o.Apply(t.Context(), api.ChangeRequest{Documents: []api.Document{{Name: "in.yaml", Content: []byte(service + route)}}})
	if err != nil || reply.Refused {
		t.Fatal(err, reply.Findings)
	}
	for want, req := range map[string]api.ExplainRequest{
		"=> 211": {From: "a", URL: "http://a:18080/"},
		"=> 212": {From: "a", URL: "http://a:18080/", Headers: []api.HeaderField{{Name: "host", Value: "b:1"}}},
		"=> 213": {From: "a", URL: "http://a:80/"},
	} {
		r, err := o.Explain(t.Context(), req)
		if err != nil || !strings.Contains(r.Text, want) {
			t.Errorf("%s: %v\n%s", want, err, r.Text)
		}
	}
}

// TestInside has a gateway named in all the ways in which explain knows it.
func TestInside(t *testing.T) {
	objects, findings := source.Decode(source.LayerFile, "in.yaml", []byte(`apiVersion: v1
kind: Pod
metadata: {name: a-1, labels: {app: a}}
spec: {containers: [{name: c, image: c}]}
status: {podIP: 10.1.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: gate-1, namespace: edge, labels: {app: gate}, annotations: {weft.dev/gateway: "true"}}
spec: {serviceAccountName: doors, containers: [{name: c, image: c}]}
status: {podIP: 10.1.0.2}
`))
	if len(findings) > 0 {
		t.Fatal(findings)
	}
	mesh, _ := compile.Compile(compile.Input{Objects: objects})
	ports := []runtime.Published{{Port: 53, UDP: true, Address: "127.0.0.1:15353"}, {Port: 443, Address: "127.0.0.1:23443"}}
	for from, gateway := range map[string]bool{"gate-1": true, "gate-1.edge": true, "edge/gate-1": true, "gate": true, "doors.edge": true,
		"gate-1.default": false, "a": false, "stranger": false} {
		for url, want := range map[string]string{"https://x:23443/y": "https://x:443/y", "udp://x:15353": "udp://x:53", "https://x:15353/y": "https://x:15353/y"} {
			if !gateway {
				want = url
			}
			if got := inside(mesh, from, url, ports); got != want {
				t.Errorf("%s from %s: %s, want %s", url, from, got, want)
			}
		}
	}
}
