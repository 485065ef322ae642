// Package rig runs proxies on loopback sockets with a configuration that tests write by hand: no control plane, nothing between a
// test and what it proves but the proxy itself. Package mesh is for whole meshes.
package rig

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/ca"
	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/proxy"
	"github.com/weftmesh/weft/internal/proxy/bind"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/takeover"
	"github.com/weftmesh/weft/internal/wire"
)

const (
	// TrustDomain of every rig.
	TrustDomain = "cluster.local"
	// Service is the one that proxies know, at ServicePort.
	Service     = "backend.example"
	ServicePort = 9080
)

// Rig makes proxies whose identities lead to one authority.
type Rig struct {
	t         testing.TB
	authority *ca.Authority
}

// New makes a rig that ends with the test.
func New(t testing.TB) *Rig {
	t.Helper()
	a, err := ca.Open(t.TempDir(), ca.Options{TrustDomain: TrustDomain, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return &Rig{t, a}
}

// Material issues a certificate for a service account.
func (r *Rig) Material(account string) *identity.Material {
	r.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		r.t.Fatal(err)
	}
	peer := identity.Peer{ID: identity.ID{TrustDomain: TrustDomain, Namespace: "default", ServiceAccount: account},
		Workload: account + "-v1", App: account, Version: "v1", Service: account, Revision: "v1"}
	issued, err := r.authority.Sign(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}), peer, 0, ca.ProofJoinToken)
	if err != nil {
		r.t.Fatal(err)
	}
	m, err := identity.NewMaterial(issued.Chain, key, issued.Bundle, time.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	return m
}

// Proxy is a running proxy.
type Proxy struct {
	*proxy.Proxy
	Config *Config
	Source *identity.Source
	Log    *Log

	r       *Rig
	account string
	options proxy.Options
	stop    func()
	ended   chan struct{} // closed when it has

	mu    sync.Mutex
	bound map[string]netip.AddrPort // by the address that was asked for
}

// Labels of the listeners: what bootstraps ask for is a name here, and each gets a port of the kernel's choice.
const (
	outboundLabel = "127.0.0.1:1"
	forwardLabel  = "127.0.0.1:2"
	inboundLabel  = "127.0.0.1:3"
	gatewayLabel  = "127.0.0.1:4"
)

// Start starts a proxy for a service account. change, which may be nil, sees the options before.
func (r *Rig) Start(account string, role wire.Role, change func(*proxy.Options)) *Proxy {
	r.t.Helper()
	p := &Proxy{r: r, account: account, Config: newConfig(), Source: &identity.Source{}, Log: &Log{}, bound: map[string]netip.AddrPort{}}
	p.Source.Publish(r.Material(account))
	o := proxy.Options{
		Bootstrap: &wire.Bootstrap{Node: wire.Node{Role: role, Name: account + "-1", Namespace: "default", ServiceAccount: account,
			Workload: account + "-v1"}, TrustDomain: TrustDomain}, DrainTime: 100 * time.Millisecond,
		Config: p.Config, Source: p.Source, AccessLog: p.Log,
		Log: slog.New(slog.NewTextHandler(r.t.Output(), &slog.HandlerOptions{Level: slog.LevelError})),
		Network: bind.Network{Listen: p.listen, ListenGateway: func(ctx context.Context, _ string) (net.Listener, error) {
			return p.listen(ctx, "tcp", gatewayLabel)
		}},
	}
	if change != nil {
		change(&o)
	}
	p.run(o)
	return p
}

func (p *Proxy) run(o proxy.Options) {
	p.r.t.Helper()
	var err error
	if p.Proxy, err = proxy.New(o); err != nil {
		p.r.t.Fatal(err)
	}
	p.options, p.ended = o, make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // ends by stop, or when a successor has taken over
		defer close(p.ended)
		err = p.Proxy.Run(ctx)
	}()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if <-p.ended; err != nil {
			p.r.t.Errorf("proxy of %s: %v", p.account, err)
		}
	})
	p.r.t.Cleanup(p.stop)
}

// Upgrade lets another proxy take over from a running one that was started with an upgrade socket, as the processes of two releases
// do, and waits until the old one has ended. Configuration, identity and log are the same.
func (p *Proxy) Upgrade() *Proxy {
	t := p.r.t
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	taken, err := takeover.Take(ctx, p.options.Bootstrap.UpgradeSocket, takeover.Process{PID: os.Getpid(), Release: "next"})
	if err != nil {
		t.Fatal(err)
	}
	next := &Proxy{Config: p.Config, Source: p.Source, Log: p.Log, r: p.r, account: p.account, bound: p.bound}
	o := p.options
	o.Taken = taken
	next.run(o)
	select {
	case <-p.ended:
	case <-ctx.Done():
		t.Fatalf("proxy of %s does not end after an upgrade", p.account)
	}
	p.stop()
	return next
}

