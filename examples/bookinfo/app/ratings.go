package app

import (
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// bookRatings is the JSON of GET /ratings/{id}: stars by reviewer.
type bookRatings struct {
	ID      int            `json:"id"`
	Ratings map[string]int `json:"ratings"`
}

// maxRatings bounds the body of POST /ratings/{id}, in bytes.
const maxRatings = 64 << 10

// ratings keeps what was posted in memory, for as long as the process lives.
type ratings struct {
	// Fixed at creation.
	version string
	started time.Time

	// Guarded by mu. A stored map is never changed.
	mu     sync.Mutex
	posted map[int]map[string]int
}

// NewRatings returns the ratings service: GET and POST /ratings/{id}, GET /health. POST takes a JSON object of stars by
// reviewer, answers with the stored form and changes what later GETs of this instance see. Of cfg it uses Version and Logger.
//
// Some versions misbehave on purpose, to have something to steer around:
//
//	v-faulty       answers every second request, at random, with 503
//	v-delayed      takes 7 s for every second request, at random
//	v-unavailable  works for 60 s, answers 503 for 60 s, and so on
//	v-unhealthy    the same with 15 minutes, and reports itself as not healthy meanwhile
func NewRatings(cfg Config) http.Handler {
	cfg = cfg.withDefaults()
	s := &ratings{version: cfg.Version, started: time.Now(), posted: map[int]map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ratings/{id}", s.get)
	mux.HandleFunc("POST /ratings/{id}", s.post)
	mux.HandleFunc("GET /health", s.health)
	return serve(cfg, "ratings", mux)
}

func (s *ratings) get(w http.ResponseWriter, r *http.Request) {
	id, ok := ratingsID(w, r)
	if !ok {
		return
	}
	if s.misbehave(r) {
		writeJSON(w, http.StatusServiceUnavailable, failure{"Service unavailable"})
		return
	}
	writeJSON(w, http.StatusOK, s.of(id))
}

func (s *ratings) post(w http.ResponseWriter, r *http.Request) {
	id, ok := ratingsID(w, r)
	if !ok {
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRatings))
	var stars map[string]int
	if err == nil {
		err = json.Unmarshal(body, &stars)
	}
	if err != nil || stars == nil {
		writeJSON(w, http.StatusBadRequest, failure{"please provide valid ratings JSON"})
		return
	}
	s.mu.Lock()
	s.posted[id] = stars
	s.mu.Unlock()
	writeJSON(w, http.StatusOK, s.of(id))
}

func (s *ratings) health(w http.ResponseWriter, _ *http.Request) {
	if s.version == "v-unhealthy" && s.offPeriod(15*time.Minute) {
		writeJSON(w, http.StatusInternalServerError, map[string]string{"status": "Ratings is not healthy"})
		return
	}
	healthy("Ratings is healthy")(w, nil)
}

// of returns the posted ratings of a book, or those that every book starts with.
func (s *ratings) of(id int) bookRatings {
	s.mu.Lock()
	defer s.mu.Unlock()
	if stars, ok := s.posted[id]; ok {
		return bookRatings{ID: id, Ratings: stars}
	}
	return bookRatings{ID: id, Ratings: map[string]int{"Reviewer1": 5, "Reviewer2": 4}}
}

// misbehave does what the version is for: it may wait, and reports whether the request shall fail.
func (s *ratings) misbehave(r *http.Request) bool {
	switch s.version {
	case "v-faulty":
		return rand.IntN(2) == 0
	case "v-delayed":
		if rand.IntN(2) == 0 {
			wait := time.NewTimer(7 * time.Second)
			defer wait.Stop()
			select {
			case <-wait.C:
			case <-r.Context().Done():
			}
		}
	case "v-unavailable":
		return s.offPeriod(time.Minute)
	case "v-unhealthy":
		return s.offPeriod(15 * time.Minute)
	}
	return false
}

// offPeriod reports whether time since the start is in every second period.
func (s *ratings) offPeriod(period time.Duration) bool {
	return int64(time.Since(s.started)/period)%2 == 1
}

func ratingsID(w http.ResponseWriter, r *http.Request) (int, bool) {
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil {
		writeJSON(w, http.StatusBadRequest, failure{"please provide numeric product ID"})
	}
	return id, err == nil
}
