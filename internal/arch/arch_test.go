package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/weftmesh/weft/"

type pkg struct {
	ImportPath string
	Doc        string
	Dir        string
	Imports    []string
	Deps       []string
	Standard   bool
}

var loadPackages = sync.OnceValues(func() ([]pkg, error) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Doc,Dir,Imports,Deps,Standard", "./...")
	cmd.Dir = filepath.Join("..", "..")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return nil, errors.New(string(exit.Stderr))
		}
		return nil, err
	}
	var pkgs []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs, nil
		} else if err != nil {
			return nil, err
		}
		pkgs = append(pkgs, p)
	}
})

func packages(t *testing.T) []pkg {
	t.Helper()
	pkgs, err := loadPackages()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return pkgs
}

// in reports whether path (with or without the module's prefix) is one of the folders or below one.
func in(path string, folders ...string) bool {
	path = strings.TrimPrefix(path, module)
	for _, f := range folders {
		if path == f || strings.HasPrefix(path, f+"/") {
			return true
		}
	}
	return false
}

func ours(path string) bool { return strings.HasPrefix(path, module) }

func standard(path string) bool { return !strings.Contains(strings.SplitN(path, "/", 2)[0], ".") }

// steps are the packages of the request path; none of them may know another.
var steps = []string{"listen", "http", "http2", "route", "filter", "balance", "upstream", "relay"}

// joints are the packages that put steps together: what package proxy runs. They are built on each other in this order.
var joints = []string{"failure", "cluster", "record", "downstream", "track", "side", "mirror", "exchange"}

func stepOf(path string) string { return partOf(path, steps) }

// partOf gives the one of the proxy's folders in which a package is; empty for none.
func partOf(path string, folders []string) string {
	rest, ok := strings.CutPrefix(path, module+"internal/proxy/")
	if !ok {
		return ""
	}
	first := strings.SplitN(rest, "/", 2)[0]
	if slices.Contains(folders, first) {
		return first
	}
	return ""
}

// rule forbids an import; it answers why, or "" where the import is fine.
type rule struct {
	name string
	why  func(from, to string) string
}

var rules = []rule{
	{"cmd is imported by nothing", func(from, to string) string {
		if in(to, "cmd") {
			return "cmd only wires; move what is needed into internal"
		}
		return ""
	}},
	{"control and proxy are separate", func(from, to string) string {
		if in(from, "internal/control") && in(to, "internal/proxy") || in(from, "internal/proxy") && in(to, "internal/control") {
			return "the halves meet in wire and on the wire only"
		}
		return ""
	}},
	{"only explain joins both halves", func(from, to string) string {
		if in(to, "internal/proxy") && ours(from) && !in(from, "internal/proxy", "internal/explain", "cmd/weft-proxy", "test", "bench") {
			return "outside the proxy only explain may evaluate its code"
		}
		return ""
	}},
	{"model, identity, conf and message stay pure", func(from, to string) string {
		if in(from, "internal/control/model", "internal/identity", "internal/logformat", "internal/proxy/conf", "internal/proxy/message") &&
			!standard(to) && !in(to, "internal/identity", "internal/logformat", "internal/proxy/conf", "internal/proxy/message") {
			return "standard library, identity and logformat only"
		}
		return ""
	}},
	{"Kubernetes types stay at the edge", func(from, to string) string {
		foreign := in(to, "k8s.io", "sigs.k8s.io", "istio.io")
		if foreign && !in(from, "internal/control/source", "internal/control/compile", "internal/control/status", "internal/runtime", "internal/local", "test", "examples", "bench/control") &&
			!(strings.HasPrefix(to, "istio.io/api/security/v1alpha1") && in(from, "internal/ca", "internal/wire")) {
			return "only source, compile, status and runtime know Kubernetes, Istio and Gateway API types"
		}
		return ""
	}},
	{"Envoy's messages stay on the wire", func(from, to string) string {
		if in(to, "github.com/envoyproxy") &&
			!in(from, "internal/control/generate", "internal/control/serve", "internal/wire", "internal/proxy/ads", "internal/proxy/decode", "internal/proxy/live", "internal/proxy/filter/globallimit", "internal/explain", "test/mesh", "test/conformance", "bench/control") {
			return "only generate, serve, wire, ads, decode, the clients of services (and what stores or evaluates messages whole) know Envoy's messages"
		}
		return ""
	}},
	{"what a node sees is told without messages", func(from, to string) string {
		if in(from, "internal/control/generate/view") && (in(to, "github.com/envoyproxy", "google.golang.org/protobuf") || in(to, "internal/control/generate")) {
			return "view answers in the model's words; generate makes messages of that"
		}
		return ""
	}},
	{"families of kinds are converted apart", func(from, to string) string {
		const convert = "internal/control/compile/convert"
		if in(from, convert) && in(to, convert) && from != module+convert && to != module+convert+"/parts" {
			return "what families share is in parts, and convert joins them"
		}
		return ""
	}},
	{"steps of the request path do not know each other", func(from, to string) string {
		if a, b := stepOf(from), stepOf(to); a != "" && b != "" && a != b {
			return "package proxy joins the steps"
		}
		return ""
	}},
	{"steps do not know what joins them", func(from, to string) string {
		if stepOf(from) != "" && partOf(to, joints) != "" {
			return "a step is told what it needs to know"
		}
		return ""
	}},
	{"what joins steps is built in layers", func(from, to string) string {
		if a, b := partOf(from, joints), partOf(to, joints); a != "" && b != "" && slices.Index(joints, a) < slices.Index(joints, b) {
			return "the order of joints says who may use whom"
		}
		return ""
	}},
	{"the command line reaches servers through api only", func(from, to string) string {
		if in(from, "internal/cli", "internal/dash") && in(to, "internal/control", "internal/proxy", "internal/runtime", "internal/ca") {
			return "go through internal/api"
		}
		return ""
	}},
}

