package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weftmesh/weft/internal/api"
)

// recorder answers the API with what the test put in and keeps what was asked.
type recorder struct {
	replies map[string]any // by "METHOD path"
	bodies  map[string][]byte
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	key := req.Method + " " + req.URL.Path
	var b bytes.Buffer
	b.ReadFrom(req.Body)
	r.bodies[key] = b.Bytes()
	reply, ok := r.replies[key]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		reply = api.Error{Message: "no " + key, Hint: "look elsewhere"}
	}
	json.NewEncoder(w).Encode(reply)
}

// weft runs a command line against a mesh that gives these replies.
func weft(t *testing.T, replies map[string]any, stdin string, args ...string) (code int, stdout, stderr string, bodies map[string][]byte) {
	t.Helper()
	var out, errOut bytes.Buffer
	code, bodies = weftTo(t, replies, stdin, &out, &errOut, args...)
	return code, out.String(), errOut.String(), bodies
}

// weftTo is weft with the output going wherever it is wanted.
func weftTo(t *testing.T, replies map[string]any, stdin string, out, errOut io.Writer, args ...string) (code int, bodies map[string][]byte) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "api.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{replies: replies, bodies: map[string][]byte{}}
	srv := &http.Server{Handler: r}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	defer func() { srv.Close(); <-done }()
	t.Setenv("WEFT_SOCKET", socket)
	return Main(t.Context(), args, Programs{}, strings.NewReader(stdin), out, errOut), r.bodies
}

