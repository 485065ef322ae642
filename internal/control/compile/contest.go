package compile

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/compile/matching"
	"github.com/weftmesh/weft/internal/control/model"
)

// claimAtGateways claims what the rules of route sets match, at each server of gateways that they name.
func (c *compiler) claimAtGateways(p *part, sets []*model.RouteSet) {
	for _, rs := range sets {
		seen := map[*model.Server]bool{}
		for _, ref := range rs.Gateways {
			g := c.gateway(ref)
			for i := 0; g != nil && i < len(g.Servers); i++ {
				if s := &g.Servers[i]; !seen[s] && ref.Names(g, s) {
					seen[s] = true
					c.claimAtServer(p, rs, g, s)
				}
			}
		}
	}
}

func (c *compiler) claimAtServer(p *part, rs *model.RouteSet, g *model.Gateway, s *model.Server) {
	where := "at port " + strconv.Itoa(int(s.Port)) + " of the gateway"
	switch {
	case carriesRequests(s) && !s.HTTPSRedirect:
		c.claims = append(c.claims, matching.Claims(rs, placesAt(rs, s, where), g, s)...)
	case s.TLS != nil && s.TLS.Mode == model.TLSPassthrough:
		own := matching.Connections(rs, where, func(sni string) (string, bool) { return nameAt(rs, s, sni) }, g, s)
		c.claims = append(c.claims, own...)
		for _, cl := range own {
			c.tellEnding(p, cl, g, s.Port)
		}
	case (s.Protocol == model.TCP || s.Protocol == model.TLS) && !rs.ByPrecedence && serverTakes(s, rs.Namespace, rs.Hosts...):
		c.claimTCP(p, s, "server "+s.Name+" (port "+strconv.Itoa(int(s.Port))+") of "+g.Ref.String())
	}
}

// placesAt gives the hosts that a route set has at a server for requests; no more than it may claim.
func placesAt(rs *model.RouteSet, s *model.Server, where string) (places []matching.Place) {
	seen := map[matching.Place]bool{}
	for _, h := range s.Hosts {
		if h.Namespace != "" && h.Namespace != rs.Namespace {
			continue
		}
		for _, own := range rs.Hosts {
			host, ok := parts.HostsMeet(h.Host, own)
			if !ok {
				continue
			}
			place := matching.Place{Where: where, Host: host}
			if s.TLS != nil {
				place.Server = h.Host
			}
			if !seen[place] {
				seen[place] = true
				places = append(places, place)
			}
			if len(places) == matching.MaxClaims {
				return places
			}
		}
	}
	return places
}

// nameAt gives what a server takes of a server name of a rule: as in its chains, by the first of its hosts that has a part of it.
func nameAt(rs *model.RouteSet, s *model.Server, sni string) (string, bool) {
	for _, h := range s.Hosts {
		if name, ok := parts.HostsMeet(h.Host, sni); ok && (h.Namespace == "" || h.Namespace == rs.Namespace) {
			return name, true
		}
	}
	return "", false
}

// stake records what a unit's rules claim. Whose rules they may take requests of, before or now, is looked at again.
func (k *Compiler) stake(u *unit, claims []*matching.Claim) {
	if slices.EqualFunc(u.claims, claims, func(a, b *matching.Claim) bool { return *a == *b }) {
		return
	}
	old := make(map[matching.Claim]*matching.Claim, len(u.claims))
	for _, cl := range u.claims {
		old[*cl] = cl
	}
	staked := make([]*matching.Claim, len(claims))
	for i, cl := range claims {
		if same := old[*cl]; same != nil {
			staked[i] = same
			delete(old, *cl)
			continue
		}
		staked[i] = cl
		t := k.tables[cl.Place]
		if t == nil {
			t = &matching.Table{}
			k.tables[cl.Place] = t
		}
		t.Put(cl)
		k.contest(t, cl)
	}
	for _, cl := range old {
		t := k.tables[cl.Place]
		t.Remove(cl)
		k.contest(t, cl)
		if t.Empty() {
			delete(k.tables, cl.Place)
		}
	}
	u.claims = staked
	k.enqueue(u.rec.contest)
}

// contest has those looked at again whose rules may get no requests because of a claim.
func (k *Compiler) contest(t *matching.Table, cl *matching.Claim) {
	for o := range t.After(cl) {
		if r := k.records[o.By]; r != nil && r.contest != nil {
			k.enqueue(r.contest)
		}
	}
}

// loss is that a rule gets no requests, because of a rule of another object.
type loss struct {
	claim, taker *matching.Claim // at the first place of several
	more         int
}

// joinContest reports the rules of an object that get nothing because rules of others, which go before them, take it all, and subsets that
// some of their clients do not have.
func (c *compiler) joinContest(u *unit) {
	for _, l := range c.losses(u.rec.unit.claims) {
		taker, loser := c.object(l.taker.Object), c.object(l.claim.Object)
		if taker != nil && loser != nil {
			l.tell(c.about(loser), c.about(taker))
		}
	}
	c.tellHidden(u.rec.unit.sets)
}

// tell reports a loss to both.
func (l *loss) tell(loser, taker *part) {
	by, place := taker.Ref().String()+", which is "+age(taker.Object, loser.Object)+",", l.claim.Place.String()
	if l.taker.Outranks(l.claim) {
		by = taker.Ref().String() + ", whose rule goes before this one,"
	}
	if l.more > 0 {
		place += fmt.Sprintf(" (and %d more)", l.more)
	}
	switch {
	case l.claim.Place.Connections:
		const hint = "put the destinations into one object"
		loser.Warn("DuplicateHost", l.claim.Field, hint, "%s has the connections for %s: the rule gets none of them", by, place)
		taker.Warn("DuplicateHost", l.taker.Field, hint, "%s also asks for the connections for %s, and gets none of them", loser.Ref(), place)
	case l.taker.Key == l.claim.Key:
		const hint = "put the backends into one rule"
		loser.Warn("DuplicateMatch", l.claim.Field, hint, "%s has the same match for %s: its rule gets the requests", by, place)
		taker.Warn("DuplicateMatch", l.taker.Field, hint, "%s has the same match for %s, and gets no requests by it", loser.Ref(), place)
	default:
		loser.Warn("RouteUnreachable", l.claim.Field, "narrow that rule, or take this one out", "never reached for %s: %s of %s takes these requests", place, l.taker.Field, by)
		taker.Warn("RouteUnreachable", l.taker.Field, "narrow it, or take that rule out", "it takes all requests of %s of %s for %s", l.claim.Field, loser.Ref(), place)
	}
}

// losses finds the rules that get no requests, each once for each object that takes them.
func (c *compiler) losses(claims []*matching.Claim) (list []*loss) {
	type pair struct {
		loser  model.Ref
		field  string
		winner model.Ref
	}
	known := map[pair]*loss{}
	for _, cl := range claims {
		taker := c.state.tables[cl.Place].Taker(cl)
		if taker == nil {
			continue
		}
		p := pair{cl.Object, cl.Field, taker.Object}
		if known[p] != nil {
			known[p].more++
			continue
		}
		known[p] = &loss{claim: cl, taker: taker}
		list = append(list, known[p])
	}
	return list
}
