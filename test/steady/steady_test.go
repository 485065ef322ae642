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

// bookinfo starts a mesh and waits until its gateway serves the product page.
func bookinfo(t *testing.T) *mesh.Mesh {
	t.Helper()
	m := mesh.Start(t, mesh.Options{Manifests: []mesh.File{read(t, "bookinfo.yaml"), read(t, "destination-rules.yaml"), read(t, "gateway.yaml")}})
	if err := mesh.Eventually(time.Minute, func() error {
		page := m.Do(t.Context(), mesh.Request{From: mesh.Outside, Method: "GET", URL: "http://gateway:8080/productpage"})
		return want(page, http.StatusOK, "Comedy of Errors")
	}); err != nil {
		t.Fatal(err)
	}
	return m
}

const (
	// requests is how many there are at least, over all clients.
	requests = 10_000
	// changes is how often routes are applied at least.
	changes = 20
	// rounds is how often the control plane and all of reviews are restarted at least.
	rounds = 2
	// thought is what a client pauses between requests, so that there is time for the rest on two cores.
	thought = 500 * time.Microsecond
)

// TestNoRequestFails sends requests from within and from outside, in real time, while routes are applied without pause, the control
// plane restarts, and reviews is rolled over.
func TestNoRequestFails(t *testing.T) {
	m := bookinfo(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var sent, applied atomic.Int64
	var clients, applying sync.WaitGroup
	for n := range 4 {
		clients.Go(func() { client(ctx, t, m, n, &sent) })
	}
	applying.Go(func() { applyRoutes(ctx, t, m, &applied) })
	for range rounds {
		operate(t, m)
	}
	await(t, func() bool { return sent.Load() >= requests && applied.Load() >= changes || t.Failed() })
	cancel()
	clients.Wait()
	applying.Wait()
	t.Logf("%d requests while routes were applied %d times", sent.Load(), applied.Load())
}

// ratingsTime is how long reviews waits for its ratings.
const ratingsTime = 2500 * time.Millisecond

// client sends requests until the context ends.
func client(ctx context.Context, t *testing.T, m *mesh.Mesh, n int, sent *atomic.Int64) {
	for ctx.Err() == nil && !t.Failed() {
		r := mesh.Request{From: "productpage", Method: "GET", URL: "http://reviews:9080/reviews/0", Header: http.Header{}}
		switch n {
		case 0:
			r = mesh.Request{From: mesh.Outside, Method: "GET", URL: "http://gateway:8080/api/v1/products/0/reviews", Header: http.Header{}}
		case 1:
			r.Header.Set("end-user", "jason")
		}
		resp := m.Do(context.WithoutCancel(ctx), r)
		sent.Add(1)
		// reviews answers 200 without its ratings: rightly so only if it has waited for them as long as it does.
		sorry := strings.Contains(resp.Body, "currently unavailable") && resp.Took < ratingsTime
		if resp.Err != nil || resp.Status != http.StatusOK || sorry {
			t.Errorf("request from %s after %v: status %d, error %v, header %v: %s", r.From, resp.Took, resp.Status, resp.Err, resp.Header, resp.Body)
		}
		rest(ctx, thought)
	}
}

// rest waits, at most until the context ends.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// applyRoutes applies routes without pause while the control plane runs.
func applyRoutes(ctx context.Context, t *testing.T, m *mesh.Mesh, applied *atomic.Int64) {
	files := []mesh.File{read(t, "try/reviews-90-10.yaml"), read(t, "try/reviews-jason-v2.yaml"), read(t, "try/reviews-50-v3.yaml"), read(t, "try/all-v1.yaml")}
	for n := 0; ctx.Err() == nil; n++ {
		f := files[n%len(files)]
		switch _, err := m.Apply(context.WithoutCancel(ctx), f.Name, f.Text); {
		case err == nil:
			applied.Add(1)
		case mesh.Down(err):
			rest(ctx, 5*time.Millisecond)
		default:
			t.Errorf("apply %s: %v", f.Name, err)
			return
		}
	}
}

// operate restarts the control plane and rolls over each version of reviews.
func operate(t *testing.T, m *mesh.Mesh) {
	for _, v := range []string{"reviews-v1", "reviews-v2", "reviews-v3"} {
		if err := m.StopControl(); err != nil {
			t.Errorf("stop the control plane: %v", err)
		}
		if err := m.StartControl(); err != nil {
			t.Fatalf("start the control plane: %v", err)
		}
		if err := m.Replace(v, 5*time.Second); err != nil {
			t.Fatalf("replace %s: %v", v, err)
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
