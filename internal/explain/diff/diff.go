// Package diff says which requests two meshes treat differently. It does not compare objects or messages: for each kind of client
// and each destination it makes requests that stand for all that the routes and policies of either side tell apart, has the proxy's
// own code decide about each on both sides, and reports those about which they differ.
//
// What the requests do not show, such as time-outs of idle connections, is found by comparing the messages of both sides field by field,
// and reported as settings.
//
// What cannot be seen so: how workloads answer, what depends on earlier requests (health found by traffic, limits used up), and the
// order in which endpoints of equal rights are chosen.
package diff

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/explain"
	"github.com/weftmesh/weft/internal/explain/diff/scope"
	"github.com/weftmesh/weft/internal/explain/diff/words"
)

// Report is what differs.
type Report struct {
	// Groups are sorted by destination.
	Groups []Group `json:"differences"`
	// Settings differ between the sides although no request that was tried showed it.
	Settings []Setting `json:"settings,omitempty"`
	// Untold are patterns and address ranges that differ between the sides although no request that was tried was treated differently
	// for them. Of what they match only samples can be tried.
	Untold []string `json:"untold,omitempty"`
	// Undecided are destinations about which the sides decide differently in something, of whose requests only a part was tried, and
	// none of these was treated differently.
	Undecided []string `json:"undecided,omitempty"`
	// Untried says that the sides differ and that no client is known on both of them, so that no request was tried.
	Untried bool `json:"untried,omitempty"`
	// Notes say what was not compared.
	Notes []string `json:"notes,omitempty"`
	// Clients are kinds of them, Requests those that were put to both sides.
	Clients      int `json:"clients"`
	Destinations int `json:"destinations"`
	Requests     int `json:"requests"`
}

// Group is a set of differences that hold for the same clients and destinations.
type Group struct {
	Destinations []string `json:"destinations"`
	// From names the clients; "every workload" where it is all of them.
	From    []string `json:"from"`
	Changes []Change `json:"changes"`
}

// Change is one difference.
type Change struct {
	// Requests describe those that it is about, by what the routes and policies of both sides ask of them.
	Requests []string `json:"requests"`
	// Example is one of them, From one of the clients that see the difference.
	Example explain.Request `json:"example"`
	Before  string          `json:"before"`
	After   string          `json:"after"`
}

// Different reports whether any request is treated differently, or may be for what is untold, undecided or untried, or for settings.
func (r *Report) Different() bool {
	return len(r.Groups)+len(r.Untold)+len(r.Undecided)+len(r.Settings) > 0 || r.Untried
}

// side is one of the two meshes.
type side struct {
	mesh  *model.Mesh
	asker *explain.Asker
	// clients are one workload of each owner and kind, by name.
	clients map[string]*model.Workload
	behind  map[string]asks // what the proxies behind a host ask for
}

func newSide(m *model.Mesh) *side {
	s := &side{mesh: m, asker: explain.Over(m), clients: map[string]*model.Workload{}, behind: map[string]asks{}}
	for _, w := range m.Workloads.All() {
		name := ownerOf(w)
		if have := s.clients[name]; have == nil || preferred(w, have) {
			s.clients[name] = w
		}
	}
	return s
}

// preferred takes the instance that is ready, and the first by name among equals.
func preferred(a, b *model.Workload) bool {
	if a.Ready != b.Ready {
		return a.Ready
	}
	return a.Name < b.Name
}

func ownerOf(w *model.Workload) string { return cmp.Or(w.Owner, w.Name) + "." + w.Namespace }

// comparison is one under way.
type comparison struct {
	before, after *side
	report        *Report
	changed       map[string]bool // workloads (ownerOf) whose own proxies treat requests differently
	guarded       map[string]bool // hosts of services with such workloads
	atoms         []atom          // what those proxies ask of who sends
	found         map[string]*finding
	done          map[string][]Change // by class of clients and destination
	part          map[string]bool     // of done without changes, whether only a part was tried
	undecided     map[string]bool
	notes         map[string]bool
	every         int // clients with a sidecar
	scope         *scope.Scope
	asking        map[asked]bool      // what is asked for anyway
	trails        map[string]bool     // whether what decides is the same, by class of clients and destination
	leading       map[string][]string // guarded hosts to which requests may come, by the same
	steps         int                 // left of maxSteps
	comparing     int                 // left of maxComparing
	curbed        int                 // destinations of which a part was tried
	finder        *words.Finder
	untold, told  map[string]bool             // what differs, and what of it a request showed
	shown         map[string]bool             // workloads about whose own proxies a request showed something
	differ        map[Setting]map[string]bool // settings, each without From, with that
	looked        map[lookedAt][]Setting
}

// finding gathers who sees the same changes, and where.
type finding struct {
	destination string
	from        []string
	changes     []Change
}

// Compare says what differs between two meshes.
func Compare(before, after *model.Mesh) *Report { return CompareServed(before, after, false) }

// CompareServed is Compare for a mesh in which, if it is virtual, addresses of services lead nowhere by themselves (explain.View).
func CompareServed(before, after *model.Mesh, virtual bool) *Report {
	return compare(before, after, scope.New(before, after), virtual)
}

