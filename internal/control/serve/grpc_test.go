package serve

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/xds"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/identity"
)

// TestProxylessGRPC calls a service by its name with gRPC's own xDS client: no proxy is between.
func TestProxylessGRPC(t *testing.T) {
	p := newPlane(t, Options{})
	backend, port := healthServer(t)
	p.publish(mesh(served(port)))

	conn := p.dialReviews()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	check := func() error {
		_, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
		return err
	}
	if err := check(); err != nil {
		t.Fatal(err)
	}

	// A fault is a change of routes alone; the client takes it without a new connection.
	p.publish(mesh(func(m *model.Mesh) {
		served(port)(m)
		routed(reviewsHost)(m)
		m.RouteSets[0].HTTP[0].Fault = &model.Fault{AbortGRPC: "DATA_LOSS", AbortPercent: 100}
	}))
	for status.Code(check()) != codes.DataLoss {
		if ctx.Err() != nil {
			t.Fatal("the fault is not injected")
		}
	}
	if f := p.server.Findings(); len(f) != 0 || len(p.server.Clients()) != 1 {
		t.Errorf("the client refused something: %v", f)
	}
	backend.Stop()
}

// TestUnusableForGRPC: destinations that a client cannot use are unavailable to it, and delay no call that goes elsewhere: the client
// makes none before it has each cluster of its routes, and gives one that does not come 15 s.
func TestUnusableForGRPC(t *testing.T) {
	p := newPlane(t, Options{})
	backend, port := healthServer(t)
	defer backend.Stop()
	const tlsHost, refusedHost = "tls.default.svc.cluster.local", "refused.default.svc.cluster.local"
	ways := map[string]model.WeightedDestination{
		"missing service": {Host: "nope.default.svc.cluster.local", Port: 9080},
		"missing subset":  {Host: reviewsHost, Subset: "v7"},
		"missing port":    {Host: reviewsHost, Port: 1},
		"TLS of the user": {Host: tlsHost},
		"TLS refused":     {Host: refusedHost},
	}
	p.publish(mesh(func(m *model.Mesh) {
		served(port)(m)
		services := map[string]*model.Service{reviewsHost: m.Services.Get(reviewsHost)}
		destinations := map[string][]*model.Destination{}
		for host, tls := range map[string]*model.ClientTLS{tlsHost: {Mode: model.TLSSimple}, refusedHost: {Mode: model.TLSSimple, Refuse: "there is no Secret"}} {
			s := *m.Services.Get(reviewsHost)
			s.Host, s.Name, s.Addresses = host, strings.TrimSuffix(host, ".default.svc.cluster.local"), nil
			services[host] = &s
			destinations[host] = []*model.Destination{{Ref: model.Ref{Kind: "DestinationRule", Namespace: "default", Name: s.Name}, Host: host,
				Policy: model.TrafficPolicy{TLS: tls}}}
		}
		m.Services, m.Destinations = model.TableOf(services), model.TableOf(destinations)
		routed(reviewsHost)(m)
		rules := m.RouteSets[0].HTTP
		for way, d := range ways {
			to := model.NamedMatch{Name: "to", Match: model.StringMatch{Exact: way}}
			rules = append([]model.HTTPRoute{{Name: way, Matches: []model.HTTPMatch{{Headers: []model.NamedMatch{to}}},
				Destinations: []model.WeightedDestination{d}}}, rules...)
		}
		m.RouteSets[0].HTTP = rules
	}))

	// One client of several answers before it would have waited: not each does where the machine is slow.
	late := true
	for try := 0; late && try < 5; try++ {
		calls, began := healthpb.NewHealthClient(p.dialReviews()), time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if _, err := calls.Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
			t.Fatalf("a call that leads to none of them: %v", err)
		}
		for way := range ways {
			if _, err := calls.Check(metadata.AppendToOutgoingContext(ctx, "to", way), &healthpb.HealthCheckRequest{}); status.Code(err) != codes.Unavailable {
				t.Errorf("%s: %v, want unavailable", way, err)
			}
		}
		late = time.Since(began) > 12*time.Second
	}
	if late {
		t.Error("calls have waited for clusters that do not come")
	}
	if f := p.server.Findings(); len(f) != 0 {
		t.Errorf("the client refused something: %v", f)
	}
}

// TestLargeForGRPC: a resource that gRPC's library does not take is told by name, and so is that the client connects again and again.
func TestLargeForGRPC(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(mesh(func(m *model.Mesh) {
		m.Services.Get(reviewsHost).Ports = []model.Port{{Number: 9080, Protocol: model.GRPC}}
		routed(reviewsHost)(m)
		one := m.RouteSets[0].HTTP[0]
		m.RouteSets[0].HTTP = nil
		for i := range 9000 {
			one.Matches = []model.HTTPMatch{{Path: model.StringMatch{Exact: fmt.Sprintf("/%0500d", i), IsExact: true}}}
			m.RouteSets[0].HTTP = append(m.RouteSets[0].HTTP, one)
		}
	}, "10.77.0.1"))
	conn := p.dialReviews()
	conn.Connect()
	p.await("the resource is told", func() bool {
		f := p.server.Findings()
		return len(f) == 1 && f[0].Code == "LargeResource" && strings.HasPrefix(f[0].Field, "rds ") && strings.Contains(f[0].Field, reviewsHost)
	})
}

