// Package convert makes the parts of the model that one object gives by itself, without looking at others, and finds whatever is
// wrong with it alone. A field that the mesh does not carry is an error: nothing is ignored. Each family of kinds has a package.
package convert

import (
	"slices"
	"strings"

	"github.com/weftmesh/weft/internal/control/compile/apirules"
	"github.com/weftmesh/weft/internal/control/compile/convert/gatewayapi"
	"github.com/weftmesh/weft/internal/control/compile/convert/istio"
	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/compile/convert/security"
	"github.com/weftmesh/weft/internal/control/compile/convert/services"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/source/document"
)

// Object makes of an object what can be made of it alone. The settings are complete.
func Object(o *source.Object, s model.Settings) *parts.Part {
	p := &parts.Part{Object: o, Mesh: s}
	apirules.Check(o, p.Err)
	services.Convert(p)
	istio.Convert(p)
	security.Convert(p)
	gatewayapi.Convert(p)
	apirules.Ingress(o, func(code, field, hint, format string, args ...any) {
		if !slices.ContainsFunc(p.Findings, func(f model.Finding) bool { return f.Severity == model.Error && f.Field == field }) {
			p.Err(code, field, hint, format, args...)
		}
	})
	breaches(p)
	return p
}

// breaches adds the rules of its definition that the object does not keep. Where something else is wrong with a field, that says it better.
func breaches(p *parts.Part) {
	for _, b := range p.Breaches() {
		p.Findings = slices.DeleteFunc(p.Findings, func(f model.Finding) bool {
			// A value that nobody knows is none that is not supported yet, and what is there twice is not merely without effect.
			return f.Field == b.Field && (f.Code == "Unsupported" || b.Code == "DuplicateValue" && f.Severity != model.Error)
		})
		said := func(f model.Finding) bool {
			switch {
			case f.Severity != model.Error:
				return false
			case b.Absent && f.Field == b.Field[:max(strings.LastIndexByte(b.Field, '.'), 0)]:
				return true // of what the field is missing in
			}
			return f.Field == b.Field || (b.Code == "MissingField" || b.Code == "DuplicateValue") && document.Within(f.Field, b.Field)
		}
		if !slices.ContainsFunc(p.Findings, said) {
			p.Err(b.Code, b.Field, b.Hint, "%s", b.Message)
		}
	}
}
