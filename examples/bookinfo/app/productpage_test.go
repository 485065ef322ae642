package app_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weftmesh/weft/examples/bookinfo/app"
)

const (
	page         = "http://productpage:9080/productpage"
	api          = "http://productpage:9080/api/v1/products"
	sorryDetails = "Sorry, product details are currently unavailable for this book."
	sorryReviews = "Sorry, product reviews are currently unavailable for this book."
	sorryRatings = "Sorry, product ratings are currently unavailable for this book."
)

func TestPage(t *testing.T) {
	tests := []struct {
		reviews string
		has     []string
		lacks   []string
	}{
		{"v1", nil, []string{"★", "☆", "Ratings service"}},
		{"v2", []string{"stars-black", "★★★★★", "★★★★</span><span class=\"empty\">☆"}, []string{"stars-red"}},
		{"v3", []string{"stars-red", "★★★★★"}, []string{"stars-black"}},
	}
	for _, tt := range tests {
		t.Run(tt.reviews, func(t *testing.T) {
			s := openShop(t, tt.reviews)
			got := s.get(page)
			got.wants(t, 200, "The Comedy of Errors", "William Shakespeare", "Book Details", "PublisherA", "1234567890",
				"Book Reviews", "Reviewer1", "Reviewer2", "Reviews served by: <code>pod-"+tt.reviews+"</code>", "Sign in")
			got.wants(t, 200, tt.has...)
			got.lacks(t, tt.lacks...)
			got.lacks(t, "Sorry", "on cluster", "Sign out")
			if kind := got.header.Get("Content-Type"); kind != "text/html; charset=utf-8" {
				t.Errorf("type %q", kind)
			}
		})
	}
}

func TestPageNamesTheCluster(t *testing.T) {
	s := newShop(t)
	cfg := s.config("v1")
	cfg.ClusterName = "east"
	s.run("productpage", app.NewProductpage(s.config("v1")))
	s.run("reviews", app.NewReviews(cfg))
	s.get(page).wants(t, 200, "on cluster <code>east</code>")
}

func TestPageEscapesUpstreams(t *testing.T) {
	s := newShop(t)
	s.run("productpage", app.NewProductpage(s.config("v1")))
	s.run("reviews", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`{"podname": "<script>1", "reviews": [{"reviewer": "<b>", "text": "<i>", "rating": {"stars": 99, "color": "\"><u>"}}]}`))
	}))
	got := s.get(page)
	got.wants(t, 200, "&lt;script&gt;", "★★★★★")
	got.lacks(t, "<script>", "<i>", "<u>", "★★★★★★")
}

func TestPageAssetsAreServed(t *testing.T) {
	s := openShop(t, "v1")
	got := s.get(page)
	for _, path := range []string{"/static/bookinfo.css", "/static/icon.svg", "/static/cover.svg"} {
		got.wants(t, 200, `"`+path+`"`)
		asset := s.get("http://productpage:9080" + path)
		asset.wants(t, 200)
		asset.lacks(t, "@import", "url(h", `href="h`)
	}
	s.get("http://productpage:9080/static/absent.css").wants(t, 404)
}

func TestRootLeadsToPage(t *testing.T) {
	s := openShop(t, "v1")
	for _, path := range []string{"/", "/index.html"} {
		got := s.get("http://productpage:9080" + path)
		if to := got.header.Get("Location"); got.status != http.StatusFound || to != "/productpage" {
			t.Errorf("%s: status %d, location %q", path, got.status, to)
		}
	}
	s.get("http://productpage:9080/absent").wants(t, 404)
}

func TestAPI(t *testing.T) {
	s := openShop(t, "v2")
	got := s.get(api)
	got.wants(t, 200, `"id":0`, `"title":"The Comedy of Errors"`, `"descriptionHtml":"`)
	s.get(api+"/0").wants(t, 200, `"author":"William Shakespeare"`, `"ISBN-13":"123-1234567890"`)
	s.get(api+"/0/reviews").wants(t, 200, `"podname":"pod-v2"`, `"stars":5`)
	s.get(api+"/0/ratings").wantsJSON(t, 200, `{"id": 0, "ratings": {"Reviewer1": 5, "Reviewer2": 4}}`)
	s.get(api+"/no%2Fnumber").wantsJSON(t, 400, `{"error": "`+sorryDetails+`"}`)
}

