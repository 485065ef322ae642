package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// Objects is the configuration of a mesh.
type Objects interface {
	Apply(ctx context.Context, req ChangeRequest) (ChangeReply, error)
	Delete(ctx context.Context, req ChangeRequest) (ChangeReply, error)
	Objects(ctx context.Context, of Selection) ([]Object, error)
	Explain(ctx context.Context, req ExplainRequest) (ExplainReply, error)
	Diff(ctx context.Context, req DiffRequest) (DiffReply, error)
}

// Workloads is what runs.
type Workloads interface {
	AddProgram(ctx context.Context, p Program) error
	RemoveProgram(ctx context.Context, namespace, name string) error
	Restart(ctx context.Context, namespace, name string) error
	// Upgrade lets the proxy program on disk take over from a workload's running proxies, one after the other.
	Upgrade(ctx context.Context, namespace, name string) ([]Upgraded, error)
	// Logs calls line for each; it returns when there are no more or line fails.
	Logs(ctx context.Context, q LogQuery, line func(LogLine) error) error
}

// Executor runs a command inside a pod and gives its exit code.
type Executor interface {
	Exec(ctx context.Context, req ExecRequest, in io.Reader, out, err io.Writer) (int, error)
}

// Observer looks at the mesh.
type Observer interface {
	Status(ctx context.Context) (Status, error)
	Graph(ctx context.Context, window time.Duration) (Graph, error)
}

// Lifecycle stops the mesh or its control plane.
type Lifecycle interface {
	// Down begins the shutdown and returns.
	Down(ctx context.Context) error
	Control(ctx context.Context, action string) error
}

// Joiner lets proxies join.
type Joiner interface {
	Join(ctx context.Context, req JoinRequest) (JoinReply, error)
}

// Backend is everything that Handler serves.
type Backend struct {
	Objects   Objects
	Workloads Workloads
	Executor  Executor
	Observer  Observer
	Lifecycle Lifecycle
	Joiner    Joiner // nil where the mesh makes its proxies itself
}

// NotFoundError is answered with 404, InvalidError with 400, UnavailableError with 503; any other error with 500.
type (
	NotFoundError    struct{ Message, Hint string }
	InvalidError     struct{ Message, Hint string }
	UnavailableError struct{ Message, Hint string }
)

func (e *NotFoundError) Error() string    { return e.Message }
func (e *InvalidError) Error() string     { return e.Message }
func (e *UnavailableError) Error() string { return e.Message }

// maxRequest bounds a request's body, in bytes: ten files of the largest size that a source accepts.
const maxRequest = 128 << 20

// pingPath is asked for a sign of life; any answer is one.
const pingPath = "/v1/ping"

// Handler serves the API. The transport authenticates: it must only be reachable for the mesh's owner.
func Handler(b Backend) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pingPath, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		answer(w)(b.Observer.Status(r.Context()))
	})
	mux.HandleFunc("GET /v1/graph", func(w http.ResponseWriter, r *http.Request) {
		window, err := time.ParseDuration(r.FormValue("window"))
		if err != nil || window < MinWindow || window > MaxWindow {
			fail(w, &InvalidError{Message: fmt.Sprintf("window %q is not a duration from %s to %s", r.FormValue("window"), MinWindow, MaxWindow), Hint: "for example 30s"})
			return
		}
		answer(w)(b.Observer.Graph(r.Context(), window))
	})
	mux.HandleFunc("POST /v1/apply", call(b.Objects.Apply))
	mux.HandleFunc("POST /v1/delete", call(b.Objects.Delete))
	mux.HandleFunc("POST /v1/explain", call(b.Objects.Explain))
	mux.HandleFunc("POST /v1/diff", call(b.Objects.Diff))
	mux.HandleFunc("POST /v1/join", call(func(ctx context.Context, req JoinRequest) (JoinReply, error) {
		if b.Joiner == nil {
			return JoinReply{}, &InvalidError{Message: "this mesh makes its proxies itself", Hint: "weft control run starts a control plane that proxies join"}
		}
		return b.Joiner.Join(ctx, req)
	}))
	mux.HandleFunc("GET /v1/objects", func(w http.ResponseWriter, r *http.Request) {
		answer(w)(b.Objects.Objects(r.Context(), selectionOf(r.URL.Query())))
	})
	mux.HandleFunc("POST /v1/programs", do(b.Workloads.AddProgram))
	mux.HandleFunc("DELETE /v1/programs/{namespace}/{name}", func(w http.ResponseWriter, r *http.Request) {
		answer(w)(struct{}{}, b.Workloads.RemoveProgram(r.Context(), r.PathValue("namespace"), r.PathValue("name")))
	})
	mux.HandleFunc("POST /v1/restart/{namespace}/{name}", func(w http.ResponseWriter, r *http.Request) {
		answer(w)(struct{}{}, b.Workloads.Restart(r.Context(), r.PathValue("namespace"), r.PathValue("name")))
	})
	mux.HandleFunc("POST /v1/upgrade/{namespace}/{name}", func(w http.ResponseWriter, r *http.Request) {
		answer(w)(b.Workloads.Upgrade(r.Context(), r.PathValue("namespace"), r.PathValue("name")))
	})
	mux.HandleFunc("GET /v1/logs", func(w http.ResponseWriter, r *http.Request) { serveLogs(w, r, b.Workloads) })
	mux.HandleFunc("POST /v1/exec", func(w http.ResponseWriter, r *http.Request) { serveExec(w, r, b.Executor) })
	mux.HandleFunc("POST /v1/down", func(w http.ResponseWriter, r *http.Request) {
		answer(w)(struct{}{}, b.Lifecycle.Down(r.Context()))
	})
	mux.HandleFunc("POST /v1/control", do(func(ctx context.Context, a ControlAction) error {
		return b.Lifecycle.Control(ctx, a.Action)
	}))
	return mux
}