func TestApplySendsWhatItReadsAndPrintsWhatChanged(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.yaml")
	if err := os.WriteFile(file, []byte("kind: Service\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	reply := api.ChangeReply{Changes: []api.Change{{Object: api.Ref{Kind: "Service", Namespace: "default", Name: "a"}, Action: "created"}},
		Findings: []api.Finding{{Severity: "warning", Text: "a.yaml:1: warning: nobody listens"}}}
	code, out, errOut, bodies := weft(t, map[string]any{"POST /v1/apply": reply}, "kind: Pod\n", "apply", "-f", file, "-f", "-")
	if code != 0 || out != "Service/default/a created\n" || !strings.Contains(errOut, "a.yaml:1: warning: nobody listens") {
		t.Fatalf("code %d\n%s\n%s", code, out, errOut)
	}
	var req api.ChangeRequest
	if err := json.Unmarshal(bodies["POST /v1/apply"], &req); err != nil || len(req.Documents) != 2 ||
		req.Documents[0].Name != file || string(req.Documents[1].Content) != "kind: Pod\n" {
		t.Fatalf("%+v, %v", req, err)
	}
}

func TestRefusedApplyFails(t *testing.T) {
	reply := api.ChangeReply{Refused: true, Findings: []api.Finding{{Severity: "error", Text: "stdin:3: error: unknown field"}}}
	code, out, errOut, _ := weft(t, map[string]any{"POST /v1/apply": reply}, "x", "apply", "-f", "-")
	if code != 1 || out != "" || !strings.Contains(errOut, "stdin:3: error: unknown field") || !strings.Contains(errOut, "nothing was changed") {
		t.Fatalf("code %d\n%s\n%s", code, out, errOut)
	}
}

func TestErrorsSayWhatToDoNext(t *testing.T) {
	code, _, errOut, _ := weft(t, nil, "", "restart", "nobody")
	if code != 1 || !strings.Contains(errOut, "error: no POST /v1/restart/default/nobody") || !strings.Contains(errOut, "look elsewhere") {
		t.Errorf("code %d: %s", code, errOut)
	}
	t.Setenv("WEFT_SOCKET", filepath.Join(t.TempDir(), "none"))
	var out, stderr bytes.Buffer
	if code := Main(t.Context(), []string{"ps"}, Programs{}, nil, &out, &stderr); code != 1 || !strings.Contains(stderr.String(), "weft up examples/bookinfo") {
		t.Errorf("code %d: %s", code, stderr.String())
	}
	for _, args := range [][]string{{"apply"}, {"ps", "--nonsense"}, {"nonsense"}, {"run", "--name", "x"}, {"explain", "GET", "http://a"}, {"get", "-o", "xml"}} {
		code, _, errOut, _ := weft(t, map[string]any{"GET /v1/objects": []api.Object{}}, "", args...)
		if code != 2 || !strings.HasPrefix(errOut, "error: ") {
			t.Errorf("%v: code %d: %s", args, code, errOut)
		}
	}
}

// TestDeleteTakesOneWayToSayWhat refuses words that it would have to leave out of account, and asks for no more than was said.
func TestDeleteTakesOneWayToSayWhat(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.yaml")
	if err := os.WriteFile(file, []byte("kind: Service\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	replies := map[string]any{"POST /v1/delete": api.ChangeReply{Changes: []api.Change{}}, "DELETE /v1/programs/default/a": struct{}{}}
	for _, args := range []string{"", "vs", "program", "--all vs x", "--all vs", "--all -f " + file, "--all program x", "-f " + file + " vs x", "none x", "vs/x y", "vs/", "vs,dr", "program/a vs/x", "--all --namespace=", "vs --namespace= x"} {
		code, out, errOut, bodies := weft(t, replies, "", append([]string{"delete"}, strings.Fields(args)...)...)
		if code != 2 || out != "" || !strings.HasPrefix(errOut, "error: ") || len(bodies) > 0 {
			t.Errorf("%s: code %d, asked %d times\n%s%s", args, code, len(bodies), out, errOut)
		}
	}
	for args, want := range map[string]string{
		"--all":          `{"all":true}`,
		"--all -n shop":  `{"allIn":"shop"}`,
		"vs x -n shop":   `{"refs":[{"kind":"vs","namespace":"shop","name":"x"}]}`,
		"-n shop -f -":   `{"documents":[{"name":"stdin","content":"eA=="}],"namespace":"shop"}`,
		"vs/x dr/y.shop": `{"refs":[{"kind":"vs","namespace":"default","name":"x"},{"kind":"dr","namespace":"shop","name":"y"}]}`,
		"vs/shop/x":      `{"refs":[{"kind":"vs","namespace":"shop","name":"x"}]}`,
		"vs,dr x":        `{"refs":[{"kind":"vs","namespace":"default","name":"x"},{"kind":"dr","namespace":"default","name":"x"}]}`,
		"vs shop/x":      `{"refs":[{"kind":"vs","namespace":"shop","name":"x"}]}`,
		"-f -":           `{"documents":[{"name":"stdin","content":"eA=="}]}`,
		"--all -o json":  `{"all":true}`,
		"vs x -n shop -": `{"refs":[{"kind":"vs","namespace":"shop","name":"x"},{"kind":"vs","namespace":"shop","name":"-"}]}`,
	} {
		code, _, errOut, bodies := weft(t, replies, "x", append([]string{"delete"}, strings.Fields(args)...)...)
		if got := strings.TrimSpace(string(bodies["POST /v1/delete"])); code != 0 || got != want {
			t.Errorf("%s: code %d, asked for %s, want %s\n%s", args, code, got, want, errOut)
		}
	}
}

// TestGetTakesNames in all the forms that kubectl does.
func TestGetTakesNames(t *testing.T) {
	var all []api.Object
	for _, r := range []api.Ref{{Kind: "VirtualService", Namespace: "default", Name: "a"}, {Kind: "VirtualService", Namespace: "shop", Name: "a"},
		{Kind: "DestinationRule", Namespace: "default", Name: "a"}, {Kind: "DestinationRule", Namespace: "default", Name: "b"}, {Kind: "Service", Namespace: "shop", Name: "c"}} {
		all = append(all, api.Object{Ref: r, Source: "applied", YAML: "name: " + r.String() + "\n"})
	}
	for args, want := range map[string]string{
		"vs,dr": "DestinationRule/default/a DestinationRule/default/b VirtualService/default/a VirtualService/shop/a", "vs,dr a -n default": "DestinationRule/default/a VirtualService/default/a",
		"vs/a": "VirtualService/default/a VirtualService/shop/a", "vs/shop/a": "VirtualService/shop/a", "vs shop/a": "VirtualService/shop/a",
		"dr/b svc/c": "DestinationRule/default/b Service/shop/c", "dr a b": "DestinationRule/default/a DestinationRule/default/b", "vs -n shop": "VirtualService/shop/a",
		"svc -A": "Service/shop/c", "all -n shop": "Service/shop/c VirtualService/shop/a",
		"vs/b": "1", "dr a c": "1", "svc/c -n default": "1", "vs/a b": "2", "vs/": "2", "/a": "2", "vs, a": "2", "program": "2", "vs -A -n shop": "2",
	} {
		code, out, errOut, _ := weft(t, map[string]any{"GET /v1/objects": all}, "", append(strings.Fields("get -o yaml"), strings.Fields(args)...)...)
		got := strings.Join(strings.Fields(strings.NewReplacer("name: ", "", "---", "").Replace(out)), " ")
		if code != 0 {
			got += fmt.Sprint(code)
		}
		if got != want {
			t.Errorf("%s: %q, want %q\n%s", args, got, want, errOut)
		}
	}
}

// TestNamespaceOfWhatIsApplied is said where it is given, and not where it is not.
func TestNamespaceOfWhatIsApplied(t *testing.T) {
	replies := map[string]any{"POST /v1/apply": api.ChangeReply{}, "POST /v1/diff": api.DiffReply{}}
	for args, want := range map[string]string{"apply -f -": "", "apply -f - -n shop": "shop", "diff -f -": "", "diff -f - --delete vs/x -n shop": "shop"} {
		code, _, errOut, bodies := weft(t, replies, "x", strings.Fields(args)...)
		var req struct{ Namespace string }
		if err := json.Unmarshal(bodies["POST /v1/"+strings.Fields(args)[0]], &req); code != 0 || err != nil || req.Namespace != want {
			t.Errorf("%s: code %d, %v, %q\n%s", args, code, err, req.Namespace, errOut)
		}
	}
	for _, args := range []string{"apply -f - --namespace=", "diff -f - --namespace="} {
		if code, _, _, bodies := weft(t, replies, "x", strings.Fields(args)...); code != 2 || len(bodies) > 0 {
			t.Errorf("%s: code %d", args, code)
		}
	}
}

// TestGetShowsWhatWasRefused: in lists and by name, with what is wrong with it; it has no document.
func TestGetShowsWhatWasRefused(t *testing.T) {
	bad := api.Object{Ref: api.Ref{Kind: "VirtualService", Namespace: "default", Name: "bad"}, Source: "a.yaml:1", Refused: true,
		Findings: []api.Finding{{Severity: "error", Text: "a.yaml:5: error: no regular expression"}}}
	good := api.Object{Ref: api.Ref{Kind: "VirtualService", Namespace: "default", Name: "good"}, Source: "a.yaml:9", Created: time.Now(), YAML: "kind: VirtualService\n"}
	for _, c := range []struct {
		args     string
		code     int
		out      []string
		refusals bool
	}{
		{"vs", 0, []string{"good", "ok", "bad", "error", " -  "}, true},
		{"vs bad", 0, []string{"bad", "error"}, true},
		{"vs good", 0, []string{"good"}, false},
		{"vs -o yaml", 0, []string{"kind: VirtualService\n"}, true},
		{"vs bad -o yaml", 1, nil, true},
		{"vs bad -o json", 0, []string{`"refused": true`, `"items": []`, "no regular expression"}, false},
	} {
		code, out, errOut, _ := weft(t, map[string]any{"GET /v1/objects": []api.Object{good, bad}}, "", append([]string{"get"}, strings.Fields(c.args)...)...)
		told := strings.Contains(errOut, "a.yaml:5: error: no regular expression") && strings.Contains(errOut, "refused, and not in force: VirtualService/default/bad\n")
		if code != c.code || told != c.refusals || len(c.out) == 0 && out != "" {
			t.Errorf("%s: code %d\n%s%s", c.args, code, out, errOut)
		}
		for _, want := range c.out {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in\n%s", c.args, want, out)
			}
		}
	}
}

func TestWatcherTellsNewsOnce(t *testing.T) {
	var out, errOut bytes.Buffer
	w := &watcher{s: &session{out: newOutput(&out, &errOut)}, began: time.Now(), states: map[string]string{}, findings: map[string]bool{}}
	w.printStates([]api.Workload{{Name: "young", State: "NotReady"}})
	w.began = time.Now().Add(-time.Minute)
	w.printStates([]api.Workload{{Name: "old", State: "NotReady", Reason: "refused"}, {Name: "leaving", State: "Terminating"}})
	if got := out.String(); strings.Contains(got, "young") || strings.Contains(got, "leaving") || !strings.Contains(got, "old") {
		t.Errorf("states: %q", got)
	}
	w.printFindings([]api.Finding{{Severity: "error", Text: "error: wrong"}, {Severity: "info", Text: "info: kept"}, {Severity: "info", Code: api.CodeLeftOut, Text: "info: left out"}})
	w.printFindings([]api.Finding{{Severity: "info", Code: api.CodeLeftOut, Text: "info: left out"}})
	if got := errOut.String(); got != "error: wrong\ninfo: left out\nsolved: error: wrong\n" {
		t.Errorf("findings: %q", got)
	}
}

func TestTablesLineUp(t *testing.T) {
	ws := []api.Workload{
		{Namespace: "default", Name: "details-v1", Desired: 1, Ready: 1, State: "Running"},
		{Namespace: "default", Name: "a-much-longer-name-v12", Desired: 12, Ready: 3, State: "CrashLoopBackOff", Restarts: 100, Reason: "exit status 1"},
	}
	_, out, _, _ := weft(t, map[string]any{"GET /v1/status": api.Status{Workloads: ws}}, "", "ps")
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if len(lines) != 3 {
		t.Fatalf("%q", out)
	}
	column := strings.Index(lines[0], "STATE")
	if !strings.HasPrefix(lines[1][column:], "Running") || !strings.HasPrefix(lines[2][column:], "CrashLoop") {
		t.Errorf("columns do not line up:\n%s", out)
	}
	if strings.Contains(out, "\x1b[") {
		t.Error("colour without a terminal")
	}
}

func TestExecGivesTheCommandsCode(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "api.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: api.Handler(api.Backend{Objects: struct{ objects }{}, Workloads: struct{ api.Workloads }{}, Executor: executor{},
		Observer: struct{ api.Observer }{}, Lifecycle: struct{ api.Lifecycle }{}})}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	defer func() { srv.Close(); <-done }()
	t.Setenv("WEFT_SOCKET", socket)
	var out, errOut bytes.Buffer
	if code := Main(t.Context(), []string{"exec", "reviews", "--", "say", "-v", "hi"}, Programs{}, strings.NewReader(""), &out, &errOut); code != 3 || out.String() != "default/reviews [say -v hi]" {
		t.Fatalf("code %d: %q %q", code, out.String(), errOut.String())
	}
}

