// Package compile makes the model of the mesh from objects as users wrote them. It is pure and deterministic: the same objects
// give the same mesh and the same findings.
//
// Each object is first converted by itself, which finds whatever is wrong with it alone (Check). Then the parts are joined: names
// are looked up, conflicts are settled by age, and what leads nowhere is reported.
package compile

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/weftmesh/weft/internal/control/compile/convert"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// Input of a compilation.
type Input struct {
	// Objects, oldest first, as in source.Snapshot.
	Objects  []*source.Object
	Settings model.Settings
}

// Compile gives the mesh and what there is to say about the objects, sorted by file and line. An object with an error finding is
// left out of the mesh. The zero Settings become trust domain and cluster domain "cluster.local" and root namespace
// "istio-system".
func Compile(in Input) (*model.Mesh, []model.Finding) {
	started := withDefaults(in.Settings)
	c := newCompiler(meshSettings(in.Objects, started))
	for _, o := range in.Objects {
		if isMeshConfig(o, started) {
			c.take(convert.Object(o, started))
			continue
		}
		c.take(convert.Object(o, c.settings))
	}
	c.addServices()
	c.addServiceEntries()
	c.addBackendTLS()
	c.addWorkloads()
	c.addEndpoints()
	c.addDestinations()
	c.addGateways()
	c.addRoutes()
	c.addPolicies()
	c.addSidecars()
	c.addProxyConfigs()
	return c.mesh, c.findings()
}

// Validate gives the findings of Compile alone; it is what source.NewSet takes.
func Validate(s model.Settings) func([]*source.Object) []model.Finding {
	return func(objects []*source.Object) []model.Finding {
		_, f := Compile(Input{Objects: objects, Settings: s})
		return f
	}
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
type part = convert.Part

// compiler is the state of one compilation.
type compiler struct {
	settings model.Settings
	mesh     *model.Mesh

	all       []*part                // in the order of the input
	byKind    map[string][]*part     // accepted ones, by model.Ref's kind, oldest first
	byRef     map[model.Ref]*part    // accepted ones
	owner     map[any]*part          // what a service, gateway or route set was made of
	placed    map[netip.Addr]podSeat // pods by address
	instances map[instance]*model.Endpoint
	claims    map[string][]claim // who rules a host in sidecars, oldest first
	taken     map[string]*part   // routes for connections that have a place alone, see firstFor
	opened    map[model.Ref]*opened
	attached  map[string][]atListener // routes for requests by listener, oldest first
}

func newCompiler(s model.Settings) *compiler {
	return &compiler{
		settings: s,
		mesh:     &model.Mesh{Settings: s},
		byKind:   map[string][]*part{}, byRef: map[model.Ref]*part{}, owner: map[any]*part{}, placed: map[netip.Addr]podSeat{},
		instances: map[instance]*model.Endpoint{}, claims: map[string][]claim{}, taken: map[string]*part{},
		opened: map[model.Ref]*opened{}, attached: map[string][]atListener{},
	}
}

// take files a converted object; one with an error is left out.
func (c *compiler) take(p *part) {
	c.all = append(c.all, p)
	if p.Failed() {
		return
	}
	ref := p.Ref()
	c.byKind[ref.Kind] = append(c.byKind[ref.Kind], p)
	c.byRef[ref] = p
}

func (c *compiler) findings() []model.Finding {
	var all []model.Finding
	for _, p := range c.all {
		all = append(all, p.Findings...)
	}
	return source.SortFindings(all)
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