// Starting serves the API of a mesh that is not there yet: it can be ended, and says what it waits for, which may change.
func Starting(l Lifecycle, waitsFor func() string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/down", func(w http.ResponseWriter, r *http.Request) {
		answer(w)(struct{}{}, l.Down(r.Context()))
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fail(w, &UnavailableError{Message: "it has been started and waits for " + waitsFor(), Hint: "weft down ends it"})
	})
	return mux
}

// call serves a method that takes and gives JSON.
func call[In, Out any](f func(context.Context, In) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&in); err != nil {
			fail(w, unreadable(err))
			return
		}
		answer(w)(f(r.Context(), in))
	}
}

// unreadable says what is wrong with a request's body.
func unreadable(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return &InvalidError{Message: fmt.Sprintf("the request has more than %d MiB", maxRequest>>20), Hint: "name fewer files at a time: a file may have 10 MiB, and all of them together about 90 MiB"}
	}
	return &InvalidError{Message: "request: " + err.Error()}
}

// do serves a method without an answer.
func do[In any](f func(context.Context, In) error) http.HandlerFunc {
	return call(func(ctx context.Context, in In) (struct{}, error) { return struct{}{}, f(ctx, in) })
}

// answer gives a function that writes a value or the error that came in its place.
func answer(w http.ResponseWriter) func(v any, err error) {
	return func(v any, err error) {
		if err != nil {
			fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(v) // the client has gone; nobody is left to tell
	}
}

func fail(w http.ResponseWriter, err error) {
	status, body := http.StatusInternalServerError, Error{Message: err.Error()}
	var (
		notFound    *NotFoundError
		invalid     *InvalidError
		unavailable *UnavailableError
	)
	switch {
	case errors.As(err, &notFound):
		status, body.Hint = http.StatusNotFound, notFound.Hint
	case errors.As(err, &invalid):
		status, body.Hint = http.StatusBadRequest, invalid.Hint
	case errors.As(err, &unavailable):
		status, body.Hint = http.StatusServiceUnavailable, unavailable.Hint
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func serveLogs(w http.ResponseWriter, r *http.Request, b Workloads) {
	q := LogQuery{Namespace: r.FormValue("namespace"), Name: r.FormValue("name"), Process: r.FormValue("process"), Follow: r.FormValue("follow") == "true"}
	q.Tail, _ = strconv.Atoi(r.FormValue("tail"))
	if s := r.FormValue("since"); s != "" {
		t, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			fail(w, &InvalidError{Message: "since: " + err.Error()})
			return
		}
		q.Since = t
	}
	out := json.NewEncoder(w)
	flush := http.NewResponseController(w)
	started := false
	err := b.Logs(r.Context(), q, func(l LogLine) error {
		if !started {
			w.Header().Set("Content-Type", "application/x-ndjson")
			started = true
		}
		if err := out.Encode(l); err != nil {
			return err
		}
		if q.Follow {
			return flush.Flush()
		}
		return nil
	})
	if err != nil && !started {
		fail(w, err)
	}
}

// serveExec takes over the connection: frames from the client are standard input, frames to it are output and the exit code.
func serveExec(w http.ResponseWriter, r *http.Request, b Executor) {
	var req ExecRequest
	if err := json.Unmarshal([]byte(r.Header.Get(execHeader)), &req); err != nil || len(req.Command) == 0 {
		fail(w, &InvalidError{Message: "exec: the request names no command"})
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		fail(w, err)
		return
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+execProtocol+"\r\n\r\n"); err != nil {
		return
	}
	// The request's context ends with the handler's connection only until it is hijacked: from here, the input's end tells.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	frames := &frameWriter{w: conn}
	in := newFrameInput(bufio.NewReader(rw), cancel)
	code, err := b.Exec(ctx, req, in, frames.stream(frameStdout), frames.stream(frameStderr))
	if err != nil {
		frames.write(frameError, []byte(err.Error()))
		return
	}
	frames.write(frameExit, []byte(strconv.Itoa(code)))
}
