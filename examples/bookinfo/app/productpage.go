package app

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

//go:embed static
var static embed.FS

// waitForUpstream is how long productpage waits for each try of each call.
const waitForUpstream = 3 * time.Second

// product is an item of GET /api/v1/products.
type product struct {
	ID              int    `json:"id"`
	Title           string `json:"title"`
	DescriptionHTML string `json:"descriptionHtml"`
}

var catalogue = []product{{
	ID:    0,
	Title: "The Comedy of Errors",
	DescriptionHTML: `Two brothers who look the same, served by two servants who look the same, come to a town where nobody knows ` +
		`that there are two of each. One of Shakespeare’s earliest plays, his shortest, and his most cheerful farce ` +
		`(<a href="https://en.wikipedia.org/wiki/The_Comedy_of_Errors">more on Wikipedia</a>).`,
}}

// source is one upstream as productpage sees it.
type source struct {
	*upstream
	name  string // of the service
	tries int
	sorry string // what is shown in place of its answer
}

// productpage is fixed at creation.
type productpage struct {
	log                       *slog.Logger
	version                   string
	details, reviews, ratings source
}

// NewProductpage returns the productpage service: the page itself at /productpage, the sign-in at /login and /logout, a JSON API
// below /api/v1/products, /static/ and /health. It waits 3 s for an upstream, asks reviews a second time when the first try
// brings no 200, and passes an upstream's error status on (500 where no answer came). Of cfg it uses Version, the addresses,
// Transport and Logger.
func NewProductpage(cfg Config) http.Handler {
	cfg = cfg.withDefaults()
	from := func(name, base string, tries int) source {
		return source{
			upstream: newUpstream(cfg.Transport, base, name), name: name, tries: tries,
			sorry: "Sorry, product " + name + " are currently unavailable for this book.",
		}
	}
	s := &productpage{
		log: cfg.Logger, version: cfg.Version,
		details: from("details", cfg.Details, 1),
		reviews: from("reviews", cfg.Reviews, 2),
		ratings: from("ratings", cfg.Ratings, 1),
	}
	return serve(cfg, "productpage", s.routes())
}

func (s *productpage) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /productpage", s.page)
	mux.Handle("GET /{$}", http.RedirectHandler("/productpage", http.StatusFound))
	mux.Handle("GET /index.html", http.RedirectHandler("/productpage", http.StatusFound))
	mux.HandleFunc("POST /login", login)
	mux.HandleFunc("GET /logout", logout)
	mux.HandleFunc("GET /api/v1/products", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, catalogue)
	})
	mux.HandleFunc("GET /api/v1/products/{id}", s.api(&s.details))
	mux.HandleFunc("GET /api/v1/products/{id}/reviews", s.api(&s.reviews))
	mux.HandleFunc("GET /api/v1/products/{id}/ratings", s.api(&s.ratings))
	mux.Handle("GET /static/", staticFiles())
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "Product page is healthy")
	})
	return mux
}

func staticFiles() http.Handler {
	files := http.StripPrefix("/static/", http.FileServerFS(mustSub(static, "static")))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=300")
		files.ServeHTTP(w, r)
	})
}

// api serves what one upstream says of one product, as JSON.
func (s *productpage) api(from *source) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		got := s.ask(r.Context(), from, url.PathEscape(r.PathValue("id")), s.header(r))
		if !got.ok() {
			writeJSON(w, got.status, failure{got.sorry})
			return
		}
		writeJSON(w, got.status, json.RawMessage(got.body))
	}
}

// page serves /productpage. Like the API it shows whatever can be had: a service that fails costs its part of the page only.
func (s *productpage) page(w http.ResponseWriter, r *http.Request) {
	header, id := s.header(r), strconv.Itoa(catalogue[0].ID)
	details := s.ask(r.Context(), &s.details, id, header)
	reviews := s.ask(r.Context(), &s.reviews, id, header)
	body, err := renderPage(newView(userOf(r), s.version, catalogue[0], details, reviews))
	if err != nil {
		s.log.ErrorContext(r.Context(), "page not rendered", "error", err)
		http.Error(w, "the page could not be made", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	w.Write(body)
}

// header returns what productpage sends along with each call that r causes.
func (s *productpage) header(r *http.Request) http.Header {
	header := traceOf(r.Header)
	if user := userOf(r); user != "" {
		header.Set(endUser, user)
	}
	return header
}

// finding is what came of asking one source.
type finding struct {
	service string
	status  int    // 200, the upstream's error status, or 500 where it did not answer
	body    []byte // valid JSON if ok
	version string // of who answered; may be empty
	sorry   string // set unless ok
	tries   int
	took    time.Duration
	silent  bool // no complete answer came within the time
}

func (f *finding) ok() bool { return f.sorry == "" }

// ask asks a source until it answers 200 with JSON or its tries are used up.
func (s *productpage) ask(ctx context.Context, from *source, segment string, header http.Header) finding {
	start := time.Now()
	f := finding{service: from.name, status: http.StatusInternalServerError, sorry: from.sorry, silent: true}
	for f.tries < from.tries && ctx.Err() == nil {
		f.tries++
		answer, err := from.get(ctx, segment, header, waitForUpstream)
		if err == nil {
			err = f.take(answer)
		} else {
			f.status, f.version, f.silent = http.StatusInternalServerError, "", true
		}
		if err == nil {
			break
		}
		s.log.LogAttrs(ctx, slog.LevelWarn, "upstream failed",
			slog.String("upstream", from.name), slog.Int("try", f.tries), slog.Any("error", err))
	}
	f.took = time.Since(start)
	return f
}

// take records a complete answer; the error says why it is of no use.
func (f *finding) take(answer reply) error {
	f.status, f.version, f.silent = answer.status, answer.version, false
	if answer.status != http.StatusOK {
		return fmt.Errorf("answered with status %d", answer.status)
	}
	if !json.Valid(answer.body) {
		f.status = http.StatusInternalServerError
		return errors.New("answer is not JSON")
	}
	f.body, f.sorry = answer.body, ""
	return nil
}
