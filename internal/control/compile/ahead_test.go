package compile

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// TestCheckedIsNotConvertedAgain: what a large object was converted to when it was checked is what the compiler goes on with, in the
// settings that it was checked for.
func TestCheckedIsNotConvertedAgain(t *testing.T) {
	var b strings.Builder
	b.WriteString(ruleCompany + "---\n" + rulesHeadOf("VirtualService") + "spec:\n  hosts: [reviews]\n  http:\n")
	for i := range 1000 {
		fmt.Fprintf(&b, "  - {match: [{uri: {exact: /p%d}}], route: [{destination: {host: reviews}}]}\n", i)
	}
	read := func() (objects []*source.Object, large *source.Object) {
		objects, findings := source.Decode(source.LayerFile, "large.yaml", []byte(b.String()))
		if len(findings) > 0 {
			t.Fatal(findings)
		}
		for _, o := range objects {
			if o.Kind.Name == "VirtualService" {
				large = o
			}
		}
		return objects, large
	}
	plain, _ := read()
	want, findings := Compile(Input{Objects: plain})
	for _, c := range []struct {
		name    string
		checked model.Settings
		taken   bool
	}{
		{"for these settings", model.Settings{}, true},
		{"for others", model.Settings{RouteExport: []string{"."}}, false},
	} {
		objects, large := read()
		if found := CheckFor(c.checked)(large); source.HasErrors(found) {
			t.Fatal(found)
		}
		brought := large.Brought().(*Ahead)
		large.Bring(brought)
		mesh, more := Compile(Input{Objects: objects})
		if diff := cmp.Diff(routesOf(want, "reviews"), routesOf(mesh, "reviews")) + cmp.Diff(findings, more); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		if large.Brought() != nil {
			t.Errorf("%s: it is held twice", c.name)
		}
		made, got := brought.parts[large.Kube].Routes.HTTP, routesOf(mesh, "reviews")
		if taken := &made[0].Matches[0] == &got[0].Matches[0]; taken != c.taken {
			t.Errorf("%s: taken: %v", c.name, taken)
		}
	}
}
