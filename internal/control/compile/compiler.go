package compile

import (
	"net/netip"
	"slices"
	"sync"

	"github.com/weftmesh/weft/internal/control/compile/matching"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// Compiler keeps a mesh compiled while objects change. A change costs what it touches. It is not safe for concurrent use; the meshes
// that it gives are.
type Compiler struct {
	started  model.Settings // set once, with what follows
	settings model.Settings
	older    func(a, b *source.Object) int
	ahead    map[*Ahead]struct{} // what is expected

	records  map[model.Ref]*record
	refusals map[*record]struct{} // those with findings of their own
	members  sets[topic, *record] // what is found otherwise than by name
	indexed  map[class]bool       // the kinds that members knows by onKind, onNamespace, onLabel or onAddress, since somebody asked

	readers  sets[topic, *unit] // who looked at a topic
	watchers map[topic][]*unit  // who looked at a place, in turn: there may be thousands, and only those after a claim care
	places   map[topic][]*bid   // who claims a place, the oldest first
	tables   map[matching.Place]*matching.Table
	speakers map[*unit]struct{} // those with findings
	queues   [phases][]*unit
	stirred  map[instance]struct{} // workloads to join again
	seen     map[topic]struct{}    // what the unit being joined has looked at

	hosts, rules, subsets map[string]*unit
	gateways              *unit
	routes                ordered // units, by age
	peers                 ordered
	policies              ordered
	limits                ordered
	sidecars              ordered
	proxies               ordered

	leads    map[instance][]lead // the services' endpoints that are a workload
	reached  map[netip.Addr]*reached
	networks sets[netip.Prefix, *unit]
	// movedAddresses and movedNetworks are those of reached and networks that do not lead where they should yet; see leadAll.
	movedAddresses map[netip.Addr]struct{}
	movedNetworks  map[netip.Prefix]struct{}

	named    sets[string, string]                  // hosts by short name
	gates    map[instance]*model.Workload          // those that are gateways
	opaque   map[string]map[string]*model.Workload // those that carry no HTTP, by namespace and name
	inForce  map[model.Ref]*model.Gateway
	homes    map[model.Ref][]string // of gateways of workloads: the namespaces of these
	opened   map[model.Ref]*opened  // those of the Gateway API
	defaults []*opened

	mesh    *model.Mesh
	began   bool // there was an Apply
	delta   model.Delta
	changed lists                   // of the mesh, in the current Apply
	later   func() []model.Finding  // made of the findings that are there; nil since they changed
	said    map[any][]model.Finding // what units and records had found before; nil but in Try
}

// lists are the parts of a mesh that are made anew when one of their members changed.
type lists struct{ gateways, routes, peers, policies, limits, sidecars, proxies bool }

// New makes a compiler of a mesh without objects.
func New(s model.Settings) *Compiler { return newCompiler(withDefaults(s), withDefaults(s)) }

func newCompiler(started, settings model.Settings) *Compiler {
	k := &Compiler{
		started: started, settings: settings, older: source.Older, ahead: map[*Ahead]struct{}{},
		records: map[model.Ref]*record{}, refusals: map[*record]struct{}{}, members: sets[topic, *record]{}, indexed: map[class]bool{},
		readers: sets[topic, *unit]{}, watchers: map[topic][]*unit{}, places: map[topic][]*bid{}, tables: map[matching.Place]*matching.Table{}, speakers: map[*unit]struct{}{}, stirred: map[instance]struct{}{},
		seen: map[topic]struct{}{}, hosts: map[string]*unit{}, rules: map[string]*unit{}, subsets: map[string]*unit{}, gateways: &unit{phase: gatewayPhase},
		leads: map[instance][]lead{}, reached: map[netip.Addr]*reached{}, networks: sets[netip.Prefix, *unit]{},
		movedAddresses: map[netip.Addr]struct{}{}, movedNetworks: map[netip.Prefix]struct{}{}, named: sets[string, string]{}, gates: map[instance]*model.Workload{},
		opaque: map[string]map[string]*model.Workload{}, inForce: map[model.Ref]*model.Gateway{},
	}
	k.mesh = &model.Mesh{Settings: k.settings}
	k.enqueue(k.gateways)
	return k
}

// Apply takes objects that came or changed, and the keys of those that went, and gives the mesh that is compiled of all, with what
// may differ between it and the one before. An object with an error finding is left out of the mesh. Objects belong to all who have
// them: they do not change.
func (k *Compiler) Apply(set []*source.Object, gone []source.Key) (*model.Mesh, model.Delta) {
	if s := k.settingsAfter(set, gone); !s.Equal(&k.settings) {
		set, gone = k.restart(s, set, gone), nil
	}
	k.begin()
	for _, key := range gone {
		if kind := source.LookupKind(key.Group, key.Kind); kind != nil {
			k.remove(model.Ref{Kind: kind.RefName(), Namespace: key.Namespace, Name: key.Name})
		}
	}
	for _, o := range set {
		k.put(o)
	}
	k.settle()
	k.finish()
	return k.mesh, k.delta
}

// Try gives the findings that setting objects would bring: those about them, and those about others that are not there already.
// It changes nothing.
func (k *Compiler) Try(set []*source.Object) []model.Finding {
	var before []*source.Object
	var absent []source.Key
	own := map[model.Ref]bool{}
	was := &Ahead{settings: k.settings, parts: map[source.Kube]*part{}}
	defer k.Expect(was)()
	for _, o := range set {
		own[o.Ref()] = true
		if r := k.records[o.Ref()]; r != nil {
			before = append(before, r.Object)
			was.keep(r)
		} else {
			absent = append(absent, o.Key())
		}
	}
	mesh, delta, began := k.mesh, k.delta, k.began
	k.said = map[any][]model.Finding{}
	k.Apply(set, nil)
	findings := slices.DeleteFunc(k.news(), func(f model.Finding) bool { return own[f.Object] })
	for _, f := range k.flatten() {
		if own[f.Object] {
			findings = append(findings, f)
		}
	}
	k.said = nil
	k.Apply(before, absent)
	k.mesh, k.delta, k.began = mesh, delta, began // as they were, the parts that were made twice included
	return source.SortFindings(findings)
}

// news gives the findings that are there since Try began; a line alone makes no difference.
func (k *Compiler) news() (fresh []model.Finding) {
	placeless := func(f model.Finding) model.Finding { f.Line = 0; return f }
	known := map[model.Finding]bool{}
	for _, found := range k.said {
		for _, f := range found {
			known[placeless(f)] = true
		}
	}
	for who := range k.said {
		var found []model.Finding
		switch who := who.(type) {
		case *unit:
			found = who.found
		case *record:
			found = who.found
		}
		for _, f := range found {
			if !known[placeless(f)] {
				fresh = append(fresh, f)
			}
		}
	}
	return fresh
}

// Findings gives what there is to say about the objects, sorted by file and line.
func (k *Compiler) Findings() []model.Finding { return source.SortFindings(k.flatten()) }

// FindingsLater gives a function that gives what Findings would now. It is for a reader who may never ask, and any goroutine.
func (k *Compiler) FindingsLater() func() []model.Finding {
	if k.later == nil {
		all := k.flatten()
		k.later = sync.OnceValue(func() []model.Finding { return source.SortFindings(all) })
	}
	return k.later
}

func (k *Compiler) flatten() []model.Finding {
	var all []model.Finding
	for r := range k.refusals {
		all = append(all, r.found...)
	}
	for u := range k.speakers {
		all = append(all, u.found...)
	}
	return all
}

// begin makes the next mesh, which shares with the present one what will not change.
func (k *Compiler) begin() {
	next := *k.mesh
	next.Services, next.ByAddress, next.ByNetwork = k.mesh.Services.Copy(), k.mesh.ByAddress.Copy(), k.mesh.ByNetwork.Copy()
	next.Destinations, next.Workloads = k.mesh.Destinations.Copy(), k.mesh.Workloads.Copy()
	k.changed, k.delta = lists{}, newDelta()
	k.delta.All = !k.began
	k.mesh, k.began = &next, true
}

func newDelta() model.Delta {
	return model.Delta{Services: map[string]bool{}, Endpoints: map[string]bool{}, Accounts: map[string]bool{}, Addresses: map[netip.Addr]bool{}, Networks: map[netip.Prefix]bool{}, Routes: map[string]bool{},
		Destinations: map[string]bool{}, Workloads: map[string]bool{}, Gateways: map[model.Ref]bool{}, Policies: map[string]bool{},
		Sidecars: map[string]bool{}}
}

// finish makes the lists of the mesh whose members changed.
func (k *Compiler) finish() {
	for _, o := range []*ordered{&k.routes, &k.peers, &k.policies, &k.limits, &k.sidecars, &k.proxies} {
		o.sorted(k)
	}
	if k.changed.gateways {
		k.mesh.Gateways = k.gateways.opened
	}
	if k.changed.routes {
		k.mesh.RouteSets = make([]*model.RouteSet, 0, len(k.routes.units))
		for _, u := range k.routes.units {
			k.mesh.RouteSets = append(k.mesh.RouteSets, u.sets...)
		}
		if len(k.mesh.RouteSets) == 0 {
			k.mesh.RouteSets = nil
		}
	}
	if k.changed.peers {
		k.mesh.PeerAuthentications = listOf(&k.peers, func(u *unit) *model.PeerAuthentication { return u.peer })
	}
	if k.changed.policies {
		k.mesh.AuthorizationPolicies = listOf(&k.policies, func(u *unit) *model.AuthorizationPolicy { return u.policy })
	}
	if k.changed.limits {
		k.mesh.RateLimits = listOf(&k.limits, func(u *unit) *model.RateLimit { return u.limit })
	}
	if k.changed.sidecars {
		k.mesh.Sidecars = listOf(&k.sidecars, func(u *unit) *model.Sidecar { return u.sidecar })
	}
	if k.changed.proxies {
		k.mesh.ProxyConfigs = listOf(&k.proxies, func(u *unit) *model.ProxyConfig { return u.proxy })
	}
}

func listOf[T any](o *ordered, of func(*unit) *T) (list []*T) {
	for _, u := range o.units {
		if x := of(u); x != nil {
			list = append(list, x)
		}
	}
	return list
}

// ordered are units by age.
type ordered struct {
	units []*unit
	fresh []*unit // to be put in by sorted
}

// sorted puts in what was added.
func (o *ordered) sorted(k *Compiler) {
	const many = 32
	if len(o.fresh) > many {
		o.units = append(o.units, o.fresh...)
		slices.SortFunc(o.units, k.before)
	} else {
		for _, u := range o.fresh {
			i, _ := slices.BinarySearchFunc(o.units, u, k.before)
			o.units = slices.Insert(o.units, i, u)
		}
	}
	o.fresh = nil
}

func (o *ordered) remove(k *Compiler, u *unit) {
	o.sorted(k)
	if i, ok := slices.BinarySearchFunc(o.units, u, k.before); ok {
		o.units = slices.Delete(o.units, i, i+1)
	}
}
