package status

import (
	analysis "istio.io/api/analysis/v1alpha1"
	meta "istio.io/api/meta/v1alpha1"
	networkingapi "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// reconciled is the condition that Istio's tools wait for.
const reconciled = "Reconciled"

var levels = map[model.Severity]analysis.AnalysisMessageBase_Level{model.Error: analysis.AnalysisMessageBase_ERROR,
	model.Warning: analysis.AnalysisMessageBase_WARNING, model.Info: analysis.AnalysisMessageBase_INFO}

func ofIstio(o *source.Object) bool {
	return o.Kind.Group == source.GroupNetworking || o.Kind.Group == source.GroupSecurity
}

// istio gives the status of an object of Istio's kinds, which is made of the object and its findings: whether it is in force, and the
// codes of its findings.
func (s *state) istio(o *source.Object) Status {
	if !ofIstio(o) {
		return nil
	}
	found := s.findings[o.Ref()]
	c := &meta.IstioCondition{Type: reconciled, Status: "True", Reason: reconciled, ObservedGeneration: o.GetGeneration(), Message: words(found)}
	if bad := errorsOf(found); len(bad) > 0 {
		c.Status, c.Reason, c.Message = "False", bad[0].Code, words(bad)
	}
	out := &meta.IstioStatus{Conditions: []*meta.IstioCondition{c}, ObservedGeneration: o.GetGeneration()}
	seen := map[string]bool{}
	for _, f := range found {
		if !seen[f.Code] {
			seen[f.Code] = true
			out.ValidationMessages = append(out.ValidationMessages, &analysis.AnalysisMessageBase{
				Type: &analysis.AnalysisMessageBase_Type{Name: f.Code, Code: f.Code}, Level: levels[f.Severity]})
		}
	}
	if _, ok := o.Kube.(*networking.ServiceEntry); ok {
		return &networkingapi.ServiceEntryStatus{Conditions: out.Conditions, ValidationMessages: out.ValidationMessages, ObservedGeneration: out.ObservedGeneration}
	}
	return out
}
