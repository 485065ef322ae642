package app_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weftmesh/weft/examples/bookinfo/app"
)

func TestHealth(t *testing.T) {
	s := openShop(t, "v1")
	s.get("http://productpage:9080/health").wants(t, 200, "Product page is healthy")
	s.get("http://details:9080/health").wantsJSON(t, 200, `{"status": "Details is healthy"}`)
	s.get("http://reviews:9080/health").wantsJSON(t, 200, `{"status": "Reviews is healthy"}`)
	s.get("http://ratings:9080/health").wantsJSON(t, 200, `{"status": "Ratings is healthy"}`)
}

func TestNewKnowsFourServices(t *testing.T) {
	for _, name := range []string{"productpage", "details", "reviews", "ratings"} {
		if handler, err := app.New(name, app.Config{}); err != nil || handler == nil {
			t.Errorf("%s: %v, %v", name, handler, err)
		}
	}
	if _, err := app.New("orders", app.Config{}); err == nil || !strings.Contains(err.Error(), `"orders"`) {
		t.Errorf("orders: error %v", err)
	}
}

func TestDetails(t *testing.T) {
	s := openShop(t, "v1")
	s.get("http://details:9080/details/7").wantsJSON(t, 200, `{
		"id": 7, "author": "William Shakespeare", "year": 1595, "type": "paperback", "pages": 200, "publisher": "PublisherA",
		"language": "English", "ISBN-10": "1234567890", "ISBN-13": "123-1234567890"}`)
	s.get("http://details:9080/details/x").wantsJSON(t, 400, `{"error": "please provide numeric product id"}`)
}

func TestReviewsVersions(t *testing.T) {
	tests := []struct {
		version, color, first, second string
	}{
		{version: "v1"},
		{version: "v2", first: `{"stars": 5, "color": "black"}`, second: `{"stars": 4, "color": "black"}`},
		{version: "v3", first: `{"stars": 5, "color": "red"}`, second: `{"stars": 4, "color": "red"}`},
		{version: "v1", color: "blue", first: `{"stars": 5, "color": "blue"}`, second: `{"stars": 4, "color": "blue"}`},
	}
	for _, tt := range tests {
		t.Run(tt.version+tt.color, func(t *testing.T) {
			s := newShop(t)
			cfg := s.config(tt.version)
			cfg.StarColor = tt.color
			s.run("reviews", app.NewReviews(cfg))
			var calls spy
			s.run("ratings", calls.wrap(app.NewRatings(s.config("v1"))))

			got := s.get("http://reviews:9080/reviews/0")
			got.wants(t, 200, `"id":"0"`, `"podname":"pod-`+tt.version+`"`, `"clustername":"null"`, `"reviewer":"Reviewer1"`, `"reviewer":"Reviewer2"`)
			if by := got.header.Get(app.VersionHeader); by != tt.version {
				t.Errorf("%s %q, want %q", app.VersionHeader, by, tt.version)
			}
			if tt.first == "" {
				got.lacks(t, "rating")
				if n := len(calls.all()); n != 0 {
					t.Errorf("ratings called %d times", n)
				}
				return
			}
			strip := strings.NewReplacer(" ", "")
			got.wants(t, 200, `"rating":`+strip.Replace(tt.first), `"rating":`+strip.Replace(tt.second))
		})
	}
}

func TestReviewsWithoutRatings(t *testing.T) {
	const sorry = `"rating":{"error":"Ratings service is currently unavailable"}`
	respond := func(body string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(body)) })
	}
	tests := []struct {
		name    string
		ratings http.Handler // nil: nobody listens
		sorries int
	}{
		{"absent", nil, 2},
		{"abort", failing(500), 2},
		{"forbidden", failing(403), 2},
		{"no JSON", respond("<html>"), 2},
		{"no ratings", respond(`{"id": 0}`), 2},
		{"one reviewer", respond(`{"id": 0, "ratings": {"Reviewer2": 1}}`), 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newShop(t)
			s.run("reviews", app.NewReviews(s.config("v2")))
			if tt.ratings != nil {
				s.run("ratings", tt.ratings)
			}
			got := s.get("http://reviews:9080/reviews/0")
			got.wants(t, 200)
			if n := strings.Count(got.body, sorry); n != tt.sorries {
				t.Errorf("%d ratings unavailable, want %d in %s", n, tt.sorries, got.body)
			}
		})
	}
}

func TestReviewsRefusesOtherPaths(t *testing.T) {
	s := openShop(t, "v1")
	for _, path := range []string{"/reviews/x", "/reviews", "/reviews/0/1", "/"} {
		s.get("http://reviews:9080"+path).wants(t, 404)
	}
}

