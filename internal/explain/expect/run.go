package expect

import (
	"strings"

	"github.com/weftmesh/weft/internal/explain"
)

// Result is what became of a test.
type Result struct {
	Name     string    `json:"name"`
	File     string    `json:"file"`
	Line     int       `json:"line"`
	Failures []Failure `json:"failures,omitempty"`
	// Error says why there is no answer.
	Error string `json:"error,omitempty"`
	// Report is the answer, and Text the same for people.
	Report *explain.Report `json:"report,omitempty"`
	Text   string          `json:"-"`
}

// Failure is an expectation that does not hold.
type Failure struct {
	Field string `json:"field"`
	Line  int    `json:"line"`
	Want  string `json:"want"`
	Got   string `json:"got"`
}

// Passed reports whether everything was as expected.
func (r *Result) Passed() bool { return r.Error == "" && len(r.Failures) == 0 }

// Run asks a mesh and compares the answer with what the test expects.
func (t *Test) Run(file string, mesh *explain.Asker, color bool) Result {
	res := Result{Name: t.Name, File: file, Line: t.Line}
	report, err := mesh.Ask(t.Request)
	if err != nil {
		res.Error = err.Error()
		return res
	}
	res.Report = report
	for _, c := range t.checks {
		if got, ok := c.got(report); !ok {
			res.Failures = append(res.Failures, Failure{c.field, c.line, c.want, got})
		}
	}
	var b strings.Builder
	_ = report.WriteText(&b, color) // a Builder takes everything
	res.Text = b.String()
	return res
}
