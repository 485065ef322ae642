package compile

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/compile/matching"
	"github.com/weftmesh/weft/internal/control/model"
)

// claimAtGateways claims what the rules of route sets match, for each host at each server of gateways that reads requests.
func (c *compiler) claimAtGateways(sets []*model.RouteSet) {
	for _, rs := range sets {
		seen := map[*model.Server]bool{}
		for _, ref := range rs.Gateways {
			g := c.gateway(ref)
			for i := 0; g != nil && i < len(g.Servers); i++ {
				s := &g.Servers[i]
				if !seen[s] && ref.Names(g, s) && carriesRequests(s) && !s.HTTPSRedirect {
					seen[s] = true
					c.claims = append(c.claims, matching.Claims(rs, placesAt(rs, s), g, s)...)
				}
			}
		}
	}
}

// placesAt gives the route tables' hosts at a server that come of the hosts of a route set.
func placesAt(rs *model.RouteSet, s *model.Server) (places []matching.Place) {
	where := "at port " + strconv.Itoa(int(s.Port)) + " of the gateway"
	for _, h := range s.Hosts {
		for _, own := range rs.Hosts {
			host, ok := parts.HostsMeet(h.Host, own)
			if !ok || h.Namespace != "" && h.Namespace != rs.Namespace {
				continue
			}
			p := matching.Place{Where: where, Host: host}
			if s.TLS != nil {
				p.Server = h.Host
			}
			if !slices.Contains(places, p) {
				places = append(places, p)
			}
		}
	}
	return places
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

// joinContest reports the rules of an object that get no requests because rules of others, which go before them, take them all.
func (c *compiler) joinContest(u *unit) {
	for _, l := range c.losses(u.rec.unit.claims) {
		taker, loser := c.object(l.taker.Object), c.object(l.claim.Object)
		if taker == nil || loser == nil {
			continue
		}
		by, place := l.taker.Object.String()+", which is older,", l.claim.Place.String()
		if l.taker.Outranks(l.claim) {
			by = l.taker.Object.String() + ", whose rule goes before this one,"
		}
		if l.more > 0 {
			place += fmt.Sprintf(" (and %d more)", l.more)
		}
		if l.taker.Key == l.claim.Key {
			const hint = "put the backends into one rule"
			c.about(loser).Warn("DuplicateMatch", l.claim.Field, hint, "%s has the same match for %s: its rule gets the requests", by, place)
			c.about(taker).Warn("DuplicateMatch", l.taker.Field, hint, "%s has the same match for %s, and gets no requests by it", l.claim.Object, place)
			continue
		}
		const hint = "narrow that rule, or take this one out"
		c.about(loser).Warn("RouteUnreachable", l.claim.Field, hint, "never reached for %s: %s of %s takes these requests", place, l.taker.Field, by)
		c.about(taker).Warn("RouteUnreachable", l.taker.Field, "narrow it, or take that rule out", "it takes all requests of %s of %s for %s", l.claim.Field, l.claim.Object, place)
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
