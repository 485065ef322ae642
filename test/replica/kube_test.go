package replica

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"github.com/weftmesh/weft/internal/control/source/kube/kubetest"
)

const destinationRules = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: destinationrules.networking.istio.io}
spec:
  group: networking.istio.io
  names: {kind: DestinationRule, plural: destinationrules, singular: destinationrule, listKind: DestinationRuleList}
  scope: Namespaced
  versions:
    - name: v1
      served: true
      storage: true
      subresources: {status: {}}
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

var (
	crds   = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	rules  = schema.GroupVersionResource{Group: "networking.istio.io", Version: "v1", Resource: "destinationrules"}
	leases = schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}
)

// TestOneWritesStatuses has two control planes on one Kubernetes: one of them writes statuses, the other one goes on when it is killed,
// and what was written is not written again.
func TestOneWritesStatuses(t *testing.T) {
	server := kubetest.Own(t)
	client, err := dynamic.NewForConfig(server.Config)
	if err != nil {
		t.Fatal(err)
	}
	put := func(r dynamic.ResourceInterface, text string) {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
			t.Fatal(err)
		}
		await(t, "the API server takes "+u.GetName(), func() bool {
			_, err = r.Apply(t.Context(), u.GetName(), u, metav1.ApplyOptions{FieldManager: "test", Force: true})
			return err == nil
		})
	}
	get := func(r dynamic.ResourceInterface, name string) *unstructured.Unstructured {
		u, err := r.Get(context.WithoutCancel(t.Context()), name, metav1.GetOptions{})
		if err != nil {
			return &unstructured.Unstructured{Object: map[string]any{}}
		}
		return u
	}
	ours := client.Resource(rules).Namespace("default")
	written := func(name, spec, word string) (version string) {
		put(ours, fmt.Sprintf("apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: %s, namespace: default}\nspec: %s\n", name, spec))
		await(t, name+" has its status", func() bool {
			u := get(ours, name)
			version = u.GetResourceVersion()
			return strings.Contains(fmt.Sprint(u.Object["status"]), word)
		})
		return version
	}
	put(client.Resource(crds), destinationRules)

	file := server.Kubeconfig(t)
	var planes []*plane
	for n := range 2 {
		planes = append(planes, startPlane(t, program(t, "weft"), 10+n, "--kubeconfig", file))
	}
	a := written("a", "{host: a.example}", "status:True")
	bad := written("bad", "{host: b.example, trafficPolicy: {loadBalancer: {simple: SOMETIMES}}}", "status:False")

	holder, _, _ := unstructured.NestedString(get(client.Resource(leases).Namespace("default"), "weft-leader").Object, "spec", "holderIdentity")
	killed := false
	for _, p := range planes {
		if strings.Contains(holder, fmt.Sprintf("_%d_", p.cmd.Process.Pid)) {
			if err := p.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			killed = true
		}
	}
	if !killed {
		t.Fatalf("%q leads", holder)
	}
	written("c", "{host: c.example}", "status:True")
	for name, version := range map[string]string{"a": a, "bad": bad} {
		if now := get(ours, name).GetResourceVersion(); now != version {
			t.Errorf("%s was written again", name)
		}
	}
}

// TestStatusNamesMissingRights: weft status says which right a start waits for, and it goes on once that is given.
func TestStatusNamesMissingRights(t *testing.T) {
	server := kubetest.Own(t)
	client, err := dynamic.NewForConfig(server.Config)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../deploy/kubernetes/rbac.yaml")
	if err != nil {
		t.Fatal(err)
	}
	put := func(text string) {
		for doc := range strings.SplitSeq(text, "\n---\n") {
			u := &unstructured.Unstructured{}
			if err := yaml.Unmarshal([]byte(doc), &u.Object); err != nil {
				t.Fatal(err)
			}
			resource, _ := meta.UnsafeGuessKindToResource(u.GroupVersionKind())
			await(t, "the API server takes "+u.GetName(), func() bool {
				_, err = client.Resource(resource).Namespace(u.GetNamespace()).Apply(t.Context(), u.GetName(), u, metav1.ApplyOptions{FieldManager: "test", Force: true})
				return err == nil
			})
		}
	}
	less := strings.Replace(string(text), "resources: [secrets, configmaps]", "resources: [configmaps]", 1)
	put(less)
	weft := program(t, "weft")
	file := (&kubetest.Server{Config: server.As(t, "weft-system", "weft")}).Kubeconfig(t)
	p := beginPlane(t, weft, 50, "--kubeconfig", file)
	said := func(want string) {
		t.Helper()
		text := ""
		defer func() {
			if t.Failed() {
				t.Log(text)
			}
		}()
		await(t, want, func() bool {
			out, _ := exec.Command(weft, "--mesh", p.mesh, "status").CombinedOutput() // it fails as long as there is no status
			text = string(out)
			return regexp.MustCompile(want).MatchString(text)
		})
	}
	said(`control plane +waiting for kubernetes since \d+s;`)
	said(`(?m)^kubernetes: warning: Secret cannot be read since 20\S+Z: secrets is forbidden: User "system:serviceaccount:weft-system:weft" cannot list .*; ` +
		`a role needs \{apiGroups: \[""\], resources: \[secrets\], verbs: \[list, watch\]\} \(nothing is served before it has been read\)`)
	put(string(text))
	said(`control plane +running since`)
}
