// Package steady proves that the mesh goes on: through changes of routes, restarts of the control plane and of workloads, without
// the control plane, and in the face of malformed requests.
package steady

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weftmesh/weft/test/mesh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const bookinfoDir = "../../examples/bookinfo"

func read(t *testing.T, name string) mesh.File {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(bookinfoDir, name))
	if err != nil {
		t.Fatal(err)
	}
	return mesh.File{Name: name, Text: string(data)}
}

func bookinfo(t *testing.T) []mesh.File {
	t.Helper()
	return []mesh.File{read(t, "bookinfo.yaml"), read(t, "destination-rules.yaml"), read(t, "gateway.yaml")}
}

// requests is how many there are, over all clients.
const requests = 10_000

// TestNoRequestFails sends requests from within and from outside in real time, while routes are applied without pause, the control
// plane restarts, and reviews is rolled over.
func TestNoRequestFails(t *testing.T) {
	m := mesh.Start(t, mesh.Options{Manifests: bookinfo(t)})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var left atomic.Int64
	left.Store(requests)
	var changes, operators, clients sync.WaitGroup
	applied, rolled := 0, 0
	changes.Go(func() { applied = applyRoutes(ctx, t, m) })
	operators.Go(func() { rolled = operate(ctx, t, m, &left) })
	for n := range 4 {
		clients.Go(func() { client(ctx, t, m, n, &left) })
	}
	clients.Wait()
	cancel()
	operators.Wait()
	changes.Wait()
	t.Logf("%d requests; %d times routes were applied, %d times the control plane and reviews were restarted", requests, applied, rolled)
	if applied < 50 || rolled < 1 {
		t.Errorf("routes applied %d times, restarts %d: too few to prove anything", applied, rolled)
	}
}

// client sends requests until none are left, and on until the operator has done its first round.
func client(ctx context.Context, t *testing.T, m *mesh.Mesh, n int, left *atomic.Int64) {
	for left.Add(-1) >= 0 && !t.Failed() {
		r := mesh.Request{From: "productpage", Method: "GET", URL: "http://reviews:9080/reviews/0", Header: http.Header{}}
		switch {
		case n == 0:
			r = mesh.Request{From: mesh.Outside, Method: "GET", URL: "http://gateway:8080/api/v1/products/0/reviews", Header: http.Header{}}
		case n == 1:
			r.Header.Set("end-user", "jason")
		}
		resp := m.Do(ctx, r)
		if resp.Err != nil || resp.Status != http.StatusOK {
			t.Errorf("request from %s after %v: status %d, error %v, header %v: %s", r.From, resp.Took, resp.Status, resp.Err, resp.Header, resp.Body)
		}
	}
}

// applyRoutes applies routes without pause while the control plane runs, and says how often.
func applyRoutes(ctx context.Context, t *testing.T, m *mesh.Mesh) int {
	files := []mesh.File{read(t, "try/reviews-90-10.yaml"), read(t, "try/reviews-jason-v2.yaml"), read(t, "try/reviews-50-v3.yaml"), read(t, "try/all-v1.yaml")}
	applied := 0
	for n := 0; ctx.Err() == nil; n++ {
		f := files[n%len(files)]
		if _, err := m.Apply(ctx, f.Name, f.Text); err == nil {
			applied++
		} else if ctx.Err() == nil && !mesh.Down(err) {
			t.Errorf("apply %s: %v", f.Name, err)
			return applied
		}
	}
	return applied
}

// operate restarts the control plane and rolls over the versions of reviews, again and again, and says how often.
func operate(ctx context.Context, t *testing.T, m *mesh.Mesh, left *atomic.Int64) int {
	for n := 0; ; n++ {
		for _, v := range []string{"reviews-v1", "reviews-v2", "reviews-v3"} {
			if ctx.Err() != nil || left.Load() <= 0 {
				return n
			}
			if err := m.StopControl(); err != nil {
				t.Errorf("stop the control plane: %v", err)
			}
			if err := m.StartControl(); err != nil {
				t.Errorf("start the control plane: %v", err)
				return n
			}
			if err := m.Replace(v, 2*time.Second); err != nil {
				t.Errorf("replace %s: %v", v, err)
				return n
			}
		}
	}
}

// want reports what is wrong with a response.
func want(resp *mesh.Response, status int, text string) error {
	switch {
	case resp.Err != nil:
		return resp.Err
	case resp.Status != status:
		return fmt.Errorf("status %d, want %d: %s", resp.Status, status, resp.Body)
	case !strings.Contains(resp.Body, text):
		return fmt.Errorf("no %q in %s", text, resp.Body)
	}
	return nil
}
