package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// mesh is a Backend that remembers what it was asked and answers from its fields.
type mesh struct {
	change    ChangeRequest
	logs      []LogLine
	query     LogQuery
	selection Selection
	execDone  chan error
	execBegan chan struct{}
	err       error
}

func (m *mesh) Apply(_ context.Context, r ChangeRequest) (ChangeReply, error) {
	m.change = r
	return ChangeReply{Changes: []Change{{Ref{"Service", "default", "reviews"}, "created"}}}, m.err
}
func (m *mesh) Delete(_ context.Context, r ChangeRequest) (ChangeReply, error) {
	m.change = r
	return ChangeReply{}, m.err
}
func (m *mesh) Objects(_ context.Context, of Selection) ([]Object, error) {
	m.selection = of
	return nil, m.err
}
func (m *mesh) Diff(context.Context, DiffRequest) (DiffReply, error) {
	return DiffReply{Different: true}, m.err
}
func (m *mesh) Explain(context.Context, ExplainRequest) (ExplainReply, error) {
	return ExplainReply{Text: "because"}, m.err
}
func (m *mesh) AddProgram(context.Context, Program) error           { return m.err }
func (m *mesh) RemoveProgram(context.Context, string, string) error { return m.err }
func (m *mesh) Restart(context.Context, string, string) error       { return m.err }
func (m *mesh) Upgrade(_ context.Context, namespace, name string) ([]Upgraded, error) {
	return []Upgraded{{Pod: namespace + "/" + name, From: "1", To: "2", PID: 3}}, m.err
}
func (m *mesh) Down(context.Context) error             { return m.err }
func (m *mesh) Control(context.Context, string) error  { return m.err }
func (m *mesh) Status(context.Context) (Status, error) { return Status{Mesh: "m"}, m.err }
func (m *mesh) Graph(_ context.Context, w time.Duration) (Graph, error) {
	return Graph{Window: w}, m.err
}
func (m *mesh) Logs(_ context.Context, q LogQuery, line func(LogLine) error) error {
	m.query = q
	for _, l := range m.logs {
		if err := line(l); err != nil {
			return err
		}
	}
	return m.err
}

// Exec plays a command that copies its input to its output, in capitals to its error stream, and exits with 7; "wait" waits to be
// killed.
func (m *mesh) Exec(ctx context.Context, r ExecRequest, in io.Reader, out, errOut io.Writer) (int, error) {
	switch r.Command[0] {
	case "missing":
		return 0, errors.New("no such command")
	case "wait":
		close(m.execBegan)
		<-ctx.Done()
		m.execDone <- ctx.Err()
		return 0, ctx.Err()
	}
	p, err := io.ReadAll(in)
	if err != nil {
		return 0, err
	}
	out.Write(p)
	errOut.Write(bytes.ToUpper(p))
	return 7, nil
}

func serve(t *testing.T, m *mesh) *Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "api")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: Handler(Backend{m, m, m, m, m, nil})}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	c := NewClient(socket)
	t.Cleanup(func() { c.Close(); srv.Close(); <-done })
	return c
}

func TestCallsReachTheMesh(t *testing.T) {
	m := &mesh{}
	c := serve(t, m)
	ctx := t.Context()
	reply, err := c.Apply(ctx, ChangeRequest{Documents: []Document{{"a.yaml", []byte("kind: X\n")}}})
	if err != nil || len(reply.Changes) != 1 || reply.Changes[0].Object.String() != "Service/default/reviews" {
		t.Fatalf("apply: %+v, %v", reply, err)
	}
	if string(m.change.Documents[0].Content) != "kind: X\n" {
		t.Fatalf("the document arrived as %q", m.change.Documents[0].Content)
	}
	if g, err := c.Graph(ctx, 30*time.Second); err != nil || g.Window != 30*time.Second {
		t.Fatalf("graph: %+v, %v", g, err)
	}
	if r, err := c.Diff(ctx, DiffRequest{}); err != nil || !r.Different {
		t.Errorf("diff: %+v, %v", r, err)
	}
	if r, err := c.Explain(ctx, ExplainRequest{}); err != nil || r.Text != "because" {
		t.Fatalf("explain: %+v, %v", r, err)
	}
	if u, err := c.Upgrade(ctx, "default", "x"); err != nil || len(u) != 1 || u[0] != (Upgraded{"default/x", "1", "2", 3}) {
		t.Errorf("upgrade: %+v, %v", u, err)
	}
	if err := errors.Join(c.Down(ctx), c.Control(ctx, "restart"), c.Restart(ctx, "default", "x"), c.RemoveProgram(ctx, "default", "x")); err != nil {
		t.Fatal(err)
	}
}

