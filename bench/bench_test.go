package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weftmesh/weft/bench/load"
)

func TestParseWrk(t *testing.T) {
	res, err := parseWrk("Running 1s test\n...\nweft 1010 2048 1000500 10 150 900\n")
	if err != nil {
		t.Fatal(err)
	}
	if res.Requests != 1000 || res.Errors != 10 || res.Bytes != 2048 || res.Duration != 1000500*time.Microsecond || res.P99 != 900*time.Microsecond {
		t.Errorf("got %+v", res)
	}
	for _, bad := range []string{"", "weft 1 2\n", "weft a b c d e f\n"} {
		if _, err := parseWrk(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

// played is a scenario of which HAProxy took 20 µs, weft-proxy the given times; negative ones are disturbed.
func played(times ...float64) *outcome {
	o := &outcome{scenario: scenarios()[0]}
	o.samples = append(o.samples, sample{Contestant: haproxyWeb, Values: map[string]float64{cpuEach: 20}})
	for i, v := range times {
		s := sample{Contestant: weftOut, Round: i, Values: map[string]float64{cpuEach: max(v, -v)}, Disturbed: v < 0}
		o.samples = append(o.samples, s)
	}
	return o
}

func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		name          string
		o             *outcome
		text, verdict string
	}{
		{"below", played(15, 18, 16), "0.80x", "met"},
		{"above", played(18), "0.90x", "not met"},
		{"disturbed ones do not count", played(-100, 15, -1), "0.75x", "met"},
		{"only disturbed ones", played(-100), "5.00x", "undecided: disturbed"},
		{"even number of rounds", played(15, 17), "0.80x", "met"},
	} {
		text, verdict, ok := goals[0].reached(c.o, weftOut)
		if !ok || text != c.text || verdict != c.verdict {
			t.Errorf("%s: %q, %q, %v; want %q, %q", c.name, text, verdict, ok, c.text, c.verdict)
		}
	}
	if _, _, ok := goals[0].reached(played(), weftOut); ok {
		t.Error("a verdict without a measurement")
	}
}

// TestLikeIsComparedWithLike: a quiet round of one contestant says nothing beside a disturbed one of another.
func TestLikeIsComparedWithLike(t *testing.T) {
	o := played(15, -30, -45)
	o.samples[0].Disturbed = true
	if ratio, quiet, ok := o.compare(weftOut, haproxyWeb, cpuEach); ratio != 1.5 || quiet || !ok {
		t.Errorf("ratio %v, quiet %v, %v; want that of all rounds, 30 to 20", ratio, quiet, ok)
	}
}

func TestEveryGoalHasItsMeasurement(t *testing.T) {
	for _, g := range goals {
		i := slices.IndexFunc(scenarios(), func(s scenario) bool { return s.key == g.scenario })
		if i < 0 {
			t.Errorf("goal %q: no scenario %s", g.what, g.scenario)
			continue
		}
		sc := scenarios()[i]
		if !slices.ContainsFunc(sc.columns, func(c column) bool { return c.value == g.value }) {
			t.Errorf("goal %q: scenario %s does not show %s", g.what, g.scenario, g.value)
		}
		if g.against != "" && !slices.Contains(sc.contestants, g.against) {
			t.Errorf("goal %q: scenario %s has no contestant %s", g.what, g.scenario, g.against)
		}
	}
}

func TestLacks(t *testing.T) {
	o := played(15, -15)
	if !o.lacks(weftOut, 2) || o.lacks(weftOut, 1) {
		t.Error("one of two rounds was disturbed, so one of two wanted is missing")
	}
	o.samples = append(o.samples, sample{Contestant: nginxWeb, Error: "refused"})
	if o.lacks(nginxWeb, 1) {
		t.Error("a contestant that always fails is tried for ever")
	}
}

func TestDerive(t *testing.T) {
	o := &outcome{samples: []sample{
		{Contestant: direct, Values: map[string]float64{p99: 100}},
		{Contestant: weftOut, Values: map[string]float64{p99: 350}},
	}}
	o.derive()
	if v, ok := o.median(weftOut, addedP99); !ok || v != 250 {
		t.Errorf("added p99 is %v, %v; want 250", v, ok)
	}
}

func TestTables(t *testing.T) {
	rep := &report{about: []string{"a machine"}, played: []*outcome{played(15, 18, 16)}}
	text := rep.text()
	for _, want := range []string{"weft-proxy ", "15.0 to 18.0", "0.80x", "net/http ReverseProxy"} {
		if !strings.Contains(text, want) {
			t.Errorf("the text lacks %q:\n%s", want, text)
		}
	}
	for line := range strings.Lines(rep.markdown()) {
		if strings.HasPrefix(line, "| weft-proxy |") && !strings.Contains(line, "| 16.0 | 15.0 to 18.0 |") {
			t.Errorf("line %q", line)
		}
	}
}

func TestPublishReplacesOnlyTheSummary(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bench.md")
	if err := os.WriteFile(path, []byte("# Head\n"+beginMark+"\nold\n"+endMark+"\ntail\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	rep := &report{about: []string{"a machine"}}
	if err := rep.publish(path); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(got)
	if !strings.HasPrefix(text, "# Head\n"+beginMark+"\n- a machine\n") || !strings.HasSuffix(text, endMark+"\ntail\n") || strings.Contains(text, "old") {
		t.Errorf("got %s", text)
	}
	if err := os.WriteFile(path, []byte("nothing\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := rep.publish(path); err == nil {
		t.Error("no error for a document without a place for the summary")
	}
}

func TestReportFromItsFolder(t *testing.T) {
	o := played(15, -18)
	for i := range o.samples {
		o.samples[i].Scenario = o.key
	}
	o.notes = []string{"left out: nginx"}
	rep, dir := &report{about: []string{"a machine"}, played: []*outcome{o}}, t.TempDir()
	want := rep.text()
	if err := rep.save(dir); err != nil {
		t.Fatal(err)
	}
	again, err := loadReport(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := again.text(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestChoose(t *testing.T) {
	all, err := choose("")
	if err != nil || len(all) != len(scenarios()) {
		t.Errorf("%d scenarios, %v", len(all), err)
	}
	some, err := choose("bulk,http1")
	if err != nil || len(some) != 2 || some[0].key != "bulk" {
		t.Errorf("got %v, %v", some, err)
	}
	if _, err := choose("nothing"); err == nil || !strings.Contains(err.Error(), "http1") {
		t.Errorf("error %v does not say what there is", err)
	}
}

func TestParseH2load(t *testing.T) {
	res, err := parseH2load(`
finished in 2.01s, 47547.50 req/s, 51.26MB/s
requests: 95351 total, 95351 started, 95095 done, 95090 succeeded, 1 failed, 2 errored, 3 timeout
status codes: 95094 2xx, 0 3xx, 1 4xx, 0 5xx
traffic: 102.52MB (107499904) total, 1.82MB (1907020) headers (space savings 90.18%), 92.86MB (97372160) data
`)
	want := load.Result{Requests: 95090, Errors: 6, Bytes: 97372160, Duration: 2010 * time.Millisecond}
	if err != nil || res != want {
		t.Errorf("%+v, %v; want %+v", res, err, want)
	}
	if _, err := parseH2load("no summary"); err == nil {
		t.Error("no summary was read")
	}
}
