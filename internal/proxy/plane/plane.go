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

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/weftmesh/weft/internal/ca/client"
	"github.com/weftmesh/weft/internal/failover"
	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/proxy/live"
	"github.com/weftmesh/weft/internal/wire"
)

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
	t := &transport{replicas: all}
	conn, err := grpc.NewClient("passthrough:///"+strings.TrimPrefix(all.First(), "unix://"),
		grpc.WithTransportCredentials(credentials.NewTLS(authority.ControlTLS("h2"))),
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

	mu   sync.Mutex
	conn net.Conn // the newest
	to   string   // the replica that it leads to
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
	return &lastStream{s, t}, nil
}

// lastStream drops the connection at its end.
type lastStream struct {
	grpc.ClientStream
	over *transport
}

// RecvMsg implements grpc.ClientStream.
func (s *lastStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil {
		s.over.drop()
	}
	return err
}
