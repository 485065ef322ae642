package mesh

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"github.com/weftmesh/weft/internal/wire"
)

// Resolve asks the sidecar of a workload for the addresses of a name, as the workload's resolver would: a name with fewer than five
// dots is tried with each search domain first. No address is not an error.
func (m *Mesh) Resolve(ctx context.Context, workload, name string) ([]netip.Addr, error) {
	p, err := m.Pod(workload)
	if err != nil {
		return nil, err
	}
	return p.lookup(ctx, name)
}

// lookup follows resolv.conf(5) with the options that Kubernetes gives to pods.
func (p *Pod) lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	full := strings.HasSuffix(name, ".")
	name = strings.TrimSuffix(name, ".")
	tries := []string{name}
	if !full && strings.Count(name, ".") < 5 {
		tries = nil
		for _, domain := range []string{p.Namespace + ".svc.cluster.local", "svc.cluster.local", "cluster.local"} {
			tries = append(tries, name+"."+domain)
		}
		tries = append(tries, name)
	}
	var failed error
	for _, try := range tries {
		found, err := p.query(ctx, try)
		if len(found) > 0 {
			return found, nil
		}
		if err != nil {
			failed = err
		}
	}
	return nil, failed
}

// query asks one question over TCP. A name that does not exist has no addresses; a server that cannot say is an error.
func (p *Pod) query(ctx context.Context, name string) ([]netip.Addr, error) {
	c, err := p.host.DialDirect(ctx, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), wire.DNSPort))
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", name, err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	conn := dns.Conn{Conn: c}
	if err := conn.WriteMsg(new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)); err != nil {
		return nil, fmt.Errorf("resolve %s: %w", name, err)
	}
	answer, err := conn.ReadMsg()
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", name, err)
	}
	switch answer.Rcode {
	case dns.RcodeSuccess, dns.RcodeNameError:
	case dns.RcodeRefused: // not of the mesh, and there is no other server to ask
		return nil, nil
	default:
		return nil, &net.DNSError{Err: dns.RcodeToString[answer.Rcode], Name: name, IsTemporary: true}
	}
	var found []netip.Addr
	for _, rr := range answer.Answer {
		if a, ok := rr.(*dns.A); ok {
			ip, _ := netip.AddrFromSlice(a.A)
			found = append(found, ip.Unmap())
		}
	}
	return found, nil
}
