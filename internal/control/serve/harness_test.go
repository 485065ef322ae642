package serve

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weftmesh/weft/internal/ca"
	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/rpc"
	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/wire"
)

func TestMain(m *testing.M) {
	// gRPC's xDS client never closes the provider of the certificate files that its bootstrap names.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("google.golang.org/grpc/credentials/tls/certprovider/pemfile.(*watcher).run"))
}

const (
	trustDomain = "cluster.local"
	reviewsHost = "reviews.default.svc.cluster.local"
	reviewsName = "reviews:9080"
	reviewsAll  = "outbound|9080||" + reviewsHost
)

// plane is a discovery server behind mutual TLS with a real authority.
type plane struct {
	t         *testing.T
	authority *ca.Authority
	server    *Server
	registry  *prometheus.Registry
	address   string
}

func newPlane(t *testing.T, o Options) *plane {
	t.Helper()
	a, err := ca.Open(t.TempDir(), ca.Options{TrustDomain: trustDomain, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	serving, err := a.ServingCertificate(identity.ControlID(trustDomain), []string{"localhost"})
	if err != nil {
		t.Fatal(err)
	}
	p := &plane{t: t, authority: a, registry: prometheus.NewRegistry()}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.TrustDomain, o.Registry = trustDomain, p.registry
	p.server = New(o)
	transport := rpc.New(rpc.Options{TLS: serving.ServerTLS(identity.TLSOptions{NextProtos: []string{"h2"}, OptionalPeer: true}), Log: o.Log})
	p.server.Register(transport)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.address = l.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- transport.Run(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p
}

// certify gives what a workload of the account shows and trusts; without an account it only trusts.
func (p *plane) certify(namespace, account string, ttl time.Duration) *identity.Source {
	p.t.Helper()
	s := &identity.Source{}
	if account == "" {
		s.Publish(&identity.Material{Bundle: p.authority.Bundle()})
		return s
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		p.t.Fatal(err)
	}
	id := identity.ID{TrustDomain: trustDomain, Namespace: namespace, ServiceAccount: account}
	issued, err := p.authority.Sign(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}), identity.Peer{ID: id}, ttl, ca.ProofJoinToken)
	if err != nil {
		p.t.Fatal(err)
	}
	m, err := identity.NewMaterial(issued.Chain, key, issued.Bundle, time.Now())
	if err != nil {
		p.t.Fatal(err)
	}
	s.Publish(m)
	return s
}

// publish serves a mesh of which nothing is known but that it is another one.
func (p *plane) publish(mesh *model.Mesh) { p.server.Publish(mesh, model.Delta{All: true}) }

func (p *plane) dial(s *identity.Source) *grpc.ClientConn {
	p.t.Helper()
	tls := s.ClientTLS(identity.ExactIDs(identity.ControlID(trustDomain)), identity.TLSOptions{NextProtos: []string{"h2"}})
	c, err := grpc.NewClient(p.address, grpc.WithTransportCredentials(credentials.NewTLS(tls)))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	return c
}

// client is a raw delta client.
type client struct {
	t      *testing.T
	node   *corev3.Node
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	cancel context.CancelFunc
	first  bool
}

// patience is how long a client waits for one response.
const patience = 3 * time.Minute

// patient is a stream that ends when it has waited too long, however long it lives.
type patient struct {
	discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	cancel context.CancelCauseFunc
}

func (s patient) Recv() (*discoveryv3.DeltaDiscoveryResponse, error) {
	defer time.AfterFunc(patience, func() { s.cancel(fmt.Errorf("no response within %v", patience)) }).Stop()
	r, err := s.AggregatedDiscoveryService_DeltaAggregatedResourcesClient.Recv()
	if cause := context.Cause(s.Context()); err != nil && cause != nil && cause != context.Canceled {
		err = cause
	}
	return r, err
}

// connect opens a delta stream as the proxy of a workload.
func (p *plane) connect(n wire.Node) *client {
	p.t.Helper()
	return p.connectAs(n, p.certify(n.Namespace, n.ServiceAccount, time.Hour))
}

func (p *plane) connectAs(n wire.Node, s *identity.Source) *client {
	p.t.Helper()
	ctx, cancel := context.WithCancelCause(p.t.Context())
	p.t.Cleanup(func() { cancel(nil) })
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(p.dial(s)).DeltaAggregatedResources(ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	return &client{t: p.t, node: xdsNode(n), stream: patient{stream, cancel}, cancel: func() { cancel(nil) }, first: true}
}

func xdsNode(n wire.Node) *corev3.Node {
	text := structpb.NewStringValue
	labels := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for k, v := range n.Labels {
		labels.Fields[k] = text(v)
	}
	return &corev3.Node{Id: n.ID(), Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{
		"NAMESPACE": text(n.Namespace), "SERVICE_ACCOUNT": text(n.ServiceAccount), "NAME": text(n.Name), "ROLE": text(string(n.Role)),
		"LABELS": structpb.NewStructValue(labels),
	}}}
}

func (c *client) send(r *discoveryv3.DeltaDiscoveryRequest) {
	c.t.Helper()
	if c.first {
		r.Node, c.first = c.node, false
	}
	// Send's EOF says that the server has ended the stream; Recv says why.
	if err := c.stream.Send(r); err != nil && !errors.Is(err, io.EOF) {
		c.t.Fatal(err)
	}
}

func (c *client) subscribe(typeURL string, names ...string) {
	c.t.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: names})
}