func (p *Proxy) listen(ctx context.Context, network, address string) (net.Listener, error) {
	var lc net.ListenConfig
	if network != "tcp" {
		return lc.Listen(ctx, network, address)
	}
	l, err := lc.Listen(ctx, network, "127.0.0.1:0")
	if err == nil {
		p.mu.Lock()
		p.bound[address] = l.Addr().(*net.TCPAddr).AddrPort()
		p.mu.Unlock()
	}
	return l, err
}

// at gives the address of a listener once the proxy serves there.
func (p *Proxy) at(label string) string {
	p.r.t.Helper()
	var a netip.AddrPort
	Eventually(p.r.t, "proxy of "+p.account+" listens", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		a = p.bound[label]
		return a.IsValid() && p.Unready() == ""
	})
	return a.String()
}

// Gateway starts a gateway in front of endpoints and gives its address. change may be nil.
func (r *Rig) Gateway(change func(*conf.HTTP), endpoints ...*conf.Endpoint) (*Proxy, string) {
	r.t.Helper()
	return r.GatewayOptions(nil, func(c *conf.Chain) {
		if change != nil {
			change(c.HTTP)
		}
	}, endpoints...)
}

// GatewayOptions is Gateway with changed options, of which change, which may be nil for none, sees the whole chain.
func (r *Rig) GatewayOptions(options func(*proxy.Options), change func(*conf.Chain), endpoints ...*conf.Endpoint) (*Proxy, string) {
	r.t.Helper()
	p := r.Start("gateway", wire.Gateway, options)
	chain := &conf.Chain{HTTP: &conf.HTTP{RouteName: "gateway", UseRemoteAddress: true, Upgrades: true}}
	if change != nil {
		change(chain)
	}
	p.Config.Publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		s.Clusters["backend"] = Cluster("backend", endpoints...)
		s.RouteTables["gateway"] = Table(Forward("backend"))
		s.Gateways = []*conf.Listener{{Name: "gateway", Address: netip.MustParseAddrPort("127.0.0.1:8080"), Direction: "gateway",
			Chains: []*conf.Chain{chain}}}
	})
	return p, p.at(gatewayLabel)
}

// Outbound starts a sidecar for the client's side, which leads to endpoints, and gives the address where its workload finds
// Service.
func (r *Rig) Outbound(endpoints ...*conf.Endpoint) (*Proxy, string) {
	r.t.Helper()
	return r.OutboundOptions(nil, endpoints...)
}

// OutboundOptions is Outbound with changed options.
func (r *Rig) OutboundOptions(change func(*proxy.Options), endpoints ...*conf.Endpoint) (*Proxy, string) {
	r.t.Helper()
	p := r.Start("client", wire.Sidecar, func(o *proxy.Options) {
		o.Bootstrap.OutboundPorts = []wire.PortMap{{Listen: outboundLabel, Destination: fmt.Sprintf("%s:%d", Service, ServicePort)}}
		o.Bootstrap.ForwardProxy = forwardLabel
		if change != nil {
			change(o)
		}
	})
	p.Config.Publish(func(s *conf.Snapshot, names map[string]*conf.Target) {
		s.Clusters["backend"] = Cluster("backend", endpoints...)
		names[wire.ListenerName(Service, ServicePort)] = &conf.Target{Name: Service, Routes: Table(Forward("backend")),
			Listener: &conf.Listener{Name: Service, Chains: []*conf.Chain{{HTTP: &conf.HTTP{Upgrades: true}}}}}
	})
	return p, p.at(outboundLabel)
}

// Forward gives the address of an outbound sidecar's forward proxy.
func (p *Proxy) Forward() string { return p.at(forwardLabel) }

// Inbound starts a sidecar in front of an application, which takes mutual TLS and plaintext, and gives its address.
func (r *Rig) Inbound(app netip.AddrPort) (*Proxy, string) {
	r.t.Helper()
	return r.InboundOptions(nil, app)
}

// InboundOptions is Inbound with changed options.
func (r *Rig) InboundOptions(change func(*proxy.Options), app netip.AddrPort) (*Proxy, string) {
	r.t.Helper()
	p := r.Start("server", wire.Sidecar, func(o *proxy.Options) {
		o.Bootstrap.InboundPorts = []wire.PortMap{{Listen: inboundLabel, Destination: app.String(), Port: ServicePort}}
		if change != nil {
			change(o)
		}
	})
	p.Config.Publish(func(s *conf.Snapshot, _ map[string]*conf.Target) { s.Inbound = inbound() })
	return p, p.at(inboundLabel)
}

// Pair starts both sidecars, with mutual TLS between them, and gives the address where the client's workload finds Service.
func (r *Rig) Pair(app netip.AddrPort) (client, server *Proxy, address string) {
	r.t.Helper()
	server, at := r.Inbound(app)
	client, address = r.Outbound(Mutual(at))
	return client, server, address
}

// Log is an access log in memory.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

var _ io.Writer = (*Log)(nil)

// patience bounds waits for what should come soon.
const patience = 2 * time.Minute

// Eventually waits for a condition that another goroutine brings about.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
