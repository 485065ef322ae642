// Package resolve finds the addresses of endpoints that are known by name, and keeps them current for as long as somebody uses them. It
// knows what to ask and when to ask again; what the addresses are good for is decided elsewhere.
package resolve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// Answer is what is known of a name. No addresses mean that there are none: the name does not exist (Missing), or has none of the
// wanted family.
type Answer struct {
	Addrs   []netip.Addr // as the server has ordered them, the preferred family alone
	TTL     time.Duration
	HasTTL  bool // whether the records said how long they hold
	Missing bool
}

// Resolver asks for names. Its methods may be called from any goroutine.
type Resolver struct {
	// Exchange asks a name server. It is nil where the system's own resolver is to be used, which does not tell how long answers hold.
	Exchange func(ctx context.Context, query *dns.Msg) (*dns.Msg, error)
}

// Timeout bounds one lookup.
const Timeout = 5 * time.Second

// Lookup finds the addresses of a name. An error means that nobody could tell.
func (r *Resolver) Lookup(ctx context.Context, name string, f conf.Family) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	switch f {
	case conf.V4Only:
		return r.ask(ctx, name, dns.TypeA)
	case conf.V6Only:
		return r.ask(ctx, name, dns.TypeAAAA)
	case conf.V4Preferred:
		return r.inOrder(ctx, name, dns.TypeA, dns.TypeAAAA)
	case conf.V6Preferred:
		return r.inOrder(ctx, name, dns.TypeAAAA, dns.TypeA)
	}
	return r.both(ctx, name)
}

// inOrder asks for the second family where the first has no addresses.
func (r *Resolver) inOrder(ctx context.Context, name string, first, second uint16) (Answer, error) {
	a, err := r.ask(ctx, name, first)
	if err != nil || len(a.Addrs) > 0 || a.Missing {
		return a, err
	}
	return r.ask(ctx, name, second)
}

// both gives the addresses of both families. One of them is enough: there are name servers that fail for the other.
func (r *Resolver) both(ctx context.Context, name string) (Answer, error) {
	type result struct {
		Answer
		err error
	}
	four := make(chan result, 1)
	go func() { // ends with the lookup's time
		a, err := r.ask(ctx, name, dns.TypeA)
		four <- result{a, err}
	}()
	v6, err := r.ask(ctx, name, dns.TypeAAAA)
	v4 := <-four
	if len(v4.Addrs)+len(v6.Addrs) == 0 {
		v4.Missing = v4.Missing || v6.Missing
		return v4.Answer, cmp.Or(v4.err, err) // both of them say the same, in one line each
	}
	v4.Addrs = append(v4.Addrs, v6.Addrs...)
	if v6.HasTTL && (!v4.HasTTL || v6.TTL < v4.TTL) {
		v4.TTL, v4.HasTTL = v6.TTL, true
	}
	v4.Missing = false
	return v4.Answer, nil
}

// ask finds the addresses of one family.
func (r *Resolver) ask(ctx context.Context, name string, family uint16) (Answer, error) {
	if r.Exchange == nil {
		return system(ctx, name, family)
	}
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), family)
	m, err := r.Exchange(ctx, q)
	if err != nil {
		return Answer{}, fmt.Errorf("name %s: %w", name, err)
	}
	switch m.Rcode {
	case dns.RcodeNameError:
		return Answer{Missing: true}, nil
	case dns.RcodeSuccess:
		return read(m, family), nil
	}
	return Answer{}, fmt.Errorf("name %s: the name server answers %s", name, dns.RcodeToString[m.Rcode])
}

// read collects the addresses behind any aliases. An answer holds for as long as each of its records.
func read(m *dns.Msg, family uint16) (a Answer) {
	least := uint32(0)
	for i, rr := range m.Answer {
		if ttl := rr.Header().Ttl; i == 0 || ttl < least {
			least = ttl
		}
		var ip net.IP
		switch rr := rr.(type) {
		case *dns.A:
			if family == dns.TypeA {
				ip = rr.A
			}
		case *dns.AAAA:
			if family == dns.TypeAAAA {
				ip = rr.AAAA
			}
		}
		if addr, ok := netip.AddrFromSlice(ip); ok && !slices.Contains(a.Addrs, addr.Unmap()) {
			a.Addrs = append(a.Addrs, addr.Unmap())
		}
	}
	if len(a.Addrs) > 0 {
		a.TTL, a.HasTTL = time.Duration(least)*time.Second, true
	}
	return a
}

// system asks as other programs of the machine do, files included.
func system(ctx context.Context, name string, family uint16) (Answer, error) {
	network := "ip4"
	if family == dns.TypeAAAA {
		network = "ip6"
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, network, name)
	// An address of the other family alone is an AddrError of package net.
	if e, ok := errors.AsType[*net.AddrError](err); ok && len(e.Addr) > 0 {
		return Answer{}, nil
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok && e.IsNotFound {
		return Answer{}, nil
	}
	if err != nil {
		return Answer{}, fmt.Errorf("name %s: %w", name, err)
	}
	for i, a := range addrs {
		addrs[i] = a.Unmap()
	}
	return Answer{Addrs: addrs}, nil
}

// Bounds of the time for which an answer is used, whatever its records say.
const (
	shortest = time.Second
	longest  = 5 * time.Minute
)

// Times after a failure, where the configuration does not say.
const (
	firstBackOff = time.Second
	lastBackOff  = 30 * time.Second
)

// Run looks a name up, and again whenever it is time, until ctx ends or report says that nobody wants to know any more. report is
// called by Run's goroutine with each result and the time until the next lookup.
func Run(ctx context.Context, d conf.DNS, lookup func(context.Context) (Answer, error), report func(a Answer, err error, next time.Duration) bool) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		a, err := lookup(ctx)
		if ctx.Err() != nil {
			return
		}
		if failures++; err == nil {
			failures = 0
		}
		next := after(d, a, failures)
		if !report(a, err, next) {
			return
		}
		timer.Reset(next)
	}
}

// after is the time until the next lookup; failures are those in a row.
func after(d conf.DNS, a Answer, failures int) time.Duration {
	if failures > 0 {
		base, most := d.FailureBase, d.FailureMax
		if base == 0 {
			base, most = firstBackOff, lastBackOff
		}
		wait := min(base<<min(failures-1, 16), max(most, base))
		return wait/2 + rand.N(wait/2+1)
	}
	wait := d.Refresh
	if d.RespectTTL && a.HasTTL {
		wait = min(max(a.TTL, shortest), longest)
	}
	if d.Jitter > 0 {
		wait += rand.N(d.Jitter)
	}
	return wait
}
