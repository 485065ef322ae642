package app_test

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weftmesh/weft/examples/bookinfo/app"
	"github.com/weftmesh/weft/examples/bookinfo/internal/memnet"
)

// shop is a network on which the services run under their usual names.
type shop struct {
	t         *testing.T
	net       memnet.Net
	transport *http.Transport
}

func newShop(t *testing.T) *shop {
	s := &shop{t: t}
	s.transport = &http.Transport{DialContext: s.net.DialContext}
	t.Cleanup(s.transport.CloseIdleConnections)
	return s
}

// openShop runs all four services, reviews in the given version.
func openShop(t *testing.T, reviews string) *shop {
	s := newShop(t)
	s.run("productpage", app.NewProductpage(s.config("v1")))
	s.run("details", app.NewDetails(s.config("v1")))
	s.run("reviews", app.NewReviews(s.config(reviews)))
	s.run("ratings", app.NewRatings(s.config("v1")))
	return s
}

func (s *shop) config(version string) app.Config {
	return app.Config{Version: version, PodName: "pod-" + version, Transport: s.transport}
}

// run serves handler at http://name:9080 until the test ends or stop is called.
func (s *shop) run(name string, handler http.Handler) (stop func()) {
	server := &http.Server{Handler: handler}
	listener := s.net.Listen(name + ":9080")
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(listener) })
	stop = sync.OnceFunc(func() {
		server.Close()
		serving.Wait()
	})
	s.t.Cleanup(stop)
	return stop
}

// answer is a complete response.
type answer struct {
	status int
	header http.Header
	body   string
}

func (s *shop) do(method, url, body string, header http.Header) answer {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	resp, err := s.transport.RoundTrip(req) // no redirects followed
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, url, err)
	}
	return answer{resp.StatusCode, resp.Header, string(got)}
}

func (s *shop) get(url string) answer {
	s.t.Helper()
	return s.do("GET", url, "", nil)
}

// signIn returns the headers of a browser that has signed in.
func (s *shop) signIn(user string) http.Header {
	s.t.Helper()
	got := s.do("POST", "http://productpage:9080/login", "username="+user+"&passwd=x",
		http.Header{"Content-Type": {"application/x-www-form-urlencoded"}})
	cookie, _, _ := strings.Cut(got.header.Get("Set-Cookie"), ";")
	if got.status != http.StatusFound || !strings.HasPrefix(cookie, "session=") {
		s.t.Fatalf("login: status %d, cookie %q", got.status, cookie)
	}
	return http.Header{"Cookie": {cookie}}
}

func (a answer) wants(t *testing.T, status int, texts ...string) {
	t.Helper()
	if a.status != status {
		t.Errorf("status %d, want %d", a.status, status)
	}
	for _, text := range texts {
		if !strings.Contains(a.body, text) {
			t.Errorf("no %q in\n%s", text, a.body)
		}
	}
}

func (a answer) lacks(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(a.body, text) {
			t.Errorf("unexpected %q in\n%s", text, a.body)
		}
	}
}

// wantsJSON compares the body with want, both compacted.
func (a answer) wantsJSON(t *testing.T, status int, want string) {
	t.Helper()
	if kind := a.header.Get("Content-Type"); a.status != status || kind != "application/json" {
		t.Errorf("status %d, type %q, want %d, application/json", a.status, kind, status)
	}
	if got := compact(t, a.body); got != compact(t, want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func compact(t *testing.T, text string) string {
	t.Helper()
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	out, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// spy records the headers that reach a service.
type spy struct {
	mu   sync.Mutex
	seen []http.Header
}

func (s *spy) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.seen = append(s.seen, r.Header.Clone())
		s.mu.Unlock()
		next.ServeHTTP(w, r)
	})
}

func (s *spy) all() []http.Header {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen)
}

// delayed answers like next, but after a while; it gives up when the caller does.
func delayed(wait time.Duration, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
			next.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	})
}

// failing always answers with status.
func failing(status int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "fault filter abort", status)
	})
}
