package explain_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/explain"
	"github.com/weftmesh/weft/internal/wire"
)

var update = flag.Bool("update", false, "write the reports into the golden files")

// TestGolden explains the requests of each file of testdata in the mesh that it describes. A file holds objects (*.yaml), instances
// ("pods", one a line: name service address, and any of sidecar, gateway, unready, in=LOCALITY), requests (one a line: client, method, URL and
// header fields) and the reports that are wanted. The services of bookinfo.yaml are in every mesh.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { golden(t, file) })
	}
}

func golden(t *testing.T, file string) {
	a, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	base, err := os.ReadFile("testdata/bookinfo.yaml")
	if err != nil {
		t.Fatal(err)
	}
	objects := decode(t, "bookinfo.yaml", base)
	var requests, want string
	for _, f := range a.Files {
		switch {
		case strings.HasSuffix(f.Name, ".yaml"):
			objects = append(objects, decode(t, f.Name, f.Data)...)
		case f.Name == "pods":
			objects = append(objects, decode(t, "pods", pods(string(f.Data)))...)
		case f.Name == "requests":
			requests = string(f.Data)
		case f.Name == "want":
			want = string(f.Data)
		}
	}
	got := reports(mesh(t, objects), requests)
	if *update {
		for i := range a.Files {
			if a.Files[i].Name == "want" {
				a.Files[i].Data = []byte(got)
			}
		}
		if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != want {
		t.Errorf("reports differ (run with -update to accept):\n%s\nwant\n%s", got, want)
	}
}

func decode(t *testing.T, name string, data []byte) []*source.Object {
	t.Helper()
	objects, findings := source.Decode(source.LayerFile, name, data)
	for _, f := range findings {
		t.Errorf("decode: %s", f)
	}
	return objects
}

func mesh(t *testing.T, objects []*source.Object) *model.Mesh {
	t.Helper()
	m, findings := compile.Compile(compile.Input{Objects: objects})
	for _, f := range findings {
		if f.Severity == model.Error {
			t.Errorf("compile: %s", f)
		}
	}
	return m
}

// pods writes instances as Kubernetes objects.
func pods(lines string) []byte {
	var b bytes.Buffer
	for line := range strings.Lines(lines) {
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		name, service, address := f[0], f[1], f[2]
		version := strings.TrimPrefix(strings.TrimPrefix(name, service), "-")
		version, _, _ = strings.Cut(version, "-")
		ready, sidecar, gateway := !strings.Contains(line, "unready"), strings.Contains(line, "sidecar"), strings.Contains(line, "gateway")
		_, locality, _ := strings.Cut(f[len(f)-1], "in=")
		fmt.Fprintf(&b, `
apiVersion: v1
kind: Pod
metadata:
  name: %[1]s
  labels: {app: %[2]s, version: %[4]s, istio: %[7]s, istio-locality: "%[9]s"}
  annotations: {weft.dev/sidecar: "%[6]v"}
spec:
  serviceAccountName: bookinfo-%[2]s
  containers:
  - name: app
    ports: [{containerPort: 9080}]
status:
  phase: Running
  podIPs: [{ip: %[3]s}]
  conditions: [{type: Ready, status: "%[5]s"}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: %[1]s
  labels: {kubernetes.io/service-name: %[2]s}
addressType: IPv4
ports: [{name: http, port: 9080}]
endpoints:
- addresses: [%[3]s]
  conditions: {ready: %[8]v}
  targetRef: {kind: Pod, name: %[1]s, namespace: default}
---
`, name, service, address, version, map[bool]string{true: "True", false: "False"}[ready], sidecar,
			map[bool]string{true: "ingressgateway", false: "none"}[gateway], ready, locality)
	}
	return b.Bytes()
}

func reports(m *model.Mesh, requests string) string {
	var b strings.Builder
	for line := range strings.Lines(requests) {
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		req := explain.Request{From: f[0], Method: f[1], URL: f[2]}
		for _, h := range f[3:] {
			name, value, _ := strings.Cut(h, ":")
			req.Headers = append(req.Headers, explain.Field{Name: name, Value: value})
		}
		r, err := explain.Mesh(m, req)
		if err != nil {
			fmt.Fprintf(&b, "error: %v\n\n", err)
			continue
		}
		_ = r.WriteText(&b, false)
		b.WriteString("\n")
	}
	return b.String()
}

// TestReportIsJSON checks that programs get what people see, and that a report of messages alone needs no mesh.
func TestReportIsJSON(t *testing.T) {
	base, err := os.ReadFile("testdata/bookinfo.yaml")
	if err != nil {
		t.Fatal(err)
	}
	objects := append(decode(t, "bookinfo.yaml", base), decode(t, "pods", pods("productpage-v1-a productpage 10.1.0.1 sidecar\nreviews-v1-a reviews 10.1.0.2 sidecar\n"))...)
	m := mesh(t, objects)
	g := generate.New(m, generate.Node{Role: wire.Sidecar, Name: "x", Namespace: "default", ServiceAccount: "x"})
	r, err := explain.Explain(explain.View{Client: explain.Proxy{Role: wire.Sidecar, Workload: "x", Namespace: "default", Resources: g.Resource}},
		explain.Request{URL: "reviews:9080/"})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back explain.Report
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	if back.Route == nil || back.Outcome != "forward" || len(back.Destinations) != 1 || back.Destinations[0].Ready != 1 || !back.Destinations[0].MTLS {
		t.Errorf("report: %s", raw)
	}
	var colored, plain strings.Builder
	if err := r.WriteText(&colored, true); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteText(&plain, false); err != nil {
		t.Fatal(err)
	}
	if got := regexp.MustCompile("\x1b\\[[0-9]*m").ReplaceAllString(colored.String(), ""); got != plain.String() {
		t.Errorf("colours move the text:\n%s\n%s", got, plain.String())
	}
}

func TestBadQuestions(t *testing.T) {
	for _, q := range []explain.Request{{URL: "ftp://x"}, {URL: "http://:80/"}, {URL: "tcp://mysql"}, {URL: "http://a:b/"}} {
		if _, err := explain.Explain(explain.View{}, q); err == nil {
			t.Errorf("%+v was answered", q)
		}
	}
}

func TestRegistryOnlyRefusesTheUnknown(t *testing.T) {
	base, err := os.ReadFile("testdata/bookinfo.yaml")
	if err != nil {
		t.Fatal(err)
	}
	m := mesh(t, append(decode(t, "bookinfo.yaml", base), decode(t, "pods", pods("productpage-v1-a productpage 10.1.0.1 sidecar\n"))...))
	m.Settings.RegistryOnly = true
	r, err := explain.Mesh(m, explain.Request{From: "productpage", URL: "http://www.example.org/"})
	if err != nil || r.Outcome != "refuse" || r.Status != 502 {
		t.Errorf("report %+v, %v", r, err)
	}
	m.Sidecars = []*model.Sidecar{{Outbound: &model.OutboundPolicy{}}}
	if r, err = explain.Mesh(m, explain.Request{From: "productpage", URL: "http://www.example.org/"}); err != nil || r.Outcome != "pass through" {
		t.Errorf("with a Sidecar: report %+v, %v", r, err)
	}
}