func compare(before, after *model.Mesh, within *scope.Scope, virtual bool) *Report {
	c := &comparison{before: newSide(before), after: newSide(after), report: &Report{Groups: []Group{}}, changed: map[string]bool{},
		guarded: map[string]bool{}, found: map[string]*finding{}, done: map[string][]Change{}, part: map[string]bool{}, undecided: map[string]bool{}, notes: map[string]bool{},
		scope: within, asking: map[asked]bool{}, trails: map[string]bool{}, leading: map[string][]string{}, steps: maxSteps, comparing: maxComparing, finder: words.NewFinder(), untold: map[string]bool{}, told: map[string]bool{},
		shown: map[string]bool{}, differ: map[Setting]map[string]bool{}, looked: map[lookedAt][]Setting{}}
	c.before.asker.Virtual, c.after.asker.Virtual = virtual, virtual
	c.servers()
	classes := c.classes()
	own, unowned := c.destinations()
	c.report.Destinations = len(own)
	c.visit(classes, own)
	c.aside(classes, unowned)
	for _, class := range classes {
		if class.gateway {
			c.gateway(class)
		}
	}
	c.outside()
	c.inward()
	c.proxies()
	c.report.Settings = c.settled()
	c.report.Groups = c.groups()
	c.report.Untried = len(classes) == 0 && len(c.report.Groups) == 0 && !c.scope.Alike()
	c.report.Untold, c.report.Undecided, c.report.Notes = c.left(), listed(sortedKeys(c.undecided)), c.noted()
	return c.report
}

// visit compares what workloads get from destinations.
func (c *comparison) visit(classes []*class, destinations []place) {
	for _, d := range destinations {
		if d.host != unknown.host && !c.scope.Touched(d.host) && !(len(c.guarded) > 0 && c.scope.Concerned(d.host, c.guarded)) {
			continue
		}
		apart := c.scope.Apart(d.host)
		for _, class := range classes {
			if !class.gateway {
				c.outbound(class, d, apart)
			}
		}
	}
}

// aside notes places of which nobody needs to know more: ports that services do not have. Where the service's own ports show what
// differs nothing is said of the others.
func (c *comparison) aside(classes []*class, places []place) {
	host := func(name string) string { return name[:strings.LastIndexByte(name, ':')+1] }
	shown := map[string]bool{}
	for _, f := range c.found {
		shown[host(f.destination)] = true
	}
	places = slices.DeleteFunc(places, func(d place) bool { return shown[host(d.name)] })
	found, differ, untold, undecided := c.found, c.differ, c.untold, c.undecided
	c.found, c.differ, c.untold, c.undecided = map[string]*finding{}, map[Setting]map[string]bool{}, map[string]bool{}, map[string]bool{}
	c.visit(classes, places)
	names := map[string]bool{}
	for _, f := range c.found {
		names[f.destination] = true
	}
	if c.found, c.differ, c.untold, c.undecided = found, differ, untold, undecided; len(names) > 0 {
		c.note("%s: the service has no such port, but rules count there all the same, and differ", some(sortedKeys(names)))
	}
}

// maxNotes bounds the notes of a report.
const maxNotes = 20

// noted gives the notes, sorted.
func (c *comparison) noted() []string {
	list := slices.Sorted(maps.Keys(c.notes))
	if len(list) > maxNotes {
		list = append(list[:maxNotes], fmt.Sprintf("and %d more that were not compared, or in part", len(list)-maxNotes))
	}
	if c.curbed > 0 {
		list = append(list, fmt.Sprintf("%s with many conditions: only a part of the requests was tried", count(c.curbed, "destination")))
	}
	return list
}

func (c *comparison) note(format string, args ...any) { c.notes[fmt.Sprintf(format, args...)] = true }

// class is a set of clients that are treated alike.
type class struct {
	gateway       bool
	namespace     string
	routes        string // how requests are sent, besides: Asker.Class of both sides
	signature     string // what policies make of the client
	before, after *model.Workload
	names         []string
}

// classes sorts the clients that both sides have.
func (c *comparison) classes() []*class {
	byKey := map[string]*class{}
	for _, name := range slices.Sorted(maps.Keys(c.before.clients)) {
		b, a := c.before.clients[name], c.after.clients[name]
		switch {
		case a == nil || a.Gateway != b.Gateway || a.Bare && !b.Bare:
			c.note("%s is no client any more", name)
			continue
		case b.Bare && a.Bare:
			continue
		case b.Bare:
			c.note("%s has a sidecar now: what it asks for is not compared", name)
			continue
		}
		k := &class{gateway: b.Gateway, namespace: b.Namespace, routes: c.before.asker.Class(b) + " " + c.after.asker.Class(a), before: b, after: a}
		k.signature = c.signature(c.before, b) + c.signature(c.after, a)
		key := k.namespace + " " + k.routes + "|" + k.signature
		if byKey[key] == nil {
			byKey[key] = k
		}
		byKey[key].names = append(byKey[key].names, name)
		if !b.Gateway {
			c.every++
		}
	}
	for name, w := range c.after.clients {
		if c.before.clients[name] == nil && !w.Bare {
			c.note("%s is new: what it asks for is not compared", name)
		}
	}
	var out []*class
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		out = append(out, byKey[key])
	}
	c.report.Clients = len(out)
	return out
}