func TestImportRules(t *testing.T) {
	for _, p := range packages(t) {
		for _, to := range p.Imports {
			for _, r := range rules {
				if why := r.why(p.ImportPath, to); why != "" {
					t.Errorf("%s imports %s: %s (%s)", strings.TrimPrefix(p.ImportPath, module), strings.TrimPrefix(to, module), why, r.name)
				}
			}
		}
	}
}

// TestRulesCanFail proves that each rule refuses something, so that a typing error does not switch it off.
func TestRulesCanFail(t *testing.T) {
	bad := map[string][2]string{
		"cmd is imported by nothing":                        {module + "internal/cli", module + "cmd/weft"},
		"control and proxy are separate":                    {module + "internal/proxy/live", module + "internal/control/model"},
		"only explain joins both halves":                    {module + "internal/cli", module + "internal/proxy/route"},
		"model, identity, conf and message stay pure":       {module + "internal/proxy/conf", "google.golang.org/grpc"},
		"Kubernetes types stay at the edge":                 {module + "internal/cli", "k8s.io/api/core/v1"},
		"Envoy's messages stay on the wire":                 {module + "internal/proxy/route", "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"},
		"what a node sees is told without messages":         {module + "internal/control/generate/view", module + "internal/control/generate/message"},
		"families of kinds are converted apart":             {module + "internal/control/compile/convert/istio", module + "internal/control/compile/convert/services"},
		"steps of the request path do not know each other":  {module + "internal/proxy/http", module + "internal/proxy/relay"},
		"steps do not know what joins them":                 {module + "internal/proxy/http", module + "internal/proxy/exchange"},
		"what joins steps is built in layers":               {module + "internal/proxy/side", module + "internal/proxy/exchange"},
		"the command line reaches servers through api only": {module + "internal/cli", module + "internal/control"},
	}
	for _, r := range rules {
		pair, ok := bad[r.name]
		if !ok {
			t.Errorf("rule %q has no example that breaks it", r.name)
			continue
		}
		if r.why(pair[0], pair[1]) == "" {
			t.Errorf("rule %q lets %s import %s", r.name, pair[0], pair[1])
		}
	}
}

// TestProxyStaysSmall keeps out of weft-proxy what thousands of copies should not carry.
func TestProxyStaysSmall(t *testing.T) {
	for _, p := range packages(t) {
		if p.ImportPath != module+"cmd/weft-proxy" {
			continue
		}
		for _, d := range p.Deps {
			for _, banned := range []string{"k8s.io/", "sigs.k8s.io/", "istio.io/client-go", "go.etcd.io/", "github.com/spf13/cobra", module + "internal/control", module + "internal/cli"} {
				if strings.HasPrefix(d+"/", banned) || strings.HasPrefix(d, banned) {
					t.Errorf("weft-proxy depends on %s", d)
				}
			}
		}
		return
	}
	t.Error("cmd/weft-proxy is missing")
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" && !strings.HasSuffix(p.Dir, "testdata") {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
		name := filepath.Base(p.Dir)
		for _, refused := range []string{"util", "utils", "common", "manager", "helper", "helpers", "types"} {
			if name == refused {
				t.Errorf("%s: the name says nothing", p.ImportPath)
			}
		}
	}
}