func TestReviewsWaitForRatings(t *testing.T) {
	tests := []struct {
		version       string
		delay, answer time.Duration
		stars         bool
	}{
		{"v2", 7 * time.Second, 7 * time.Second, true},
		{"v2", 11 * time.Second, 10 * time.Second, false},
		{"v3", 2 * time.Second, 2 * time.Second, true},
		{"v3", 7 * time.Second, 2500 * time.Millisecond, false},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			s := newShop(t)
			s.run("reviews", app.NewReviews(s.config(tt.version)))
			s.run("ratings", delayed(tt.delay, app.NewRatings(s.config("v1"))))
			start := time.Now()
			got := s.get("http://reviews:9080/reviews/0")
			got.wants(t, 200)
			if took := time.Since(start); took != tt.answer {
				t.Errorf("%s with ratings after %v: answered after %v, want %v", tt.version, tt.delay, took, tt.answer)
			}
			if stars := strings.Contains(got.body, `"stars":5`); stars != tt.stars {
				t.Errorf("%s with ratings after %v: stars %v, want %v", tt.version, tt.delay, stars, tt.stars)
			}
		})
	}
}

func TestRatings(t *testing.T) {
	s := openShop(t, "v1")
	const at = "http://ratings:9080/ratings/"
	s.get(at+"0").wantsJSON(t, 200, `{"id": 0, "ratings": {"Reviewer1": 5, "Reviewer2": 4}}`)
	s.do("POST", at+"0", `{"Reviewer1": 2, "Reviewer2": 1}`, nil).wantsJSON(t, 200, `{"id": 0, "ratings": {"Reviewer1": 2, "Reviewer2": 1}}`)
	s.get(at+"0").wantsJSON(t, 200, `{"id": 0, "ratings": {"Reviewer1": 2, "Reviewer2": 1}}`)
	s.get(at+"1").wantsJSON(t, 200, `{"id": 1, "ratings": {"Reviewer1": 5, "Reviewer2": 4}}`)
	s.get(at+"x").wantsJSON(t, 400, `{"error": "please provide numeric product ID"}`)
	s.do("POST", at+"x", `{}`, nil).wantsJSON(t, 400, `{"error": "please provide numeric product ID"}`)
	for _, body := range []string{"", "stars", "[1]", "null", `{"Reviewer1": "five"}`, `{"Reviewer1": 1} {}`, `{"a":"` + strings.Repeat("x", 70_000) + `"}`} {
		s.do("POST", at+"0", body, nil).wantsJSON(t, 400, `{"error": "please provide valid ratings JSON"}`)
	}
	s.do("DELETE", at+"0", "", nil).wants(t, 405)
}

func TestRatingsThatMisbehave(t *testing.T) {
	t.Run("v-unavailable", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newShop(t)
			s.run("ratings", app.NewRatings(s.config("v-unavailable")))
			for _, want := range []int{200, 503, 200, 503} {
				s.get("http://ratings:9080/ratings/0").wants(t, want)
				s.get("http://ratings:9080/health").wants(t, 200)
				time.Sleep(time.Minute)
			}
		})
	})
	t.Run("v-unhealthy", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newShop(t)
			s.run("ratings", app.NewRatings(s.config("v-unhealthy")))
			time.Sleep(16 * time.Minute)
			s.get("http://ratings:9080/ratings/0").wantsJSON(t, 503, `{"error": "Service unavailable"}`)
			s.get("http://ratings:9080/health").wantsJSON(t, 500, `{"status": "Ratings is not healthy"}`)
		})
	})
	t.Run("v-delayed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newShop(t)
			s.run("ratings", app.NewRatings(s.config("v-delayed")))
			took := map[time.Duration]bool{}
			for range 200 {
				start := time.Now()
				s.get("http://ratings:9080/ratings/0").wants(t, 200)
				took[time.Since(start)] = true
			}
			if len(took) != 2 || !took[0] || !took[7*time.Second] {
				t.Errorf("answers took %v, want some 0 and some 7 s", took)
			}
		})
	})
	t.Run("v-faulty", func(t *testing.T) {
		s := newShop(t)
		s.run("ratings", app.NewRatings(s.config("v-faulty")))
		statuses := map[int]bool{}
		for range 200 {
			statuses[s.get("http://ratings:9080/ratings/0").status] = true
		}
		if len(statuses) != 2 || !statuses[200] || !statuses[503] {
			t.Errorf("statuses %v, want 200 and 503", statuses)
		}
	})
}