// put compares requests of a class of clients and keeps what differs.
func (c *comparison) put(k *class, destination, key string, d *differing, to asked) {
	changes, known := c.done[key]
	if !known {
		changes, c.part[key] = c.changes(d, to, func(s *side, req explain.Request) (effect, bool) {
			w := k.before
			if s == c.after {
				w = k.after
			}
			req.Brief = true
			r, err := s.asker.From(w, req)
			if err != nil {
				return effect{}, false
			}
			return effectOf(r, to), true
		})
		c.done[key] = changes
	}
	c.keep(destination, k.names, changes)
}

// keep files changes under where they are seen.
func (c *comparison) keep(destination string, from []string, changes []Change) {
	if len(changes) == 0 {
		return
	}
	key := destination + "\x00" + fmt.Sprint(changes)
	f := c.found[key]
	if f == nil {
		f = &finding{destination: destination, changes: changes}
		c.found[key] = f
	}
	f.from = append(f.from, from...)
}

// changes puts requests to both sides that stand for all that is asked, and describes those that are treated differently. Part says that
// none is, and that they were not all.
func (c *comparison) changes(d *differing, to asked, ask func(*side, explain.Request) (effect, bool)) (out []Change, part bool) {
	t := c.tries(d, to)
	places, results := map[string]int{}, map[string]int{}
	shown := map[string]bool{}
	for i := range t.regions {
		r := &t.regions[i]
		r.Result = untried
		b, ok1 := ask(c.before, t.requests[i])
		a, ok2 := ask(c.after, t.requests[i])
		if !ok1 || !ok2 {
			continue
		}
		c.report.Requests++
		if r.Result = alike; b.key() == a.key() {
			continue
		}
		for _, cond := range t.rule(r.Why) {
			shown[cond.about()] = true
		}
		before, after := contrast(b, a)
		form := before + "\x00" + after
		if b.redirect+a.redirect != "" { // leads each path to another place
			form = b.form() + "\x00" + a.form()
		}
		if results[form] == 0 {
			results[form] = len(results) + 1
			at, known := places[before+"\x00"+after]
			if !known {
				at = len(out)
				places[before+"\x00"+after] = at
				out = append(out, Change{Example: t.requests[i], Before: before, After: after})
			}
			t.change = append(t.change, at)
		}
		r.Result = results[form]
	}
	c.settle(d, to, shown, len(out) > 0)
	c.describe(t, out)
	return out, len(out) == 0 && !t.whole
}

// maxSteps bounds what all requests may take together, in conditions that are looked at for them: seconds.
const maxSteps = 400_000_000

// affordable bounds the requests that are put for one destination, each of which is held against all of its conditions: a quarter of
// what is left, so that the next ones have their part.
func (c *comparison) affordable(wanted, conditions int) int {
	tries := min(wanted, max(minTries, c.steps/4/max(1, conditions)))
	c.steps -= min(c.steps, tries*conditions)
	if tries < wanted {
		c.curbed++
	}
	return tries
}

// unspellable names a condition without any sample, which is a regular expression.
func unspellable(r rule) string {
	for _, cond := range r {
		if len(cond.samples) == 0 && strings.Contains(cond.text, "~") {
			return cond.text
		}
	}
	return ""
}

// groups joins findings whose changes are equal, over destinations.
func (c *comparison) groups() []Group {
	byChange := map[string]*Group{}
	for _, key := range slices.Sorted(maps.Keys(c.found)) {
		f := c.found[key]
		from := f.from
		client := slices.Min(from)
		if len(from) == c.every && c.every > 1 {
			from = []string{"every workload"}
		}
		slices.Sort(from)
		id := fmt.Sprint(from, texts(f.changes))
		if byChange[id] == nil {
			byChange[id] = &Group{From: from, Changes: sentBy(client, f.changes)}
		}
		byChange[id].Destinations = appendNew(byChange[id].Destinations, f.destination)
	}
	out := []Group{}
	for _, g := range byChange {
		out = append(out, *g)
	}
	slices.SortFunc(out, func(a, b Group) int {
		return cmp.Or(cmp.Compare(a.Destinations[0], b.Destinations[0]), slices.Compare(a.From, b.From), slices.Compare(texts(a.Changes), texts(b.Changes)))
	})
	return out
}

// sentBy gives changes with who sends the examples.
func sentBy(client string, changes []Change) []Change {
	changes = slices.Clone(changes)
	for i := range changes {
		changes[i].Example.From = client
	}
	return changes
}

// texts are changes without their examples.
func texts(changes []Change) (out []string) {
	for _, ch := range changes {
		out = append(out, strings.Join(ch.Requests, "|"), ch.Before, ch.After)
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
