package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// redReviews is a route that a test can misspell.
const redReviews = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: reviews
spec:
  hosts:
  - reviews
  http:
  - route:
    - destination:
        host: reviews
        subset: v3
`

// TestApply applies, shows and deletes objects; those that are wrong are refused with file, line and field, and change nothing.
func TestApply(t *testing.T) {
	t.Parallel()
	m := start(t, settings{account: self()})
	b := m.browser()
	file := func(name, content string) string {
		path := filepath.Join(m.dir, name)
		m.check(os.WriteFile(path, []byte(content), 0o644))
		return path
	}
	good := file("reviews.yaml", redReviews)

	t.Log("a dry run changes nothing")
	contains(t, "dry run", m.must("apply", "--dry-run", "-f", good), "VirtualService/default/reviews created (dry run)")
	if r := m.weft("get", "vs", "reviews"); r.code != 1 {
		t.Errorf("after a dry run there is %s", r)
	}

	t.Log("what is wrong is refused, named, and changes nothing")
	refusals := []struct{ name, content, want string }{
		{"field.yaml", strings.Replace(redReviews, "subset", "subsett", 1), "field.yaml:12: error: VirtualService/default/reviews: spec.http[0].route[0].destination.subsett"},
		{"syntax.yaml", strings.Replace(redReviews, "  - reviews", "  - [reviews", 1), "syntax.yaml:"},
		{"kind.yaml", strings.Replace(redReviews, "VirtualService", "VirtuelService", 1), "kind.yaml:2: error"},
		{"value.yaml", strings.Replace(redReviews, "subset: v3", "subset: v3\n      weight: -1", 1), "value.yaml:13: error: VirtualService/default/reviews: spec.http[0].route[0].weight"},
		{"second.yaml", redReviews + "---\n" + strings.Replace(redReviews, "hosts:", "hoosts:", 1), "second.yaml:19: error"},
	}
	for _, c := range refusals {
		r := m.weft("apply", "-f", file(c.name, c.content))
		if r.code != 1 || !strings.Contains(r.stderr, c.want) || !strings.Contains(r.stderr, "nothing was changed") || r.stdout != "" {
			t.Errorf("apply of %s: want %q, got %s", c.name, c.want, r)
		}
	}
	if r := m.weft("get", "vs", "reviews"); r.code != 1 {
		t.Errorf("refused objects are there: %s", r)
	}
	if seen := b.every(60, answer.version); len(seen) != 3 {
		t.Errorf("versions %v after refusals, want all three", seen)
	}

	t.Log("what is right holds as soon as apply returns")
	contains(t, "apply", m.must("apply", "-f", good), "VirtualService/default/reviews created")
	m.eventually(5*time.Second, "red stars only", func() error { return b.only(answer.stars, "red") })
	contains(t, "apply again", m.must("apply", "-f", good), "unchanged")
	// The text is the user's, and the status that the object has now comes behind it.
	yaml := m.must("get", "vs", "reviews", "-o", "yaml")
	if text, status, _ := strings.Cut(yaml, "\nstatus:"); strings.TrimSpace(text) != strings.TrimSpace(redReviews) || !strings.Contains(status, "type: Reconciled") {
		t.Errorf("get -o yaml gives another text:\n%s", yaml)
	}

	t.Log("a reference that leads nowhere is a warning, and answered with 503")
	r := m.weftWith(strings.Replace(redReviews, "v3", "v9", 1), "apply", "-f", "-")
	if r.code != 0 || !strings.Contains(r.stdout, "configured") || !strings.Contains(r.stderr, "stdin:12: warning: VirtualService/default/reviews") || !strings.Contains(r.stderr, `"v9"`) {
		t.Errorf("a subset that is not there: %s", r)
	}
	contains(t, "get", m.must("get", "vs", "reviews"), "warning")
	m.eventually(5*time.Second, "no reviews", func() error {
		if a, err := b.get("/api/v1/products/0/reviews"); err != nil || a.status != http.StatusServiceUnavailable {
			return fmt.Errorf("status %d, %v", a.status, err)
		}
		return nil
	})

	t.Log("deleting gives back what was before")
	contains(t, "delete", m.must("delete", "vs", "reviews"), "deleted")
	m.eventually(5*time.Second, "all versions", func() error {
		if seen := b.every(20, answer.version); len(seen) != 3 {
			return fmt.Errorf("%v", seen)
		}
		return nil
	})
	usage := []struct {
		code int
		args []string
	}{
		{1, []string{"delete", "vs", "reviews"}}, {1, []string{"delete", "vs", "bookinfo"}}, {1, []string{"apply", "-f", "/no/such/file"}},
		{2, []string{"apply"}}, {2, []string{"apply", "-f", good, "--no-such-flag"}}, {2, []string{"delete", "vs"}}, {2, []string{"nonsense"}},
		{2, []string{"get", "-o", "xml"}}, {1, []string{"restart", "nothing"}}, {1, []string{"logs", "nothing"}}, {0, []string{"--help"}},
	}
	for _, u := range usage {
		if r := m.weft(u.args...); r.code != u.code {
			t.Errorf("weft %s: want exit code %d, got %s", strings.Join(u.args, " "), u.code, r)
		}
	}
	m.apply("all-v1.yaml")
	contains(t, "delete --all", m.must("delete", "--all"), "VirtualService/default/reviews deleted", "VirtualService/default/ratings deleted")
}

// TestFollow edits files in the followed folder as editors and scripts do.
func TestFollow(t *testing.T) {
	t.Parallel()
	m := start(t, settings{account: self()})
	b := m.browser()
	load := m.traffic(2)
	inPlace := func(name, content string) {
		m.check(os.WriteFile(filepath.Join(m.files, name), []byte(content), 0o644))
	}
	stars := func(color string) {
		t.Helper()
		m.eventually(5*time.Second, fmt.Sprintf("stars are %q", color), func() error { return b.only(answer.stars, color) })
	}
	finding := func(want ...string) {
		t.Helper()
		m.eventually(5*time.Second, "the status names what is wrong", func() error {
			for _, f := range m.status().Findings {
				if f.Severity == "error" && strings.Contains(f.Text, want[0]) && f.Line > 0 {
					return nil
				}
			}
			return fmt.Errorf("findings: %+v", m.status().Findings)
		})
		contains(t, "status", m.weft("status").stderr, want...)
		m.eventually(5*time.Second, "weft up tells", func() error {
			if !strings.Contains(m.up.out.String(), want[0]) {
				return fmt.Errorf("%s", m.up.out.String())
			}
			return nil
		})
	}
	clean := func() {
		t.Helper()
		m.eventually(5*time.Second, "nothing is wrong", func() error {
			if fs := m.status().Findings; len(fs) > 0 {
				return fmt.Errorf("%+v", fs)
			}
			return nil
		})
	}

	t.Log("a new file")
	m.write("reviews.yaml", redReviews)
	stars("red")
	t.Log("another file in its place")
	m.write("reviews.yaml", strings.Replace(redReviews, "v3", "v2", 1))
	stars("black")
	t.Log("an unknown field: named, and what was accepted before stays")
	m.write("reviews.yaml", strings.Replace(redReviews, "subset", "subsett", 1))
	finding("reviews.yaml:12: error: VirtualService/default/reviews", "subsett")
	stars("black")
	t.Log("mended, written in place")
	inPlace("reviews.yaml", redReviews)
	stars("red")
	clean()
	t.Log("broken in place, so that it is no YAML at all")
	inPlace("reviews.yaml", "hosts: [\n  a: b: c\n")
	finding("reviews.yaml:")
	stars("red")
	t.Log("the rest of the folder is followed all the while")
	m.write("details.yaml", m.example("try/strict-mtls.yaml"))
	m.eventually(5*time.Second, "the other file is read", func() error {
		if r := m.weft("get", "peerauthentication", "default"); r.code != 0 {
			return fmt.Errorf("%s", r)
		}
		return nil
	})
	inPlace("reviews.yaml", redReviews)
	clean()
	t.Log("removed")
	m.check(os.Remove(filepath.Join(m.files, "reviews.yaml")))
	m.eventually(5*time.Second, "all versions", func() error {
		if seen := b.every(20, answer.version); len(seen) != 3 {
			return fmt.Errorf("%v", seen)
		}
		return nil
	})
	load.end("edits of the followed files")
}
