package local

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/control"
	"github.com/weftmesh/weft/internal/control/source"
)

func serviceOf(name, selected, port string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: default}\nspec: {selector: {app: %s}, ports: [{name: %s, port: 9080}]}\n---\n", name, selected, port)
}

func rule(fixed int) string {
	return fmt.Sprintf("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: ratings, namespace: default}\nspec:\n  hosts: [ratings]\n"+
		"  http: [{fault: {abort: {httpStatus: %d, percentage: {value: 100}}}, route: [{destination: {host: ratings}}]}]\n", fixed)
}

// observedMesh runs a control plane over the Services ratings and reviews and what a runtime would observe of them and of a client. Ports are
// elsewhere than containers declare, as where workloads share the network of the machine.
func observedMesh(t *testing.T) objects {
	t.Helper()
	dir := t.TempDir()
	text := serviceOf("ratings", "ratings", "http") + serviceOf("reviews", "reviews", "http") + rule(418)
	if err := os.WriteFile(filepath.Join(dir, "mesh.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := control.New(control.Options{StateDir: t.TempDir(), Paths: []string{dir}, LocalRuntime: true, Address: "-", HTTPAddress: "-", Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	var observed []source.Kube
	for i, app := range []string{"client", "ratings", "reviews"} {
		yes, ip, name, port := true, fmt.Sprintf("10.0.0.%d", i+1), "http", int32(19080+i)
		controller := true
		observed = append(observed, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: app + "-1", Labels: map[string]string{"app": app, "security.istio.io/tlsMode": "istio"},
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: app, Controller: &controller}}},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 9080}}}}},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}},
				Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
		})
		if app == "client" {
			continue
		}
		observed = append(observed, &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: app + "-x",
				Labels: map[string]string{discoveryv1.LabelServiceName: app, discoveryv1.LabelManagedBy: "weft"}},
			AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{ip}, Conditions: discoveryv1.EndpointConditions{Ready: &yes},
				TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: app + "-1"}}},
		})
	}
	if err := c.SetRuntimeObjects(observed); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return objects{bench{c}, &statuses{}}
}

// TestDiffSelectsAnew: Services of a change have the Pods that they select after it.
func TestDiffSelectsAnew(t *testing.T) {
	o := observedMesh(t)
	for name, test := range map[string]struct {
		document  string
		want, not string
	}{
		"port renamed":     {serviceOf("reviews", "reviews", "http-web"), "no request behaves differently", "503"},
		"other selector":   {serviceOf("reviews", "ratings", "http"), "ratings", "503"},
		"selects nothing":  {serviceOf("reviews", "nothing", "http"), "503", "no request behaves"},
		"new":              {serviceOf("more", "reviews", "http"), "more", "503"},
		"new, named port":  {strings.Replace(serviceOf("more", "reviews", "http"), "port: 9080", "port: 80, targetPort: web", 1), "more", "503"},
		"new, no such pod": {serviceOf("more", "nothing", "http"), "503", "no request behaves"},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := o.Diff(t.Context(), api.DiffRequest{Documents: []api.Document{{Name: "in.yaml", Content: []byte(test.document)}}})
			if err != nil || d.Refused {
				t.Fatal(err, d.Findings)
			}
			if !strings.Contains(d.Text, test.want) || strings.Contains(d.Text, test.not) {
				t.Errorf("want %q and not %q:\n%s", test.want, test.not, d.Text)
			}
		})
	}
}

// TestDiffDeletesTheUpper: what an applied object was put over is in force again once that is deleted.
func TestDiffDeletesTheUpper(t *testing.T) {
	o := observedMesh(t)
	reply, err := o.Apply(t.Context(), api.ChangeRequest{Documents: []api.Document{{Name: "in.yaml", Content: []byte(rule(429))}}})
	if err != nil || reply.Refused {
		t.Fatal(err, reply.Findings)
	}
	d, err := o.Diff(t.Context(), api.DiffRequest{Refs: []api.Ref{{Kind: "VirtualService", Namespace: "default", Name: "ratings"}}})
	if err != nil || d.Refused {
		t.Fatal(err, d.Findings)
	}
	if !strings.Contains(d.Text, "429") || !strings.Contains(d.Text, "418") {
		t.Errorf("want 429 before, and 418 after:\n%s", d.Text)
	}
}
