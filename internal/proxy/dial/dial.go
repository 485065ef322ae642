// Package dial reaches endpoints past the workload's capture: directly, or from the host's network where that has no route. It keeps
// addresses of the mesh out of the host's network, where somebody else may have them.
package dial

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/weftmesh/weft/internal/wire"
)

// networks are the mesh's own, of which the host's network knows nothing. The zero value has no address.
type networks struct {
	pods, services netip.Prefix
	host           netip.Addr // stands for the host, though it is in one of them
}

func networksOf(b *wire.Bootstrap) (n networks, err error) {
	for _, f := range []struct {
		name, text string
		into       *netip.Prefix
	}{{"podNetwork", b.PodNetwork, &n.pods}, {"serviceNetwork", b.ServiceNetwork, &n.services}} {
		if f.text == "" {
			continue
		}
		if *f.into, err = netip.ParsePrefix(f.text); err != nil {
			return networks{}, fmt.Errorf("bootstrap: %s: %w", f.name, err)
		}
	}
	if b.HostAlias != "" {
		if n.host, err = netip.ParseAddr(b.HostAlias); err != nil {
			return networks{}, fmt.Errorf("bootstrap: hostAlias: %w", err)
		}
	}
	return n, nil
}

// ofPod and ofService take addresses without an IPv4-mapped form.
func (n *networks) ofPod(a netip.Addr) bool     { return a != n.host && n.pods.Contains(a) }
func (n *networks) ofService(a netip.Addr) bool { return a != n.host && n.services.Contains(a) }

// nobody is the failure at an address of the mesh that nothing has. It wraps no cause, which would be shown in its place.
func nobody(a netip.AddrPort) error {
	return fmt.Errorf("%s is an address of the mesh, and nothing listens on port %d there", a.Addr().Unmap(), a.Port())
}

// absent is the failure at an address of the pods' network that no pod has.
func absent(a netip.AddrPort) error {
	return fmt.Errorf("%s is an address of the mesh, and no workload has it", a.Addr().Unmap())
}

// Func connects; it is net.Dialer's DialContext, or the broker's Dial.
type Func func(ctx context.Context, network, address string) (net.Conn, error)

// Dialer connects to endpoints. Its methods may be called from any goroutine.
type Dialer struct {
	direct, outside Func // outside is nil where there is no other network
	nets            networks
	ways            ways
	missing         missing
}

// New makes a Dialer for the networks of a bootstrap. outside connects from the host's network and resolves names; nil for none.
func New(b *wire.Bootstrap, direct, outside Func) (*Dialer, error) {
	nets, err := networksOf(b)
	if err != nil {
		return nil, err
	}
	return &Dialer{direct: direct, outside: outside, nets: nets}, nil
}

// Dial reaches an endpoint: directly, or from the host's network where we have only a name, no route, or a route that leads
// nowhere. Addresses of the mesh are not looked for in the host's network, where somebody else may have them.
func (d *Dialer) Dial(ctx context.Context, address string) (net.Conn, error) {
	a, err := netip.ParseAddrPort(address)
	ip := a.Addr().Unmap()
	switch {
	case err == nil && d.nets.ofService(ip):
		return nil, nobody(a)
	case err == nil && d.nets.ofPod(ip):
		return d.dialPod(ctx, a)
	case d.outside == nil:
		return d.direct(ctx, "tcp", address)
	case err != nil:
		return d.outside(ctx, "tcp", address)
	}
	return d.dialBoth(ctx, address, a.Addr())
}

// dialPod reaches a pod. That none has the address the system tells after three seconds, which whoever tries again right then is spared.
func (d *Dialer) dialPod(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
	ip := a.Addr().Unmap()
	if d.missing.lately(ip) {
		return nil, absent(a)
	}
	c, err := d.direct(ctx, "tcp", a.String())
	if err != nil && noRouteTo(err) {
		d.missing.note(ip)
		return nil, absent(a)
	}
	return c, err
}

// missing remembers for a moment the addresses that no pod had.
type missing struct {
	mu sync.Mutex
	at map[netip.Addr]time.Time
}

// missingTime is longer than what comes between attempts of one request, and short for a pod that comes to be meanwhile.
const missingTime = 500 * time.Millisecond

func (m *missing) lately(a netip.Addr) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, ok := m.at[a]
	if ok && time.Since(at) >= missingTime {
		delete(m.at, a)
		return false
	}
	return ok
}