func TestSelectionsArrive(t *testing.T) {
	m := &mesh{}
	c := serve(t, m)
	for _, want := range []Selection{{}, {Namespace: "a&b"}, {Patterns: []Pattern{{Kind: "vs"}, {"dr", "a"}, {"gw", "ns/a b"}}, Namespace: "ns"}} {
		if _, err := c.Objects(t.Context(), want); err != nil || !reflect.DeepEqual(m.selection, want) {
			t.Errorf("got %+v, %v, want %+v", m.selection, err, want)
		}
	}
}

func TestErrorsKeepKindAndHint(t *testing.T) {
	m := &mesh{err: &NotFoundError{"no pod x", "weft ps lists them"}}
	c := serve(t, m)
	err := c.Restart(t.Context(), "default", "x")
	var nf *NotFoundError
	if !errors.As(err, &nf) || err.Error() != "no pod x" || Hint(err) != "weft ps lists them" {
		t.Fatalf("got %#v", err)
	}
	if _, err := c.Graph(t.Context(), -time.Second); !strings.Contains(err.Error(), "from 5s to 10m0s") {
		t.Fatalf("negative window: %v", err)
	}
	if _, err := NewClient(filepath.Join(t.TempDir(), "none")).Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Fatalf("nobody there: %v", err)
	}
}

func TestLogsAreAStream(t *testing.T) {
	m := &mesh{logs: []LogLine{{Text: "one"}, {Text: "two", Stderr: true}}}
	c := serve(t, m)
	var got []string
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	err := c.Logs(t.Context(), LogQuery{Name: "reviews", Tail: 5, Follow: true, Since: since}, func(l LogLine) error {
		got = append(got, l.Text)
		return nil
	})
	if err != nil || !slices.Equal(got, []string{"one", "two"}) {
		t.Fatalf("%v, %v", got, err)
	}
	if want := (LogQuery{Name: "reviews", Tail: 5, Follow: true, Since: since}); m.query != want {
		t.Fatalf("asked %+v", m.query)
	}
}

func TestExecCarriesStreamsAndExitCode(t *testing.T) {
	c := serve(t, &mesh{})
	big := strings.Repeat("abc", 100_000) // several frames
	var out, errOut bytes.Buffer
	code, err := c.Exec(t.Context(), ExecRequest{Name: "p", Command: []string{"cat"}}, strings.NewReader(big), &out, &errOut)
	if err != nil || code != 7 || out.String() != big || errOut.String() != strings.ToUpper(big) {
		t.Fatalf("code %d, %v, %d and %d bytes", code, err, out.Len(), errOut.Len())
	}
	if _, err := c.Exec(t.Context(), ExecRequest{Command: []string{"missing"}}, nil, &out, &errOut); err == nil || err.Error() != "no such command" {
		t.Fatalf("missing command: %v", err)
	}
	if _, err := c.Exec(t.Context(), ExecRequest{}, nil, &out, &errOut); err == nil || !strings.Contains(err.Error(), "no command") {
		t.Fatalf("empty command: %v", err)
	}
}

func TestExecEndsWhenTheClientLeaves(t *testing.T) {
	m := &mesh{execDone: make(chan error, 1), execBegan: make(chan struct{})}
	c := serve(t, m)
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := c.Exec(ctx, ExecRequest{Command: []string{"wait"}}, nil, io.Discard, io.Discard)
		left <- err
	}()
	<-m.execBegan
	cancel()
	if err := <-left; err == nil {
		t.Fatal("exec of a cancelled context succeeded")
	}
	if err := <-m.execDone; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
