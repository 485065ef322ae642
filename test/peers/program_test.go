package peers

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	xdscreds "google.golang.org/grpc/credentials/xds"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/xds"

	"github.com/weftmesh/weft/internal/agent"
	"github.com/weftmesh/weft/internal/identity"
)

// program is a service of gRPC: it says which pod it is, and who called.
type program struct {
	grpc_testing.UnimplementedTestServiceServer
	name    string
	calls   atomic.Int64
	failing atomic.Bool
	hold    chan struct{} // calls wait for its end; nil for none
}

// UnaryCall implements grpc_testing.TestServiceServer.
func (p *program) UnaryCall(ctx context.Context, r *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	p.calls.Add(1)
	if p.failing.Load() {
		return nil, status.Error(codes.Unavailable, "as the test wants it")
	}
	if p.hold != nil {
		select {
		case <-p.hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	out := &grpc_testing.SimpleResponse{Hostname: p.name}
	if from, ok := peer.FromContext(ctx); ok {
		if info, ok := from.AuthInfo.(credentials.TLSInfo); ok {
			who, err := identity.PeerOf(info.State)
			if err != nil {
				return nil, err
			}
			out.Username = who.ID.String()
		}
	}
	if md, _ := metadata.FromIncomingContext(ctx); out.Username == "" {
		out.Username = strings.Join(md.Get("x-forwarded-client-cert"), ",")
	}
	return out, nil
}

// EmptyCall implements grpc_testing.TestServiceServer.
func (p *program) EmptyCall(context.Context, *grpc_testing.Empty) (*grpc_testing.Empty, error) {
	return &grpc_testing.Empty{}, nil
}

// grpcBootstrap is the file that the pod's agent wrote. It looks for new certificates more often than a user's would.
func (p *pod) grpcBootstrap() []byte {
	p.mesh.t.Helper()
	p.attend()
	text, err := os.ReadFile(filepath.Join(p.dir, agent.GRPCBootstrap))
	if err != nil {
		p.mesh.t.Fatal(err)
	}
	return []byte(strings.ReplaceAll(string(text), `"60s"`, `"0.1s"`))
}

// serves runs the program as a server of gRPC's xDS library, without any proxy.
func (p *pod) serves() *program {
	t := p.mesh.t
	t.Helper()
	p.proxyless = true
	credentials, err := xdscreds.NewServerCredentials(xdscreds.ServerOptions{FallbackCreds: insecure.NewCredentials()})
	if err != nil {
		t.Fatal(err)
	}
	serving := make(chan error, 16)
	mode := xds.ServingModeCallback(func(_ net.Addr, a xds.ServingModeChangeArgs) {
		err := a.Err
		if err == nil && a.Mode != connectivity.ServingModeServing {
			err = errors.New("it does not serve")
		}
		select {
		case serving <- err:
		default:
		}
	})
	s, err := xds.NewGRPCServer(grpc.Creds(credentials), mode, xds.BootstrapContentsForTesting(p.grpcBootstrap()))
	if err != nil {
		t.Fatal(err)
	}
	out := &program{name: p.name}
	grpc_testing.RegisterTestServiceServer(s, out)
	l, err := net.Listen("tcp", p.addr())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }() // the test's end stops it
	t.Cleanup(func() { s.Stop(); <-done })
	if err := <-serving; err != nil {
		t.Fatal(p.name, err)
	}
	return out
}

// listens runs the program as an ordinary server at an address, behind a proxy.
func (p *pod) listens(address string) *program {
	t := p.mesh.t
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	out := &program{name: p.name}
	grpc_testing.RegisterTestServiceServer(s, out)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }() // the test's end stops it
	t.Cleanup(func() { s.Stop(); <-done })
	return out
}

// caller is a client of one service.
type caller struct {
	mesh   *mesh
	client grpc_testing.TestServiceClient
}

// calls makes a client with gRPC's xDS library, without any proxy. The target is a service's name and port.
func (p *pod) calls(target string) *caller {
	p.mesh.t.Helper()
	return p.callsBy(p.grpcBootstrap(), target)
}

// callsBy is calls with another bootstrap than the one that the agent wrote.
func (p *pod) callsBy(bootstrap []byte, target string) *caller {
	t := p.mesh.t
	t.Helper()
	resolver, err := xds.NewXDSResolverWithConfigForTesting(bootstrap)
	if err != nil {
		t.Fatal(err)
	}
	credentials, err := xdscreds.NewClientCredentials(xdscreds.ClientOptions{FallbackCreds: insecure.NewCredentials()})
	if err != nil {
		t.Fatal(err)
	}
	return p.mesh.dial("xds:///"+target, grpc.WithResolvers(resolver), grpc.WithTransportCredentials(credentials))
}

// dial makes an ordinary client.
func (m *mesh) dial(target string, o ...grpc.DialOption) *caller {
	m.t.Helper()
	if o == nil {
		o = []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	}
	c, err := grpc.NewClient(target, o...)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { c.Close() })
	return &caller{m, grpc_testing.NewTestServiceClient(c)}
}

// call gives the pod that answered, and the client whom it saw. Metadata is pairs of a name and a value.
func (c *caller) call(md ...string) (pod, user string, err error) {
	ctx, cancel := context.WithTimeout(c.mesh.t.Context(), patience)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, md...)
	r, err := c.client.UnaryCall(ctx, &grpc_testing.SimpleRequest{})
	return r.GetHostname(), r.GetUsername(), err
}

// until calls until an answer is as wanted.
func (c *caller) until(what string, wanted func(pod, user string, err error) bool, md ...string) {
	c.mesh.t.Helper()
	c.mesh.eventually(what, func() error {
		pod, user, err := c.call(md...)
		if wanted(pod, user, err) {
			return nil
		}
		if err != nil {
			return err
		}
		return errors.New("answered by " + pod + " to " + user)
	})
}

// settles calls until the wanted comes ten times in a row. While routes change, gRPC's client may send calls by the old ones, whose pods
// take turns with the wanted one, and fail calls whose route is newer than its balancer.
func (c *caller) settles(what string, wanted func(pod, user string, err error) bool) {
	c.mesh.t.Helper()
	for row := 0; row < 10; row++ {
		if pod, user, err := c.call(); !wanted(pod, user, err) {
			row = -1
			c.until(what, wanted)
		}
	}
}

// answers is a condition: any pod answers.
func answers(_, _ string, err error) bool { return err == nil }

func from(p *pod) func(string, string, error) bool {
	return func(pod, _ string, err error) bool { return err == nil && pod == p.name }
}

func fails(code codes.Code) func(string, string, error) bool {
	return func(_, _ string, err error) bool { return status.Code(err) == code }
}
