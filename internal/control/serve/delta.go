package serve

import (
	"context"
	"errors"
	"io"
	"strconv"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weftmesh/weft/internal/control/generate"
)

// DeltaAggregatedResources implements the discovery service.
func (s *Server) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	d := &delta{stream: stream}
	return serveStream(s, stream.Context(), stream.Recv, false, d.handle, func(c *session) error { return d.push(c, order) })
}

// serveStream runs one stream: it takes requests and wake-ups until the client leaves, its certificate ends or the server stops.
func serveStream[R any](s *Server, ctx context.Context, recv func() (R, error), sotw bool,
	handle func(*session, R) error, push func(*session) error) error {
	who, err := s.authenticate(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithDeadline(ctx, who.expires)
	defer cancel()
	requests, failed := receive(ctx, recv)
	c := newSession(s, who, sotw)
	s.add(c)
	defer s.remove(c)
	for {
		select {
		case r := <-requests:
			err = handle(c, r)
		case <-c.wake:
			err = pushTimed(c, push)
		case err = <-failed:
			if errors.Is(err, io.EOF) {
				return nil
			}
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return status.Error(codes.Unauthenticated, "the client certificate has expired: connect again with the renewed one")
			}
			return status.FromContextError(ctx.Err()).Err()
		}
		if err != nil {
			return err
		}
	}
}

// receive reads requests in a goroutine, which ends with the stream: gRPC fails Recv once the handler has returned.
func receive[R any](ctx context.Context, recv func() (R, error)) (<-chan R, <-chan error) {
	requests, failed := make(chan R), make(chan error, 1)
	go func() {
		for {
			r, err := recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case requests <- r:
			case <-ctx.Done():
				return
			}
		}
	}()
	return requests, failed
}

// pushTimed sends what a new mesh changes.
func pushTimed(c *session, push func(*session) error) error {
	if c.claim.id == "" {
		return nil // it is told when it has said who it is
	}
	before := c.state
	if !c.refresh() {
		return nil
	}
	if err := push(c); err != nil {
		return err
	}
	if c.state != before {
		c.server.metrics.convergence.Observe(time.Since(c.state.published).Seconds())
	}
	return nil
}

// introduce takes the node of the first request.
func (c *session) introduce(first claim) error {
	if c.claim.id != "" {
		return nil
	}
	if err := first.check(c.who); err != nil {
		c.server.options.Log.Warn("a discovery stream is refused", "peer", c.who.address, "error", err)
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.claim = first
	return nil
}

// delta is the wire form of a delta stream.
type delta struct {
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
}

func (d *delta) handle(c *session, r *discoveryv3.DeltaDiscoveryRequest) error {
	first := c.claim.id == ""
	if err := c.introduce(readClaim(r.GetNode())); err != nil {
		return err
	}
	if first {
		// A client that resumes with all it wants is sent nothing: the head tells it that it has been taken.
		if err := d.stream.SendHeader(nil); err != nil {
			return err
		}
	}
	if err := c.applyDelta(r); err != nil {
		return err
	}
	return d.push(c, c.due(r.GetTypeUrl()))
}

// applyDelta changes the subscriptions by a request.
func (c *session) applyDelta(r *discoveryv3.DeltaDiscoveryRequest) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	w, first, err := c.watch(r.GetTypeUrl())
	if err != nil {
		return err
	}
	c.answer(w, r.GetResponseNonce(), r.GetErrorDetail())
	for _, n := range r.GetResourceNamesUnsubscribe() {
		if n == "*" {
			w.wildcard = false
			continue
		}
		c.unsubscribe(w, n)
	}
	for _, n := range r.GetResourceNamesSubscribe() {
		if n == "*" {
			w.force = w.force || !w.wildcard
			w.wildcard = true
			continue
		}
		if err := c.subscribe(w, n); err != nil {
			return err
		}
	}
	if !first {
		return nil
	}
	// A first request that names nothing asks for everything (xDS protocol, "How the client specifies what resources to return").
	if len(r.GetResourceNamesSubscribe()) == 0 && listable(w.typeURL) {
		w.wildcard, w.force = true, true
	}
	for n, v := range r.GetInitialResourceVersions() {
		if w.names[n] || w.wildcard && len(w.sent) < c.server.options.MaxSubscriptions {
			w.sent[n] = v
		}
	}
	return nil
}

// listable types may be subscribed to by wildcard.
func listable(typeURL string) bool {
	return typeURL == generate.ListenerType || typeURL == generate.ClusterType
}

// push sends what changed of the given types: first what is new, in the order of types, then what is gone, in the opposite one.
func (d *delta) push(c *session, types []string) error {
	var gone []func() error
	for _, t := range types {
		c.mu.Lock()
		w := c.watches[t]
		if w == nil {
			c.mu.Unlock()
			continue
		}
		ch := c.changes(w)
		c.mu.Unlock()
		if len(types) == 1 || len(ch.updated) == 0 && len(ch.removed) == 0 {
			if err := d.send(c, w, ch); err != nil {
				return err
			}
			continue
		}
		if err := d.send(c, w, change{updated: ch.updated}); err != nil {
			return err
		}
		gone = append(gone, func() error { return d.send(c, w, change{removed: ch.removed}) })
	}
	for i := len(gone) - 1; i >= 0; i-- {
		if err := gone[i](); err != nil {
			return err
		}
	}
	return nil
}

// maxResponse bounds a response: gRPC clients take messages up to 4 MiB by default.
const maxResponse = 2 << 20

// send sends a change, in several responses when it is large; nothing when there is nothing to say. The first answer to a wildcard
// is sent even if it is empty: without it a client could not tell "there is nothing" from "not answered yet".
func (d *delta) send(c *session, w *watch, ch change) error {
	for w.force || len(ch.updated) > 0 || len(ch.removed) > 0 {
		w.force = false
		r := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: w.typeURL, Nonce: c.nonce(), RemovedResources: ch.removed,
			SystemVersionInfo: strconv.FormatUint(c.state.generation, 10)}
		names := ch.removed
		ch.removed = nil
		size := 0
		for len(ch.updated) > 0 && (size == 0 || size+len(ch.updated[0].body.Value) <= maxResponse) {
			u := ch.updated[0]
			ch.updated = ch.updated[1:]
			size += len(u.body.Value)
			r.Resources = append(r.Resources, &discoveryv3.Resource{Name: u.name, Version: u.version, Resource: u.body})
			names = append(names, u.name)
		}
		c.mu.Lock()
		w.remember(r.Nonce, names)
		c.mu.Unlock()
		if err := d.stream.Send(r); err != nil {
			return err
		}
		c.server.metrics.pushes.WithLabelValues(shortType(w.typeURL)).Inc()
	}
	return nil
}

func (c *session) nonce() string {
	c.nonces++
	return strconv.FormatUint(c.nonces, 10)
}
