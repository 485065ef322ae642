// Package adstest is a small control plane for tests: a delta ADS server over gRPC on in-memory connections, which can be stopped
// and started again.
package adstest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Server holds resources and sends them to who subscribes.
type Server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer

	mu        sync.Mutex
	listener  *bufconn.Listener // nil while stopped
	grpc      *grpc.Server
	done      chan struct{}
	resources map[string]map[string]*discoveryv3.Resource // type, name
	sessions  map[*session]struct{}
	requests  []*discoveryv3.DeltaDiscoveryRequest
	arrived   chan struct{} // closed and replaced at every request
	silent    bool
}

// New starts a server that ends with the test.
func New(t testing.TB) *Server {
	s := &Server{resources: map[string]map[string]*discoveryv3.Resource{}, sessions: map[*session]struct{}{}, arrived: make(chan struct{})}
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

// Start accepts connections.
func (s *Server) Start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		return
	}
	s.listener, s.grpc, s.done = bufconn.Listen(1<<16), grpc.NewServer(), make(chan struct{})
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(s.grpc, s)
	go func(g *grpc.Server, l net.Listener, done chan struct{}) { // ends by Stop
		defer close(done)
		_ = g.Serve(l)
	}(s.grpc, s.listener, s.done)
}

// Stop breaks all connections and refuses new ones. The resources stay.
func (s *Server) Stop() {
	s.mu.Lock()
	g, done := s.grpc, s.done
	stopped := s.listener == nil
	s.listener = nil
	s.mu.Unlock()
	if stopped {
		return
	}
	g.Stop()
	<-done
}

// Silence makes the server take requests and answer none.
func (s *Server) Silence() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = true
}

// Conn gives a client's connection, which ends with the test.
func (s *Server) Conn(t testing.TB) *grpc.ClientConn {
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		s.mu.Lock()
		l := s.listener
		s.mu.Unlock()
		if l == nil {
			return nil, errors.New("connection refused")
		}
		return l.DialContext(ctx)
	}
	conn, err := grpc.NewClient("passthrough:test", grpc.WithContextDialer(dial), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// Set adds or replaces resources and tells who is subscribed, in one update per type.
func (s *Server) Set(resources map[string]proto.Message) {
	s.change(func() {
		for name, m := range resources {
			a := &anypb.Any{}
			if err := anypb.MarshalFrom(a, m, proto.MarshalOptions{Deterministic: true}); err != nil {
				panic(err)
			}
			if s.resources[a.TypeUrl] == nil {
				s.resources[a.TypeUrl] = map[string]*discoveryv3.Resource{}
			}
			sum := sha256.Sum256(a.Value)
			s.resources[a.TypeUrl][name] = &discoveryv3.Resource{Name: name, Version: hex.EncodeToString(sum[:6]), Resource: a}
		}
	})
}

// Remove withdraws resources of a type.
func (s *Server) Remove(typeURL string, names ...string) {
	s.change(func() {
		for _, n := range names {
			delete(s.resources[typeURL], n)
		}
	})
}

func (s *Server) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	for ss := range s.sessions {
		ss.wake()
	}
}

// Await waits until a request has arrived, at any time since the start, for which f is true, and gives it.
func (s *Server) Await(ctx context.Context, f func(*discoveryv3.DeltaDiscoveryRequest) bool) (*discoveryv3.DeltaDiscoveryRequest, error) {
	seen := 0
	for {
		s.mu.Lock()
		rs, arrived := s.requests[seen:], s.arrived
		seen = len(s.requests)
		s.mu.Unlock()
		if i := slices.IndexFunc(rs, f); i >= 0 {
			return rs[i], nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("no such request: %w", ctx.Err())
		case <-arrived:
		}
	}
}

// Requests are those that came so far.
func (s *Server) Requests() []*discoveryv3.DeltaDiscoveryRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Forget empties the record that Await searches.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = nil
}

// session is one stream. Its fields belong to the stream's goroutine, save changed.
type session struct {
	changed chan struct{}
	// known is what the client was told, by type and name; "" stands for absent.
	known map[string]map[string]string
	wild  map[string]bool
	nonce int
}

func (ss *session) wake() {
	select {
	case ss.changed <- struct{}{}:
	default:
	}
}

// DeltaAggregatedResources serves a stream.
func (s *Server) DeltaAggregatedResources(st discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	ss := &session{changed: make(chan struct{}, 1), known: map[string]map[string]string{}, wild: map[string]bool{}}
	s.mu.Lock()
	s.sessions[ss] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.sessions, ss)
		s.mu.Unlock()
	}()
	in := make(chan *discoveryv3.DeltaDiscoveryRequest)
	go func() { // ends with the stream
		defer close(in)
		for {
			r, err := st.Recv()
			if err != nil {
				return
			}
			select {
			case in <- r:
			case <-st.Context().Done():
				return
			}
		}
	}()
	for {
		var err error
		select {
		case r, ok := <-in:
			if !ok {
				return nil
			}
			err = s.request(st, ss, r)
		case <-ss.changed:
			for _, t := range slices.Sorted(maps.Keys(ss.known)) {
				err = errors.Join(err, s.push(st, ss, t, false))
			}
		}
		if err != nil {
			return err
		}
	}
}

func (s *Server) request(st discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer, ss *session, r *discoveryv3.DeltaDiscoveryRequest) error {
	s.mu.Lock()
	s.requests = append(s.requests, r)
	close(s.arrived)
	s.arrived = make(chan struct{})
	s.mu.Unlock()

	known := ss.known[r.TypeUrl]
	if known == nil {
		known = map[string]string{}
		ss.known[r.TypeUrl] = known
	}
	for name, v := range r.InitialResourceVersions {
		known[name] = v
	}
	for _, n := range r.ResourceNamesUnsubscribe {
		delete(known, n)
	}
	for _, n := range r.ResourceNamesSubscribe {
		if n == "*" {
			ss.wild[r.TypeUrl] = true
		} else if _, ok := known[n]; !ok {
			known[n] = "new"
		}
	}
	if len(r.ResourceNamesSubscribe) == 0 {
		return nil
	}
	return s.push(st, ss, r.TypeUrl, slices.Contains(r.ResourceNamesSubscribe, "*"))
}

// push sends what the client does not have; an answer to a wildcard subscription is sent even when it is empty.
func (s *Server) push(st discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer, ss *session, t string, always bool) error {
	s.mu.Lock()
	known := ss.known[t]
	if ss.wild[t] {
		for name := range s.resources[t] {
			if _, ok := known[name]; !ok {
				known[name] = "new"
			}
		}
	}
	out := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: t}
	for name, version := range known {
		r := s.resources[t][name]
		switch {
		case r == nil && version != "":
			out.RemovedResources = append(out.RemovedResources, name)
			known[name] = ""
		case r != nil && r.Version != version:
			out.Resources = append(out.Resources, r)
			known[name] = r.Version
		}
	}
	silent := s.silent
	s.mu.Unlock()
	if silent || len(out.Resources)+len(out.RemovedResources) == 0 && !always {
		return nil
	}
	ss.nonce++
	out.Nonce = fmt.Sprint(ss.nonce)
	return st.Send(out)
}
