package gatewayapi

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/gateway-api/conformance/utils/config"
	"sigs.k8s.io/yaml"

	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/source/kube"
	"github.com/weftmesh/weft/internal/control/source/kube/kubetest"
	"github.com/weftmesh/weft/internal/control/status"
)

// TestConformanceOfServer has a real API server, whose definitions judge what is written, too. Where there is none it is skipped.
func TestConformanceOfServer(t *testing.T) {
	server := kubetest.Own(t)
	c := clientOf(t, server.Config)
	define(t, c)
	keepStatuses(t, server.Config)
	create(t, c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "istio-system"}})
	for _, o := range prepared() {
		create(t, c, o)
	}
	within := config.DefaultTimeoutConfig()
	within.DefaultPollInterval = 50 * time.Millisecond
	within.RequiredConsecutiveSuccesses = 1
	conform(t, c, within)
}

// clientOf gives a client that does what controllers and kubelets would.
func clientOf(t *testing.T, to *rest.Config) client.WithWatch {
	t.Helper()
	to = rest.CopyConfig(to)
	to.QPS = -1 // the tests' own requests wait for nothing
	c, err := client.NewWithWatch(to, client.Options{Scheme: schemeOf(t)})
	if err != nil {
		t.Fatal(err)
	}
	return interceptor.NewClient(c, interceptor.Funcs{Create: func(ctx context.Context, w client.WithWatch, o client.Object, opts ...client.CreateOption) error {
		if err := createWithStatus(ctx, w, o, opts...); err != nil {
			return err
		}
		for _, p := range podsOf(t, o) {
			if err := createWithStatus(ctx, w, p); err != nil {
				return err
			}
		}
		return nil
	}})
}

// createWithStatus writes the status apart, as the server demands.
func createWithStatus(ctx context.Context, w client.WithWatch, o client.Object, opts ...client.CreateOption) error {
	wanted := o.DeepCopyObject().(client.Object)
	if err := w.Create(ctx, o, opts...); err != nil {
		return err
	}
	switch wanted := wanted.(type) {
	case *corev1.Pod:
		p := o.(*corev1.Pod)
		p.Status = wanted.Status
		return w.Status().Update(ctx, p)
	case *corev1.Service:
		if len(wanted.Status.LoadBalancer.Ingress) > 0 {
			s := o.(*corev1.Service)
			s.Status = wanted.Status
			return w.Status().Update(ctx, s)
		}
	}
	return nil
}

// define installs what the Gateway API publishes, and waits until it is served.
func define(t *testing.T, c client.WithWatch) {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(strings.TrimSpace(string(out)) + "/config/crd/standard/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no CRDs of the Gateway API", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range bytes.Split(text, []byte("\n---")) {
			if bytes.Contains(doc, []byte("kind: CustomResourceDefinition")) {
				crd := &apiextensionsv1.CustomResourceDefinition{}
				if err := yaml.Unmarshal(doc, crd); err != nil {
					t.Fatal(err)
				}
				create(t, c, crd)
				awaitEstablished(t, c, crd)
			}
		}
	}
}

func awaitEstablished(t *testing.T, c client.WithWatch, crd *apiextensionsv1.CustomResourceDefinition) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !slices.ContainsFunc(crd.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
		return c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue
	}) {
		if err := c.Get(ctx, client.ObjectKeyFromObject(crd), crd); err != nil {
			t.Fatal(err)
		}
	}
}

// create tries until a new API server has made its namespaces and knows its kinds.
func create(t *testing.T, c client.WithWatch, o client.Object) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		err := c.Create(t.Context(), o)
		if err == nil {
			return
		}
		if !apierrors.IsNotFound(err) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// keepStatuses reads, compiles and writes statuses until the test's end, as a control plane does.
func keepStatuses(t *testing.T, to *rest.Config) {
	t.Helper()
	s, err := kube.New(kube.Options{Config: to, Namespace: "istio-system", Check: compile.Check, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	set := source.NewSet(source.Layers{Others: []source.Source{s}}, nil)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ran, kept := make(chan error, 1), make(chan struct{})
	go func() { ran <- set.Run(ctx) }() // ends with the test, as the next
	go func() {
		defer close(kept)
		f := set.Follow(ctx)
		s.KeepStatuses(ctx, f.Changed(), func() status.Input {
			f.Take()
			snapshot := set.Snapshot()
			if snapshot == nil {
				return status.Input{}
			}
			mesh, findings := compile.Compile(compile.Input{Objects: snapshot.Objects()})
			return status.Input{Objects: snapshot.Objects(), Mesh: mesh, Findings: slices.Concat(snapshot.Findings(), findings)}
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-kept
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
}
