package serve

import (
	"slices"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/weftmesh/weft/internal/control/rpc"
)

// world is the form for clients that know only the state-of-the-world protocol. A response of listeners or clusters holds all that there
// are, because what is missing in it is removed; one of any other type holds what changed.
type world struct{}

func (world) read(c *session, message []byte) error {
	r := &discoveryv3.DiscoveryRequest{}
	if err := c.read(message, r); err != nil {
		return err
	}
	return c.applyWorld(r)
}

// applyWorld makes the request's names the subscriptions. A request that answers an older response than the last one still says
// which names are wanted.
func (c *session) applyWorld(r *discoveryv3.DiscoveryRequest) error {
	c.server.cache.mu.Lock()
	defer c.server.cache.mu.Unlock()
	defer c.server.settled(c)
	w, first, err := c.hear(r)
	if err != nil {
		return err
	}
	names, all := withoutStar(r.GetResourceNames())
	w.explicit = w.explicit || all || len(names) > 0
	c.subscribeAll(w, all || !w.explicit && listable(w.typeURL))
	wanted := make(map[string]bool, min(len(names), c.server.options.MaxSubscriptions))
	var fresh []string
	for _, n := range names {
		if len(wanted) > c.server.options.MaxSubscriptions {
			break // which subscribe refuses
		}
		wanted[n] = true
		if i, found := w.find(n); !found || !w.subs[i].is(named) {
			fresh = append(fresh, n)
		}
	}
	var gone []string
	for _, s := range w.subs {
		if s.is(named) && !wanted[s.entry.name] {
			gone = append(gone, s.entry.name)
		}
	}
	c.unsubscribe(w, gone)
	w.force = w.force || first || len(fresh) > 0
	if err := c.subscribe(w, fresh); err != nil {
		return err
	}
	return c.account(true)
}

// collectWorld finds out what has to be told of the types of which something changed. Listeners and clusters that are gone are held
// until the rest of the change has been sent, so that nothing refers to what the client has been told to drop.
func (c *session) collectWorld() []*update {
	touched := map[*watch]bool{}
	for _, s := range c.changed {
		s.unset(changed)
		touched[s.watch] = true
	}
	c.changed = nil
	var out []*update
	for _, w := range c.watches {
		if touched[w] || w.force {
			if u := c.world(w); u.force || u.differs() {
				out = append(out, u)
			}
		}
	}
	return out
}

// world gives all of a watch, with what is gone in removed.
func (c *session) world(w *watch) *update {
	u := &update{watch: w, force: w.force}
	w.force = false
	gone := map[*sub]bool{}
	for _, s := range w.subs {
		v := s.entry.value
		if !s.is(named | listed) {
			v, gone[s] = nil, true
		}
		if v == nil && !w.tellsRemoval() {
			w.release(s)
		}
		switch {
		case v == nil && s.held != nil:
			u.removed, u.bodiesGone = append(u.removed, s), append(u.bodiesGone, s.held)
		case v != nil && (listable(w.typeURL) || s.sent != v.version || s.is(again)):
			u.changed = u.changed || s.sent != v.version || s.is(again)
			u.values, u.bodies = append(u.values, s), append(u.bodies, v)
		}
		s.unset(again)
		s.set(answered)
		s.sent, s.held = v.versionOf(), v
	}
	w.lapse()
	c.drop(w, gone)
	return u
}

// tellsRemoval reports whether the client hears that a resource is gone. In state of the world it does by its absence from the list of all
// listeners or clusters; of what there is no such list, it keeps what it had.
func (w *watch) tellsRemoval() bool { return !w.session.sotw || listable(w.typeURL) }

func (u *update) differs() bool { return u.changed || len(u.removed) > 0 && u.watch.tellsRemoval() }

// plan sends all of a type that has changed. What is gone is held in the first round, when there are several types, and left out in a
// second one.
func (world) plan(updates []*update) []response {
	var out []response
	for _, u := range updates {
		r := response{watch: u.watch, values: u.values, bodies: u.bodies}
		if !u.watch.tellsRemoval() {
			u.removed = nil
		}
		if held := len(updates) > 1 && len(u.removed) > 0; held {
			if !u.changed && !u.force {
				continue // there is nothing but what is gone
			}
			r.values, r.bodies = append(slices.Clip(u.values), u.removed...), append(slices.Clip(u.bodies), u.bodiesGone...)
		} else {
			r.removed, u.removed = u.removed, nil
		}
		out = append(out, r)
	}
	for _, u := range slices.Backward(updates) {
		if len(u.removed) > 0 {
			out = append(out, response{watch: u.watch, values: u.values, bodies: u.bodies, removed: u.removed})
		}
	}
	return out
}

// send sends a response: a type's list in one message, since what is not in it is gone; of other types, in several when it is large.
func (world) send(c *session, w *rpc.Stream, r *response) (all, sent bool) {
	start, nonce, size, n := time.Now(), c.nonce(), 0, 0
	for n < len(r.bodies) && (n == 0 || listable(r.watch.typeURL) || size+len(r.bodies[n].bare) <= maxResponse) {
		size += len(r.bodies[n].bare)
		n++
	}
	head := r.head(nil, versionText(fingerprint(r.values[:n], r.bodies[:n])), nonce)
	parts := make([][]byte, 0, n)
	for _, v := range r.bodies[:n] {
		parts = append(parts, v.bare)
	}
	c.weigh(r, n, size)
	c.remember(r.watch, nonce, r.carried(n))
	sent = w.Send(head, parts...)
	c.server.metrics.pushed(r.watch.typeURL, size, time.Since(start))
	r.values, r.bodies = r.values[n:], r.bodies[n:]
	return len(r.values) == 0, sent
}

// fingerprint is the version of a response: that of its content, whatever the order.
func fingerprint(values []*sub, bodies []*value) uint64 {
	var sum uint64
	for i, v := range bodies {
		h := v.version
		for _, b := range []byte(values[i].entry.name) {
			h = (h ^ uint64(b)) * 1099511628211 // FNV-1a
		}
		sum += h
	}
	return sum
}
