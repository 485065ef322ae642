package local

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/weftmesh/weft/internal/control/source"
)

// TestNotDeletedSaysWhatToDo: what is listed and cannot be deleted is not told to be missing.
func TestNotDeletedSaysWhatToDo(t *testing.T) {
	store, err := source.OpenStore(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	running := source.NewRuntime()
	meta := func(namespace, name, app string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": app}}
	}
	if err := running.Set([]source.Kube{
		&corev1.Service{ObjectMeta: meta("default", "web", "web")}, &corev1.Service{ObjectMeta: meta("shop", "web", "web")},
		&corev1.Service{ObjectMeta: meta("default", "gateway", "other")}, &corev1.Pod{ObjectMeta: meta("default", "web-0", "web")},
	}); err != nil {
		t.Fatal(err)
	}
	set := source.NewSet(source.Layers{Applied: store, Runtime: running}, nil)
	ended := make(chan error, 1)
	go func() { ended <- set.Run(t.Context()) }() // ends with the test
	t.Cleanup(func() { <-ended; store.Close() })
	<-set.Ready()
	for _, c := range []struct{ kind, namespace, name, hint string }{
		{"Service", "default", "web", "weft delete program web"},
		{"Service", "shop", "web", "weft delete program web -n shop"},
		{"Service", "default", "gateway", "remove its workload"},
		{"Pod", "default", "web-0", "weft delete program NAME"},
		{"Pod", "default", "none", "weft get"},
	} {
		_, err := set.Delete([]source.Key{{Kind: c.kind, Namespace: c.namespace, Name: c.name}})
		if !errors.Is(err, source.ErrNotFound) || !strings.Contains(notDeleted(err), c.hint) {
			t.Errorf("%s %s: %v (%s)", c.kind, c.name, err, notDeleted(err))
		}
	}
}

// TestDocumentsNameTheirKindOnce has objects that programs made, with their kind written in them and without.
func TestDocumentsNameTheirKindOnce(t *testing.T) {
	bare := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default"}}
	named := bare.DeepCopy()
	named.APIVersion, named.Kind = "v1", "Pod"
	for _, pod := range []*corev1.Pod{bare, named} {
		o, err := source.FromKube(source.LayerRuntime, pod)
		if err != nil {
			t.Fatal(err)
		}
		if text := document(o); strings.Count(text, "apiVersion: v1\n") != 1 || strings.Count(text, "kind: Pod\n") != 1 {
			t.Errorf("not once:\n%s", text)
		}
	}
}
