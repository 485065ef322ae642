package serve

import (
	"slices"
	"strconv"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/control/rpc"
)

// delta is the form in which only what changed is sent.
type delta struct{}

func (delta) read(c *session, message []byte) error {
	r, _ := requests.Get().(*discoveryv3.DeltaDiscoveryRequest)
	if r == nil {
		r = &discoveryv3.DeltaDiscoveryRequest{}
	}
	defer func() { r.Reset(); requests.Put(r) }()
	if err := c.read(message, r); err != nil {
		return err
	}
	return c.applyDelta(r)
}

// requests are empty ones, for read: nothing that a request consists of is kept but texts.
var requests sync.Pool

// applyDelta changes the subscriptions by a request.
func (c *session) applyDelta(r *discoveryv3.DeltaDiscoveryRequest) error {
	c.server.cache.mu.Lock()
	defer c.server.cache.mu.Unlock()
	defer c.server.settled(c)
	w, first, err := c.hear(r)
	if err != nil {
		return err
	}
	gone, none := withoutStar(r.GetResourceNamesUnsubscribe())
	if none {
		c.subscribeAll(w, false)
	}
	c.unsubscribe(w, gone)
	names, all := withoutStar(r.GetResourceNamesSubscribe())
	// A first request that names nothing asks for everything (xDS protocol, "How the client specifies what resources to return").
	if all || first && len(names) == 0 && listable(w.typeURL) {
		c.subscribeAll(w, true)
	}
	if err := c.subscribe(w, names); err != nil {
		return err
	}
	if first {
		if err := c.resume(w, r.GetInitialResourceVersions()); err != nil {
			return err
		}
	}
	return c.account(true)
}

// listable types are those that may be subscribed to as a whole.
func listable(typeURL string) bool {
	return typeURL == generate.ListenerType || typeURL == generate.ClusterType
}

// withoutStar takes the wildcard out of a list of names.
func withoutStar(names []string) (others []string, star bool) {
	for i, n := range names {
		if n == listName {
			others = append([]string(nil), names[:i]...)
			for _, n := range names[i:] {
				if n != listName {
					others = append(others, n)
				}
			}
			return others, true
		}
	}
	return names, false
}

// resume takes what the client has from a stream before. What it has and did not ask for counts under a wildcard alone.
func (c *session) resume(w *watch, versions map[string]string) error {
	if len(versions) > c.server.options.MaxSubscriptions {
		return status.Errorf(codes.ResourceExhausted, "more than %d resources of a stream before", c.server.options.MaxSubscriptions)
	}
	var strangers []*sub
	for n, version := range versions {
		i, found := w.find(n)
		var s *sub
		switch {
		case found:
			s = w.subs[i]
		case w.list != nil && len(n) <= maxName:
			s = newSub(w, n, 0)
			strangers = append(strangers, s)
		default:
			continue
		}
		s.sent = parseVersion(version)
		s.acked = s.sent
		s.set(answered)
	}
	c.insert(w, strangers)
	return nil
}

// plan puts what is new in the order of types, and after it what is removed in the opposite order.
func (delta) plan(updates []*update) []response {
	if len(updates) == 1 {
		return []response{updates[0].response()}
	}
	var out []response
	for _, u := range updates {
		r := u.response()
		if r.force = r.force && len(r.removed) == 0; r.force || len(r.values) > 0 {
			r.removed, r.names = nil, nil
			out = append(out, r)
		}
	}
	for _, u := range slices.Backward(updates) {
		if len(u.removed) > 0 {
			out = append(out, response{watch: u.watch, removed: u.removed, names: u.names})
		}
	}
	return out
}

// maxResponse bounds a response: gRPC clients take messages up to 4 MiB by default.
const maxResponse = 2 << 20

// send sends a response, in several messages when it is large; what is removed is in the first. One that is forced is sent even
// if it is empty: without that a client could not tell "there is nothing" from "not answered yet".
func (delta) send(c *session, w *rpc.Stream, r *response) (all, sent bool) {
	n, size := 0, 0
	for _, s := range r.names {
		size += len(s)
	}
	for n < len(r.values) && (n == 0 || size+len(r.bodies[n].record) <= maxResponse) {
		size += len(r.bodies[n].record)
		n++
	}
	start, nonce := time.Now(), c.nonce()
	var room [headRoom]byte // neither this nor the list of few parts is kept
	head := r.head(room[:0], strconv.FormatUint(c.told, 10), nonce)
	for _, name := range r.names {
		head = appendText(head, responseRemoved, name)
	}
	var few [fewParts][]byte
	parts := few[:0]
	for _, v := range r.bodies[:n] {
		parts = append(parts, v.record)
	}
	c.weigh(r, n, size)
	c.remember(r.watch, nonce, r.carried(n))
	sent = w.Send(head, parts...)
	c.server.metrics.pushed(r.watch.typeURL, size, time.Since(start))
	r.values, r.bodies = r.values[n:], r.bodies[n:]
	r.removed, r.names, r.force = nil, nil, false
	return len(r.values) == 0, sent
}

// weigh warns of a message that a client of gRPC's library may not take: its first n values could not be parted.
func (c *session) weigh(r *response, n, size int) {
	if size <= maxForeign || !c.claim.proxyless {
		return
	}
	resource := shortType(r.watch.typeURL)
	if n == 1 {
		resource += " " + r.values[0].entry.name
	}
	c.server.cache.mu.Lock()
	fresh := c.server.history.weigh(c, resource, size, time.Now())
	c.server.cache.mu.Unlock()
	if fresh {
		c.server.options.Log.Warn("a resource is larger than gRPC's library takes by default", "node", c.claim.id, "resource", resource, "bytes", size, "takes", maxForeign)
	}
}

// What a response mostly needs: bytes of a head without names of what is removed, and parts after it.
const (
	headRoom = 160
	fewParts = 4
)

// head begins a message: DeltaDiscoveryResponse and DiscoveryResponse have these fields in common.
func (r *response) head(b []byte, version string, nonce uint64) []byte {
	b = appendText(b, responseVersion, version)
	b = appendText(b, responseType, r.watch.typeURL)
	return appendText(b, responseNonce, nonceText(nonce))
}

// carried is what the next message has: the first n values, and all that is removed.
func (r *response) carried(n int) []carried {
	items := make([]carried, 0, n+len(r.removed))
	for i, s := range r.values[:n] {
		items = append(items, carried{s, r.bodies[i].version})
	}
	for _, s := range r.removed {
		items = append(items, carried{s, 0})
	}
	return items
}

func nonceText(n uint64) string { return strconv.FormatUint(n, 10) }

// parseNonce reads a nonce of ours; 0 for any other.
func parseNonce(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}

// mark says for Clients since when a message has been waiting for the client; zero when none is.
func (c *session) mark(t time.Time) {
	c.server.cache.mu.Lock()
	defer c.server.cache.mu.Unlock()
	c.sending = t
}
