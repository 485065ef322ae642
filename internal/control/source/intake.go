package source

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source/document"
)

// Arrival is one object as another system keeps it under its key: accepted, or refused with findings.
type Arrival struct {
	Key      Key
	Object   *Object // nil when it was refused
	Findings []model.Finding

	closed *Object // stands in for it when it is refused; see denyAll
}

// DecodeArrival decodes a document (YAML or JSON) that a system keeps under a key. The origin's file and line are how findings call
// the place where it begins.
func DecodeArrival(key Key, origin Origin, text []byte, check func(*Object) []model.Finding) Arrival {
	a := Arrival{Key: key}
	all := decodeFrom(origin, text)
	if len(all) != 1 {
		return a.refuse(origin, "NotAnObject", fmt.Sprintf("it holds %d objects, want one", len(all)), "write each object under its own key")
	}
	d := &all[0]
	if d.foreign != nil {
		return a.refuse(origin, "WrongKey", "it holds "+d.foreign.String(), "write there what the key says")
	}
	d.judgeDraft(check)
	if a.Findings = d.findings; d.object != nil && check != nil {
		if f := check(d.object); HasErrors(f) {
			d.object, a.Findings = nil, f
		}
	}
	for i := range a.Findings { // what cannot be read as an object does not name one either, the key does
		if a.Findings[i].Object == (model.Ref{}) {
			a.Findings[i].Object = key.ref()
		}
	}
	if d.key.Name != "" && d.key != key {
		return a.refuse(origin, "WrongKey", fmt.Sprintf("it holds %s", d.key), "write it under its own key")
	}
	a.Object, a.closed = d.object, d.denyAll(origin.File)
	for _, o := range []*Object{a.Object, a.closed} {
		if o != nil {
			o.Origin.Layer = origin.Layer
		}
	}
	return a
}

// decodeFrom decodes text that begins at the origin's line.
func decodeFrom(origin Origin, text []byte) (all []decoded) {
	docs, problem := document.Split(origin.File, text)
	if problem != nil {
		return []decoded{{findings: []model.Finding{*problem}}}
	}
	for _, doc := range docs {
		all = append(all, Text{Layer: origin.Layer, File: origin.File}.decodeDocument(doc.Text, doc.Line+max(origin.Line, 1)-1)...)
	}
	return all
}

// refuse gives the arrival with one finding about the whole document.
func (a Arrival) refuse(origin Origin, code, message, hint string) Arrival {
	a.Object, a.closed = nil, nil
	a.Findings = []model.Finding{{Severity: model.Error, Code: code, Object: a.Key.ref(), File: origin.File, Message: message, Hint: hint}}
	return a
}

// Placeless forgets the lines, for text that a program wrote on one line, and what they are found by.
func (a Arrival) Placeless() Arrival {
	for i := range a.Findings {
		a.Findings[i].Line = 0
	}
	for _, o := range []*Object{a.Object, a.closed} {
		if o != nil {
			o.places, o.Origin.Line = nil, 0
		}
	}
	return a
}

// ref is how findings call the object.
func (k Key) ref() model.Ref {
	r := model.Ref{Kind: k.Kind, Namespace: k.Namespace, Name: k.Name}
	if kind := LookupKind(k.Group, k.Kind); kind != nil {
		r.Kind = kind.RefName()
	}
	return r
}

// Intake is the book of a source whose objects come one by one. What is refused leaves in force what was accepted under its key
// before, and a refused AuthorizationPolicy of which nothing was ever accepted denies everything to its workloads, as with Files.
// Its methods may be called from any goroutine. The zero value is ready for Update.
type Intake struct {
	mu       sync.Mutex
	force    map[Key]*Object         // what is in force
	standing map[Key]bool            // those of force that only stand in
	troubles map[Key][]model.Finding // what there is to say, by the object that it is about
	publish  func(Change)            // nil before Begin and after Close
	opened   bool

	outages map[string]outage        // what cannot be read, by its name; see Lost
	remarks map[string]model.Finding // of the whole source, by topic; see Remark
	forgets *time.Timer              // takes back that the source went back, also when it runs no more; nil before it did
	place   string                   // how findings call the source
	begun   time.Time
}

// Begin names the source, as findings call it, and publishes from then on why nothing is there yet, until Open.
func (in *Intake) Begin(place string, publish func(Change)) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.place, in.begun, in.publish = place, time.Now(), publish
	in.publishFindings()
}

// Open publishes all there is, and from then on each change, until Close.
func (in *Intake) Open() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.opened = true
	if in.publish != nil {
		in.publish(Change{Reset: true, Set: sorted(in.force), Findings: in.findings()})
	}
}

// Opened reports whether what was read is in force.
func (in *Intake) Opened() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.opened
}

