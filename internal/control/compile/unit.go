package compile

import (
	"cmp"
	"container/heap"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/weftmesh/weft/internal/control/compile/matching"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// topic is something that a unit may look at while it is joined. When it changes, the units that looked at it are joined again.
type topic struct {
	about   topicKind
	a, b, c string
}

type topicKind uint8

const (
	onObject      topicKind = iota // kind, namespace, name: an object that was accepted
	onKind                         // kind: the objects of a kind
	onNamespace                    // kind, namespace: those of a namespace
	onLabel                        // kind, namespace, "key=value": those with a label
	onAddress                      // kind, address: Pods with an address of their own
	onHost                         // host: the objects that claim a host as a service
	onRule                         // host: the DestinationRules for a host
	onDelegate                     // namespace, name: the VirtualServices that delegate to one
	onSubset                       // host, subset: the objects that lead there
	onService                      // host: what is known of a service, but for its endpoints
	onEndpoints                    // host: the endpoints of a service
	onNamed                        // short name: the hosts of services of that name
	onDestination                  // host: what was made of DestinationRules
	onGateway                      // kind, namespace, name: a gateway that is in force
	onDefaults                     // the Gateways that routes may use without naming them
	onTarget                       // host: the BackendTLSPolicies for a service
	onGateways                     // the workloads that are gateways
	onOpaque                       // namespace: the workloads that carry no HTTP; "" for all of them
	onPlace                        // what, which: who claims a place that only one can have
)

func objectTopic(r model.Ref) topic { return topic{onObject, r.Kind, r.Namespace, r.Name} }

// phase orders the units: what a unit makes is looked at in its own phase by younger units alone, and in later phases.
type phase uint8

const (
	hostPhase phase = iota // services with their endpoints; workloads follow it
	rulePhase
	gatewayPhase
	routePhase
	subsetPhase  // which subsets of a host are empty
	contestPhase // which rules get no requests because of others', or lead some clients nowhere
	policyPhase
	phases
)

// unit is a part of the join that is always done as a whole: what is known of one host, what comes of one route.
type unit struct {
	phase phase
	name  string  // the host, where the unit is not an object's
	rec   *record // else the object
	// queued says that it is going to be joined, gone that it is not there any more.
	queued, gone bool

	// What the last join gave. It is never changed.
	reads   []topic
	found   []model.Finding
	bids    []*bid
	claims  []*matching.Claim    // of a route
	service *model.Service       // of a host; nil for none
	seat    seat                 // of that
	rules   []*model.Destination // of a host
	opened  []*model.Gateway     // all gateways
	sets    []*model.RouteSet    // of a route
	peer    *model.PeerAuthentication
	policy  *model.AuthorizationPolicy
	limit   *model.RateLimit
	sidecar *model.Sidecar
	proxy   *model.ProxyConfig
}

// bid is a unit's claim to a place. The oldest unit's counts.
type bid struct {
	place    topic
	unit     *unit
	object   *source.Object
	routes   *model.RouteSet   // that sidecars use for a host
	reach    reach             // of these, at a host
	field    string            // that says so
	hosts    []string          // of a route at a listener
	selector map[string]string // of a Sidecar for some workloads
}

// same reports whether two bids mean the same to who looks at them.
func (b *bid) same(o *bid) bool {
	if b.place != o.place || b.object.Ref() != o.object.Ref() || b.field != o.field || !slices.Equal(b.hosts, o.hosts) || !maps.Equal(b.selector, o.selector) ||
		(b.routes == nil) != (o.routes == nil) {
		return false
	}
	return b.routes == nil || b.routes.Namespace == o.routes.Namespace && b.routes.ByPrecedence == o.routes.ByPrecedence &&
		b.reach == o.reach && reflect.DeepEqual(b.routes.ExportTo, o.routes.ExportTo)
}

// before orders the units of a phase: by age where they are objects'.
func (k *Compiler) before(a, b *unit) int {
	if a.rec == nil || b.rec == nil {
		return strings.Compare(a.name, b.name)
	}
	return k.older(a.rec.Object, b.rec.Object)
}

// enqueue has a unit joined before the current Apply ends.
func (k *Compiler) enqueue(u *unit) {
	if !u.queued && !u.gone {
		u.queued = true
		heap.Push(&queue{k, &k.queues[u.phase]}, u)
	}
}

// dirty has the units joined again that looked at a topic.
func (k *Compiler) dirty(t topic) {
	s := k.readers[t]
	for u := range s.all {
		k.enqueue(u)
	}
}

// queue is a heap of units, the oldest first.
type queue struct {
	k    *Compiler
	list *[]*unit
}

func (q *queue) Len() int           { return len(*q.list) }
func (q *queue) Less(i, j int) bool { return q.k.before((*q.list)[i], (*q.list)[j]) < 0 }
func (q *queue) Swap(i, j int)      { (*q.list)[i], (*q.list)[j] = (*q.list)[j], (*q.list)[i] }
func (q *queue) Push(x any) {
	if u, ok := x.(*unit); ok {
		*q.list = append(*q.list, u)
	}
}
func (q *queue) Pop() any {
	last := len(*q.list) - 1
	u := (*q.list)[last]
	*q.list = (*q.list)[:last]
	return u
}

// settle joins what is queued, phase by phase.
func (k *Compiler) settle() {
	for {
		if u := k.next(hostPhase); u != nil {
			k.join(u)
			continue
		}
		if len(k.stirred) > 0 {
			k.joinWorkloads()
			continue
		}
		done := true
		for p := rulePhase; p < phases && done; p++ {
			if u := k.next(p); u != nil {
				k.join(u)
				done = false
			}
		}
		if done {
			k.leadAll()
			return
		}
	}
}

// next takes the oldest queued unit of a phase; nil when there is none.
func (k *Compiler) next(p phase) *unit {
	for len(k.queues[p]) > 0 {
		u, _ := heap.Pop(&queue{k, &k.queues[p]}).(*unit)
		u.queued = false
		if !u.gone {
			return u
		}
	}
	return nil
}

// join does a unit anew and passes on what came of it.
func (k *Compiler) join(u *unit) {
	c := &compiler{settings: k.settings, state: k, unit: u}
	joins[u.phase](c, u)
	clear(k.seen)
	if u.gone {
		k.drop(u)
		return
	}
	k.subscribe(u, c.reads)
	k.bid(u, c.bids)
	if u.phase == routePhase {
		k.stake(u, c.claims)
	}
	var found []model.Finding
	for _, p := range c.parts {
		found = append(found, p.Findings...)
	}
	k.tell(u, found)
}

// joins does a unit of each phase: looks at what it needs and stores what it makes. It is never changed.
var joins = [phases]func(*compiler, *unit){
	hostPhase:    (*compiler).joinHost,
	rulePhase:    (*compiler).joinRules,
	gatewayPhase: (*compiler).joinGateways,
	routePhase:   (*compiler).joinRoute,
	subsetPhase:  (*compiler).joinSubsets,
	contestPhase: (*compiler).joinContest,
	policyPhase:  (*compiler).joinPolicy,
}

// subscribe records what a unit looked at.
func (k *Compiler) subscribe(u *unit, reads []topic) {
	if slices.Equal(u.reads, reads) {
		return
	}
	now := make(map[topic]bool, len(reads))
	for _, t := range reads {
		now[t] = true
	}
	for _, t := range u.reads {
		if !now[t] {
			k.unread(t, u)
		}
	}
	for _, t := range reads {
		if t.about == onPlace {
			k.watch(t, u)
		} else {
			k.readers.add(t, u)
		}
	}
	u.reads = slices.Clip(reads)
}

// unread forgets that a unit looked at a topic.
func (k *Compiler) unread(t topic, u *unit) {
	if t.about != onPlace {
		k.readers.remove(t, u)
		return
	}
	list := k.watchers[t]
	i, there := slices.BinarySearchFunc(list, u, k.inTurn)
	switch {
	case !there:
	case len(list) == 1:
		delete(k.watchers, t)
	default:
		k.watchers[t] = slices.Delete(list, i, i+1)
	}
}

// watch records that a unit looked at a place.
func (k *Compiler) watch(place topic, u *unit) {
	list := k.watchers[place]
	if i, there := slices.BinarySearchFunc(list, u, k.inTurn); !there {
		k.watchers[place] = slices.Insert(list, i, u)
	}
}

// inTurn orders the units of all phases.
func (k *Compiler) inTurn(a, b *unit) int {
	return cmp.Or(cmp.Compare(a.phase, b.phase), k.before(a, b))
}

// contested has those joined again that looked at a place after a unit whose claim to it is not what it was.
func (k *Compiler) contested(b *bid, u *unit) {
	list := k.watchers[b.place]
	i, there := slices.BinarySearchFunc(list, u, k.inTurn)
	if there {
		i++
	}
	merged := k.merged(b)
	for _, r := range list[i:] {
		if concerns(b, r, merged) {
			k.enqueue(r)
		}
	}
}

// concerns reports whether a claim may mean something to a unit that looked at its place. Crowds that do not compete among themselves
// are left alone when one of them comes or goes.
func concerns(b *bid, u *unit, merged bool) bool {
	switch {
	case b.selector != nil:
		return slices.ContainsFunc(u.bids, func(own *bid) bool { return meetable(b.selector, own.selector) })
	case b.place.a == listenerClaims:
		return u.rec == nil || u.rec.Kind.Name != b.object.Kind.Name // as otherKind looks at them
	case merged:
		return !slices.ContainsFunc(u.bids, func(own *bid) bool { return own.place == b.place })
	}
	return true
}

// merged reports whether all routes for the host of a claim are the Gateway API's, of which none ends the others (see rule).
func (k *Compiler) merged(b *bid) bool {
	return b.routes != nil && b.routes.ByPrecedence && !slices.ContainsFunc(k.places[b.place], func(o *bid) bool { return !o.routes.ByPrecedence })
}

// bid records what places a unit claims. Younger units that looked at them are joined again when that is not what it was.
func (k *Compiler) bid(u *unit, bids []*bid) {
	if slices.EqualFunc(u.bids, bids, (*bid).same) {
		for i, b := range u.bids { // what it means is the same, but the objects may be new ones
			*b = *bids[i]
		}
		return
	}
	old := u.bids
	k.withdraw(u)
	for _, b := range bids {
		list := k.places[b.place]
		i, _ := slices.BinarySearchFunc(list, u, func(b *bid, u *unit) int {
			if n := k.before(b.unit, u); n != 0 {
				return n
			}
			return -1 // after the unit's own earlier ones
		})
		k.places[b.place] = slices.Insert(list, i, b)
	}
	u.bids = bids
	for _, b := range slices.Concat(old, bids) {
		k.contested(b, u)
	}
}

// withdraw takes a unit's bids away.
func (k *Compiler) withdraw(u *unit) {
	for _, b := range u.bids {
		list := slices.DeleteFunc(k.places[b.place], func(x *bid) bool { return x.unit == u })
		if len(list) == 0 {
			delete(k.places, b.place)
		} else {
			k.places[b.place] = list
		}
	}
	u.bids = nil
}

// retire takes away what a unit claims and what it has looked at.
func (k *Compiler) retire(u *unit) {
	for _, t := range u.reads {
		k.unread(t, u)
	}
	u.reads = nil
	k.stake(u, nil)
	bids := u.bids
	k.withdraw(u)
	for _, b := range bids {
		k.contested(b, u)
	}
}

// tell replaces a unit's findings.
func (k *Compiler) tell(u *unit, found []model.Finding) {
	k.heard(u, u.found, found)
	u.found = found
	among(k.speakers, u, len(found) > 0)
}

// drop takes a unit out, with all that it made but what is in the mesh.
func (k *Compiler) drop(u *unit) {
	u.gone = true
	k.retire(u)
	k.tell(u, nil)
}
