package cli

import (
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/api"
)

// TestTextWithOrders: nothing that a mesh tells gives the terminal orders.
func TestTextWithOrders(t *testing.T) {
	st := api.Status{Control: "running",
		Proxies:  []api.Proxy{{Node: "sidecar~10.0.0.1~a\x1b[2Jb.default~x", State: "refused", Reason: "rds: no\x1b]0;x\x07", Identity: "i\x00"}},
		Findings: []api.Finding{{Severity: api.SeverityError, Text: "error: Proxy/default/a: refused\x1b[31m\nfake: all is well"}}}
	code, out, errOut, _ := weft(t, map[string]any{"GET /v1/status": st}, "", "status")
	if code != 0 || strings.ContainsAny(out+errOut, "\x1b\x00\x07") || strings.Contains(errOut, "\nfake") {
		t.Errorf("code %d\n%q\n%q", code, out, errOut)
	}
	for _, want := range []string{`a\x1b[2Jb.default`, `i\x00`, `no\x1b]0;x\a`} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s in %q", want, out)
		}
	}
	manifest := "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec: {hosts: [a], \"\\e[2Jx\": 1}\n"
	if _, out, errOut = files(t, manifest, "analyze", "-"); strings.Contains(out+errOut, "\x1b") || !strings.Contains(out, `\x1b[2Jx`) {
		t.Errorf("%q\n%q", out, errOut)
	}
}
