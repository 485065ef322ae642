package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/weftmesh/weft/internal/ca"
	"github.com/weftmesh/weft/internal/control"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/memnet"
	"github.com/weftmesh/weft/internal/wire"
)

// plane is the control plane. Its authority outlives it, as under `weft up`, and its applied objects do on disk.
type plane struct {
	// Set once.
	dir       string
	host      *memnet.Host
	log       *slog.Logger
	authority *ca.Authority
	tokens    *ca.Tokens

	mu       sync.Mutex
	running  *control.Control // nil while it does not run
	stop     func() error
	observed []source.Kube    // what the runtime reported last
	known    []*source.Object // of the last control plane, for while there is none
}

// controlAddress is where proxies find the control plane.
var controlAddress = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 76, 0, 1}), wire.ControlPort)

// certificateLife is the lifetime of the workloads' certificates, short so that tests outlive it.
const certificateLife = time.Hour

// open makes the authority.
func (p *plane) open() (err error) {
	dir := filepath.Join(p.dir, "ca")
	if p.authority, err = ca.Open(dir, ca.Options{TrustDomain: TrustDomain, LeafTTL: certificateLife, Log: p.log}); err != nil {
		return err
	}
	p.tokens, err = ca.OpenTokens(dir, ca.TokenOptions{TrustDomain: TrustDomain})
	return err
}

// close ends the control plane and its authority.
func (p *plane) close() error {
	err := p.end()
	if p.authority != nil {
		err = errors.Join(err, p.authority.Close())
	}
	return err
}

// start runs a control plane, which must not run yet.
func (p *plane) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running != nil {
		return fmt.Errorf("the control plane runs already")
	}
	l, err := p.host.Listen(controlAddress)
	if err != nil {
		return err
	}
	c, err := control.New(control.Options{
		StateDir: filepath.Join(p.dir, "control"), LocalRuntime: true, Settings: model.Settings{TrustDomain: TrustDomain, AccessLog: true},
		Address: "-", HTTPAddress: "-", Log: p.log,
		Listeners: []net.Listener{l}, Authority: p.authority, Tokens: p.tokens,
	})
	if err != nil {
		l.Close()
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }() // stop ends it
	p.running, p.stop = c, func() error {
		cancel()
		return <-ended
	}
	if err := c.SetRuntimeObjects(p.observed); err != nil {
		return err
	}
	return awaitMesh(ctx, c)
}

// awaitMesh waits for the first compiled mesh: before, nothing can be applied.
func awaitMesh(ctx context.Context, c *control.Control) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	changes := c.Changes(ctx)
	for c.Mesh() == nil {
		select {
		case <-changes:
		case <-ctx.Done():
			return fmt.Errorf("the control plane has no mesh: %w", ctx.Err())
		}
	}
	return nil
}

// end stops the control plane, abruptly for its clients. It is no error if it does not run.
func (p *plane) end() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil {
		return nil
	}
	p.known = p.running.Objects()
	p.running = nil
	return p.stop()
}

func (p *plane) get() (*control.Control, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil {
		return nil, errNotRunning
	}
	return p.running, nil
}

func (p *plane) apply(ctx context.Context, objects []*source.Object) ([]model.Finding, error) {
	c, err := p.get()
	if err != nil {
		return nil, err
	}
	_, findings, err := c.Apply(ctx, objects)
	if current, _ := p.get(); err != nil && current != c {
		return nil, fmt.Errorf("%w: %w", errNotRunning, err)
	}
	return findings, err
}

// remove deletes an applied object of that kind and name.
func (p *plane) remove(ctx context.Context, kind, name string) error {
	c, err := p.get()
	if err != nil {
		return err
	}
	ns, name, _ := strings.Cut(qualified(name), "/")
	for _, o := range c.Objects() {
		if k := o.Key(); (k.Kind == kind || k.Kind+"."+k.Group == kind) && k.Namespace == ns && k.Name == name {
			_, err := c.Delete(ctx, []source.Key{k})
			return err
		}
	}
	return fmt.Errorf("no %s %s/%s", kind, ns, name)
}

// objects gives all objects in force, or those that were when the control plane ended.
func (p *plane) objects() []*source.Object {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil {
		return p.known
	}
	return p.running.Objects()
}

// observe is the runtime's report. One that nobody hears is told to the next control plane.
func (p *plane) observe(objects []source.Kube) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.observed = objects
	if p.running == nil {
		return nil
	}
	return p.running.SetRuntimeObjects(objects)
}
