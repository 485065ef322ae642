package compile

import (
	"net/netip"
	"slices"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert"
	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/compile/matching"
	"github.com/weftmesh/weft/internal/control/compile/workloads"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// record is an object that the compiler knows, refused or not. It stays the same one while the object changes.
type record struct {
	*source.Object
	// part is what conversion made of it; nil when that is nothing, when the object was refused, and once a unit has taken it for
	// its own.
	part    *part
	nths    map[string][]int // the places of the part's services, by host
	found   []model.Finding  // by conversion
	refused bool
	topics  []topic // under which members has it
	unit    *unit   // that joins it, where there is one for it alone
	contest *unit   // that compares its rules with others', where it is of routes
}

// class is a kind of objects and the way in which they are found.
type class struct {
	about topicKind
	kind  string
}

// put takes an object that came or changed.
func (k *Compiler) put(o *source.Object) {
	ref := o.Ref()
	r := k.records[ref]
	switch {
	case r == nil:
		r = &record{Object: o}
		k.records[ref] = r
	case r.Object == o:
		return
	default:
		k.leave(r, ref)
		k.move(r, o)
		r.Object = o
	}
	k.enter(r, ref)
}

// remove forgets an object.
func (k *Compiler) remove(ref model.Ref) {
	r := k.records[ref]
	if r == nil {
		return
	}
	delete(k.records, ref)
	k.leave(r, ref)
	k.say(r, nil)
	if r.unit != nil {
		k.dismiss(r)
	}
}

// enter converts an object and makes it known to who may look for it.
func (k *Compiler) enter(r *record, ref model.Ref) {
	p := k.convert(r.Object)
	r.refused = p.Failed()
	k.say(r, p.Findings)
	k.dirty(objectTopic(ref))
	if r.refused {
		if r.unit != nil {
			k.dismiss(r)
		}
		return
	}
	if made(p) {
		p.Findings = nil
		r.part, r.nths = p, nths(p.Services)
	}
	for about := onKind; about <= onAddress; about++ {
		if k.indexed[class{about, ref.Kind}] {
			r.topics = append(r.topics, topicsOf(r.Object, about)...)
		}
	}
	r.topics = append(r.topics, r.claims(k.settings)...)
	for _, t := range r.topics {
		k.members.add(t, r)
		k.dirty(t)
	}
	k.employ(r, ref)
}

// leave takes an object away from who may look for it.
func (k *Compiler) leave(r *record, ref model.Ref) {
	k.dirty(objectTopic(ref))
	for _, t := range r.topics {
		k.members.remove(t, r)
		k.dirty(t)
	}
	if ref.Kind == "Pod" || ref.Kind == "WorkloadEntry" {
		k.stirred[instance{ref.Namespace, ref.Name}] = struct{}{}
	}
	r.part, r.nths, r.topics = nil, nil, nil
}

// say replaces the findings of a record.
func (k *Compiler) say(r *record, found []model.Finding) {
	k.heard(r, r.found, found)
	r.found = found
	among(k.refusals, r, len(found) > 0)
}

// heard notes that a unit or record that had found something before has found something else now.
func (k *Compiler) heard(who any, before, now []model.Finding) {
	if k.said != nil {
		if _, ok := k.said[who]; !ok {
			k.said[who] = before
		}
	}
	if len(before)+len(now) > 0 {
		k.later = nil
	}
}

// among has a member in a set or not.
func among[T comparable](set map[T]struct{}, member T, in bool) {
	if in {
		set[member] = struct{}{}
	} else {
		delete(set, member)
	}
}

// made reports whether conversion gave anything to keep.
func made(p *part) bool {
	return p.Services != nil || p.Routes != nil || p.Destination != nil || p.Gateway != nil || p.PeerAuthentication != nil ||
		p.AuthorizationPolicy != nil || p.RateLimit != nil || p.BackendTLS != nil ||
		p.Sidecar != nil || p.ProxyConfig != nil
}

// nths are the places of services by their hosts, of which one object can name many thousands.
func nths(services []*model.Service) map[string][]int {
	if services == nil {
		return nil
	}
	by := make(map[string][]int, len(services))
	for i, s := range services {
		by[s.Host] = append(by[s.Host], i)
	}
	return by
}

// claims are the topics of what an object says that it is for.
func (r *record) claims(s model.Settings) (list []topic) {
	if r.part == nil {
		return nil
	}
	for _, service := range r.part.Services {
		list = append(list, topic{about: onHost, a: service.Host})
	}
	if d := r.part.Destination; d != nil {
		list = append(list, topic{about: onRule, a: d.Host})
	}
	if policy, ok := r.Kube.(*gatewayv1.BackendTLSPolicy); ok {
		for _, target := range policy.Spec.TargetRefs {
			if isService(target) {
				list = append(list, topic{about: onTarget, a: parts.ServiceHost(string(target.Name), r.GetNamespace(), s)})
			}
		}
	}
	for _, ref := range r.part.Delegates {
		list = append(list, topic{about: onDelegate, a: ref.Namespace, b: ref.Name})
	}
	if rs := r.part.Routes; rs != nil {
		list = append(list, subsetsOf(rs)...)
	}
	return list
}

// employ has the units that are concerned join an object.
func (k *Compiler) employ(r *record, ref model.Ref) {
	switch ref.Kind {
	case "Pod", "WorkloadEntry":
		k.stirred[instance{ref.Namespace, ref.Name}] = struct{}{}
		return
	}
	for _, t := range r.topics {
		switch t.about {
		case onHost:
			k.unitOf(k.hosts, hostPhase, t.a)
		case onRule:
			k.unitOf(k.rules, rulePhase, t.a)
			if d := r.part.Destination; len(d.Subsets) > 0 {
				k.unitOf(k.subsets, subsetPhase, t.a)
			}
		}
	}
	p, ok := objectPhases[ref.Kind]
	if !ok {
		return
	}
	if r.unit == nil {
		r.unit = &unit{phase: p, rec: r}
		if p == routePhase {
			r.contest = &unit{phase: contestPhase, rec: r}
		}
		if list := k.listFor(ref.Kind); list != nil {
			list.fresh = append(list.fresh, r.unit)
		}
	}
	k.enqueue(r.unit)
}

// objectPhases says for which kinds of objects there is a unit for each, and in which phase. It is never changed.
var objectPhases = map[string]phase{
	"VirtualService": routePhase, "HTTPRoute": routePhase, "GRPCRoute": routePhase, parts.TLSRoute: routePhase,
	parts.TCPRoute: routePhase, parts.UDPRoute: routePhase, "Ingress": routePhase,
	"PeerAuthentication": policyPhase, "AuthorizationPolicy": policyPhase, "RateLimit": policyPhase,
	backendTLSPolicy: policyPhase, "Sidecar": policyPhase, "ProxyConfig": policyPhase,
}

// listFor gives the list that a kind's units stand in, by age.
func (k *Compiler) listFor(kind string) *ordered {
	switch kind {
	case "PeerAuthentication":
		return &k.peers
	case "AuthorizationPolicy":
		return &k.policies
	case "RateLimit":
		return &k.limits
	case "Sidecar":
		return &k.sidecars
	case "ProxyConfig":
		return &k.proxies
	}
	if objectPhases[kind] == routePhase {
		return &k.routes
	}
	return nil
}

// unitOf finds or makes the unit of a name.
func (k *Compiler) unitOf(units map[string]*unit, p phase, name string) {
	u := units[name]
	if u == nil {
		u = &unit{phase: p, name: name}
		units[name] = u
	}
	k.enqueue(u)
}

// move prepares a record's unit for another version of the object: it may stand elsewhere among the others.
func (k *Compiler) move(r *record, o *source.Object) {
	if r.unit == nil || k.older(r.Object, o) == 0 {
		return
	}
	if list := k.listFor(o.Ref().Kind); list != nil {
		list.remove(k, r.unit)
		list.fresh = append(list.fresh, r.unit)
	}
	k.retire(r.unit)
	k.touch(r.unit)
	if r.contest != nil {
		k.retire(r.contest)
		k.enqueue(r.contest)
	}
}

// dismiss ends a record's unit.
func (k *Compiler) dismiss(r *record) {
	u := r.unit
	k.touch(u)
	if list := k.listFor(r.Ref().Kind); list != nil {
		list.remove(k, u)
	}
	k.drop(u)
	if r.contest != nil {
		k.drop(r.contest)
	}
	r.unit, r.contest = nil, nil
}

// ask gives the members of a topic, by age. A class of topics is known from when one of it is asked for first.
func (k *Compiler) ask(t topic) []*record {
	if c := (class{t.about, t.a}); t.about >= onKind && t.about <= onAddress && !k.indexed[c] {
		k.indexed[c] = true
		for ref, r := range k.records {
			if ref.Kind != t.a || r.refused {
				continue
			}
			for _, more := range topicsOf(r.Object, t.about) {
				r.topics = append(r.topics, more)
				k.members.add(more, r)
			}
		}
	}
	s := k.members[t]
	list := slices.AppendSeq(make([]*record, 0, s.len()), s.all)
	slices.SortFunc(list, func(a, b *record) int { return k.older(a.Object, b.Object) })
	return list
}

// topicsOf gives an object's topics of a sort.
func topicsOf(o *source.Object, about topicKind) (list []topic) {
	kind := o.Ref().Kind
	switch about {
	case onKind:
		return []topic{{about: onKind, a: kind}}
	case onNamespace:
		return []topic{{about: onNamespace, a: kind, b: o.GetNamespace()}}
	case onLabel:
		for key, v := range labelsOf(o) {
			list = append(list, topic{onLabel, kind, o.GetNamespace(), key + "=" + v})
		}
	case onAddress:
		if pod := source.PodOf(o.Kube); pod != nil && workloads.Placed(pod) {
			for _, a := range workloads.OfPod(pod).Addresses {
				list = append(list, topic{about: onAddress, a: kind, b: a.String()})
			}
		}
	}
	return list
}

// labelsOf gives the labels by which selectors find an object.
func labelsOf(o *source.Object) map[string]string {
	if e, ok := o.Kube.(*networking.WorkloadEntry); ok {
		return workloads.Labels(e)
	}
	return o.GetLabels()
}

// compiler is what a unit sees while it is joined. Everything that is not the unit's own is looked up through its methods, which
// note what was looked at.
type compiler struct {
	settings model.Settings
	state    *Compiler // read through the methods alone
	unit     *unit

	parts []*part // whose findings are the unit's
	reads []topic
	bids  []*bid
	bidAt map[topic][]*bid // those of bids, by place
	// claims are what a route's rules match, where others' may match the same.
	claims []*matching.Claim
}

// read notes that the unit looks at a topic.
func (c *compiler) read(t topic) {
	if _, ok := c.state.seen[t]; !ok {
		c.state.seen[t] = struct{}{}
		c.reads = append(c.reads, t)
	}
}

// own gives a record's part for the unit to change as it likes, and to add findings to.
func (c *compiler) own(r *record) *part {
	p := r.part
	switch {
	case p == nil:
		p = convert.Object(r.Object, c.settings)
		p.Findings = nil // conversion has told them
	case p.Services != nil || p.BackendTLS != nil || p.Routes != nil && p.API == nil:
		shared := *p // others look at it; what it points to is copied before it is changed
		p = &shared
	default:
		r.part = nil
	}
	c.parts = append(c.parts, p)
	return p
}

// about gives something to add findings about an object to.
func (c *compiler) about(o *source.Object) *part {
	c.read(objectTopic(o.Ref()))
	p := &part{Object: o}
	c.parts = append(c.parts, p)
	return p
}

// object finds an object that was accepted; nil when there is none.
func (c *compiler) object(ref model.Ref) *source.Object {
	c.read(objectTopic(ref))
	if r := c.state.records[ref]; r != nil && !r.refused {
		return r.Object
	}
	return nil
}

// part finds what was made of an object, not to be changed; nil when there is none.
func (c *compiler) part(ref model.Ref) *part {
	c.read(objectTopic(ref))
	if r := c.state.records[ref]; r != nil && !r.refused {
		return r.part
	}
	return nil
}

// ask gives the accepted objects under a topic, by age.
func (c *compiler) ask(t topic) []*record {
	c.read(t)
	return c.state.ask(t)
}

// ofKind gives the accepted objects of a kind, by age.
func (c *compiler) ofKind(kind string) []*record { return c.ask(topic{about: onKind, a: kind}) }

// inNamespace gives those in a namespace.
func (c *compiler) inNamespace(kind, namespace string) []*record {
	return c.ask(topic{about: onNamespace, a: kind, b: namespace})
}

// selected gives those in a namespace that a selector picks; an empty one picks all.
func (c *compiler) selected(kind, namespace string, selector map[string]string) []*record {
	if len(selector) == 0 {
		return c.inNamespace(kind, namespace)
	}
	var best topic
	var list []*record
	for i, key := range parts.SortedKeys(selector) {
		t := topic{onLabel, kind, namespace, key + "=" + selector[key]}
		if found := c.state.ask(t); i == 0 || len(found) < len(list) {
			best, list = t, found
		}
	}
	c.read(best)
	return slices.DeleteFunc(list, func(r *record) bool { return !selects(selector, labelsOf(r.Object)) })
}

// at gives the Pods with an address, by age.
func (c *compiler) at(a netip.Addr) []*record {
	return c.ask(topic{about: onAddress, a: "Pod", b: a.String()})
}

// service finds a service. Its endpoints are not to be looked at.
func (c *compiler) service(host string) *model.Service {
	c.read(topic{about: onService, a: host})
	if u := c.state.hosts[host]; u != nil {
		return u.service
	}
	return nil
}

// serviceFor finds what a host means to clients of a namespace, as service does.
func (c *compiler) serviceFor(host, namespace string) *model.Service {
	return c.service(host).For(namespace, nil)
}

// hostsNamed gives the hosts of the services with a short name, sorted.
func (c *compiler) hostsNamed(name string) []string {
	c.read(topic{about: onNamed, a: name})
	s := c.state.named[name]
	return slices.Sorted(s.all)
}

// destinations gives what was made of the DestinationRules for a host.
func (c *compiler) destinations(host string) []*model.Destination {
	c.read(topic{about: onDestination, a: host})
	if u := c.state.rules[host]; u != nil {
		return u.rules
	}
	return nil
}

// gateway finds a gateway that is in force; nil when there is none.
func (c *compiler) gateway(ref model.GatewayRef) *model.Gateway {
	r := model.Ref{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name}
	c.read(topic{onGateway, r.Kind, r.Namespace, r.Name})
	return c.state.inForce[r]
}

func (c *compiler) hasGateway(ref model.GatewayRef) bool { return c.gateway(ref) != nil }

// bidders gives who claims a place before the unit: the bids of older units and its own so far, the oldest first. It holds while the
// unit is joined.
func (c *compiler) bidders(place topic) []*bid {
	c.read(place)
	list := c.state.places[place] // by age
	n, _ := slices.BinarySearchFunc(list, c.unit, func(x *bid, u *unit) int {
		if x.unit == u {
			return 0
		}
		return c.state.before(x.unit, u)
	})
	return append(slices.Clip(list[:n]), c.bidAt[place]...)
}

// bid claims a place.
func (c *compiler) bid(b *bid) {
	if b.unit = c.unit; b.object == nil {
		b.object = c.unit.rec.Object
	}
	if c.bidAt == nil {
		c.bidAt = map[topic][]*bid{}
	}
	c.bids, c.bidAt[b.place] = append(c.bids, b), append(c.bidAt[b.place], b)
}

// claim claims a place and gives who did before.
func (c *compiler) claim(b *bid) []*bid {
	older := c.bidders(b.place)
	c.bid(b)
	return older
}
