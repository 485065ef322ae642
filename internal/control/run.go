package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weftmesh/weft/internal/ca"
	"github.com/weftmesh/weft/internal/control/rpc"
	"github.com/weftmesh/weft/internal/identity"
)

// Run serves until the context ends, and then closes everything; it returns nil for that. It is called once.
func (c *Control) Run(ctx context.Context) (err error) {
	defer func() {
		if closeErr := c.Close(); closeErr != nil {
			err = errors.Join(err, fmt.Errorf("control: %w", closeErr))
		}
	}()
	g, ctx := errgroup.WithContext(ctx)
	c.follower = c.sources.Follow(ctx)
	g.Go(func() error { return c.sources.Run(ctx) })
	g.Go(func() error { c.follow(ctx, c.follower.Changed()); return nil })
	c.serveProxies(ctx, g)
	if c.http != nil {
		g.Go(func() error { return c.serveHTTP(ctx) })
	}
	return g.Wait()
}

// A change waits quietTime for another one to merge with, and stormTime at most.
const (
	quietTime = 2 * time.Millisecond
	stormTime = 50 * time.Millisecond
)

// follow publishes the sources' changes until they end.
func (c *Control) follow(ctx context.Context, changes <-chan struct{}) {
	collector := collectOften()
	defer collector.end()
	for {
		select {
		case _, more := <-changes:
			first := time.Now()
			if !more || !gather(changes) || ctx.Err() != nil {
				return
			}
			c.metrics.debounce.Observe(time.Since(first).Seconds())
			c.publish(ctx)
			collector.started()
		case <-c.stepOver():
			c.advance(ctx)
		}
	}
}

// gather takes the changes that follow the first one closely; false when there will be no more.
func gather(changes <-chan struct{}) bool {
	storm, quiet := time.NewTimer(stormTime), time.NewTimer(quietTime)
	defer storm.Stop()
	defer quiet.Stop()
	for {
		select {
		case _, more := <-changes:
			if !more {
				return false
			}
			quiet.Reset(quietTime)
		case <-quiet.C:
			return true
		case <-storm.C:
			return true
		}
	}
}

// serveProxies serves discovery and certificate signing on all listeners. Clients need no certificate to ask for one; discovery
// refuses them by itself.
func (c *Control) serveProxies(ctx context.Context, g *errgroup.Group) {
	tls := c.serving.ServerTLS(identity.TLSOptions{NextProtos: []string{"h2"}, OptionalPeer: true})
	refused := newRefusals(c.log, c.metrics.handshakes)
	server := rpc.New(rpc.Options{TLS: markCertificates(tls), Log: c.log, Refused: refused.take})
	c.server.Register(server)
	ca.NewService(c.authority, ca.ServiceOptions{Verifiers: []ca.Verifier{c.tokens.Verifier()}, Observe: c.metrics.signed}).Register(server)
	for _, l := range c.listeners {
		c.log.Info("proxies are served", "address", l.Addr().String())
	}
	g.Go(func() error {
		if err := server.Run(ctx, c.listeners...); err != nil && ctx.Err() == nil {
			return fmt.Errorf("control: %w", err)
		}
		return nil
	})
}

func (c *Control) serveHTTP(ctx context.Context) error {
	server := &http.Server{Handler: c.handler(), ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(c.log.Handler(), slog.LevelDebug)}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // connections are cut; nobody waits for an answer
	defer stop()
	if err := server.Serve(c.http); !errors.Is(err, http.ErrServerClosed) && ctx.Err() == nil {
		return fmt.Errorf("control: metrics: %w", err)
	}
	return nil
}
