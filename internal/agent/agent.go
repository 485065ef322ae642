// Package agent keeps for a data plane that is not ours (a program with gRPC's own xDS library, or an Envoy) what it needs of the mesh:
//
//	DIR/current/cert-chain.pem, key.pem, root-cert.pem   the workload's certificate, always fresh, and the mesh's roots
//	DIR/xds.sock                                         the control plane, reached with that certificate
//	DIR/grpc-bootstrap.json                              for GRPC_XDS_BOOTSTRAP
//	DIR/envoy.json, sds-default.json, sds-rootca.json    for envoy -c, and the secrets that its configuration refers to
//
// The folder is for the workload's user alone, because whoever reaches the socket speaks with the workload's certificate.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weftmesh/weft/internal/ca/client"
	"github.com/weftmesh/weft/internal/ca/keyfile"
	"github.com/weftmesh/weft/internal/failover"
	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/unixsocket"
	"github.com/weftmesh/weft/internal/wire"
)

// Options of New; Bootstrap and Dir are required.
type Options struct {
	// Bootstrap says who the workload is and where its control plane is, as to a sidecar.
	Bootstrap *wire.Bootstrap
	// Dir is made if need be (mode 0700).
	Dir string
	Log *slog.Logger // slog.Default
}

// Agent keeps one workload's files. Run is called once.
type Agent struct {
	options   Options // these are set once
	dir       string  // absolute
	authority *client.Client
	controls  *failover.Replicas // connects with the certificate
	listener  net.Listener
	after     time.Duration // when a replica from which nothing is heard is pinged
	timeout   time.Duration // how long its answer is waited for
	ready     chan struct{}
	once      sync.Once
	with      atomic.Pointer[string] // the replica to which a connection was made last
}

// New makes the folder and everything in it but the certificate, which Run gets.
func New(o Options) (*Agent, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	a := &Agent{options: o, dir: dir, ready: make(chan struct{})}
	a.after, a.timeout = failover.Pings()
	if err := a.open(); err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	return a, nil
}

func (a *Agent) open() (err error) {
	b := a.options.Bootstrap
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return err
	}
	if err := a.describe(); err != nil {
		return err
	}
	if a.listener, err = unixsocket.Listen(filepath.Join(a.dir, socketFile)); err != nil {
		return err
	}
	asked := failover.New(b.Controls(), new(net.Dialer).DialContext)
	a.controls = failover.New(b.Controls(), a.dial)
	a.authority, err = client.New(client.Options{
		Control: asked.First(), Dial: asked.DialNext, TrustDomain: b.TrustDomain, Roots: []byte(b.Roots), StateDir: b.StateDir, Log: a.options.Log, Changed: a.renewed,
		ID:    identity.ID{TrustDomain: b.TrustDomain, Namespace: b.Node.Namespace, ServiceAccount: b.Node.ServiceAccount},
		Token: func() (string, error) { return b.Token, nil },
	})
	if err != nil {
		return errors.Join(err, a.listener.Close())
	}
	return nil
}

// Ready is closed once all files are there.
func (a *Agent) Ready() <-chan struct{} { return a.ready }

// Run keeps the certificate fresh and the socket open until ctx ends.
func (a *Agent) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.authority.Run(ctx) })
	g.Go(func() error { return a.serve(ctx) })
	if err := g.Wait(); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	return nil
}

// renewed writes a generation. A failure is logged: the files of the one before are good for a while.
func (a *Agent) renewed(m *identity.Material) {
	if err := a.write(m); err != nil {
		a.options.Log.Error("the new certificate could not be written; programs keep the one before", "dir", a.dir, "error", err)
		return
	}
	a.once.Do(func() { close(a.ready) })
}

// describe writes the bootstrap files.
func (a *Agent) describe() error {
	files, err := a.descriptions()
	if err != nil {
		return err
	}
	for name, text := range files {
		if err := keyfile.Replace(filepath.Join(a.dir, name), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}