func (c *client) recv() *discoveryv3.DeltaDiscoveryResponse {
	c.t.Helper()
	r, err := c.stream.Recv()
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

// take receives a response, acknowledges it, and gives its names with what is removed marked by a minus.
func (c *client) take(typeURL string) []string {
	c.t.Helper()
	r := c.recv()
	if r.GetTypeUrl() != typeURL {
		c.t.Fatalf("got %s %v, want %s", shortType(r.GetTypeUrl()), contents(r), shortType(typeURL))
	}
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResponseNonce: r.GetNonce()})
	return contents(r)
}

func contents(r *discoveryv3.DeltaDiscoveryResponse) []string {
	var out []string
	for _, x := range r.GetResources() {
		out = append(out, x.GetName())
	}
	for _, x := range r.GetRemovedResources() {
		out = append(out, "-"+x)
	}
	return out
}

func (c *client) want(typeURL string, names ...string) {
	c.t.Helper()
	if got := c.take(typeURL); !slices.Equal(got, names) {
		c.t.Fatalf("%s: got %v, want %v", shortType(typeURL), got, names)
	}
}

// quiet fails when anything was sent before the answer to a question that the server answers at once.
func (c *client) quiet() {
	c.t.Helper()
	name := "nothing-" + rand.Text() + ".example"
	c.subscribe(generate.DNSType, name)
	c.want(generate.DNSType, "-"+name)
}

func (c *client) nack(typeURL, nonce, reason string) {
	c.t.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResponseNonce: nonce, ErrorDetail: &rpcstatus.Status{Message: reason}})
}

// metric reads a counter or gauge, or how often a histogram has observed; label is the value of its only label, if it has one.
func (p *plane) metric(name, label string) float64 {
	p.t.Helper()
	families, err := p.registry.Gather()
	if err != nil {
		p.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (label == "" && len(m.GetLabel()) == 0 || len(m.GetLabel()) == 1 && m.GetLabel()[0].GetValue() == label) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	p.t.Fatalf("there is no metric %s %s", name, label)
	return 0
}

// productpage is the client of most tests.
func productpage() wire.Node {
	return wire.Node{Role: wire.Sidecar, Name: "productpage-0", Namespace: "default", ServiceAccount: "productpage", Labels: map[string]string{"app": "productpage"}}
}

// mesh has the service reviews with the given endpoints; edit changes it before it is published.
func mesh(edit func(*model.Mesh), endpoints ...string) *model.Mesh {
	s := &model.Service{Host: reviewsHost, Namespace: "default", Name: "reviews", Ports: []model.Port{{Number: 9080, Protocol: model.HTTP}},
		Addresses: []netip.Addr{netip.MustParseAddr("10.78.0.2")}}
	for _, a := range endpoints {
		s.Endpoints = append(s.Endpoints, &model.Endpoint{Address: a, Namespace: "default", ServiceAccount: "reviews", Workload: "reviews",
			Ports: map[uint16]uint16{9080: 9080}, Ready: true, Mesh: true})
	}
	m := &model.Mesh{
		Settings:  model.Settings{TrustDomain: trustDomain, ClusterDomain: "cluster.local", RootNamespace: "istio-system"},
		Services:  model.TableOf(map[string]*model.Service{reviewsHost: s}),
		ByAddress: model.TableOf(map[netip.Addr][]string{s.Addresses[0]: {s.Host}}),
	}
	if edit != nil {
		edit(m)
	}
	return m
}

// follow subscribes to everything that reviews needs, as a proxy does at first use.
func (c *client) follow() {
	c.t.Helper()
	for _, s := range []struct{ typeURL, name string }{{generate.ListenerType, reviewsName}, {generate.RouteType, reviewsHost + ":9080"},
		{generate.ClusterType, reviewsAll}, {generate.EndpointsType, reviewsAll}} {
		c.subscribe(s.typeURL, s.name)
		c.want(s.typeURL, s.name)
	}
}

func routed(cluster string) func(*model.Mesh) {
	return func(m *model.Mesh) {
		m.RouteSets = []*model.RouteSet{{Ref: model.Ref{Kind: "VirtualService", Namespace: "default", Name: "reviews"}, Namespace: "default", Mesh: true,
			Hosts: []string{reviewsHost}, HTTP: []model.HTTPRoute{{Name: "all", Destinations: []model.WeightedDestination{{Host: cluster}}}}}}
	}
}

// peer is what the client's certificate says.
func (m *mirror) peer() identity.Peer {
	return identity.Peer{ID: identity.ID{TrustDomain: trustDomain, Namespace: m.node.Namespace, ServiceAccount: m.node.ServiceAccount}}
}