func (m *missing) note(a netip.Addr) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.at == nil || len(m.at) >= maxRemembered {
		m.at = map[netip.Addr]time.Time{}
	}
	m.at[a] = time.Now()
}

// DialNamed is Dial for an address that a name outside the mesh was resolved to, or for such a name itself: by the host's network if
// there is one, whose names these are.
func (d *Dialer) DialNamed(ctx context.Context, address string) (net.Conn, error) {
	if d.outside != nil {
		return d.outside(ctx, "tcp", address)
	}
	return d.direct(ctx, "tcp", address)
}

// Outside reports whether the host's network alone leads to an address: the pods have one of their own, and it is not in that. For
// datagrams there is no trying.
func (d *Dialer) Outside(a netip.Addr) bool {
	a = a.Unmap()
	return d.outside != nil && d.nets.pods.IsValid() && !d.nets.ofPod(a) && !d.nets.ofService(a) && !a.IsLoopback()
}

// podTime bounds connecting to an address of the pods' network of which the configuration knows nothing. A pod that is there
// answers within milliseconds, or to the second SYN, after a second, when its queue was full; that none is there the system
// would tell after three.
const podTime = 1500 * time.Millisecond

// DialUnknown is Dial for destinations that a client gave and the mesh does not know.
func (d *Dialer) DialUnknown(ctx context.Context, address string) (net.Conn, error) {
	a, err := netip.ParseAddrPort(address)
	if err != nil || !d.nets.ofPod(a.Addr().Unmap()) {
		return d.Dial(ctx, address)
	}
	short, cancel := context.WithTimeout(ctx, podTime)
	defer cancel()
	c, err := d.Dial(short, address)
	ours, _ := short.Deadline()
	callers, ok := ctx.Deadline()
	// Package net fails at the deadline by a clock of its own, before the context has ended.
	if t := net.Error(nil); errors.As(err, &t) && t.Timeout() && (!ok || ours.Before(callers)) {
		return nil, nobody(a)
	}
	return c, err
}

// ways remembers the addresses that only the host's network reached when last tried.
type ways struct {
	mu      sync.Mutex
	outside map[netip.Addr]bool
}

func (w *ways) leadsOutside(a netip.Addr) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.outside[a]
}

func (w *ways) learn(a netip.Addr, outside bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case !outside:
		delete(w.outside, a)
	case w.outside == nil || len(w.outside) >= maxRemembered:
		w.outside = map[netip.Addr]bool{a: true}
	default:
		w.outside[a] = true
	}
}

// outsideAfter is how long the direct way may take before the host's network is tried as well. A connection within a machine
// or a data centre is there long before. Where the host's network was the way the last time, nobody waits.
const outsideAfter = 250 * time.Millisecond

// maxRemembered bounds the memory; when it is full it starts anew.
const maxRemembered = 4096

type dialled struct {
	conn net.Conn
	err  error
}

// dialBoth tries the direct way first and the other one beside it when that takes long or there is no route (in the manner of
// RFC 8305). Both attempts have ended when it returns.
func (d *Dialer) dialBoth(ctx context.Context, address string, to netip.Addr) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	direct, outside := make(chan dialled, 1), make(chan dialled, 1)
	try := func(to chan dialled, dial Func) {
		c, err := dial(ctx, "tcp", address)
		to <- dialled{c, err}
	}
	go try(direct, d.direct) // ends with its attempt, which is waited for
	wait := outsideAfter
	if d.ways.leadsOutside(to) {
		wait = 0
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case first := <-direct:
		if first.err == nil || !noRouteTo(first.err) {
			return first.conn, first.err
		}
		direct <- first
	case <-timer.C:
	}
	go try(outside, d.outside) // as above
	c, byOutside, err := settle(direct, outside, cancel)
	if err == nil {
		d.ways.learn(to, byOutside)
	}
	return c, err
}

// settle gives the first connection, and which way it came, and ends the other attempt. When both fail the first failure
// counts, unless it is that there is no route.
func settle(direct, outside chan dialled, cancel func()) (c net.Conn, byOutside bool, err error) {
	first, other := dialled{}, outside
	select {
	case first = <-direct:
	case first = <-outside:
		byOutside, other = true, direct
	}
	if first.err != nil {
		second := <-other
		if second.err == nil || !byOutside && noRouteTo(first.err) {
			return second.conn, !byOutside, second.err
		}
		return nil, byOutside, first.err
	}
	cancel()
	if late := <-other; late.conn != nil {
		late.conn.Close()
	}
	return first.conn, byOutside, nil
}

func noRouteTo(err error) bool {
	return errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH)
}
