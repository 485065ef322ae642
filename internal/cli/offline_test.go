package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const bookinfo = "../../examples/bookinfo"

// files runs a command line that needs no mesh.
func files(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	t.Setenv("WEFT_SOCKET", filepath.Join(t.TempDir(), "none"))
	var out, errOut bytes.Buffer
	code = Main(t.Context(), args, Programs{}, strings.NewReader(stdin), &out, &errOut)
	return code, out.String(), errOut.String()
}

func TestExamplesOwnTestsPass(t *testing.T) {
	if code, out, errOut := files(t, "", "test", bookinfo+"/test"); code != 0 {
		t.Errorf("code %d\n%s%s", code, out, errOut)
	}
}

func TestFailedTestSaysWhatItGotAndWhy(t *testing.T) {
	dir := t.TempDir()
	file, report := filepath.Join(dir, "x_test.txtar"), filepath.Join(dir, "junit.xml")
	vs, err := os.ReadFile(bookinfo + "/bookinfo.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := "-- tests.yaml --\ntests:\n- name: wrong\n  from: productpage\n  request: http://reviews:9080/\n  expect: {to: reviews/v2, timeout: 3s}\n- name: right\n  from: productpage\n  request: http://reviews:9080/\n  expect: {to: reviews}\n-- b.yaml --\n" + string(vs)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	code, out, _ := files(t, "", "test", "-v", dir, "--junit", report)
	for _, want := range []string{"FAIL  wrong", "expected  reviews/v2", "got       reviews.default 100%", "expected  3s", "| GET http://reviews:9080/", "ok    right", "2 tests in 1 file: 1 passed, 1 failed"} {
		if !strings.Contains(out, want) {
			t.Errorf("lacks %q:\n%s", want, out)
		}
	}
	if raw, err := os.ReadFile(report); code != 1 || err != nil || !strings.Contains(string(raw), `failures="1"`) {
		t.Errorf("code %d, %v: %s", code, err, raw)
	}
	if code, out, _ = files(t, "", "test", dir, "--run", "^right$"); code != 0 {
		t.Errorf("code %d\n%s", code, out)
	}
}

// TestArchivesNameTheirFiles: objects and settings of the archive itself, and destinations in a list.
func TestArchivesNameTheirFiles(t *testing.T) {
	vs, err := os.ReadFile(bookinfo + "/bookinfo.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "x_test.txtar")
	if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for tests, want := range map[string]int{
		"objects: [m.yaml, a.yaml]\nmeshConfig: ./mesh.yaml\n": 0, "meshConfig: mesh.yaml\n": 0, "objects: [./m.yaml]\nmeshConfig: mesh.yaml\n": 0, "objects: [none.yaml]\nmeshConfig: mesh.yaml\n": 1,
	} {
		text := "-- tests.yaml --\n" + tests + "tests:\n- from: productpage\n  request: http://reviews:9080/\n  expect: {to: [reviews]}\n" +
			"- from: productpage\n  request: http://unknown.example/\n  expect: {outcome: refuse}\n-- m.yaml --\n" + string(vs) + "-- mesh.yaml --\noutboundTrafficPolicy: {mode: REGISTRY_ONLY}\n"
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if code, out, errOut := files(t, "", "test", file); code != want {
			t.Errorf("%q: code %d\n%s%s", tests, code, out, errOut)
		}
	}
	for to, want := range map[string]int{"[reviews, ratings]": 1, "[]": 1, "[ratings]": 1, "[[reviews]]": 1, "[reviews]": 0} {
		text := "tests:\n- from: productpage\n  request: http://reviews:9080/\n  expect: {to: " + to + "}\nobjects: [" + filepath.Join(dir, "m.yaml") + "]\n"
		if err := os.WriteFile(filepath.Join(dir, "m.yaml"), vs, 0o644); err != nil {
			t.Fatal(err)
		}
		if code, out, errOut := files(t, text, "test", "-"); code != want {
			t.Errorf("to %s: code %d\n%s%s", to, code, out, errOut)
		}
	}
}

func TestNoTestOfTheName(t *testing.T) {
	if code, out, errOut := files(t, "", "test", bookinfo+"/test", "--run", "zzz"); code != 1 || out != "" || !strings.Contains(errOut, `--run "zzz" matches the name of no test`) {
		t.Errorf("code %d\n%s%s", code, out, errOut)
	}
}

// TestExplainWantsARequestLine: what is no [METHOD] URL is an error of usage that says what to write.
func TestExplainWantsARequestLine(t *testing.T) {
	for want, args := range map[string][]string{
		"the URL is missing":           {"GET"},
		"has a space in it":            {"http://reviews:9080/ x"},
		`"http://reviews:9080/" is no`: {"http://reviews:9080/", "x"},
	} {
		code, out, errOut := files(t, "", append([]string{"explain", "-f", bookinfo, "--from", "productpage"}, args...)...)
		if code != 2 || out != "" || !strings.Contains(errOut, want) {
			t.Errorf("%q: code %d, want %q\n%s%s", args, code, want, out, errOut)
		}
	}
}

func TestWrongTestsAreRefusedByLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x_test.yaml")
	if err := os.WriteFile(file, []byte("tests:\n- from: a\n  request: GET http://a\n  expects: {}\n- request: a\n  expect: {status: 7, to: {a: 110%}, outcome: maybe}\n"+
		"- {from: a, request: ftp://a/, expect: {status: 200}}\n- {from: a, request: http://a:99999/, expect: {status: 200}}\n- {from: a, request: tcp://a, expect: {status: 200}}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	code, out, _ := files(t, "", "test", file)
	for _, want := range []string{":4: tests[0].expects: there is no such field", ":2: tests[0].expect: is missing", ":5: tests[1].from", ":6: tests[1].expect.status", ":6: tests[1].expect.to.a", ":6: tests[1].expect.outcome", `:5: tests[1].request: URL "a" has no scheme; want one of http, https, grpc, tcp, udp`,
		`:7: tests[2].request: url "ftp://a/": scheme "ftp" is none of http, https, grpc, tcp, udp`, `:8: tests[3].request: url "http://a:99999/": port 99999 is not one of 1 to 65535`,
		`:9: tests[4].request: url "tcp://a": says no port`} {
		if code != 1 || !strings.Contains(out, want) {
			t.Errorf("code %d, lacks %q:\n%s", code, want, out)
		}
	}
}

const broken = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: x\nspec:\n  hosts: [x]\n  nonsense: 1\n"

func TestAnalyze(t *testing.T) {
	if code, out, errOut := files(t, "", "analyze", bookinfo); code != 0 || !strings.HasSuffix(out, "0 errors, 0 warnings\n") {
		t.Errorf("code %d\n%s%s", code, out, errOut)
	}
	code, out, _ := files(t, broken, "analyze", "-")
	if want := "stdin\n  7  error    VirtualService/default/x  UnknownField\n"; code != 1 || !strings.HasPrefix(out, want) || !strings.HasSuffix(out, "0 objects in 1 file: 1 error, 0 warnings\n") {
		t.Errorf("code %d\n%s", code, out)
	}
	if code, out, _ = files(t, broken, "analyze", "-", "-o", "github"); code != 1 || !strings.HasPrefix(out, "::error file=stdin,line=7,title=UnknownField::VirtualService/default/x: spec.nonsense: ") {
		t.Errorf("code %d\n%s", code, out)
	}
	for _, format := range []string{"json", "sarif"} {
		var v map[string]any
		if code, out, _ = files(t, broken, "analyze", "-", "-o", format); code != 1 || json.Unmarshal([]byte(out), &v) != nil {
			t.Errorf("%s: code %d\n%s", format, code, out)
		}
	}
}

// TestAnalyzePassesOver objects of others: it names them, and ends as if they were not there.
func TestAnalyzePassesOver(t *testing.T) {
	const role, account = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: reader}\n", "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n"
	for stdin, objects := range map[string]string{role: "0 objects", role + "---\n" + account: "1 object"} {
		code, out, errOut := files(t, stdin, "analyze", "-", "--fail-on", "warning")
		if code != 0 || !strings.Contains(out, "info     LeftOut") || !strings.Contains(out, "Role reader (line 1)") ||
			!strings.HasSuffix(out, objects+" in 1 file: 0 errors, 0 warnings\n") {
			t.Errorf("code %d\n%s%s", code, out, errOut)
		}
	}
}

// TestAnalyzeWantsAnObject: of all that is given, as apply does; one empty file among others is no error.
func TestAnalyzeWantsAnObject(t *testing.T) {
	dir := t.TempDir()
	empty, full := filepath.Join(dir, "empty.yaml"), filepath.Join(dir, "full.yaml")
	for name, text := range map[string]string{empty: "# nothing\n---\n", full: "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n"} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{empty}, {os.DevNull}, {"-"}, {empty, "-o", "json"}} {
		code, out, errOut := files(t, "", append([]string{"analyze"}, args...)...)
		if code != 1 || out == "" || errOut != "error: there is no object in what was given\n" {
			t.Errorf("%v: code %d\n%s%s", args, code, out, errOut)
		}
	}
	for _, args := range [][]string{{dir}, {empty, full}} {
		if code, out, errOut := files(t, "", append([]string{"analyze"}, args...)...); code != 0 || errOut != "" {
			t.Errorf("%v: code %d\n%s%s", args, code, out, errOut)
		}
	}
}

// TestFoldersHoldMoreThanObjects has a folder with a file's name, files of tests and a hidden file beside the objects.
func TestFoldersHoldMoreThanObjects(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "more.yaml"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"a.yaml": "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n",
		"a_test.yaml": "tests: []\n", "b_test.yaml": "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: b}\n", ".c.yaml": "neither",
		"more.yaml/d.yaml": "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: d}\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for want, args := range map[string][]string{"2 objects in 2 files": {"analyze", dir}, "3 objects in 3 files": {"analyze", "-R", dir}} {
		code, out, errOut := files(t, "", args...)
		if code != 0 || !strings.Contains(out, want) || !strings.Contains(errOut, "1 file of tests left out") {
			t.Errorf("%v: code %d\n%s%s", args, code, out, errOut)
		}
	}
	if _, out, _ := files(t, "neither", "analyze", "-"); strings.Contains(out, "//") {
		t.Errorf("what is no object has a name:\n%s", out)
	}
}

