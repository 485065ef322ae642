// Package failover connects to one of the control plane's addresses, and to another where that one fails.
package failover

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"
)

// Replicas are the control plane's addresses. Each proxy has an order of its own, so that proxies spread over them, and those of one
// that dies spread over the rest. It stays with one as long as that one serves it.
type Replicas struct {
	addresses []string // shuffled; set once
	dialer    func(ctx context.Context, network, address string) (net.Conn, error)

	mu   sync.Mutex
	next int // the one to dial
}

// dialTime is how long a replica among several is waited for: one whose machine has died does not answer at all.
const dialTime = 3 * time.Second

// A replica that hangs, or is cut off silently, ends no connection. So one from which nothing was heard for pingAfter, and as much of
// pingSpread as chance says, is pinged, and left when nothing comes for pingTimeout. gRPC's library pings no sooner than after ten
// seconds. The spread is for the proxies that heard the same change at the same time.
const (
	pingAfter   = 10 * time.Second
	pingSpread  = time.Second
	pingTimeout = 5 * time.Second
)

// Pings says when to ping a replica from which nothing is heard, and how long to wait for the answer.
func Pings() (after, timeout time.Duration) { return pingAfter + rand.N(pingSpread), pingTimeout }

// New takes addresses as "host:port" or "unix:///path"; dial connects to one, with network "tcp" or "unix".
func New(addresses []string, dial func(ctx context.Context, network, address string) (net.Conn, error)) *Replicas {
	r := &Replicas{addresses: append([]string(nil), addresses...), dialer: dial}
	rand.Shuffle(len(r.addresses), func(i, j int) { r.addresses[i], r.addresses[j] = r.addresses[j], r.addresses[i] })
	return r
}

// Dial connects to the replica whose turn it is, or else to the next one that can be reached.
func (r *Replicas) Dial(ctx context.Context) (conn net.Conn, address string, err error) {
	var errs []error
	for range r.addresses {
		address := r.current()
		conn, err := r.dialOne(ctx, address)
		if err == nil {
			return conn, address, nil
		}
		errs = append(errs, fmt.Errorf("control plane %s: %w", address, err))
		if ctx.Err() != nil {
			break
		}
		r.Leave(address)
	}
	return nil, "", errors.Join(errs...)
}

func (r *Replicas) dialOne(ctx context.Context, address string) (net.Conn, error) {
	if len(r.addresses) > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, dialTime)
		defer cancel()
	}
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		return r.dialer(ctx, "unix", path)
	}
	return r.dialer(ctx, "tcp", address)
}

// DialNext is Dial for single calls: the next one goes to another replica, so that one which takes connections and fails at its work
// holds up nobody.
func (r *Replicas) DialNext(ctx context.Context, _, _ string) (net.Conn, error) {
	conn, address, err := r.Dial(ctx)
	if err == nil {
		r.Leave(address)
	}
	return conn, err
}

// First is where Dial begins at first.
func (r *Replicas) First() string { return r.addresses[0] }

func (r *Replicas) current() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.addresses[r.next]
}

// Leave gives the turn to the replica after one, unless it is another's already.
func (r *Replicas) Leave(address string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.addresses[r.next] == address {
		r.next = (r.next + 1) % len(r.addresses)
	}
}
