package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/api"
)

// browser is somebody who visits the product page.
type browser struct {
	m      *mesh
	base   string
	client *http.Client
}

func (m *mesh) browser() *browser {
	m.Helper()
	jar, err := cookiejar.New(nil)
	m.check(err)
	tr := &http.Transport{}
	m.Cleanup(tr.CloseIdleConnections)
	return &browser{m: m, base: "http://" + m.gateway(8080), client: &http.Client{Jar: jar, Transport: tr, Timeout: busy}}
}

// signIn signs in as a user, who stays so.
func (b *browser) signIn(user string) *browser {
	b.m.Helper()
	b.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := b.client.PostForm(b.base+"/login", url.Values{"username": {user}, "passwd": {"any"}})
	b.m.check(err)
	resp.Body.Close()
	return b
}

// answer to a request.
type answer struct {
	status int
	body   string
	took   time.Duration
}

func (b *browser) get(path string) (answer, error) {
	return read(func() (*http.Response, error) { return b.client.Get(b.base + path) })
}

// post sends what no proxy may send twice by itself.
func (b *browser) post(path string) (answer, error) {
	return read(func() (*http.Response, error) {
		return b.client.Post(b.base+path, "text/plain", strings.NewReader("once"))
	})
}

func read(ask func() (*http.Response, error)) (answer, error) {
	began := time.Now()
	resp, err := ask()
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, string(body), time.Since(began)}, err
}

// page loads the product page; the test fails without an answer.
func (b *browser) page() answer {
	b.m.Helper()
	a, err := b.get("/productpage")
	b.m.check(err)
	if a.status != http.StatusOK {
		b.m.Fatalf("product page: status %d: %s", a.status, a.body)
	}
	return a
}

var servedBy = regexp.MustCompile(`Reviews served by: <code>reviews-(v\d)`)

// version of reviews that a page shows; empty when it shows none.
func (a answer) version() string {
	if m := servedBy.FindStringSubmatch(a.body); m != nil {
		return m[1]
	}
	return ""
}

// stars is the colour of the page's stars; empty without.
func (a answer) stars() string {
	for _, color := range []string{"black", "red"} {
		if strings.Contains(a.body, "stars-"+color) {
			return color
		}
	}
	return ""
}

// whole is an error unless every part of the page is there.
func (a answer) whole() error {
	switch {
	case a.status != http.StatusOK:
		return fmt.Errorf("status %d: %.300s", a.status, a.body)
	case strings.Contains(a.body, `role="alert"`):
		return fmt.Errorf("a part is missing: %s", regexp.MustCompile(`(?s)role="alert".{0,200}`).FindString(a.body))
	case !strings.Contains(a.body, "PublisherA") || !strings.Contains(a.body, "Reviewer2"):
		return fmt.Errorf("not the product page: %.300s", a.body)
	}
	return nil
}

// every loads the page n times and gives how often each value was seen.
func (b *browser) every(n int, of func(answer) string) map[string]int {
	b.m.Helper()
	seen := map[string]int{}
	for range n {
		seen[of(b.page())]++
	}
	return seen
}

// only is nil when the page, loaded several times, shows that value and no other.
func (b *browser) only(of func(answer) string, want string) error {
	seen := b.every(12, of)
	if len(seen) != 1 || seen[want] == 0 {
		return fmt.Errorf("seen %v, want %q only", seen, want)
	}
	return nil
}

// traffic is requests that go on until it is ended.
type traffic struct {
	m        *mesh
	sent     atomic.Int64
	stop     chan struct{}
	workers  sync.WaitGroup
	mu       sync.Mutex
	failures []string
	failed   int
	logged   chan []string // what proxies say of the first failures
}

// traffic loads the page over as many keep-alive connections, without pause, and keeps what was not whole.
func (m *mesh) traffic(connections int) *traffic {
	m.Helper()
	return m.trafficTo(connections, "/productpage", answer.whole)
}