func TestDiffOfFolders(t *testing.T) {
	code, out, errOut := files(t, "", "diff", "--exit-code", "--from", bookinfo, "--to", bookinfo, "--to", bookinfo+"/try/reviews-v3.yaml")
	if code != 1 || !strings.Contains(out, "reviews.default:9080  from every workload\n  /*\n    before  reviews 100%\n    after   v3 100%\n") {
		t.Errorf("code %d\n%s%s", code, out, errOut)
	}
	if code, out, _ = files(t, "", "diff", "--exit-code", "--from", bookinfo, "--to", bookinfo); code != 0 || !strings.HasPrefix(out, "no request behaves differently") {
		t.Errorf("code %d\n%s", code, out)
	}
	if code, _, errOut = files(t, "", "diff", "--from", bookinfo); code != 2 {
		t.Errorf("code %d\n%s", code, errOut)
	}
}

// TestDiffWithNothing on one side says what is gone, or new; nothing on both is a mistake.
func TestDiffWithNothing(t *testing.T) {
	empty := t.TempDir()
	for _, c := range []struct {
		from, to, want string
		code           int
	}{
		{bookinfo, empty, "-- reviews-v1.default is no client any more\n", 0}, {empty, bookinfo, "-- reviews-v1.default is new", 0},
		{empty, empty, "holds no .yaml, .yml or .json file", 1}, {bookinfo, filepath.Join(empty, "none"), "no such file", 1},
	} {
		code, out, errOut := files(t, "", "diff", "--from", c.from, "--to", c.to)
		if code != c.code || !strings.Contains(out+errOut, c.want) {
			t.Errorf("from %s to %s: code %d\n%s%s", c.from, c.to, code, out, errOut)
		}
	}
}

