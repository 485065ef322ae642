// Package convert makes the parts of the model that one object gives by itself, without looking at others, and finds whatever is
// wrong with it alone. A field that the mesh does not carry is an error: nothing is ignored. Each family of kinds has a package.
package convert

import (
	"slices"

	"github.com/weftmesh/weft/internal/control/compile/apirules"
	"github.com/weftmesh/weft/internal/control/compile/convert/gatewayapi"
	"github.com/weftmesh/weft/internal/control/compile/convert/istio"
	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/compile/convert/security"
	"github.com/weftmesh/weft/internal/control/compile/convert/services"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// Object makes of an object what can be made of it alone. The settings are complete.
func Object(o *source.Object, s model.Settings) *parts.Part {
	p := &parts.Part{Object: o, Mesh: s}
	apirules.Check(o, p.Err)
	services.Convert(p)
	istio.Convert(p)
	security.Convert(p)
	gatewayapi.Convert(p)
	apirules.Bounds(o, func(code, field, hint, format string, args ...any) {
		// A value that nobody knows is none that is not supported yet.
		p.Findings = slices.DeleteFunc(p.Findings, func(f model.Finding) bool { return f.Code == "Unsupported" && f.Field == field })
		if !slices.ContainsFunc(p.Findings, func(f model.Finding) bool { return f.Severity == model.Error && f.Field == field }) {
			p.Err(code, field, hint, format, args...)
		}
	})
	return p
}
