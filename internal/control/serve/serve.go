// Package serve speaks xDS v3 with the mesh's clients: delta (our proxies) and state of the world (plain gRPC clients), over one
// aggregated stream each. A client gets what it subscribes to, and of that only what changed; names that the mesh does not know are
// answered at once as removed.
//
// What a client is sent is made once for all clients of its class, and kept while somebody subscribes to it (cache). A new mesh
// comes with what changed in it: what that touches is made again, what is large of it aside, and the streams whose content differs are
// woken, nobody else. Each stream is sent to when its connection has room (package rpc). What changes while it has none is merged, so
// a slow client skips what is in between and delays nobody.
package serve

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/rpc"
)

// Options of New. Zero fields take their defaults.
type Options struct {
	// TrustDomain whose identities are served; required.
	TrustDomain string
	Log         *slog.Logger // slog.Default
	// Registry takes the metrics; nil keeps none.
	Registry prometheus.Registerer
	// MaxSubscriptions bounds the names that one stream may subscribe to, over all types; 20,000. Of many streams with one certificate,
	// each may subscribe to less: see share. What is in the list of a wildcard counts where many streams of one certificate have one: see
	// holding.
	MaxSubscriptions int
}

const defaultMaxSubscriptions = 20_000

// Server answers discovery streams. Its methods are safe for concurrent use.
type Server struct {
	options Options // set once
	metrics *metrics

	publishing sync.Mutex // held by Publish
	cache      cache      // its mu guards what follows too

	streams map[*session]bool
	// byWorkload are the streams by the namespace/name of their workload.
	byWorkload map[string][]*session
	// byCertificate are the holdings, by serial number.
	byCertificate map[string]*holding
	history       history
	awaited       map[*audience]bool
}

// New makes a server that has no mesh yet: streams wait for the first Publish.
func New(o Options) *Server {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.MaxSubscriptions <= 0 {
		o.MaxSubscriptions = defaultMaxSubscriptions
	}
	s := &Server{options: o, streams: map[*session]bool{}, byWorkload: map[string][]*session{}, byCertificate: map[string]*holding{},
		awaited: map[*audience]bool{}}
	s.cache.aside = newAside()
	s.metrics = newMetrics(s, o.Registry)
	return s
}

// Register adds the discovery service to a server, which must verify client certificates when there are any; streams without one are
// refused here.
func (s *Server) Register(r *rpc.Server) {
	r.HandleStream(discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName, func(w *rpc.Stream) (rpc.Handler, error) {
		return s.open(w, delta{}, false)
	})
	r.HandleStream(discoveryv3.AggregatedDiscoveryService_StreamAggregatedResources_FullMethodName, func(w *rpc.Stream) (rpc.Handler, error) {
		return s.open(w, world{}, true)
	})
}

// Publish makes the mesh current, makes again what the delta to the mesh before touches, and wakes the streams that it concerns. It
// does not wait for them: that is what it gives a function for, which returns when each of them has answered what it was sent, with
// consent or without, or is gone, or the context has ended. The mesh must not change any more.
func (s *Server) Publish(mesh *model.Mesh, delta model.Delta) (answered func(context.Context)) {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	start := time.Now()
	p := s.cache.publish(mesh, delta, start)
	s.metrics.published(mesh, delta, p, time.Since(start))
	s.cache.mu.Lock()
	woken := p.told
	if p.everything {
		for c := range s.streams {
			c.rebind, c.touched = true, s.cache.generation
			woken = append(woken, c)
		}
	} else {
		woken = append(woken, s.moved(mesh, delta)...)
	}
	s.cache.mu.Unlock()
	for _, c := range woken {
		c.wake()
	}
	return func(ctx context.Context) { s.await(ctx, woken) }
}

// Mesh is the one that clients are served by; nil before the first. What a client has not of it, it is owed.
func (s *Server) Mesh() *model.Mesh {
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	if s.cache.index.Index == nil {
		return nil
	}
	return s.cache.index.Mesh()
}

// Mark stands for what has been published so far; see Answered.
func (s *Server) Mark() (mark uint64) {
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	return s.cache.generation
}

