package matching

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/weftmesh/weft/internal/control/model"
)

// Place is where the rules of several objects for one host meet.
type Place struct {
	Where string // "at port 80 of the gateway"
	// Server is the host by which a connection's server name chose the server, where one did: each has a route table of its own.
	Server string
	Host   string
	// Connections says that it is they that are chosen, by the host as their server name, rather than requests.
	Connections bool
}

// String says for what host, and where.
func (p Place) String() string { return p.Host + " " + p.Where }

// Claim is a match of a rule at a place, where it competes with those of other objects. It is immutable, and two that are equal mean
// the same.
type Claim struct {
	Place  Place
	By     model.Ref // whose routes the rule is among
	Object model.Ref // that Field is in
	Field  string
	Key    Key

	turn turn
	// passed says that some proxies leave the match out, because one before it in the object takes everything there.
	passed  bool
	visible string // where the routes are to be seen, and are preferred; empty for everywhere
	gateway *model.Gateway
	server  *model.Server
}

// turn orders claims of one place as routes are ordered: as far as they have one key, or the order is that of the objects.
type turn struct {
	group   group
	opened  time.Time // connections go by the age of what opens the port first
	opener  model.Ref
	created time.Time
	nth     int // of the object's
}

type group uint8

const (
	ordered    group = iota // rules whose order is the object's, the older object's first
	orderedAll              // those of them that take everything: they must not hide the next object's
	merged                  // by the precedence of the Gateway API, and then by age
	rest                    // what no other takes

	// Connections go to who has the same condition first: there is one chain for each.
	ofGateways = merged
	ofSets     = rest // ListenerSets give way to Gateways
)

// MaxClaims bounds the claims of one object at one listener: half a megabyte.
const MaxClaims = 1000

// Claims gives those of the rules of a route set at places, which are those of a server of a gateway, or of sidecars where both are nil.
func Claims(rs *model.RouteSet, places []Place, g *model.Gateway, s *model.Server) []*Claim {
	var list []*Claim
	rules := ofRules(rs, g, s)
	for _, p := range places {
		for _, c := range rules {
			if len(list) == MaxClaims {
				return list
			}
			c.Place = p
			list = append(list, &c)
		}
	}
	return list
}

// ofRules gives the claims of rules, without a place. Where the order is the object's, none follows one that takes everything.
func ofRules(rs *model.RouteSet, g *model.Gateway, s *model.Server) (list []Claim) {
	passed := false
	for i := range rs.HTTP {
		r := &rs.HTTP[i]
		matches := r.Matches
		if len(matches) == 0 {
			matches = []model.HTTPMatch{{}}
		}
		for j := range matches {
			m, holds := at(matches[j], g, s)
			if !holds {
				continue
			}
			if len(list) == MaxClaims {
				return list
			}
			key, all := KeyOf(&m), m.TakesAll()
			list = append(list, Claim{By: rs.Ref, Object: cmp.Or(r.Object, rs.Ref), Field: cmp.Or(m.Field, r.Field), Key: key,
				turn: turn{group: groupOf(rs, r, all), created: rs.Created, nth: len(list)}, passed: passed, visible: visibility(rs), gateway: g, server: s})
			if !all || rs.ByPrecedence {
				continue
			}
			if key == (Key{}) {
				return list
			}
			passed = true
		}
	}
	return list
}

func groupOf(rs *model.RouteSet, r *model.HTTPRoute, all bool) group {
	switch {
	case r.Last:
		return rest
	case rs.ByPrecedence:
		return merged
	case all:
		return orderedAll
	}
	return ordered
}

// at gives what is left of a match at a server, or at sidecars; false where it does not hold there. As in Istio, naming gateways makes
// it say nothing of labels.
func at(m model.HTTPMatch, g *model.Gateway, s *model.Server) (model.HTTPMatch, bool) {
	if s == nil {
		return m, true
	}
	if m.Port != 0 && m.Port != s.Port {
		return m, false
	}
	m.Port = 0
	if m.Mesh || len(m.Gateways) > 0 {
		if !slices.ContainsFunc(m.Gateways, func(r model.GatewayRef) bool { return r.Names(g, s) }) {
			return m, false
		}
		m.Mesh, m.Gateways, m.SourceLabels, m.SourceNamespace = false, nil, nil, ""
	}
	return m, true
}

