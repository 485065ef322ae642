package source

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/control/model"
)

// TestForeignKinds are left out and named, in one finding; what may be meant for the mesh is refused by name.
func TestForeignKinds(t *testing.T) {
	for _, c := range []struct{ apiVersion, kind, want string }{
		{"autoscaling/v2", "HorizontalPodAutoscaler", ""}, {"policy/v1", "PodDisruptionBudget", ""}, {"batch/v1", "Job", ""},
		{"rbac.authorization.k8s.io/v1", "Role", ""}, {"cert-manager.io/v1", "Certificate", ""}, {"example.com/v1", "Thing", ""},
		{"gateway.solo.io/v1", "VirtualService", ""}, {"v1", "PersistentVolumeClaim", ""}, {"v1", "Endpoints", ""},
		{"apps/v1", "StatefulSet", ""}, {"networking.k8s.io/v1", "NetworkPolicy", ""}, {"kustomize.config.k8s.io/v1beta1", "Kustomization", ""},

		{"networking.istio.io/v1", "VirtualServices", "did you mean VirtualService?"}, {"networking.istio.io/v1", "Thing", "it reads VirtualService"},
		{"networking.istio.io/v1", "EnvoyFilter", "the proxy is not Envoy"}, {"install.istio.io/v1alpha1", "IstioOperator", "is not one that the mesh reads"},
		{"networking.isto.io/v1", "VirtualService", "did you mean networking.istio.io?"}, {"networking.istio.io", "VirtualService", "is not one that the mesh reads"},
		{"gateway.networking.k8s.io/v1", "HTTPRoutes", "did you mean HTTPRoute?"}, {"gateway.networking.x-k8s.io/v1alpha1", "XMesh", "is not one that the mesh reads"},
		{"v1", "Servce", "did you mean Service?"}, {"v1", "StatefulSet", "is not one that the mesh reads"}, {"v1beta1", "Deployment", "is not one that the mesh reads"},
		{"apps/v1", "Deploymnet", "did you mean Deployment?"}, {"app/v1", "Deployment", "did you mean apps?"}, {"extensions/v1beta1", "Ingress", "is not one that the mesh reads"},
		{"networking.weft.dev/v1alpha1", "RateLimits", "did you mean RateLimit?"}, {"networking.weft.dev/v9", "RateLimit", "use one of"},
	} {
		text := fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: a, namespace: n}\n", c.apiVersion, c.kind)
		objects, findings := Decode(LayerFile, "in.yaml", []byte(text))
		if len(objects) != 0 || len(findings) != 1 {
			t.Errorf("%s %s: %v", c.apiVersion, c.kind, findings)
			continue
		}
		f := findings[0]
		if c.want == "" && (f.Severity != model.Info || f.Code != CodeLeftOut || !strings.Contains(f.Message, c.kind+" n/a (line 1)")) ||
			c.want != "" && (f.Severity != model.Error || f.Object != (model.Ref{Kind: c.kind, Namespace: "n", Name: "a"}) || !strings.Contains(f.String(), c.want) || len(f.String()) > 300) {
			t.Errorf("%s %s: %s", c.apiVersion, c.kind, f)
		}
	}
}

// TestForeignKindsAreCounted beside what is taken, and those are named that fit into a finding.
func TestForeignKindsAreCounted(t *testing.T) {
	const job, account = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j%d}\n---\n", "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n"
	var b strings.Builder
	for i := range 30 {
		fmt.Fprintf(&b, job, i)
	}
	objects, findings := Decode(LayerFile, "in.yaml", []byte("# first\n"+b.String()+account))
	if len(objects) != 1 || len(findings) != 1 {
		t.Fatalf("%d objects, %v", len(objects), findings)
	}
	f := findings[0]
	for _, want := range []string{"in.yaml:2: info: 30 objects", "Job j0 (line 2), Job j1 (line 6)", "Job j19 ", ", and 10 more", "(Job: Kubernetes runs it"} {
		if !strings.Contains(f.String(), want) {
			t.Errorf("lacks %q: %s", want, f)
		}
	}
	if strings.Contains(f.String(), "j20") || strings.Count(f.String(), "weft run") != 1 {
		t.Error(f)
	}
}

// TestForeignKindAtAKey of another system is refused: the key says what it should be.
func TestForeignKindAtAKey(t *testing.T) {
	key := Key{Group: GroupNetworking, Kind: "VirtualService", Namespace: "default", Name: "a"}
	a := DecodeArrival(key, Origin{File: "etcd:a"}, []byte("apiVersion: batch/v1\nkind: Job\nmetadata: {name: a}\n"), nil)
	if a.Object != nil || len(a.Findings) != 1 || a.Findings[0].Code != "WrongKey" || !HasErrors(a.Findings) {
		t.Errorf("%+v", a)
	}
}
