package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDiffWithoutClients: a comparison that tried nothing is no all-clear, unless there is nothing to compare.
func TestDiffWithoutClients(t *testing.T) {
	dir := t.TempDir()
	write := func(name, subset string) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(`apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {ports: [{name: http, port: 9080}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: `+subset+`}}]}]}
`), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	before, same, after := write("before.yaml", "v1"), write("same.yaml", "v1"), write("after.yaml", "v2")
	if code, out, errOut := files(t, "", "diff", "--exit-code", "--from", before, "--to", after); code != 1 || !strings.HasPrefix(out, "nothing was tried: no workload") {
		t.Errorf("code %d\n%s%s", code, out, errOut)
	}
	if code, out, errOut := files(t, "", "diff", "--exit-code", "--from", before, "--to", same); code != 0 || !strings.HasPrefix(out, "no request behaves differently") {
		t.Errorf("code %d\n%s%s", code, out, errOut)
	}
}
