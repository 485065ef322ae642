package app

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"
)

// How long reviews waits for ratings. Black stars (v2) wait longer than productpage's 3 s: that mismatch is the bug which the
// fault injection walk finds with a delay of 7 s, so it stays.
const (
	waitForRatings      = 2500 * time.Millisecond
	waitForBlackRatings = 10 * time.Second
)

// ratingsUnavailable stands in a review where the stars would be.
const ratingsUnavailable = "Ratings service is currently unavailable"

// bookReviews is the JSON of GET /reviews/{id}. The id is a string, unlike elsewhere, as in Istio's sample.
type bookReviews struct {
	ID          string   `json:"id"`
	PodName     string   `json:"podname"`
	ClusterName string   `json:"clustername"`
	Reviews     []review `json:"reviews"`
}

type review struct {
	Reviewer string  `json:"reviewer"`
	Text     string  `json:"text"`
	Rating   *rating `json:"rating,omitempty"` // nil where reviews shows no stars
}

// rating has either stars and a colour, or an error.
type rating struct {
	Stars *int   `json:"stars,omitempty"`
	Color string `json:"color,omitempty"`
	Error string `json:"error,omitempty"`
}

// reviews is fixed at creation.
type reviews struct {
	cfg     Config
	color   string // of the stars; empty means that ratings are not asked
	wait    time.Duration
	ratings *upstream
}

// NewReviews returns the reviews service: GET /reviews/{id} and GET /health. v1 shows no stars and never calls ratings; v2 shows
// black stars and waits 10 s for them, v3 red ones and waits 2.5 s. When ratings fails, reviews still answers 200, each review
// with an error in place of its stars. Of cfg it uses all but the addresses of details and reviews.
func NewReviews(cfg Config) http.Handler {
	cfg = cfg.withDefaults()
	s := &reviews{
		cfg: cfg, color: starColor(cfg), wait: waitForRatings,
		ratings: newUpstream(cfg.Transport, cfg.Ratings, "ratings"),
	}
	if s.color == "black" {
		s.wait = waitForBlackRatings
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /reviews/{id}", s.get)
	mux.HandleFunc("GET /health", healthy("Reviews is healthy"))
	return serve(cfg, "reviews", mux)
}

func starColor(cfg Config) string {
	switch {
	case cfg.StarColor != "":
		return cfg.StarColor
	case cfg.Version == "v2":
		return "black"
	case cfg.Version == "v3":
		return "red"
	}
	return ""
}

func (s *reviews) get(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	answer := bookReviews{
		ID: strconv.Itoa(id), PodName: s.cfg.PodName, ClusterName: s.cfg.ClusterName,
		Reviews: []review{
			{Reviewer: "Reviewer1", Text: "Two pairs of twins, one town, and not a quiet minute. I laughed until the last door had closed."},
			{Reviewer: "Reviewer2", Text: "Light as a feather and quick on its feet. Look elsewhere for depth; come here for the fun of it."},
		},
	}
	if s.color != "" {
		s.addStars(r, id, answer.Reviews)
	}
	writeJSON(w, http.StatusOK, answer)
}

// addStars gives each review its rating, or the error that stands for it.
func (s *reviews) addStars(r *http.Request, id int, reviews []review) {
	header := traceOf(r.Header)
	if users := r.Header.Values(endUser); len(users) > 0 {
		header[endUser] = users
	}
	stars, err := s.stars(r.Context(), id, header)
	if err != nil {
		s.cfg.Logger.LogAttrs(r.Context(), slog.LevelWarn, "no ratings", slog.Int("book", id), slog.Any("error", err))
	}
	for i := range reviews {
		if n, ok := stars[reviews[i].Reviewer]; ok {
			reviews[i].Rating = &rating{Stars: &n, Color: s.color}
		} else {
			reviews[i].Rating = &rating{Error: ratingsUnavailable}
		}
	}
}

// stars asks ratings for the stars of a book by reviewer.
func (s *reviews) stars(ctx context.Context, id int, header http.Header) (map[string]int, error) {
	answer, err := s.ratings.get(ctx, strconv.Itoa(id), header, s.wait)
	if err != nil {
		return nil, err
	}
	if answer.status != http.StatusOK {
		return nil, fmt.Errorf("ratings answered with status %d", answer.status)
	}
	var got bookRatings
	if err := json.Unmarshal(answer.body, &got); err != nil {
		return nil, fmt.Errorf("decode ratings: %w", err)
	}
	return got.Ratings, nil
}
