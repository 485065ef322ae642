package app

import (
	"log/slog"
	"net/http"
	"time"
)

// serve wraps a service's routes: it names the version on each answer and writes the access record.
func serve(cfg Config, service string, routes http.Handler) http.Handler {
	log := cfg.Logger.With("service", service, "version", cfg.Version)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		w.Header().Set(VersionHeader, cfg.Version)
		counted := &countingWriter{ResponseWriter: w}
		// Deferred, so that an aborted answer is recorded too.
		defer func() { record(log, r, counted, time.Since(start)) }()
		routes.ServeHTTP(counted, r)
	})
}

func record(log *slog.Logger, r *http.Request, w *countingWriter, took time.Duration) {
	level := slog.LevelInfo
	if r.URL.Path == "/health" {
		level = slog.LevelDebug
	}
	if !log.Enabled(r.Context(), level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("method", r.Method),
		slog.String("path", r.URL.EscapedPath()),
		slog.Int("status", w.sentStatus()),
		slog.Int64("bytes", w.bytes),
		slog.Duration("took", took.Round(time.Microsecond)),
		slog.String("from", r.RemoteAddr),
	}
	for _, extra := range []struct{ key, header string }{{"request_id", "X-Request-Id"}, {"user", endUser}} {
		if value := r.Header.Get(extra.header); value != "" {
			attrs = append(attrs, slog.String(extra.key, value))
		}
	}
	log.LogAttrs(r.Context(), level, "request", attrs...)
}

// countingWriter remembers status and body size of one answer. It belongs to the request's goroutine.
type countingWriter struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (w *countingWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 { // 1xx are not the answer yet
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *countingWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// Unwrap serves http.ResponseController.
func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// sentStatus is the answer's status; net/http sends 200 for a handler that wrote nothing.
func (w *countingWriter) sentStatus() int {
	if w.status == 0 {
		return http.StatusOK
	}
	return w.status
}