// trafficTo asks for any path; ok judges an answer.
func (m *mesh) trafficTo(connections int, path string, ok func(answer) error) *traffic {
	m.Helper()
	return m.load(connections, func(b *browser) (answer, error) { return b.get(path) }, ok)
}

// load sends what ask does.
func (m *mesh) load(connections int, ask func(*browser) (answer, error), ok func(answer) error) *traffic {
	m.Helper()
	t := &traffic{m: m, stop: make(chan struct{})}
	for range connections {
		b := m.browser()
		t.workers.Go(func() { t.work(b, ask, ok) }) // ends with stop
	}
	m.Cleanup(t.halt)
	return t
}

func (t *traffic) work(b *browser, ask func(*browser) (answer, error), ok func(answer) error) {
	for {
		select {
		case <-t.stop:
			return
		default:
		}
		began := time.Now()
		a, err := ask(b)
		if err == nil {
			err = ok(a)
		}
		t.count(began, err)
	}
}

func (t *traffic) count(began time.Time, err error) {
	n := t.sent.Add(1)
	if err == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed++; t.failed == 1 {
		t.logged = make(chan []string, 1)
		t.workers.Go(func() { t.logged <- t.m.failures(40) }) // at once: proxies' logs keep little; ends by itself
	}
	if len(t.failures) < 10 {
		t.failures = append(t.failures, fmt.Sprintf("%s request %d, after %s: %v", time.Now().UTC().Format("15:04:05.000"), n, time.Since(began).Round(time.Millisecond), err))
	}
}

// await waits until n more requests have been answered.
func (t *traffic) await(n int64) {
	t.m.Helper()
	want := t.sent.Load() + n
	t.m.eventually(60*time.Second, fmt.Sprintf("%d requests are answered", n), func() error {
		if sent := t.sent.Load(); sent < want {
			return fmt.Errorf("%d are missing", want-sent)
		}
		return nil
	})
}

var failedLine = regexp.MustCompile(`HTTP/[0-9.]+" (5\d\d|0|-) `)

// failures gives the first lines of all access logs that tell of an answer with 5xx, or of none: those of gateways first, which is what
// clients saw. Proxies write their logs in batches, so it looks for a while until there is one of a gateway.
func (m *mesh) failures(most int) []string {
	var found []string
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if found = m.failedLines(); slices.ContainsFunc(found, fromGateway) {
			break
		}
	}
	return found[:min(len(found), most)]
}

func fromGateway(line string) bool { return strings.HasPrefix(line, "istio-ingressgateway") }

func (m *mesh) failedLines() []string {
	var found []string
	err := m.api.Logs(m.Context(), api.LogQuery{Process: "istio-proxy"}, func(l api.LogLine) error {
		if failedLine.MatchString(l.Text) {
			found = append(found, l.Pod+" "+l.Text)
		}
		return nil
	})
	if err != nil {
		m.Logf("logs: %v", err)
	}
	slices.SortStableFunc(found, func(a, b string) int {
		switch {
		case fromGateway(a) == fromGateway(b):
			return 0
		case fromGateway(a):
			return -1
		}
		return 1
	})
	return found
}

func (t *traffic) halt() {
	select {
	case <-t.stop:
	default:
		close(t.stop)
	}
	t.workers.Wait()
}

// end stops the requests; none may have failed.
func (t *traffic) end(during string) {
	t.m.Helper()
	t.halt()
	t.m.Logf("%d requests during %s, %d failed", t.sent.Load(), during, t.failed)
	if t.failed > 0 {
		t.m.Errorf("%d of %d requests failed during %s:\n%s", t.failed, t.sent.Load(), during, strings.Join(t.failures, "\n"))
		t.m.Logf("what proxies say of failures:\n%s", strings.Join(<-t.logged, "\n"))
	}
	if t.sent.Load() == 0 {
		t.m.Errorf("no request was sent during %s", during)
	}
}
