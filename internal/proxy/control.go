package proxy

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/weftmesh/weft/internal/ca/client"
	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/proxy/live"
)

// control is what the proxy has of its control plane: a keeper of certificates and a keeper of configuration.
type control struct {
	authority *client.Client
	live      *live.Live
	conn      *grpc.ClientConn
}

func newControl(o *Options) (*control, error) {
	b := o.Bootstrap
	authority, err := client.New(client.Options{
		Control: b.Control, TrustDomain: b.TrustDomain, Roots: []byte(b.Roots), StateDir: b.StateDir, Dial: o.DialControl, Log: o.Log,
		ID:    identity.ID{TrustDomain: b.TrustDomain, Namespace: b.Node.Namespace, ServiceAccount: b.Node.ServiceAccount},
		Token: func() (string, error) { return b.Token, nil },
	})
	if err != nil {
		return nil, err
	}
	network, address := "tcp", b.Control
	if path, ok := strings.CutPrefix(b.Control, "unix://"); ok {
		network, address = "unix", path
	}
	t := &transport{dial: func(ctx context.Context) (net.Conn, error) { return o.DialControl(ctx, network, address) }}
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(credentials.NewTLS(authority.ControlTLS("h2"))),
		grpc.WithContextDialer(t.connect), grpc.WithStreamInterceptor(t.intercept))
	if err != nil {
		return nil, fmt.Errorf("control plane %s: %w", b.Control, err)
	}
	l, err := live.New(conn, live.Options{Node: b.Node, Log: o.Log, StateDir: b.StateDir})
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &control{authority: authority, live: l, conn: conn}, nil
}

func (c *control) close() { c.conn.Close() }

// run keeps the configuration current until ctx ends. The stream needs a certificate, so it waits for the first one; what an
// earlier run has left is served meanwhile.
func (c *control) run(ctx context.Context) error {
	select {
	case <-c.authority.Ready():
		return c.live.Run(ctx)
	case <-ctx.Done():
		return nil
	}
}

// transport gives each stream a connection of its own. The control plane believes the certificate of the connection, and ends
// the stream when that one expires: a new stream over the old connection would show the old certificate again, for ever.
type transport struct {
	dial func(context.Context) (net.Conn, error)

	mu   sync.Mutex
	conn net.Conn // the newest
}

func (t *transport) connect(ctx context.Context, _ string) (net.Conn, error) {
	c, err := t.dial(ctx)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conn = c
	return c, nil
}

// drop closes the connection; gRPC makes another for the next stream.
func (t *transport) drop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn != nil {
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
