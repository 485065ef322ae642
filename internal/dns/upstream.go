package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Upstreams forwards questions to other name servers, over UDP, and over TCP when the answer does not fit. It is safe for
// concurrent use.
type Upstreams struct {
	servers []string // these are set once
	try     time.Duration
	dial    func(ctx context.Context, network, address string) (net.Conn, error)

	next atomic.Uint32 // index of the server that answered last, which is asked first
}

// NewUpstreams takes servers as "ip:port". try bounds the wait for each of them, 2 s when zero. dial makes the connections, a
// net.Dialer's when nil; a sidecar passes one that marks its sockets, or its questions would be captured again.
func NewUpstreams(servers []string, try time.Duration, dial func(ctx context.Context, network, address string) (net.Conn, error)) (*Upstreams, error) {
	if len(servers) == 0 {
		return nil, errors.New("dns: no upstream server")
	}
	for _, s := range servers {
		if _, err := netip.ParseAddrPort(s); err != nil {
			return nil, fmt.Errorf("dns: upstream %q: %w", s, err)
		}
	}
	if try <= 0 {
		try = 2 * time.Second
	}
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	return &Upstreams{servers: servers, try: try, dial: dial}, nil
}

// Exchange asks the servers in turn until one answers with more than a failure of its own. It is a Forward of Options.
func (u *Upstreams) Exchange(ctx context.Context, query *dns.Msg) (*dns.Msg, error) {
	message := prepare(query)
	first := u.next.Load()
	var failures []error
	for n := range len(u.servers) {
		index := (int(first) + n) % len(u.servers)
		response, err := u.ask(ctx, u.servers[index], message)
		if err == nil {
			u.next.Store(uint32(index))
			return response, nil
		}
		failures = append(failures, fmt.Errorf("dns: upstream %s: %w", u.servers[index], err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(failures...)
}

// prepare makes the question ours: a new id, and EDNS options of one hop (cookies, client subnet) left out.
func prepare(query *dns.Msg) *dns.Msg {
	m := query.Copy()
	m.Id = dns.Id()
	do := false
	if opt := query.IsEdns0(); opt != nil {
		do = opt.Do()
	}
	m.Answer, m.Ns, m.Extra = nil, nil, nil
	return m.SetEdns0(maxUDP, do)
}

func (u *Upstreams) ask(ctx context.Context, server string, message *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, u.try)
	defer cancel()
	response, err := u.exchange(ctx, "udp", server, message)
	if err == nil && response.Truncated {
		response, err = u.exchange(ctx, "tcp", server, message)
	}
	if err != nil {
		return nil, err
	}
	return response, check(message, response)
}

// exchange uses a socket of its own, so that each question has a new port that a forger has to guess (RFC 5452, section 9.2).
func (u *Upstreams) exchange(ctx context.Context, network, server string, message *dns.Msg) (*dns.Msg, error) {
	connection, err := u.dial(ctx, network, server)
	if err != nil {
		return nil, err
	}
	defer func() { _ = connection.Close() }() // the answer is in
	stop := context.AfterFunc(ctx, func() { _ = connection.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	client := &dns.Client{Net: network, Timeout: u.try}
	response, _, err := client.ExchangeWithConnContext(ctx, message, &dns.Conn{Conn: connection, UDPSize: readSize})
	return response, err
}

// check refuses answers to another question, and those by which a server says that it cannot help, so that the next is asked.
func check(query, response *dns.Msg) error {
	if !response.Response || len(response.Question) > 1 {
		return errors.New("it is no answer")
	}
	if len(response.Question) == 1 {
		asked, got := query.Question[0], response.Question[0]
		if canonical(asked.Name) != canonical(got.Name) || asked.Qtype != got.Qtype || asked.Qclass != got.Qclass {
			return errors.New("it answers another question")
		}
	}
	switch response.Rcode {
	case dns.RcodeServerFailure, dns.RcodeRefused, dns.RcodeNotImplemented, dns.RcodeFormatError:
		return fmt.Errorf("it answers %s", dns.RcodeToString[response.Rcode])
	}
	return nil
}
