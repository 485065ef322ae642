package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/stats"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weftmesh/weft/internal/ca"
	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/wire"
)

// certify makes the authority that the control plane will open, and a certificate for each proxy.
func certify(dir string, o *options) ([]*identity.Material, error) {
	a, err := ca.Open(filepath.Join(dir, "ca"), ca.Options{TrustDomain: trustDomain, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	all := make([]*identity.Material, o.clients)
	for i := range all {
		if all[i], err = sign(a, i%o.size.services, i/o.size.services); err != nil {
			return nil, errors.Join(err, a.Close())
		}
	}
	return all, a.Close()
}

func sign(a *ca.Authority, service, instance int) (*identity.Material, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, err
	}
	request := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	peer := identity.Peer{ID: identity.ID{TrustDomain: trustDomain, Namespace: namespace, ServiceAccount: serviceName(service)},
		Workload: serviceName(service), Instance: podName(service, instance), App: serviceName(service), Version: "v1", Service: serviceName(service),
		Revision: "v1", Cluster: "weft"}
	issued, err := a.Sign(request, peer, 0, ca.ProofOwn)
	if err != nil {
		return nil, err
	}
	return identity.NewMaterial(issued.Chain, key, issued.Bundle, time.Now())
}

// fleet is all proxies.
type fleet struct {
	clients []*client
	// What has come so far, over all of them.
	bytes, responses atomic.Int64

	mu      sync.Mutex
	watched string        // the resource that is looked for
	since   time.Time     // when it was changed
	missing int           // clients that have not got it
	last    time.Duration // from the change to the last of those that have
	got     chan struct{} // closed when none is missing
	strays  int           // responses that had nothing of it
}

// client is one proxy: a connection, a stream, and what it is subscribed to.
type client struct {
	fleet  *fleet
	conn   *grpc.ClientConn
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	uses   []int
	waits  map[string]bool // type and name that were not answered yet; nil once all were
	synced chan struct{}
	ended  chan struct{}
}

// connect opens all clients, each when an earlier one has all it asked for.
func (o *options) connect(ctx context.Context, address string, certificates []*identity.Material) (*fleet, error) {
	f := &fleet{clients: make([]*client, o.clients)}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(64)
	for i := range f.clients {
		g.Go(func() (err error) {
			if f.clients[i], err = f.open(address, certificates[i], o.node(i), o.usedBy(i)); err != nil {
				return fmt.Errorf("proxy %d: %w", i, err)
			}
			select {
			case <-f.clients[i].synced:
				return nil
			case <-f.clients[i].ended:
				return fmt.Errorf("proxy %d: the stream has ended", i)
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}
	err := g.Wait()
	if err != nil {
		f.close()
	}
	return f, err
}

// usedBy gives the services that a proxy uses. Service 0 is used by the interested ones, service 1 by a tenth as many, service 2 by nobody;
// the rest is spread evenly.
func (o *options) usedBy(i int) []int {
	var uses []int
	if i%(o.clients/o.interested) == 0 {
		uses = append(uses, 0)
	}
	if i%(10*(o.clients/o.interested)) == 0 {
		uses = append(uses, 1)
	}
	for step := 1; len(uses) < o.uses; step++ {
		uses = append(uses, 3+(i*31+step*step*7919+step*104729)%(o.size.services-3))
	}
	return uses
}

func (o *options) node(i int) *corev3.Node {
	service, instance := i%o.size.services, i/o.size.services
	n := wire.Node{Role: wire.Sidecar, Name: podName(service, instance), Namespace: namespace, ServiceAccount: serviceName(service),
		Workload: serviceName(service), IP: podAddress(service, instance, 0), Cluster: "weft"}
	meta, _ := structpb.NewStruct(map[string]any{"NAMESPACE": n.Namespace, "SERVICE_ACCOUNT": n.ServiceAccount, "WORKLOAD_NAME": n.Workload,
		"NAME": n.Name, "ROLE": string(n.Role), "CLUSTER_ID": n.Cluster, "LABELS": map[string]any{"app": n.Workload, "version": "v1"}}) // strings alone cannot fail
	return &corev3.Node{Id: n.ID(), Cluster: n.Cluster, Metadata: meta, UserAgentName: "weft-proxy"}
}

func (f *fleet) open(address string, m *identity.Material, node *corev3.Node, uses []int) (*client, error) {
	var own identity.Source
	own.Publish(m)
	tls := own.ClientTLS(identity.ExactIDs(identity.ControlID(trustDomain)), identity.TLSOptions{NextProtos: []string{"h2"}})
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(tls)), grpc.WithStatsHandler(f),
		grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(4<<10), grpc.WithSharedWriteBuffer(true))
	if err != nil {
		return nil, err
	}
	c := &client{fleet: f, conn: conn, uses: uses, waits: map[string]bool{}, synced: make(chan struct{}), ended: make(chan struct{})}
	if c.stream, err = discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(context.Background()); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if err := c.subscribe(node); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	go c.receive() // ends with the connection
	return c, nil
}

// subscribe asks for what a sidecar asks for once its workload has called all that it uses.
func (c *client) subscribe(node *corev3.Node) error {
	names := map[string][]string{generate.ListenerType: {wire.InboundListener}}
	for _, i := range c.uses {
		names[generate.ListenerType] = append(names[generate.ListenerType], wire.ListenerName(serviceName(i), port))
		names[generate.RouteType] = append(names[generate.RouteType], wire.RouteName(host(i), port))
		names[generate.ClusterType] = append(names[generate.ClusterType], clusterName(i))
		names[generate.EndpointsType] = append(names[generate.EndpointsType], clusterName(i))
	}
	for _, t := range []string{generate.ListenerType, generate.RouteType, generate.ClusterType, generate.EndpointsType} {
		for _, n := range names[t] {
			c.waits[t+n] = true
		}
		if err := c.stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: t, ResourceNamesSubscribe: names[t]}); err != nil {
			return err
		}
		node = nil
	}
	return nil
}

