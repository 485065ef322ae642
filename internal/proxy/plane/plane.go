// Package plane is what a proxy has of its control plane: the keepers of its certificate and of its configuration, over one
// connection each time a stream begins.
package plane

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/weftmesh/weft/internal/ca/client"
	"github.com/weftmesh/weft/internal/failover"
	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/proxy/live"
	"github.com/weftmesh/weft/internal/wire"
)

// greetingTime is how long a replica may take to become a connection of HTTP/2. The kernel of one that hangs still takes connections; one
// that thousands of proxies come to at once takes its time, of which it has as much itself.
const greetingTime = 10 * time.Second

// Plane keeps certificate and configuration current. Run is called once.
type Plane struct {
	// Authority and Live are set by New.
	Authority *client.Client
	Live      *live.Live
	conn      *grpc.ClientConn
	disk      *disk
}

// New prepares what b says, with what is in the state directory. dial connects to the control plane. It does not touch the network;
// Run does. Where shared is set another process writes to the state directory until Own. follow is live.Options.Follow.
func New(b *wire.Bootstrap, dial func(ctx context.Context, network, address string) (net.Conn, error), log *slog.Logger, shared bool, follow func()) (*Plane, error) {
	d := &disk{yielded: shared}
	all := failover.New(b.Controls(), dial)
	authority, err := client.New(client.Options{
		Control: all.First(), TrustDomain: b.TrustDomain, Roots: []byte(b.Roots), StateDir: b.StateDir, Store: d.store("identity"), Log: log,
		Dial:  failover.New(b.Controls(), dial).DialNext,
		ID:    identity.ID{TrustDomain: b.TrustDomain, Namespace: b.Node.Namespace, ServiceAccount: b.Node.ServiceAccount},
		Token: func() (string, error) { return b.Token, nil },
	})
	if err != nil {
		return nil, err
	}
	t := &transport{replicas: all, log: log}
	after, timeout := failover.Pings()
	conn, err := grpc.NewClient("passthrough:///"+strings.TrimPrefix(all.First(), "unix://"),
		grpc.WithTransportCredentials(credentials.NewTLS(authority.ControlTLS("h2"))),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: greetingTime}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: after, Timeout: timeout}),
		grpc.WithContextDialer(t.connect), grpc.WithStreamInterceptor(t.intercept))
	if err != nil {
		return nil, fmt.Errorf("control plane %s: %w", b.Control, err)
	}
	l, err := live.New(conn, live.Options{Node: b.Node, Log: log, StateDir: b.StateDir, Store: d.store("configuration"), Follow: follow})
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &Plane{Authority: authority, Live: l, conn: conn, disk: d}, nil
}

// Yield leaves the state directory to another process, with the newest configuration in it. Own takes it back, or takes it over.
func (c *Plane) Yield() { c.disk.yield(c.Live.Save) }

// Own is the opposite of Yield.
func (c *Plane) Own() { c.disk.own() }

// Close drops the connection, after Run.
func (c *Plane) Close() { c.conn.Close() }

// Run keeps the configuration current until ctx ends. The stream needs a certificate, so it waits for the first one; what an
// earlier run has left is served meanwhile.
func (c *Plane) Run(ctx context.Context) error {
	select {
	case <-c.Authority.Ready():
		return c.Live.Run(ctx)
	case <-ctx.Done():
		return nil
	}
}

// transport gives each stream a connection of its own. The control plane believes the certificate of the connection, and ends
// the stream when that one expires: a new stream over the old connection would show the old certificate again, for ever.
type transport struct {
	replicas *failover.Replicas
	log      *slog.Logger

	mu   sync.Mutex
	conn net.Conn // the newest
	to   string   // the replica that it leads to
	told string   // the one that the log named last
}

func (t *transport) connect(ctx context.Context, _ string) (net.Conn, error) {
	c, address, err := t.replicas.Dial(ctx)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conn, t.to = c, address
	return c, nil
}

// drop closes the connection; gRPC makes another for the next stream, to another replica: this one may be ill, and if it is not,
// all have their share anyhow.
func (t *transport) drop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn != nil {
		t.replicas.Leave(t.to)
		t.conn.Close()
		t.conn = nil
	}
}

func (t *transport) intercept(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer,
	opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	s, err := open(ctx, desc, cc, method, opts...)
	if err != nil {
		t.drop()
		return nil, err
	}
	t.tell()
	return &lastStream{ClientStream: s, over: t}, nil
}

// tell says in the log with whom the proxy is when that is another replica than before: one that has nothing new for it says nothing.
func (t *transport) tell() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.to != t.told {
		t.told = t.to
		t.log.Info("connected to the control plane", "control", t.to)
	}
}

// replica is the one that the newest connection leads to.
func (t *transport) replica() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.to
}

// lastStream drops the connection at its end.
type lastStream struct {
	grpc.ClientStream
	over *transport
	to   string // the replica that has answered; empty before
}

// RecvMsg implements grpc.ClientStream. It says in the log with whom the proxy is, and why no longer.
func (s *lastStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	switch {
	case err != nil:
		if s.to != "" && status.Code(err) != codes.Canceled {
			s.over.log.Info("the stream from the control plane ended", "control", s.to, "error", err)
		}
		s.over.drop()
	case s.to == "":
		s.to = s.over.replica()
		s.over.log.Info("the control plane answers", "control", s.to)
	}
	return err
}
