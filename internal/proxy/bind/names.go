package bind

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/miekg/dns"

	"github.com/weftmesh/weft/internal/broker"
	weftdns "github.com/weftmesh/weft/internal/dns"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/telemetry"
	"github.com/weftmesh/weft/internal/wire"
)

// Names serves the names of the mesh to the workload.
type Names struct {
	server *weftdns.Server
	udp    net.PacketConn
	tcp    net.Listener
}

// Lookup finds what the mesh says of a name; nil where it is none of its own.
type Lookup func(ctx context.Context, name string) (*conf.Names, error)

// ListenNames opens the name server's sockets at b.DNS. Other names are asked for at b.DNSUpstream, reached by dial, or else at the
// broker.
func (s *Sockets) ListenNames(ctx context.Context, b *wire.Bootstrap, lookup Lookup, dial func(context.Context, string, string) (net.Conn, error), log *slog.Logger) (*Names, error) {
	forward, err := Forwarder(b, dial)
	if err != nil {
		return nil, err
	}
	n := &Names{}
	n.server, err = weftdns.New(weftdns.Options{Forward: forward, Lookup: func(ctx context.Context, name string) (weftdns.Answer, bool, error) {
		found, err := lookup(ctx, name)
		if err != nil {
			log.Warn("a name was not resolved by the mesh", "name", name, "error", err)
		}
		if found == nil {
			return weftdns.Answer{}, false, err
		}
		return weftdns.Answer{Addrs: found.Addresses, Alias: found.Alias}, true, err
	}})
	if err != nil {
		return nil, err
	}
	if n.udp, err = s.ListenPacket(ctx, b.DNS); err != nil {
		return nil, fmt.Errorf("dns: %w", err)
	}
	if n.tcp, err = s.Listen(ctx, "tcp", b.DNS); err != nil {
		if n.udp != nil {
			err = errors.Join(err, n.udp.Close())
		}
		return nil, fmt.Errorf("dns: %w", err)
	}
	return n, nil
}

// Serve answers until ctx ends, and closes the sockets.
func (n *Names) Serve(ctx context.Context) error { return n.server.Serve(ctx, n.udp, n.tcp) }

// Close closes the sockets where Serve was never called.
func (n *Names) Close() {
	if n.udp != nil {
		_ = n.udp.Close()
	}
	_ = n.tcp.Close()
}

// Gauges writes the server's counters.
func (n *Names) Gauges(page *telemetry.Page) {
	st := n.server.Stats()
	page.Family("weft_dns_queries_total", "counter", "DNS queries by how they were answered.")
	for _, c := range []struct {
		how string
		n   uint64
	}{{"mesh", st.Answered}, {"forwarded", st.Forwarded}, {"failed", st.Failed}, {"refused", st.Refused}} {
		page.Sample("weft_dns_queries_total", float64(c.n), telemetry.Label{Name: "answer", Value: c.how})
	}
}

// Forwarder gives the way to ask for names that are not the mesh's: at b.DNSUpstream, reached by dial, or else at the broker. It is nil
// where there is neither.
func Forwarder(b *wire.Bootstrap, dial func(context.Context, string, string) (net.Conn, error)) (func(context.Context, *dns.Msg) (*dns.Msg, error), error) {
	if len(b.DNSUpstream) > 0 {
		u, err := weftdns.NewUpstreams(b.DNSUpstream, 0, dial)
		if err != nil {
			return nil, err
		}
		return u.Exchange, nil
	}
	if b.Broker == "" {
		return nil, nil
	}
	client := broker.Client{Path: b.Broker}
	return func(ctx context.Context, query *dns.Msg) (*dns.Msg, error) {
		raw, err := query.Pack()
		if err != nil {
			return nil, fmt.Errorf("dns query: %w", err)
		}
		if raw, err = client.ExchangeDNS(ctx, raw); err != nil {
			return nil, err
		}
		answer := new(dns.Msg)
		if err := answer.Unpack(raw); err != nil {
			return nil, fmt.Errorf("dns answer: %w", err)
		}
		return answer, nil
	}, nil
}
