// Package serve speaks xDS v3 with the mesh's clients: delta (our proxies) and state of the world (plain gRPC clients), over one
// aggregated stream each. A client gets what it subscribes to, and of that only what changed; names that the mesh does not know are
// answered at once as removed.
//
// Each stream has one goroutine that owns its subscriptions and sends. Publish stores the new mesh and wakes the streams; a wake-up
// that comes while a stream is busy sending merges with those before, so a slow client skips what is in between and delays nobody.
package serve

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/weftmesh/weft/internal/control/model"
)

// Options of New. Zero fields take their defaults.
type Options struct {
	// TrustDomain whose identities are served; required.
	TrustDomain string
	Log         *slog.Logger // slog.Default
	// Registry takes the metrics; nil keeps none.
	Registry prometheus.Registerer
	// MaxSubscriptions bounds the names that one stream may subscribe to, over all types; 20,000.
	MaxSubscriptions int
}

const defaultMaxSubscriptions = 20_000

// Server answers discovery streams. Its methods are safe for concurrent use.
type Server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer

	options Options // set once
	metrics *metrics

	current atomic.Pointer[state] // nil before the first Publish

	mu         sync.Mutex // guards what follows
	generation uint64
	streams    map[*session]bool
}

// New makes a server that has no mesh yet: streams wait for the first Publish.
func New(o Options) *Server {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.MaxSubscriptions <= 0 {
		o.MaxSubscriptions = defaultMaxSubscriptions
	}
	s := &Server{options: o, streams: map[*session]bool{}}
	s.metrics = newMetrics(o.Registry)
	return s
}

// Register adds the discovery service to a gRPC server, which must serve mutual TLS and verify client certificates when there are
// any; streams without one are refused here.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(r, s)
}

// Publish makes the mesh current and wakes all streams. It does not wait for them. The mesh must not change any more; the delta says
// what may differ between it and the one before.
func (s *Server) Publish(mesh *model.Mesh, delta model.Delta) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.generation++
	s.current.Store(newState(mesh, s.generation, time.Now()))
	for c := range s.streams {
		c.poke()
	}
}

func (s *Server) add(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams[c] = true
	s.metrics.connected.Set(float64(len(s.streams)))
}

func (s *Server) remove(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, c)
	s.metrics.connected.Set(float64(len(s.streams)))
}