// An upstream that fails costs its own part, with its own status where it gave one.
func TestUnavailable(t *testing.T) {
	notJSON := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) })
	for _, tt := range []struct {
		name     string
		upstream http.Handler // nil: nobody listens
		status   int
	}{
		{"absent", nil, 500}, {"abort", failing(555), 555}, {"forbidden", failing(403), 403}, {"not JSON", notJSON, 500},
	} {
		for _, part := range []struct{ service, path, sorry, heading string }{
			{"details", "/0", sorryDetails, "Error fetching product details"},
			{"reviews", "/0/reviews", sorryReviews, "Error fetching product reviews"},
			{"ratings", "/0/ratings", sorryRatings, ""},
		} {
			t.Run(part.service+" "+tt.name, func(t *testing.T) {
				s := newShop(t)
				for name, handler := range map[string]http.Handler{
					"productpage": app.NewProductpage(s.config("v1")), "details": app.NewDetails(s.config("v1")),
					"reviews": app.NewReviews(s.config("v1")), "ratings": app.NewRatings(s.config("v1")),
				} {
					if name == part.service {
						handler = tt.upstream
					}
					if handler != nil {
						s.run(name, handler)
					}
				}
				s.get(api+part.path).wantsJSON(t, tt.status, `{"error": "`+part.sorry+`"}`)
				got := s.get(page)
				if part.heading == "" {
					got.wants(t, 200, "PublisherA", "Reviewer1")
					got.lacks(t, "Sorry")
					return
				}
				got.wants(t, 200, part.sorry, part.heading)
				if n := strings.Count(got.body, "Sorry"); n != 1 {
					t.Errorf("%d apologies, want 1", n)
				}
			})
		}
	}
}

// The walk of the fault injection tutorial: reviews v2 would wait for slow ratings, productpage does not wait for reviews.
func TestSlowRatingsLoseTheReviews(t *testing.T) {
	tests := []struct {
		reviews string
		took    time.Duration
		want    string
	}{
		{"v1", 0, "Reviewer1"},
		{"v2", 6 * time.Second, sorryReviews},
		{"v3", 2500 * time.Millisecond, "Ratings service is currently unavailable"},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			s := newShop(t)
			s.run("productpage", app.NewProductpage(s.config("v1")))
			s.run("details", app.NewDetails(s.config("v1")))
			s.run("reviews", app.NewReviews(s.config(tt.reviews)))
			s.run("ratings", delayed(7*time.Second, app.NewRatings(s.config("v1"))))
			start := time.Now()
			s.get(page).wants(t, 200, tt.want)
			if took := time.Since(start); took != tt.took {
				t.Errorf("%s: took %v, want %v", tt.reviews, took, tt.took)
			}
		})
	}
}

func TestTimeouts(t *testing.T) {
	tests := []struct {
		slow, path, sorry string
		took              time.Duration
		calls             int
	}{
		{"details", "/0", sorryDetails, 3 * time.Second, 1},
		{"reviews", "/0/reviews", sorryReviews, 6 * time.Second, 2},
		{"ratings", "/0/ratings", sorryRatings, 3 * time.Second, 1},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			s := newShop(t)
			s.run("productpage", app.NewProductpage(s.config("v1")))
			var calls spy
			s.run(tt.slow, calls.wrap(delayed(time.Hour, failing(500))))
			start := time.Now()
			s.get(api+tt.path).wantsJSON(t, 500, `{"error": "`+tt.sorry+`"}`)
			if took, n := time.Since(start), len(calls.all()); took != tt.took || n != tt.calls {
				t.Errorf("%s: %v and %d calls, want %v and %d", tt.slow, took, n, tt.took, tt.calls)
			}
		})
	}
}

func TestReviewsAreAskedTwice(t *testing.T) {
	s := newShop(t)
	s.run("productpage", app.NewProductpage(s.config("v1")))
	good, first := app.NewReviews(s.config("v1")), true
	s.run("reviews", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if first { // calls come one after the other
			first = false
			failing(503).ServeHTTP(w, r)
			return
		}
		good.ServeHTTP(w, r)
	}))
	s.get(page).wants(t, 200, "Reviewer1", "answered 200, 2 tries")
}

func TestSignIn(t *testing.T) {
	s := openShop(t, "v1")
	jason := s.signIn("jason")
	got := s.do("GET", page, "", jason)
	got.wants(t, 200, ">jason<", "Sign out")
	got.lacks(t, ">Sign in<")
	out := s.do("GET", "http://productpage:9080/logout", "", jason)
	cookie, err := http.ParseSetCookie(out.header.Get("Set-Cookie"))
	if out.status != http.StatusFound || err != nil || cookie.Name != "session" || cookie.MaxAge >= 0 {
		t.Errorf("logout: status %d, cookie %v, error %v", out.status, cookie, err)
	}
}

func TestSignInRefusesNames(t *testing.T) {
	s := openShop(t, "v1")
	form := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	for _, name := range []string{"", "+", "a%0d%0ab", "%ff", strings.Repeat("n", 65)} {
		s.do("POST", "http://productpage:9080/login", "username="+name+"&passwd=x", form).wants(t, 400)
	}
	s.get("http://productpage:9080/login").wants(t, 405)
	for _, cookie := range []string{"session=!", "session=", "session=Cg"} { // Cg is a line break
		s.do("GET", page, "", http.Header{"Cookie": {cookie}}).wants(t, 200, "Sign in")
	}
}

