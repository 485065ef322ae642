package replica

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/control/source/etcd/etcdtest"
	"github.com/weftmesh/weft/internal/control/source/kube/kubetest"
)

const refusedRule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: NAME, namespace: default}\n" +
	"spec: {host: a.example, trafficPolicy: {loadBalancer: {simple: SOMETIMES}}}\n"

// from gives what a replica says that objects are from, by their names, when it has the number of them that are refused.
func (p *plane) from(t *testing.T, number int) map[string]string {
	t.Helper()
	from := map[string]string{}
	await(t, "what was refused", func() bool {
		all, err := p.client.Objects(t.Context(), api.Selection{})
		if err != nil {
			t.Fatal(err)
		}
		clear(from)
		for _, o := range all {
			if o.Refused {
				from[o.Name] = o.Source
			}
		}
		return len(from) >= number
	})
	return from
}

// TestRefusedAreFrom has an object refused in a file, one that somebody wrote into etcd, and one that `weft apply` did, of which etcd
// knows the file as well: an earlier release took it. What is not in a file can be deleted.
func TestRefusedAreFrom(t *testing.T) {
	server := etcdtest.Start(t)
	text := func(name string) string { return strings.ReplaceAll(refusedRule, "NAME", name) }
	const key = "networking.istio.io/DestinationRule/default/"
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, []byte(text("written")), 0o600); err != nil {
		t.Fatal(err)
	}
	for k, v := range map[string]string{"objects/" + key + "put": text("put"), "objects/" + key + "applied": text("applied"),
		"about/" + key + "applied": `{"file": "some/rules.yaml", "line": 3}`} {
		if _, err := server.Client.Put(t.Context(), "/weft/"+k, v); err != nil {
			t.Fatal(err)
		}
	}
	p := startPlane(t, program(t, "weft"), 20, "--etcd", server.Endpoint, "--source", file)
	want := map[string]string{"written": filepath.Base(filepath.Dir(file)) + "/rules.yaml:4", "put": "applied", "applied": "applied"}
	if got := p.from(t, len(want)); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, req := range []api.ChangeRequest{{Refs: []api.Ref{{Kind: "dr", Namespace: "default", Name: "put"}}}, {All: true}} {
		if r, err := p.client.Delete(t.Context(), req); err != nil || len(r.Changes) != 1 {
			t.Errorf("%+v: %+v %v", req, r, err)
		}
	}
	if all, err := p.client.Objects(t.Context(), api.Selection{}); err != nil || len(all) != 1 || all[0].Name != "written" {
		t.Errorf("%+v %v", all, err)
	}
}

// TestRefusedAreFromKubernetes has no file or line to tell.
func TestRefusedAreFromKubernetes(t *testing.T) {
	server := kubetest.Own(t)
	client, err := dynamic.NewForConfig(server.Config)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []struct {
		in   dynamic.ResourceInterface
		text string
	}{{client.Resource(crds), destinationRules}, {client.Resource(rules).Namespace("default"), strings.ReplaceAll(refusedRule, "NAME", "a")}} {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(o.text), &u.Object); err != nil {
			t.Fatal(err)
		}
		await(t, "the API server takes "+u.GetName(), func() bool {
			_, err := o.in.Apply(context.WithoutCancel(t.Context()), u.GetName(), u, metav1.ApplyOptions{FieldManager: "test", Force: true})
			return err == nil
		})
	}
	p := startPlane(t, program(t, "weft"), 21, "--kubeconfig", server.Kubeconfig(t))
	if got := p.from(t, 1); got["a"] != "kubernetes" {
		t.Errorf("got %v", got)
	}
}