// Answered returns when each stream for which something was published since a mark has answered, with consent or without, all that it is
// owed, or is gone, or the context has ended. A client that has been silent for long is not waited for.
func (s *Server) Answered(ctx context.Context, since uint64, long time.Duration) {
	s.cache.mu.Lock()
	var touched []*session
	for c := range s.streams {
		if c.touched > since && !c.silent(time.Now().Add(-long)) {
			touched = append(touched, c)
		}
	}
	s.cache.mu.Unlock()
	s.await(ctx, touched)
}

// silent reports whether something has been waiting for the client since a time before. The cache is locked.
func (c *session) silent(before time.Time) bool {
	return !c.sending.IsZero() && c.sending.Before(before) ||
		slices.ContainsFunc(c.watches, func(w *watch) bool { f := w.waiting(); return len(f) > 0 && f[0].at.Before(before) })
}

// audience are the streams that somebody waits for.
type audience struct {
	owed map[*session]bool
	done chan struct{} // closed when it is empty
}

// await returns when each of the streams has been owed nothing for a moment, or the context has ended.
func (s *Server) await(ctx context.Context, streams []*session) {
	a := &audience{owed: map[*session]bool{}, done: make(chan struct{})}
	s.cache.mu.Lock()
	for _, c := range streams {
		if s.streams[c] && c.owes() {
			a.owed[c] = true
		}
	}
	if len(a.owed) > 0 {
		s.awaited[a] = true
	} else {
		close(a.done)
	}
	s.cache.mu.Unlock()
	select {
	case <-a.done:
	case <-ctx.Done():
		s.cache.mu.Lock()
		delete(s.awaited, a)
		s.cache.mu.Unlock()
	}
}

// settled tells those who wait for it that a stream may be owed nothing any more. The cache is locked.
func (s *Server) settled(c *session) {
	if len(s.awaited) == 0 || s.streams[c] && c.owes() {
		return
	}
	for a := range s.awaited {
		if delete(a.owed, c); len(a.owed) == 0 {
			close(a.done)
			delete(s.awaited, a)
		}
	}
}

// owes reports whether the client is to be told something, or has not answered what it was told. One that has not said who it is gets
// nothing. The cache is locked.
func (c *session) owes() bool {
	if c.claim.id == "" || c.denied != nil {
		return false
	}
	return c.rebind || c.taken || c.held.entries > 0 || len(c.changed)+len(c.unbound) > 0 || !c.moved.IsZero() ||
		slices.ContainsFunc(c.watches, func(w *watch) bool { return len(w.waiting()) > 0 })
}

// moved marks and gives the streams whose own workload changed.
func (s *Server) moved(mesh *model.Mesh, delta model.Delta) []*session {
	var out []*session
	for key := range delta.Workloads {
		for _, c := range s.byWorkload[key] {
			if c.node == nil || c.claim.foreign(c.who, mesh) != nil || !sameNode(*c.node, c.claim.node(c.who, mesh)) {
				c.rebind, c.touched = true, s.cache.generation
				out = append(out, c)
			}
		}
	}
	return out
}

func (s *Server) add(c *session) {
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	s.streams[c] = true
	s.hold(c)
}

// introduced files a stream that has said who it is. The cache is locked.
func (s *Server) introduced(c *session) {
	key := c.workload()
	s.byWorkload[key] = append(s.byWorkload[key], c)
	s.history.denied.forget(key)
	s.history.comes(c.claim.id, time.Now())
}

func (s *Server) remove(c *session, reason error) {
	c.leave()
	s.metrics.ended(reason)
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	delete(s.streams, c)
	s.settled(c)
	s.release(c)
	if c.claim.id == "" {
		return
	}
	key := c.workload()
	list := s.byWorkload[key]
	if i := slices.Index(list, c); i >= 0 {
		list = append(list[:i:i], list[i+1:]...)
	}
	if len(list) == 0 {
		delete(s.byWorkload, key)
	} else {
		s.byWorkload[key] = list
	}
	if !slices.ContainsFunc(list, func(other *session) bool { return other.claim.id == c.claim.id }) {
		s.history.leaves(c, reason, time.Now(), s.expected)
	}
}

// workload is the key of the stream's workload in the mesh.
func (c *session) workload() string { return c.who.Namespace + "/" + c.claim.name }