func TestExplainOfFiles(t *testing.T) {
	code, out, errOut := files(t, "", "explain", "-f", bookinfo, "--from", "productpage", "http://reviews:9080/")
	if code != 0 || !strings.Contains(out, "3 of 3 endpoints ready") {
		t.Errorf("code %d\n%s%s", code, out, errOut)
	}
}

// TestBookinfosOwnTests runs the tests that the example ships, as its users would.
func TestBookinfosOwnTests(t *testing.T) {
	var out, errOut bytes.Buffer
	if code := Main(t.Context(), []string{"test", "../../examples/bookinfo/test"}, Programs{}, nil, &out, &errOut); code != 0 ||
		!strings.Contains(out.String(), "0 failed") {
		t.Errorf("code %d\n%s%s", code, out.String(), errOut.String())
	}
}

func TestExplainOfFilesTakesSettings(t *testing.T) {
	dir := t.TempDir()
	settings := filepath.Join(dir, "mesh.yaml")
	if err := os.WriteFile(settings, []byte("outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	ask := []string{"--from", "productpage", "http://elsewhere.example"}
	_, open, _ := files(t, "", append([]string{"explain", "-f", bookinfo + "/bookinfo.yaml"}, ask...)...)
	for _, flags := range [][]string{{"--registry-only"}, {"--mesh-config", settings}} {
		code, out, errOut := files(t, "", append(append([]string{"explain", "-f", bookinfo + "/bookinfo.yaml"}, flags...), ask...)...)
		if code != 0 || out == open || !strings.Contains(out, "502") {
			t.Errorf("%v: code %d\n%s%s", flags, code, out, errOut)
		}
		if code, _, errOut := files(t, "", append(append([]string{"explain"}, flags...), ask...)...); code != 2 || !strings.Contains(errOut, "-f") {
			t.Errorf("%v without files: code %d\n%s", flags, code, errOut)
		}
	}
}

func TestDiffOfPatternsThatNoRequestShows(t *testing.T) {
	dir := t.TempDir()
	write := func(name, pattern string) string {
		file := filepath.Join(dir, name)
		text := "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {selector: {app: a}, ports: [{name: http, port: 80}]}\n---\n" +
			"apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {app: a}}\nspec: {containers: [{name: a, image: a}]}\n---\n" +
			"apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec: {hosts: [a], http: [{match: [{uri: {regex: '" + pattern + "'}}], route: [{destination: {host: a}}]}, {route: [{destination: {host: a}}]}]}\n"
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	code, out, errOut := files(t, "", "diff", "--from", write("a.yaml", "/a+"), "--to", write("b.yaml", "/b+"), "--exit-code")
	if code != 1 || !strings.Contains(out, "only samples were tried") || !strings.Contains(out, "~/b+") {
		t.Errorf("code %d\n%s%s", code, out, errOut)
	}
}

// TestServerNamesOfTLS: a test may name the server of a TLS client's connection, as --server-name of explain does.
func TestServerNamesOfTLS(t *testing.T) {
	const objects = "apiVersion: v1\nkind: Service\nmetadata: {name: tls}\nspec: {ports: [{name: tls, port: 8443}]}\n---\n" +
		"apiVersion: gateway.networking.k8s.io/v1\nkind: TLSRoute\nmetadata: {name: named}\nspec:\n  parentRefs: [{group: '', kind: Service, name: tls}]\n" +
		"  hostnames: [a.example]\n  rules: [{backendRefs: [{name: tls, port: 8443}]}]\n"
	route := filepath.Join(t.TempDir(), "route.yaml")
	if err := os.WriteFile(route, []byte(objects), 0o644); err != nil {
		t.Fatal(err)
	}
	head := "objects: [" + bookinfo + "/bookinfo.yaml, " + route + "]\ntests:\n- from: productpage\n"
	for text, want := range map[string]int{
		"  request: https://tls:8443\n  serverName: a.example\n  expect: {route: TLSRoute/default/named}\n": 0,
		"  request: https://tls:8443\n  serverName: c.example\n  expect: {route: TLSRoute/default/named}\n": 1,
		"  request: http://tls:8443\n  serverName: a.example\n  expect: {route: none}\n":                    1,
	} {
		if code, out, errOut := files(t, head+text, "test", "-"); code != want {
			t.Errorf("%s: code %d\n%s%s", text, code, out, errOut)
		}
	}
	code, out, errOut := files(t, "", "explain", "-f", bookinfo, "-f", route, "--from", "productpage", "https://tls:8443", "--server-name", "a.example")
	if code != 0 || !strings.Contains(out, "TLSRoute/default/named spec.rules[0]") {
		t.Errorf("code %d\n%s%s", code, out, errOut)
	}
}