// Connections gives the claims of a route set's rules for connections of which a server does not end TLS; nameAt gives, for a
// server name that a rule has, what the server takes of it.
func Connections(rs *model.RouteSet, where string, nameAt func(sni string) (string, bool), g *model.Gateway, s *model.Server) (list []*Claim) {
	t := turn{group: ofGateways, opened: g.Created, opener: g.Ref, created: rs.Created}
	if g.Ref.Kind == "ListenerSet" {
		t.group = ofSets
	}
	for _, r := range rs.TLS {
		for _, m := range r.Matches {
			about, holds := at(model.HTTPMatch{Port: m.Port, SourceLabels: m.SourceLabels, SourceNamespace: m.SourceNamespace, Gateways: m.Gateways, Mesh: m.Mesh}, g, s)
			if !holds {
				continue
			}
			key := KeyOf(&about)
			if len(m.DestinationSubnets) > 0 { // of all choices, only their being the same counts
				key.Other += Conditions(digest(slices.Sorted(slices.Values(m.DestinationSubnets))))
			}
			for _, sni := range m.SNIHosts {
				name, ok := nameAt(sni)
				if !ok {
					continue
				}
				if len(list) == MaxClaims {
					return list
				}
				t.nth = len(list)
				list = append(list, &Claim{Place: Place{Where: where, Host: name, Connections: true}, By: rs.Ref, Object: rs.Ref, Field: r.Field,
					Key: key, turn: t, visible: visibility(rs), gateway: g, server: s})
			}
		}
	}
	return list
}

// visibility tells apart where routes are to be seen, and where they go before others.
func visibility(rs *model.RouteSet) string {
	if rs.ExportTo.Private {
		return fmt.Sprintf("%q of %q", []string{rs.Namespace}, rs.Namespace)
	}
	if len(rs.ExportTo.Namespaces) == 0 || slices.Contains(rs.ExportTo.Namespaces, "*") {
		return ""
	}
	list := fmt.Sprintf("%q", slices.Sorted(slices.Values(rs.ExportTo.Namespaces)))
	if slices.Contains(rs.ExportTo.Namespaces, rs.Namespace) {
		list += fmt.Sprintf(" of %q", rs.Namespace)
	}
	return list
}

// inTurn orders claims of one place.
func inTurn(a, b *Claim) int {
	return cmp.Or(cmp.Compare(a.turn.group, b.turn.group), a.turn.opened.Compare(b.turn.opened), a.turn.opener.CompareName(b.turn.opener), a.turn.created.Compare(b.turn.created), a.By.CompareName(b.By),
		cmp.Compare(a.By.Kind, b.By.Kind), cmp.Compare(a.turn.nth, b.turn.nth))
}

// Outranks reports whether a claim goes before another for what it is, or what opens the port, and not for the objects' age.
func (c *Claim) Outranks(other *Claim) bool {
	return c.turn.group < other.turn.group || c.turn.opener != other.turn.opener
}

// mayTake reports whether requests that fulfil another claim fulfil this one too, and come to it first.
func (c *Claim) mayTake(other *Claim) bool {
	if c.By == other.By || inTurn(c, other) >= 0 {
		return false
	}
	return c.Key == other.Key || c.turn.group < merged && c.Key.takes(other.Key)
}

// takes reports whether that is so wherever the other holds. What is exported to fewer than the other goes before it, or is not there.
func (c *Claim) takes(other *Claim) bool {
	return c.mayTake(other) && !c.passed && c.visible == other.visible &&
		(c.gateway == other.gateway && c.server == other.server || c.coversServer(other))
}

// coversServer reports whether every workload with the other's server has this one's, and one table for both.
func (c *Claim) coversServer(other *Claim) bool {
	if c.gateway == nil || other.gateway == nil {
		return false
	}
	if c.Place.Server != "" && c.server != other.server && !model.AsksTheSame(c.server, other.server) {
		return false
	}
	if ns := c.gateway.SelectorNamespace; ns != "" && ns != other.gateway.SelectorNamespace {
		return false
	}
	for label, value := range maps.All(c.gateway.Selector) {
		if v, ok := other.gateway.Selector[label]; !ok || v != value {
			return false
		}
	}
	return true
}
