package compile

import (
	"testing"

	"github.com/weftmesh/weft/internal/control/model"
)

// TestFileOfSettings: what is wrong is named as the user has written it.
func TestFileOfSettings(t *testing.T) {
	for text, want := range map[string]string{
		"\ntrustDomain: Bad Domain\nenableTracing: true\n": `mesh.yaml:2: trustDomain: "Bad Domain" is not a trust domain: lower-case letters, digits, dots, dashes and underscores [InvalidValue]
mesh.yaml:3: enableTracing: not supported yet (traces are not sent) [Unsupported]`,
		"trustDomian: x\n": `mesh.yaml:1: trustDomian: there is no field "trustDomian" here (did you mean trustDomain?) [UnknownField]`,
		"a: [\n":           `mesh.yaml:2: not valid YAML: did not find expected node content [SyntaxError]`,
		"- a\n":            `mesh.yaml:1: want fields and their values, got a list [NotAnObject]`,
	} {
		if _, err := ReadSettings("mesh.yaml", []byte(text), model.Settings{}); err == nil || err.Error() != want {
			t.Errorf("%q:\n%v\nwant:\n%s", text, err, want)
		}
	}
	s, err := ReadSettings("mesh.yaml", []byte("trustDomain: a.example"), model.Settings{TrustDomain: "cluster.local"})
	if err != nil || s.TrustDomain != "a.example" {
		t.Error(s.TrustDomain, err)
	}
}
