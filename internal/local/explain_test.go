package local

import (
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/control/model"
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
