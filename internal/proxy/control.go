package proxy

import (
	"context"
	"fmt"
	"net"
	"strings"

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
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(credentials.NewTLS(authority.ControlTLS("h2"))),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return o.DialControl(ctx, network, address) }))
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
