package schema_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weftmesh/weft/internal/control/source"
)

// TestVersions holds objects to the version that they are written in, and what an API server has served to its values alone.
func TestVersions(t *testing.T) {
	route := func(version, spec string) string {
		return "apiVersion: gateway.networking.k8s.io/" + version + "\nkind: TLSRoute\nmetadata: {name: x}\nspec:\n  parentRefs: [{name: gw}]\n" + spec
	}
	const two = "  rules:\n  - backendRefs: [{name: a, port: 443}]\n  - backendRefs: [{name: b, port: 443}]\n"
	for _, c := range []struct {
		name, layer, text string
		want              []string
	}{
		{"v1", source.LayerFile, route("v1", two), []string{"MissingField spec.hostnames", "InvalidValue spec.rules"}},
		{"v1alpha2", source.LayerFile, route("v1alpha2", two), nil},
		{"served", source.LayerKubernetes, route("v1", two), nil},
		{"the values of what is served", source.LayerKubernetes, route("v1", "  hostnames: [A.b]\n"+two), []string{"InvalidHost spec.hostnames[0]"}},
		{"null", source.LayerFile, route("v1", "  hostnames: null\n  rules: []\n"), []string{"MissingField spec.hostnames", "MissingField spec.rules"}},
	} {
		objects, findings := source.Decode(c.layer, "in.yaml", []byte(c.text))
		if len(objects) != 1 {
			t.Fatal(findings)
		}
		var got []string
		for _, b := range objects[0].Breaches() {
			got = append(got, fmt.Sprint(b.Code, " ", b.Field))
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
}
