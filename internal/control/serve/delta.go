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
)

// DeltaAggregatedResources implements the discovery service.
func (s *Server) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	d := &delta{stream: stream}
	return serveStream(s, stream.Context(), form[*discoveryv3.DeltaDiscoveryRequest]{recv: stream.Recv, handle: d.handle, flush: d.flush})
}

// delta is the protocol of a delta stream.
type delta struct {
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
}

func (d *delta) handle(c *session, r *discoveryv3.DeltaDiscoveryRequest) error {
	if c.claim.id == "" {
		if err := c.introduce(readClaim(r.GetNode())); err != nil {
			return err
		}
		// A client that resumes with all it wants is sent nothing: the head tells it that it has been taken.
		if err := d.stream.SendHeader(nil); err != nil {
			return err
		}
	}
	return c.applyDelta(r)
}

// applyDelta changes the subscriptions by a request.
func (c *session) applyDelta(r *discoveryv3.DeltaDiscoveryRequest) error {
	c.server.cache.mu.Lock()
	defer c.server.cache.mu.Unlock()
	w, first, err := c.watch(r.GetTypeUrl())
	if err != nil {
		return err
	}
	c.answer(w, parseNonce(r.GetResponseNonce()), r.GetErrorDetail())
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
		return c.resume(w, r.GetInitialResourceVersions())
	}
	return nil
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

// flush sends what the client has to be told. What is new goes in the order of types, then what is removed in the opposite order.
func (d *delta) flush(c *session) error {
	updates := c.take()
	if len(updates) == 1 {
		return d.send(c, &updates[0])
	}
	for i := range updates {
		u := updates[i]
		if u.force = u.force && len(u.removed) == 0; u.force || len(u.values) > 0 {
			u.removed, u.names = nil, nil
			if err := d.send(c, &u); err != nil {
				return err
			}
		}
	}
	for i := len(updates) - 1; i >= 0; i-- {
		u := updates[i]
		if len(u.removed) > 0 {
			u.values, u.bodies, u.force = nil, nil, false
			if err := d.send(c, &u); err != nil {
				return err
			}
		}
	}
	return nil
}

// maxResponse bounds a response: gRPC clients take messages up to 4 MiB by default.
const maxResponse = 2 << 20

// send sends an update, in several responses when it is large; what is removed is in the first. An update that is forced is sent even
// if it is empty: without that a client could not tell "there is nothing" from "not answered yet".
func (d *delta) send(c *session, u *update) error {
	for u.force || len(u.values) > 0 || len(u.names) > 0 {
		n, size := 0, 0
		for _, s := range u.names {
			size += len(s)
		}
		for n < len(u.values) && (n == 0 || size+len(u.bodies[n].record) <= maxResponse) {
			size += len(u.bodies[n].record)
			n++
		}
		nonce := c.nonce()
		r := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: u.watch.typeURL, Nonce: nonceText(nonce), RemovedResources: u.names,
			SystemVersionInfo: strconv.FormatUint(c.told, 10)}
		// The records were marshalled long ago: as fields that the message does not know, they are copied as they are.
		fields, done := records(u.bodies[:n], size)
		r.ProtoReflect().SetUnknown(fields)
		c.remember(u.watch, nonce, u.carried(n))
		err := c.sends(u.watch.typeURL, size, func() error { return d.stream.Send(r) })
		done() // gRPC has marshalled it when Send returns, whether or not it is sent yet
		if err != nil {
			return err
		}
		u.values, u.bodies = u.values[n:], u.bodies[n:]
		u.removed, u.names, u.force = nil, nil, false
	}
	return nil
}

// joined are buffers of records, kept for the next response: there would be as much garbage as is sent, in large pieces between what stays.
var joined = sync.Pool{New: func() any { return new([]byte) }}

// records joins the records of values. They may be used until done is called.
func records(values []*value, size int) (fields []byte, done func()) {
	if len(values) == 1 {
		return values[0].record, func() {}
	}
	b := joined.Get().(*[]byte)
	*b = slices.Grow((*b)[:0], size)
	for _, v := range values {
		*b = append(*b, v.record...)
	}
	return *b, func() { joined.Put(b) }
}

// carried is what the next response has: the first n values, and all that is removed.
func (u *update) carried(n int) []carried {
	items := make([]carried, 0, n+len(u.removed))
	for i, s := range u.values[:n] {
		items = append(items, carried{s, u.bodies[i].version})
	}
	for _, s := range u.removed {
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

// sends sends a response, marks for Clients that it is under way, and counts it.
func (c *session) sends(typeURL string, size int, send func() error) error {
	start := time.Now()
	c.mark(start)
	err := send()
	c.mark(time.Time{})
	if err == nil {
		c.server.metrics.pushed(typeURL, size, time.Since(start))
	}
	return err
}

func (c *session) mark(t time.Time) {
	c.server.cache.mu.Lock()
	defer c.server.cache.mu.Unlock()
	c.sending = t
}