// receive takes responses and acknowledges them until the stream ends.
func (c *client) receive() {
	defer close(c.ended)
	for {
		r, err := c.stream.Recv()
		if err != nil {
			return
		}
		c.fleet.take(r)
		if c.waits != nil {
			for _, res := range r.GetResources() {
				delete(c.waits, r.GetTypeUrl()+res.GetName())
			}
			for _, n := range r.GetRemovedResources() {
				delete(c.waits, r.GetTypeUrl()+n)
			}
			if len(c.waits) == 0 {
				c.waits = nil
				close(c.synced)
			}
		}
		if c.stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()}) != nil {
			return
		}
	}
}

// take notes a response.
func (f *fleet) take(r *discoveryv3.DeltaDiscoveryResponse) {
	f.responses.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watched == "" {
		return
	}
	for _, res := range r.GetResources() {
		if r.GetTypeUrl()+res.GetName() == f.watched {
			f.last = time.Since(f.since)
			if f.missing--; f.missing == 0 {
				close(f.got)
			}
			return
		}
	}
	f.strays++
}

// watch looks for a resource that is about to be changed, and that so many clients are to get.
func (f *fleet) watch(typeURL, name string, interested int) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watched, f.missing, f.strays, f.since, f.got = typeURL+name, interested, 0, time.Now(), make(chan struct{})
	if interested == 0 {
		close(f.got)
	}
	return f.got
}

// using counts the clients that use a service.
func (f *fleet) using(service int) (n int) {
	for _, c := range f.clients {
		for _, s := range c.uses {
			if s == service {
				n++
				break
			}
		}
	}
	return n
}

// close ends all clients and waits for them.
func (f *fleet) close() {
	for _, c := range f.clients {
		if c != nil {
			c.conn.Close() //nolint:errcheck // nothing is lost
			<-c.ended
		}
	}
}

// fleet counts the bytes of messages as they were on the wire, inside TLS.

func (f *fleet) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (f *fleet) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (f *fleet) HandleConn(context.Context, stats.ConnStats)                       {}

// HandleRPC implements stats.Handler.
func (f *fleet) HandleRPC(_ context.Context, s stats.RPCStats) {
	if in, ok := s.(*stats.InPayload); ok {
		f.bytes.Add(int64(in.WireLength))
	}
}
