package sourcetest

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/weftmesh/weft/internal/control/source"
)

// The sources that have a package of their own are held to the contract there.

func TestFiles(t *testing.T) {
	Test(t, func(t *testing.T) *Place {
		dir := t.TempDir()
		file := func(name string) string { return filepath.Join(dir, name+".yaml") }
		return &Place{
			Source: &source.Files{Paths: []string{dir}, Debounce: time.Millisecond, Settle: 5 * time.Millisecond, Rescan: 100 * time.Millisecond},
			Put: func(t *testing.T, name, version string) {
				if err := os.WriteFile(file(name), []byte(Service(name, version)), 0o600); err != nil {
					t.Error(err)
				}
			},
			Delete: func(t *testing.T, name string) {
				if err := os.Remove(file(name)); err != nil {
					t.Error(err)
				}
			},
		}
	})
}

func TestStore(t *testing.T) {
	Test(t, func(t *testing.T) *Place {
		s, err := source.OpenStore(filepath.Join(t.TempDir(), "objects.db"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return &Place{
			Source: s,
			Put: func(t *testing.T, name, version string) {
				objects, _ := source.Decode(source.LayerApplied, "test.yaml", []byte(Service(name, version)))
				if _, err := s.Put(objects, s.Mark()); err != nil {
					t.Error(err)
				}
			},
			Delete: func(t *testing.T, name string) {
				_, err := s.Remove([]source.Key{{Kind: "Service", Namespace: "default", Name: name}})
				if err != nil && !errors.Is(err, source.ErrNotFound) {
					t.Error(err)
				}
			},
		}
	})
}

// TestRuntime sets all objects at each change, as the runtime does.
func TestRuntime(t *testing.T) {
	Test(t, func(t *testing.T) *Place {
		r := source.NewRuntime()
		if err := r.Set(nil); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		all := map[string]source.Kube{}
		set := func(t *testing.T, change func()) {
			mu.Lock()
			defer mu.Unlock()
			change()
			if err := r.Set(slices.Collect(maps.Values(all))); err != nil {
				t.Error(err)
			}
		}
		return &Place{
			Source: r,
			Put: func(t *testing.T, name, version string) {
				set(t, func() {
					all[name] = &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Labels: map[string]string{Label: version}}}
				})
			},
			Delete: func(t *testing.T, name string) { set(t, func() { delete(all, name) }) },
		}
	})
}
