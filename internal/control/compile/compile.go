// Package compile makes the model of the mesh from objects as users wrote them. It is pure and deterministic: the same objects
// give the same mesh and the same findings.
//
// Each object is first converted by itself, which finds whatever is wrong with it alone (Check). Then the parts are joined: names
// are looked up, conflicts are settled by age, and what leads nowhere is reported.
//
// A Compiler does this while objects change, at the cost of what changes. The join is cut into units: the service of a host, the
// DestinationRules for a host and whether their subsets are empty, all gateways, one object with routes, one policy. A unit looks at others through the methods of
// compiler alone (service, object, gateway, selected, ...), which note the topic that was looked at; when a topic changes, the units
// that looked at it are joined again. What a unit makes is compared with what it made before, and only a difference is passed on,
// told in the Delta, and put into the next mesh. Nothing that a mesh has is changed later: a unit gets a part of its own to change.
// Of those that compete for a place (bid), the older one counts, and younger ones are joined after it. Compile is one Apply of a
// fresh Compiler; TestIncremental holds the two against each other through thousands of random changes.
//
// A new kind of object needs: its conversion (in one of the packages below convert); a line in objectPhases and listFor when each is a unit of its own, or
// a topic in record.claims when it belongs to a unit of something else; the function that joins it, called from joinPolicy or
// joinRoute; its list in finish and touch; and its versions in universe_test.go.
package compile

import (
	"github.com/weftmesh/weft/internal/control/compile/convert"
	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// Input of a compilation.
type Input struct {
	// Objects in any order, one for each key: of several the last is in force,
	// and the others are judged by themselves. Of those that compete, the oldest counts (source.Older).
	Objects  []*source.Object
	Settings model.Settings
	Ahead    *Ahead // of some of the objects; nil for none
}

// Compile gives the mesh and what there is to say about the objects, sorted by file and line. An object with an error finding is
// left out of the mesh. The zero Settings become trust domain and cluster domain "cluster.local" and root namespace
// "istio-system".
func Compile(in Input) (*model.Mesh, []model.Finding) {
	k := New(in.Settings)
	if in.Ahead != nil {
		k.Expect(in.Ahead)
	}
	mesh, _ := k.Apply(in.Objects, nil)
	findings := k.flatten()
	for _, o := range in.Objects {
		if r := k.records[o.Ref()]; r != nil && r.Object != o {
			findings = append(findings, k.convert(o).Findings...)
		}
	}
	return mesh, source.SortFindings(findings)
}

// Check judges one object by itself: everything that does not depend on others. It is what source.Files takes.
func Check(o *source.Object) []model.Finding {
	return source.SortFindings(convert.Object(o, withDefaults(model.Settings{})).Findings)
}

func withDefaults(s model.Settings) model.Settings {
	if s.TrustDomain == "" {
		s.TrustDomain = "cluster.local"
	}
	if s.ClusterDomain == "" {
		s.ClusterDomain = "cluster.local"
	}
	if s.RootNamespace == "" {
		s.RootNamespace = "istio-system"
	}
	return s
}

// part is an object that was converted.
type part = parts.Part
