package cli

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/weftmesh/weft/internal/api"
)

func TestStatusOfProxies(t *testing.T) {
	now := time.Now()
	types := func(stale int) []api.ProxyType {
		return []api.ProxyType{{Type: "cds", Resources: 12}, {Type: "eds", Resources: 3, Stale: stale}, {Type: "lds", Resources: 1234}}
	}
	ps := make([]api.Proxy, 100)
	for i := range ps {
		ps[i] = api.Proxy{Node: fmt.Sprintf("sidecar~10.0.0.1~%s%d.default~default.svc.cluster.local", strings.Repeat("n", i%30), i),
			Identity: "spiffe://cluster.local/ns/default/sa/default", Connected: now.Add(-time.Hour), State: "synced", Types: types(0)}
	}
	ps[7].State, ps[7].Since, ps[7].Reason, ps[7].Types = "waiting", now.Add(-9*time.Second), "eds was sent and not answered", types(2)
	ps[8].State, ps[8].Since, ps[8].Reason = "refused", now.Add(-5*time.Minute), "rds: field x\nis bad: "+strings.Repeat("y", 500)
	ps[9] = api.Proxy{Node: ps[9].Node, Connected: now.Add(-time.Hour), State: "gone", Since: now.Add(-30 * time.Second), Reason: "it closed its stream"}
	ps[10].State = "" // of an older mesh
	code, out, errOut, _ := weft(t, map[string]any{"GET /v1/status": api.Status{Control: "running", Proxies: ps}}, "", "status")
	if code != 0 {
		t.Fatal(code, errOut)
	}
	if !strings.Contains(out, "97 synced, 1 waiting, 1 refused, 1 gone") {
		t.Errorf("no summary in\n%s", out)
	}
	_, table, _ := strings.Cut(out, "PROXY")
	lines := strings.Split(strings.TrimSpace("PROXY"+table), "\n")
	if len(lines) != 101 {
		t.Fatalf("%d lines for 100 proxies:\n%s", len(lines), out)
	}
	column := utf8.RuneCountInString(lines[0][:strings.Index(lines[0], "STATE")])
	for i, want := range map[int][]string{7: {"waiting", "9s", "3/5", "eds was sent"}, 8: {"refused", "5m", "rds: field x is bad", "…"},
		9: {"gone", "30s", "it closed its stream"}, 10: {"synced", "-"}, 99: {"synced", "60m", "1234"}} {
		for _, w := range want {
			if !strings.Contains(lines[i+1], w) {
				t.Errorf("no %q in %s", w, lines[i+1])
			}
		}
		if !strings.HasPrefix(string([]rune(lines[i+1])[column:]), want[0]) {
			t.Errorf("does not line up:\n%s\n%s", lines[0], lines[i+1])
		}
	}
}
