package serve

import (
	"slices"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// StreamAggregatedResources implements the discovery service for clients that know only the state-of-the-world protocol. A response
// of listeners or clusters holds all that there are, because what is missing in it is removed; one of any other type holds what
// changed.
func (s *Server) StreamAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	w := &world{stream: stream}
	return serveStream(s, stream.Context(), form[*discoveryv3.DiscoveryRequest]{sotw: true, recv: stream.Recv, handle: w.handle, flush: w.flush})
}

// world is the protocol of a state-of-the-world stream.
type world struct {
	stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer
}

func (s *world) handle(c *session, r *discoveryv3.DiscoveryRequest) error {
	if c.claim.id == "" {
		if err := c.introduce(readClaim(r.GetNode())); err != nil {
			return err
		}
	}
	return c.applyWorld(r)
}

// applyWorld makes the request's names the subscriptions. A request that answers an older response than the last one still says
// which names are wanted.
func (c *session) applyWorld(r *discoveryv3.DiscoveryRequest) error {
	c.server.cache.mu.Lock()
	defer c.server.cache.mu.Unlock()
	w, first, err := c.watch(r.GetTypeUrl())
	if err != nil {
		return err
	}
	c.answer(w, parseNonce(r.GetResponseNonce()), r.GetErrorDetail())
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
	return c.subscribe(w, fresh)
}

// collectWorld finds out what has to be told of the types of which something changed. Listeners and clusters that are gone are held
// until the rest of the change has been sent, so that nothing refers to what the client has been told to drop.
func (c *session) collectWorld() []update {
	touched := map[*watch]bool{}
	for _, s := range c.changed {
		s.unset(changed)
		touched[s.watch] = true
	}
	c.changed = nil
	var out []update
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
func (c *session) world(w *watch) update {
	u := update{watch: w, force: w.force}
	w.force = false
	gone := map[*sub]bool{}
	for _, s := range w.subs {
		v := s.entry.value
		if !s.is(named | listed) {
			v, gone[s] = nil, true
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
	c.drop(w, gone)
	return u
}

func (u *update) differs() bool { return u.changed || len(u.removed) > 0 && listable(u.watch.typeURL) }

// flush sends what the client has to be told.
func (s *world) flush(c *session) error {
	updates := c.take()
	for i := range updates {
		u := &updates[i]
		held := len(updates) > 1 && len(u.removed) > 0 && listable(u.watch.typeURL)
		if held && !u.changed && !u.force {
			continue // there is nothing but what is gone
		}
		values, bodies := u.values, u.bodies
		if held {
			values, bodies = append(slices.Clip(values), u.removed...), append(slices.Clip(bodies), u.bodiesGone...)
		} else {
			u.removed = nil
		}
		if err := s.send(c, u, values, bodies); err != nil {
			return err
		}
	}
	for i := len(updates) - 1; i >= 0; i-- {
		if u := &updates[i]; len(u.removed) > 0 {
			if err := s.send(c, u, u.values, u.bodies); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *world) send(c *session, u *update, values []*sub, bodies []*value) error {
	nonce := c.nonce()
	r := &discoveryv3.DiscoveryResponse{TypeUrl: u.watch.typeURL, VersionInfo: versionText(fingerprint(values, bodies)), Nonce: nonceText(nonce),
		Resources: make([]*anypb.Any, len(bodies))}
	items := make([]carried, len(bodies))
	size := 0
	for i, v := range bodies {
		r.Resources[i] = &anypb.Any{TypeUrl: u.watch.typeURL, Value: v.body}
		items[i] = carried{values[i], v.version}
		size += len(v.body)
	}
	c.remember(u.watch, nonce, items)
	return c.sends(u.watch.typeURL, size, func() error { return s.stream.Send(r) })
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
