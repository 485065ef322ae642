package local

import (
	"errors"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/serve"
)

func TestConnectedSidecarsAreClients(t *testing.T) {
	known := &model.Workload{Namespace: "default", Name: "known"}
	mesh := &model.Mesh{Workloads: model.TableOf(map[string]*model.Workload{"default/known": known})}
	const id = "spiffe://cluster.local/ns/default/sa/shop"
	got := withClients(mesh, []serve.Client{
		{Namespace: "default", Name: "known", Identity: id, Role: "sidecar", State: serve.Synced},
		{Namespace: "default", Name: "joined", Identity: id, Role: "sidecar", State: serve.Refused, Labels: map[string]string{"app": "shop"}, Address: "10.0.0.7:4711"},
		{Namespace: "default", Name: "left", Identity: id, Role: "sidecar", State: serve.Gone},
		{Namespace: "default", Name: "edge", Identity: id, Role: "router", State: serve.Synced},
		{Namespace: "default", Identity: id, Role: "sidecar", State: serve.Synced}, // a plain client of gRPC
	})
	w := got.Workloads.Get("default/joined")
	if got.Workloads.Len() != 2 || got.Workloads.Get("default/known") != known || w == nil || w.ServiceAccount != "shop" || w.Labels["app"] != "shop" || len(w.Addresses) != 0 {
		t.Errorf("got %d workloads, %+v", got.Workloads.Len(), w)
	}
	if mesh.Workloads.Len() != 1 {
		t.Error("the mesh that is served was changed")
	}
}

// TestExplainOfNobody: a name that is no client's may be one that is not connected.
func TestExplainOfNobody(t *testing.T) {
	var invalid *api.InvalidError
	_, err := objects{bench{serving(t)}, &statuses{}}.Explain(t.Context(), api.ExplainRequest{From: "cli", URL: "http://b:80/"})
	if !errors.As(err, &invalid) || !strings.Contains(invalid.Message, `there is no workload, service or gateway "cli"`) || !strings.Contains(invalid.Hint, "while it is connected") {
		t.Errorf("%v %+v", err, invalid)
	}
}
