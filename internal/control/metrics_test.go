package control

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

func TestMetricsOfObjects(t *testing.T) {
	c, err := New(Options{StateDir: t.TempDir(), Address: "-", HTTPAddress: "-"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	objects, findings := source.Decode(source.LayerApplied, "a.yaml", []byte(servicesYAML))
	if len(findings) > 0 {
		t.Fatal(findings)
	}
	c.metrics.took(nil, source.Changes{Set: objects, Refused: []model.Finding{
		{Severity: model.Error, Code: "UnknownField", Object: model.Ref{Kind: "Gateway.istio"}}, {Severity: model.Error, Code: "SyntaxError"}}})
	c.metrics.took(nil, source.Changes{Gone: []source.Key{objects[1].Key()}})
	c.compiled.Store(&compiled{findings: func() []model.Finding {
		return []model.Finding{{Severity: model.Warning, Code: "HostNotFound"}, {Severity: model.Warning, Code: "HostNotFound"}}
	}})
	w := httptest.NewRecorder()
	c.handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`pilot_k8s_reg_events{event="add",type="Services"} 1`,
		`pilot_k8s_cfg_events{event="add",type="DestinationRule"} 1`,
		`pilot_k8s_cfg_events{event="delete",type="DestinationRule"} 1`,
		`weft_control_findings{code="HostNotFound",severity="warning"} 2`,
		`galley_validation_passed{resource="destinationrules"} 1`,
		`galley_validation_failed{reason="UnknownField",resource="gateways"} 1`,
		`galley_validation_failed{reason="SyntaxError",resource="unknown"} 1`,
		`istio_build{component="pilot",tag=`,
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %s", want)
		}
	}
}
