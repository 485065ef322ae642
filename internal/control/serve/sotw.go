package serve

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// StreamAggregatedResources implements the discovery service for clients that know only the state-of-the-world protocol: a response
// holds all resources of its type that the client subscribes to. It is sent when one of them changed.
func (s *Server) StreamAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	w := &world{stream: stream}
	return serveStream(s, stream.Context(), stream.Recv, true, w.handle, func(c *session) error { return w.push(c, order) })
}

// world is the wire form of a state-of-the-world stream.
type world struct {
	stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer
}

func (s *world) handle(c *session, r *discoveryv3.DiscoveryRequest) error {
	if err := c.introduce(readClaim(r.GetNode())); err != nil {
		return err
	}
	if err := c.applyWorld(r); err != nil {
		return err
	}
	return s.push(c, c.due(r.GetTypeUrl()))
}

// applyWorld makes the request's names the subscriptions. A request that answers an older response than the last one still says
// which names are wanted.
func (c *session) applyWorld(r *discoveryv3.DiscoveryRequest) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	w, first, err := c.watch(r.GetTypeUrl())
	if err != nil {
		return err
	}
	c.answer(w, r.GetResponseNonce(), r.GetErrorDetail())
	wanted := map[string]bool{}
	for _, n := range r.GetResourceNames() {
		wanted[n] = true
	}
	w.wildcard = wanted["*"] || len(wanted) == 0 && listable(w.typeURL) && (first || w.wildcard)
	delete(wanted, "*")
	for n := range w.names {
		if !wanted[n] {
			c.unsubscribe(w, n)
		}
	}
	for n := range wanted {
		if w.names[n] {
			continue
		}
		if err := c.subscribe(w, n); err != nil {
			return err
		}
		w.force = true
	}
	w.force = w.force || first
	return nil
}

func (s *world) push(c *session, types []string) error {
	for _, t := range types {
		c.mu.Lock()
		w := c.watches[t]
		if w == nil {
			c.mu.Unlock()
			continue
		}
		r := c.snapshot(w)
		c.mu.Unlock()
		if r == nil {
			continue
		}
		if err := s.stream.Send(r); err != nil {
			return err
		}
		c.server.metrics.pushes.WithLabelValues(shortType(t)).Inc()
	}
	return nil
}

// snapshot makes the response for a watch; nil when the client has all that is in it.
func (c *session) snapshot(w *watch) *discoveryv3.DiscoveryResponse {
	wanted := maps.Clone(w.names)
	if w.wildcard {
		for _, n := range c.generator.Names(w.typeURL) {
			wanted[n] = true
		}
	}
	var names []string
	var bodies []*anypb.Any
	sum := sha256.New()
	clear(w.sent)
	for _, n := range slices.Sorted(maps.Keys(wanted)) {
		r := c.state.resource(c.generator, w.typeURL, n)
		w.sent[n] = r.version
		sum.Write([]byte(n + "\x00" + r.version + "\x00"))
		if r.version != "" {
			names = append(names, n)
			bodies = append(bodies, r.body)
		}
	}
	version := hex.EncodeToString(sum.Sum(nil)[:8])
	if version == w.version && !w.force {
		return nil
	}
	w.version, w.force = version, false
	r := &discoveryv3.DiscoveryResponse{TypeUrl: w.typeURL, VersionInfo: version, Nonce: c.nonce(), Resources: bodies}
	w.remember(r.Nonce, names)
	return r
}