// TestGRPCRefuses: what gRPC's library refuses is told by name, calls go on, and it is over when the library accepts something else, or
// asks for it no more.
func TestGRPCRefuses(t *testing.T) {
	p := newPlane(t, Options{})
	backend, port := healthServer(t)
	defer backend.Stop()
	// gRPC's library refuses to eject more than all.
	ejecting := func(percent uint32, to string) *model.Mesh {
		m := both("127.0.0.1", "127.0.0.1")
		served(port)(m)
		routed(to)(m)
		m.RouteSets[0].HTTP[0].Matches = []model.HTTPMatch{{Headers: []model.NamedMatch{{Name: "to", Match: model.StringMatch{Exact: "ratings"}}}}}
		m.RouteSets[0].HTTP = append(m.RouteSets[0].HTTP, model.HTTPRoute{Name: "rest", Destinations: []model.WeightedDestination{{Host: reviewsHost}}})
		m.Destinations = model.TableOf(map[string][]*model.Destination{ratingsHost: {{
			Ref: model.Ref{Kind: "DestinationRule", Namespace: "default", Name: "ratings"}, Host: ratingsHost,
			Policy: model.TrafficPolicy{Outlier: &model.Outlier{MaxEjectionPercent: percent}}}}})
		return m
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	calls := healthpb.NewHealthClient(p.dialReviews())
	call := func() {
		t.Helper()
		if _, err := calls.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true)); err != nil {
			t.Fatal(err)
		}
	}
	p.publish(ejecting(100, ratingsHost))
	call()
	refused := func() { // with the clusters that came with it
		t.Helper()
		p.publish(ejecting(101, ratingsHost))
		p.awaitAlone(Refused)
		if f := p.server.Findings(); len(f) != 1 || f[0].Field != "cds" || !strings.HasPrefix(f[0].Message, "refused "+ratingsAll+", "+reviewsAll+" and keeps") {
			t.Fatalf("findings %v", f)
		}
		call()
	}
	refused()
	p.publish(ejecting(100, ratingsHost))
	p.awaitAlone(Synced)
	refused()
	p.publish(ejecting(101, reviewsHost)) // the client asks for the ratings no more
	p.awaitAlone(Synced)
	call()
	if f := p.server.Findings(); len(f) != 0 {
		t.Errorf("the client refuses nothing any more: %v", f)
	}
}

// served puts a server of gRPC at that port of this machine behind the reviews.
func served(port uint16) func(*model.Mesh) {
	return func(m *model.Mesh) {
		s := m.Services.Get(reviewsHost)
		s.Ports = []model.Port{{Number: 9080, Protocol: model.GRPC}}
		s.Endpoints = []*model.Endpoint{{Address: "127.0.0.1", Ports: map[uint16]uint16{9080: port}, Namespace: "default", Ready: true, Mesh: true}}
	}
}

// dialReviews makes a client of the reviews with gRPC's own xDS.
func (p *plane) dialReviews() *grpc.ClientConn {
	p.t.Helper()
	resolver, err := xds.NewXDSResolverWithConfigForTesting(p.bootstrap(p.certify("default", "productpage", time.Hour)))
	if err != nil {
		p.t.Fatal(err)
	}
	conn, err := grpc.NewClient("xds:///"+reviewsHost+":9080", grpc.WithResolvers(resolver), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func healthServer(t *testing.T) (*grpc.Server, uint16) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, health.NewServer())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	a, _ := l.Addr().(*net.TCPAddr)
	return s, uint16(a.Port)
}

// bootstrap gives the configuration of gRPC's xDS client: the server's address, and the files of the workload's certificate.
func (p *plane) bootstrap(s *identity.Source) []byte {
	p.t.Helper()
	config, _ := p.bootstrapIn(s)
	return config
}

// bootstrapIn tells besides where the files are: root.pem, cert.pem, key.pem.
func (p *plane) bootstrapIn(s *identity.Source) ([]byte, string) {
	p.t.Helper()
	dir := p.t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			p.t.Fatal(err)
		}
		return path
	}
	m := s.Current()
	private, _ := m.Certificate.PrivateKey.(*ecdsa.PrivateKey)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		p.t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(p.address)
	if err != nil {
		p.t.Fatal(err)
	}
	creds := map[string]any{"type": "tls", "config": map[string]string{
		"ca_certificate_file": write("root.pem", p.authority.RootsPEM()),
		"certificate_file":    write("cert.pem", identity.EncodeCertificates(m.Certificate.Leaf)),
		"private_key_file":    write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	}}
	config, err := json.Marshal(map[string]any{
		"xds_servers": []any{map[string]any{"server_uri": "localhost:" + port, "channel_creds": []any{creds}, "server_features": []string{"xds_v3"}}},
		"node":        map[string]string{"id": "sidecar~127.0.0.1~productpage-0.default~default.svc.cluster.local"},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return config, dir
}
