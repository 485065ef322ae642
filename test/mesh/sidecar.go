package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/memnet"
	"github.com/weftmesh/weft/internal/proxy"
	"github.com/weftmesh/weft/internal/proxy/bind"
	"github.com/weftmesh/weft/internal/wire"
)

// sidecar is the proxy of a pod, from one start to the next.
type sidecar struct {
	proxy  *proxy.Proxy
	cancel context.CancelFunc
	ended  chan struct{} // closed when Run has returned
	err    error         // of Run; to be read after ended
	cables cables
}

const (
	// startTime bounds a proxy's start.
	startTime = time.Minute
	// drainTime is how long a proxy that is told to end lets live requests finish.
	drainTime = 5 * time.Second
)

// startSidecar starts a pod's proxy and waits until it is ready.
func startSidecar(ctx context.Context, p *Pod) (*sidecar, error) {
	boot, err := p.bootstrap()
	if err != nil {
		return nil, err
	}
	s := &sidecar{ended: make(chan struct{})}
	s.proxy, err = proxy.New(proxy.Options{
		Bootstrap: boot, Log: p.mesh.log.With("proxy", p.Name), AccessLog: p.accessLog, DrainTime: drainTime,
		Network: bind.Network{Listen: func(_ context.Context, _, address string) (net.Listener, error) {
			at, err := netip.ParseAddrPort(address)
			if err != nil {
				return nil, err
			}
			l, err := p.host.Listen(at)
			if err != nil {
				return nil, err
			}
			return s.cables.listener(l), nil
		},
			ListenPacket: func(context.Context, string, string) (net.PacketConn, error) { return nil, nil }},
		Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
			to, err := netip.ParseAddrPort(address)
			if err != nil {
				return nil, &net.DNSError{Err: "no such host", Name: address, IsNotFound: true}
			}
			return s.cables.plug(p.host.DialDirect(ctx, to))
		},
	})
	if err != nil {
		return nil, err
	}
	var running context.Context
	running, s.cancel = context.WithCancel(context.Background())
	go func() { // crash or stop ends it
		defer close(s.ended)
		s.err = s.proxy.Run(running)
	}()
	if err := s.awaitReady(ctx); err != nil {
		s.crash()
		return nil, errors.Join(err, s.err)
	}
	return s, nil
}

func (s *sidecar) awaitReady(ctx context.Context) error {
	return Eventually(startTime, func() error {
		select {
		case <-s.ended:
			return nil // its error is the caller's to find
		default:
		}
		if why := s.proxy.Unready(); why != "" && ctx.Err() == nil {
			return fmt.Errorf("not ready: %s", why)
		}
		return ctx.Err()
	})
}

// bootstrap is what the local runtime would give to the proxy.
func (p *Pod) bootstrap() (*wire.Bootstrap, error) {
	id := identity.ID{TrustDomain: TrustDomain, Namespace: p.Namespace, ServiceAccount: p.ServiceAccount}
	token, err := p.mesh.plane.tokens.Mint(identity.Peer{
		ID: id, Workload: p.Workload, Instance: p.Name, App: p.Labels["app"], Version: p.Labels["version"], Service: p.Labels["app"],
		Revision: p.Labels["version"], Cluster: cluster,
	})
	if err != nil {
		return nil, err
	}
	b := &wire.Bootstrap{
		Node: wire.Node{
			Role: p.role(), Name: p.Name, Namespace: p.Namespace, ServiceAccount: p.ServiceAccount, Workload: p.Workload, IP: p.IP.String(),
			Labels: p.Labels, Cluster: cluster,
		},
		Control: controlAddress.String(), TrustDomain: TrustDomain, Roots: string(p.mesh.plane.authority.RootsPEM()), Token: token, StateDir: p.stateDir,
		DNS: fmt.Sprintf("127.0.0.1:%d", wire.DNSPort),
	}
	if p.role() == wire.Sidecar {
		b.Outbound, b.Inbound = fmt.Sprintf("127.0.0.1:%d", wire.OutboundPort), fmt.Sprintf("0.0.0.0:%d", wire.InboundPort)
	}
	return b, nil
}

// cluster is the cluster id of all pods.
const cluster = "weft"

// crash ends the proxy as a power failure would: its connections are cut, nothing drains.
func (s *sidecar) crash() {
	s.cables.cut()
	s.stop()
}

// stop tells the proxy to end and waits: live requests finish.
func (s *sidecar) stop() {
	s.cancel()
	<-s.ended
}

// drain lets what comes to the pod end, as the local runtime asks for it before it ends anything; beyond ctx it is cut off.
func (s *sidecar) drain(ctx context.Context) {
	s.proxy.Drain()
	s.proxy.Drained(ctx)
	s.cancel()
	select {
	case <-s.ended:
	case <-ctx.Done():
		s.crash()
	}
}

// metrics gives the proxy's metrics page.
func (s *sidecar) metrics() ([]byte, error) {
	var page bytes.Buffer
	err := s.proxy.Metrics(&page)
	return page.Bytes(), err
}

// cables are the connections of a proxy, so that they can be cut.
type cables struct {
	mu      sync.Mutex
	plugged map[*memnet.Conn]bool
	dead    bool
}

// plug remembers a connection until it is closed.
func (c *cables) plug(nc net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	conn := nc.(*memnet.Conn)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		conn.Reset()
	}
	if c.plugged == nil {
		c.plugged = map[*memnet.Conn]bool{}
	}
	c.plugged[conn] = true
	return &cable{conn, c}, nil
}

func (c *cables) listener(l *memnet.Listener) net.Listener { return &socket{l, c} }

func (c *cables) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = true
	for conn := range c.plugged {
		conn.Reset()
	}
}

// cable is a connection that can be cut; it is otherwise the connection.
type cable struct {
	*memnet.Conn
	of *cables
}

// Close implements net.Conn.
func (c *cable) Close() error {
	c.of.mu.Lock()
	delete(c.of.plugged, c.Conn)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// socket is a listener whose connections can be cut.
type socket struct {
	*memnet.Listener
	of *cables
}

// Accept implements net.Listener.
func (s *socket) Accept() (net.Conn, error) { return s.of.plug(s.Listener.Accept()) }