type executor struct{}

func (executor) Exec(_ context.Context, r api.ExecRequest, _ io.Reader, out, _ io.Writer) (int, error) {
	out.Write([]byte(r.Namespace + "/" + r.Name + " [" + strings.Join(r.Command, " ") + "]"))
	return 3, nil
}

func TestUpPrintsProgressThenSummaryThenStopped(t *testing.T) {
	dir := t.TempDir()
	st := api.Status{Mesh: "default", Isolation: "netns", Reason: "because", Control: "running", Settled: true, Metrics: "http://127.0.0.1:15014/metrics",
		Gateways: []api.Published{{Port: 8080, Address: "127.0.0.1:8080"}, {Port: 80, Address: "127.0.0.1:8081"}, {Port: 5432, Address: "127.0.0.1:5432", Scheme: "tcp"}},
		Workloads: []api.Workload{{Name: "productpage-v1", Namespace: "default", Desired: 1, Ready: 1, State: "Running"},
			{Name: "istio-ingressgateway", Namespace: "istio-system", Gateway: true, Desired: 1, Ready: 1, State: "Running"}}}
	out := &signalWriter{want: "Ctrl-C", seen: make(chan struct{})}
	up := func(ctx context.Context, o UpOptions) error {
		if len(o.Paths) != 1 || o.Publish[80] != 8080 || o.Images["reviews"][1] != "v1" {
			return errors.New("wrong options")
		}
		l, err := net.Listen("unix", filepath.Join(o.RunDir, "api.sock"))
		if err != nil {
			return err
		}
		mux := http.NewServeMux()
		mux.Handle("/", &recorder{replies: map[string]any{"GET /v1/status": st}, bodies: map[string][]byte{}})
		mux.HandleFunc("POST /v1/explain", func(w http.ResponseWriter, r *http.Request) {
			var q api.ExplainRequest
			outcome := "refuse"
			if json.NewDecoder(r.Body).Decode(&q) == nil && q.From == "istio-ingressgateway" && q.URL == "http://127.0.0.1:8080/productpage" {
				outcome = "forward"
			}
			json.NewEncoder(w).Encode(api.ExplainReply{Report: json.RawMessage(`{"outcome": "` + outcome + `"}`)})
		})
		srv := &http.Server{Handler: mux}
		defer srv.Close()
		go srv.Serve(l)
		select {
		case <-out.seen:
			return nil
		case <-time.After(3 * time.Minute):
			return errors.New("no summary")
		}
	}
	name := fmt.Sprintf("clitest-%d", os.Getpid()) // of which there is one on the machine
	if err := os.MkdirAll(api.RunDir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(api.RunDir(name))
	var errOut bytes.Buffer
	code := Main(t.Context(), []string{"--mesh", name, "up", dir, "--state", dir, "--publish", "80=8080", "--image", "reviews=x v1"}, Programs{Up: up}, nil, out, &errOut)
	text := out.String()
	for _, want := range []string{"isolation netns: because", "productpage-v1", "http://127.0.0.1:8080/productpage\n", "http://127.0.0.1:8081\n", " 127.0.0.1:5432\n", "explain", "stopped"} {
		if !strings.Contains(text, want) {
			t.Errorf("output lacks %q", want)
		}
	}
	if code != 0 {
		t.Errorf("code %d: %s", code, errOut.String())
	}
}

// signalWriter closes seen when the text it waits for has been written.
type signalWriter struct {
	bytes.Buffer
	want string
	seen chan struct{}
	done bool
}

func (w *signalWriter) Write(p []byte) (int, error) {
	n, err := w.Buffer.Write(p)
	if !w.done && strings.Contains(w.Buffer.String(), w.want) {
		w.done = true
		close(w.seen)
	}
	return n, err
}

// objects has another name than its method, so that it can be embedded.
type objects = api.Objects

func TestMeshNamesStayInTheirFolder(t *testing.T) {
	for _, name := range []string{"..", "../x", "a/b", "", "A", "-a", strings.Repeat("a", 31)} {
		var out, errOut bytes.Buffer
		if code := Main(t.Context(), []string{"--mesh", name, "ps"}, Programs{}, nil, &out, &errOut); code != 2 || !strings.Contains(errOut.String(), "mesh name") {
			t.Errorf("%q: code %d: %s", name, code, errOut.String())
		}
	}
}

func TestSummaryComesEvenWhenSomethingNeverBecomesReady(t *testing.T) {
	var out, errOut bytes.Buffer
	s := &session{out: newOutput(&out, &errOut), mesh: api.DefaultMesh}
	w := &watcher{s: s, began: time.Now().Add(-patience)}
	w.summary(t.Context(), api.Status{Control: "running", Workloads: []api.Workload{{Name: "good", State: "Running"}, {Name: "bad", State: "CrashLoopBackOff"}}})
	if !strings.Contains(out.String(), "not ready after 30 s: bad") {
		t.Error(out.String())
	}
}

func TestUsageErrorsSayWhatIsWanted(t *testing.T) {
	for line, want := range map[string]string{
		"analyze":          "wrong number of arguments: it is weft analyze FILE|DIR|-...",
		"proxy join":       "it is weft proxy join NAME",
		"proxy jion":       `unknown command "jion" for "weft proxy"`,
		"completion fish2": `unknown command "fish2" for "weft completion"`,
		"control status":   "want stop, start, restart or run",
		"aply":             `unknown command "aply" for "weft": did you mean apply?`,
		"app":              `unknown command "app" for "weft": did you mean apply, ps or up?`,
		"apply":            "see weft apply --help",
		"ps --wyde":        "see weft ps --help",
	} {
		code, _, errOut, _ := weft(t, nil, "", strings.Fields(line)...)
		if code != 2 || !strings.Contains(errOut, want) {
			t.Errorf("%s: code %d: %s", line, code, errOut)
		}
	}
}

func TestOtherMeshesAreNamed(t *testing.T) {
	name := fmt.Sprintf("clitest-other-%d", os.Getpid())
	if err := os.MkdirAll(api.RunDir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(api.RunDir(name))
	l, err := net.Listen("unix", api.SocketPath(name))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var out, errOut bytes.Buffer
	code := Main(t.Context(), []string{"--mesh", "clitest-none", "ps"}, Programs{}, nil, &out, &errOut)
	if code != 1 || !strings.Contains(errOut.String(), `no mesh called "clitest-none" is running here`) || !strings.Contains(errOut.String(), name) {
		t.Errorf("code %d: %s", code, errOut.String())
	}
}

// TestTerminals: only what goes to a terminal is coloured, and /dev/null, a device of characters too, is none.
func TestTerminals(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	t.Setenv("TERM", "xterm")
	if o := newOutput(null, null); o.color || o.errColor || o.live {
		t.Errorf("/dev/null is taken for a terminal: %+v", o)
	}
	var errOut strings.Builder
	o := &output{err: &errOut, color: true}
	o.fail("no", "")
	if got := errOut.String(); got != "error: no\n" {
		t.Errorf("got %q", got)
	}
}

// TestGetPrintsObjectsAsJSON: a List that can be applied again, with what is known of each object beside it.
func TestGetPrintsObjectsAsJSON(t *testing.T) {
	objects := []api.Object{{Ref: api.Ref{Kind: "Service", Namespace: "default", Name: "a"}, Source: "applied", YAML: "kind: Service\nspec:\n  ports:\n  - {port: 80, name: 2026-01-01}\n"}}
	code, out, errOut, _ := weft(t, map[string]any{"GET /v1/objects": objects}, "", "get", "-o", "json")
	var got struct {
		APIVersion, Kind string
		Items            []struct {
			Kind string
			Spec struct {
				Ports []struct {
					Port int
					Name string
				}
			}
		}
		Status struct {
			Objects []struct{ Kind, Name, Source string }
		}
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 {
		t.Fatalf("code %d, %v: %s%s", code, err, out, errOut)
	}
	if got.APIVersion != "v1" || got.Kind != "List" || len(got.Items) != 1 || got.Items[0].Kind != "Service" || got.Items[0].Spec.Ports[0].Port != 80 ||
		got.Items[0].Spec.Ports[0].Name != "2026-01-01" || len(got.Status.Objects) != 1 || got.Status.Objects[0].Source != "applied" || got.Status.Objects[0].Name != "a" {
		t.Errorf("%s", out)
	}
	if code, out, _, _ := weft(t, map[string]any{"GET /v1/objects": []api.Object{}}, "", "get", "-o", "json"); code != 0 || !strings.Contains(out, `"items": []`) || !strings.Contains(out, `"objects": []`) {
		t.Errorf("of nothing: code %d\n%s", code, out)
	}
}

func TestSlowWorkIsNamedOnATerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var errOut bytes.Buffer
		o := &output{err: &errOut, live: true}
		o.working("checking")()
		if errOut.Len() > 0 {
			t.Errorf("quick work is named: %q", errOut.String())
		}
		done := o.working("checking")
		time.Sleep(2500 * time.Millisecond)
		done()
		if got := errOut.String(); !strings.Contains(got, "checking ... 2 s") || !strings.HasSuffix(got, "\r\x1b[K") {
			t.Errorf("%q", got)
		}
	})
}