// unserved says what comes of a source that was never read.
const unserved = "nothing is served before it has been read"

// Meanwhile says, for logs, what holds while the source cannot be read.
func (in *Intake) Meanwhile() string {
	if in.Opened() {
		return "what was read stays in force"
	}
	return unserved
}

// Close ends the publishing: none is under way when it returns, and none follows.
func (in *Intake) Close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.publish = nil
}

// Update takes what came and what is gone, and publishes it as one change.
func (in *Intake) Update(came []Arrival, gone []Key) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.update(came, gone)
}

// Replace is Update with all that there is of a part: what is not among it is gone.
func (in *Intake) Replace(part func(Key) bool, all []Arrival) {
	in.mu.Lock()
	defer in.mu.Unlock()
	there := make(map[Key]bool, len(all))
	for i := range all {
		there[all[i].Key] = true
	}
	var gone []Key
	for k := range in.force {
		if part(k) && !there[k] {
			gone = append(gone, k)
		}
	}
	for k := range in.troubles {
		if part(k) && !there[k] && in.force[k] == nil {
			gone = append(gone, k)
		}
	}
	in.update(all, gone)
}

// Count says how many objects of a part are in force.
func (in *Intake) Count(part func(Key) bool) (n int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for k := range in.force {
		if part(k) {
			n++
		}
	}
	return n
}

func (in *Intake) update(came []Arrival, gone []Key) {
	if in.force == nil {
		in.force, in.standing, in.troubles = map[Key]*Object{}, map[Key]bool{}, map[Key][]model.Finding{}
	}
	c := Change{}
	told := false // findings changed
	for i := range came {
		o, findings := in.accept(&came[i])
		if o != nil {
			c.Set = append(c.Set, o)
		}
		told = in.tell(came[i].Key, findings) || told
	}
	for _, k := range gone {
		if in.force[k] != nil {
			c.Gone = append(c.Gone, k)
		}
		delete(in.force, k)
		delete(in.standing, k)
		told = in.tell(k, nil) || told
	}
	if !in.opened || in.publish == nil || len(c.Set)+len(c.Gone) == 0 && !told {
		return
	}
	c.Findings = in.findings()
	in.publish(c)
}

// accept puts what came into force, or what stands in for it, and gives the object when it is another than before.
func (in *Intake) accept(a *Arrival) (*Object, []model.Finding) {
	k, old := a.Key, in.force[a.Key]
	if a.Object != nil {
		delete(in.standing, k)
		if old != nil && same(old, a.Object) {
			return nil, a.Findings
		}
		in.force[k] = a.Object
		return a.Object, a.Findings
	}
	if old != nil && !in.standing[k] {
		return nil, append(slices.Clone(a.Findings), previousKept(old))
	}
	if a.closed == nil {
		return nil, a.Findings
	}
	in.force[k], in.standing[k] = a.closed, true
	findings := append(slices.Clone(a.Findings), failsClosed(a.closed))
	if old != nil && bytes.Equal(old.Raw, a.closed.Raw) {
		return nil, findings
	}
	return a.closed, findings
}

// same reports that an object came again as it was. Typed ones without text are others with another resource version, but not the same
// with the same one: a server that was restored from a backup gives versions a second time.
func same(old, came *Object) bool {
	if came.Raw == nil {
		return old.Raw == nil && came.GetResourceVersion() != "" && old.GetResourceVersion() == came.GetResourceVersion() &&
			reflect.DeepEqual(old.Kube, came.Kube)
	}
	return bytes.Equal(old.Raw, came.Raw) && old.Born.Equal(came.Born) && old.Origin == came.Origin &&
		old.GetGeneration() == came.GetGeneration()
}

// CodePreviousKept is that of the finding which says that an object is in force as it was before a change that was refused.
const CodePreviousKept = "PreviousKept"

func previousKept(old *Object) model.Finding {
	return model.Finding{Severity: model.Info, Code: CodePreviousKept, Object: old.Ref(), File: old.Origin.File,
		Message: "the version that was accepted before stays in force until this is put right"}
}

// tell replaces the findings about a key and reports whether they differ.
func (in *Intake) tell(k Key, findings []model.Finding) bool {
	if slices.Equal(in.troubles[k], findings) {
		return false
	}
	if len(findings) == 0 {
		delete(in.troubles, k)
	} else {
		in.troubles[k] = findings
	}
	return true
}

func (in *Intake) findings() []model.Finding {
	whole := slices.AppendSeq(in.lost(), maps.Values(in.remarks))
	if !in.opened { // what has come may be less than what there is
		return SortFindings(whole)
	}
	return SortFindings(append(slices.Concat(slices.Collect(maps.Values(in.troubles))...), whole...))
}