func TestSignInLeadsBackToOurPagesOnly(t *testing.T) {
	s := openShop(t, "v1")
	for referer, want := range map[string]string{
		"":                              "/productpage",
		page + "?u=1":                   "/productpage?u=1",
		"http://evil/":                  "/productpage",
		"http://evil/?u=1":              "/productpage",
		"//productpage:9080//":          "/productpage",
		"http://productpage:9080/login": "/productpage",
		"::":                            "/productpage",
	} {
		got := s.do("GET", "http://productpage:9080/logout", "", http.Header{"Referer": {referer}})
		if to := got.header.Get("Location"); to != want {
			t.Errorf("from %q to %q, want %q", referer, to, want)
		}
	}
}

// What arrives at productpage reaches ratings, two calls further down.
func TestHeadersAreHandedOn(t *testing.T) {
	s := newShop(t)
	var details, reviews, ratings spy
	s.run("productpage", app.NewProductpage(s.config("v1")))
	s.run("details", details.wrap(app.NewDetails(s.config("v1"))))
	s.run("reviews", reviews.wrap(app.NewReviews(s.config("v2"))))
	s.run("ratings", ratings.wrap(app.NewRatings(s.config("v1"))))

	sent := s.signIn("jason")
	for _, name := range []string{
		"X-Request-Id", "X-Ot-Span-Context", "X-Datadog-Trace-Id", "X-Datadog-Parent-Id", "X-Datadog-Sampling-Priority",
		"Traceparent", "Tracestate", "X-Cloud-Trace-Context", "Grpc-Trace-Bin",
		"B3", "X-B3-Traceid", "X-B3-Spanid", "X-B3-Parentspanid", "X-B3-Sampled", "X-B3-Flags",
		"Sw8", "User-Agent", "Authorization", "Jwt",
	} {
		sent.Set(name, "value of "+name)
	}
	sent.Add("Tracestate", "another=1")
	want := sent.Clone()
	want.Set("End-User", "jason")
	sent.Set("End-User", "forged")
	sent.Set("X-Private", "stays here")
	s.do("GET", page, "", sent).wants(t, 200)

	for name, seen := range map[string][]http.Header{"details": details.all(), "reviews": reviews.all(), "ratings": ratings.all()} {
		if len(seen) != 1 {
			t.Fatalf("%s called %d times", name, len(seen))
		}
		for header, values := range want {
			if got := seen[0].Values(header); !slices.Equal(got, values) {
				t.Errorf("%s got %s %q, want %q", name, header, got, values)
			}
		}
		if got := seen[0].Get("X-Private"); got != "" {
			t.Errorf("%s got X-Private %q", name, got)
		}
	}
}

func TestNobodyIsNobody(t *testing.T) {
	s := newShop(t)
	var details spy
	s.run("productpage", app.NewProductpage(s.config("v1")))
	s.run("details", details.wrap(app.NewDetails(s.config("v1"))))
	s.do("GET", page, "", http.Header{"End-User": {"jason"}}).wants(t, 200)
	if seen := details.all(); len(seen) != 1 || seen[0].Get("End-User") != "" {
		t.Errorf("details got %v, want one call without End-User", seen)
	}
}

func TestAccessRecords(t *testing.T) {
	var out bytes.Buffer
	details := app.NewDetails(app.Config{Version: "v9", Logger: slog.New(slog.NewTextHandler(&out, nil))})
	for _, path := range []string{"/details/x", "/health"} {
		req := httptest.NewRequest("GET", path, nil)
		req.Header.Set("X-Request-Id", "abc")
		details.ServeHTTP(httptest.NewRecorder(), req)
	}
	if n := strings.Count(out.String(), "\n"); n != 1 {
		t.Errorf("%d records, want one: that of /health is for debugging\n%s", n, &out)
	}
	for _, field := range []string{"service=details", "version=v9", "method=GET", "path=/details/x", "status=400", "bytes=45", "request_id=abc"} {
		if !strings.Contains(out.String(), field) {
			t.Errorf("no %s in %s", field, &out)
		}
	}
}

// The same over real sockets, at addresses that differ from the defaults.
func TestOverSockets(t *testing.T) {
	transport := app.NewTransport()
	defer transport.CloseIdleConnections()
	start := func(service string, cfg app.Config) string {
		cfg.Transport = transport
		handler, err := app.New(service, cfg)
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewServer(handler)
		t.Cleanup(server.Close)
		return server.URL
	}
	ratings := start("ratings", app.Config{})
	reviews := start("reviews", app.Config{Version: "v3", Ratings: ratings})
	shop := start("productpage", app.Config{Details: start("details", app.Config{}), Reviews: reviews, Ratings: ratings})
	for path, want := range map[string][]string{
		"/":                          {"Book Details", "PublisherA", "★★★★★", "stars-red"},
		"/api/v1/products/0/ratings": {`"Reviewer1":5`},
	} {
		resp, err := http.Get(shop + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		answer{resp.StatusCode, resp.Header, string(body)}.wants(t, 200, want...)
	}
}
