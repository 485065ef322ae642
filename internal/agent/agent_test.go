package agent

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	health1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/weftmesh/weft/internal/ca"
	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/wire"
)

const domain = "cluster.local"

// patience bounds the wait for something that must happen.
const patience = 3 * time.Minute

// plane is a control plane of two replicas that are one authority.
type plane struct {
	t         *testing.T
	authority *ca.Authority
	tokens    *ca.Tokens
	replicas  [2]*grpc.Server
	addresses [2]string
}

func newPlane(t *testing.T) *plane {
	t.Helper()
	dir := t.TempDir()
	p := &plane{t: t}
	var err error
	if p.authority, err = ca.Open(dir, ca.Options{TrustDomain: domain}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.authority.Close() })
	if p.tokens, err = ca.OpenTokens(dir, ca.TokenOptions{TrustDomain: domain}); err != nil {
		t.Fatal(err)
	}
	for i := range p.replicas {
		p.start(i)
	}
	return p
}

func (p *plane) start(i int) {
	serving, err := p.authority.ServingCertificate(identity.ControlID(domain), nil)
	if err != nil {
		p.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(serving.ServerTLS(identity.TLSOptions{OptionalPeer: true, NextProtos: []string{"h2"}}))))
	ca.NewService(p.authority, ca.ServiceOptions{Verifiers: []ca.Verifier{p.tokens.Verifier()}}).Register(s)
	health1.RegisterHealthServer(s, health.NewServer())
	ended := make(chan struct{})
	go func() { // ends with Stop
		defer close(ended)
		_ = s.Serve(l)
	}()
	p.t.Cleanup(func() { s.Stop(); <-ended })
	p.replicas[i], p.addresses[i] = s, l.Addr().String()
}

func (p *plane) bootstrap() *wire.Bootstrap {
	id := identity.ID{TrustDomain: domain, Namespace: "default", ServiceAccount: "a"}
	token, err := p.tokens.Mint(identity.Peer{ID: id, Workload: "a", Instance: "a-1"})
	if err != nil {
		p.t.Fatal(err)
	}
	return &wire.Bootstrap{Node: wire.Node{Role: wire.Sidecar, Name: "a-1", Namespace: id.Namespace, ServiceAccount: id.ServiceAccount, Workload: "a"},
		Control: strings.Join(p.addresses[:], ", "), TrustDomain: domain, Roots: string(p.authority.RootsPEM()), Token: token}
}

// run runs an agent until the test ends, after changes to it, and gives its folder.
func run(t *testing.T, b *wire.Bootstrap, change ...func(*Agent)) (*Agent, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "weft") // the paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	a, err := New(Options{Bootstrap: b, Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(a)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }() // ends with cancel
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return a, dir
}

// TestReplicas: the agent gets its certificate while one of two replicas is down, and its socket leads to the other one when that
// with which the data plane was connected dies.
func TestReplicas(t *testing.T) {
	for i, name := range []string{"first", "second"} {
		t.Run("certificate without the "+name, func(t *testing.T) {
			p := newPlane(t)
			p.replicas[i].Stop()
			a, _ := run(t, p.bootstrap())
			select {
			case <-a.Ready():
			case <-time.After(patience):
				t.Fatal("no certificate")
			}
		})
		t.Run("socket without the "+name, func(t *testing.T) {
			p := newPlane(t)
			told := &logged{}
			_, dir := run(t, p.bootstrap(), func(a *Agent) { a.options.Log = slog.New(slog.NewTextHandler(told, nil)) })
			conn, err := grpc.NewClient("unix://"+filepath.Join(dir, socketFile), grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			call(t, conn)
			p.replicas[i].Stop()
			call(t, conn)
			if want := `msg="connected to the control plane" control=` + p.addresses[1-i]; !strings.Contains(told.String(), want) {
				t.Errorf("the log does not say with whom it is:\n%s", told)
			}
		})
	}
}

// logged is what an agent has logged.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// call asks a replica for its health. The first answer may be that the connection has just ended.
func call(t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		_, err := health1.NewHealthClient(conn).Check(ctx, &health1.HealthCheckRequest{}, grpc.WaitForReady(true))
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}
