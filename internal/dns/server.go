// Package dns is the sidecar's name server. It answers for the names of the mesh with their virtual addresses, says of the rest of
// the cluster's domain that it does not exist, and passes every other question on. What the names are is the business of the
// Lookup that it is given.
package dns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
)

// Answer is what the mesh knows of a name.
type Answer struct {
	// Addrs are the addresses, IPv4 and IPv6 in any order. None means that the name exists and has no address.
	Addrs []netip.Addr
	// Alias is the canonical name of one that is an alias: its addresses are the ones to answer with. Addrs is empty then.
	Alias string
	// TTL is how long a client may keep them; the server's when zero.
	TTL time.Duration
}

// Options of New. Zero fields take their defaults.
type Options struct {
	// Lookup finds a name of the mesh. It is asked with the name as queried, in lower case and without the final dot, for every
	// query; short names are its business. An error means that it cannot tell now. It must be safe for concurrent use. Required.
	Lookup func(ctx context.Context, name string) (answer Answer, found bool, err error)
	// Forward answers what the mesh does not know, such as Upstreams.Exchange. It gets its own copy of the query, may answer
	// with any message id, and must return when ctx ends. Nil refuses such questions.
	Forward func(ctx context.Context, query *dns.Msg) (*dns.Msg, error)
	// ClusterDomain is "cluster.local". Names under it that Lookup does not find do not exist.
	ClusterDomain string
	// TTL of answers, 5 s. It is the time for which a client may go on with a name that was removed.
	TTL time.Duration
	// Timeout bounds one query, 5 s, which is what resolvers wait; afterwards it is answered with SERVFAIL.
	Timeout time.Duration
	// MaxQueries is how many queries are worked on at once, 1024; the next is answered with SERVFAIL. MaxConns bounds the TCP
	// connections, 128; the next waits to be accepted.
	MaxQueries, MaxConns int
}

// Stats counts since the server was made.
type Stats struct {
	Queries   uint64 // well-formed questions
	Answered  uint64 // by the mesh's own knowledge, names that do not exist included
	Forwarded uint64 // answered from upstream
	Failed    uint64 // SERVFAIL: Lookup or upstream failed or took too long
	Overload  uint64 // SERVFAIL: MaxQueries were under way
	Refused   uint64 // questions of a class or kind that is not served
	Malformed uint64 // packets that are no query
}

// Server answers DNS questions over UDP and TCP.
type Server struct {
	options Options // these are set once
	suffix  string
	slots   chan struct{}

	queries, answered, forwarded, failed, overload, refused, malformed atomic.Uint64
}

// New makes a server; Serve runs it.
func New(o Options) (*Server, error) {
	if o.Lookup == nil {
		return nil, errors.New("dns: a lookup function is required")
	}
	if o.ClusterDomain == "" {
		o.ClusterDomain = "cluster.local"
	}
	if o.TTL <= 0 {
		o.TTL = 5 * time.Second
	}
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Second
	}
	if o.MaxQueries <= 0 {
		o.MaxQueries = 1024
	}
	if o.MaxConns <= 0 {
		o.MaxConns = 128
	}
	o.ClusterDomain = canonical(o.ClusterDomain)
	return &Server{options: o, suffix: "." + o.ClusterDomain, slots: make(chan struct{}, o.MaxQueries)}, nil
}

// Stats gives the counters.
func (s *Server) Stats() Stats {
	return Stats{
		Queries: s.queries.Load(), Answered: s.answered.Load(), Forwarded: s.forwarded.Load(), Failed: s.failed.Load(),
		Overload: s.overload.Load(), Refused: s.refused.Load(), Malformed: s.malformed.Load(),
	}
}

const (
	// readSize takes in any query that fits an Ethernet frame; a longer one is malformed.
	readSize = 4096
	// shutdownTime is how long Serve waits for queries under way once it is told to stop. Longer ones are cancelled, and answered so.
	shutdownTime = time.Second
)

// Serve answers on a UDP socket, a TCP listener, or both (nil for none), until ctx ends, and closes them. It returns nil after
// ctx ended, and an error when a socket failed. It may be called several times for several pairs of sockets.
func (s *Server) Serve(ctx context.Context, udp net.PacketConn, tcp net.Listener) error {
	group, ctx := errgroup.WithContext(ctx)
	if udp != nil {
		group.Go(func() error { return s.run(ctx, &dns.Server{PacketConn: udp, UDPSize: readSize}, udp.Close) })
	}
	if tcp != nil {
		group.Go(func() error {
			return s.run(ctx, &dns.Server{Listener: netutil.LimitListener(tcp, s.options.MaxConns)}, tcp.Close)
		})
	}
	return group.Wait()
}

// run serves one socket. It owns the goroutine inside ActivateAndServe and waits for its end.
func (s *Server) run(ctx context.Context, server *dns.Server, closeSocket func() error) error {
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	server.MsgAcceptFunc = s.accept
	server.MsgInvalidFunc = func([]byte, error) { s.malformed.Add(1) }
	working, cut := context.WithCancel(context.WithoutCancel(ctx)) // queries under way are finished
	defer cut()
	server.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) { s.serve(working, w, query) })
	ended := make(chan error, 1)
	go func() { ended <- server.ActivateAndServe() }()
	select {
	case err := <-ended:
		_ = closeSocket() // the error that ended it is the one to report
		return err
	case <-started:
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	if server.ShutdownContext(stopping) != nil {
		cut()
	}
	_ = closeSocket()
	<-ended
	return nil
}

// accept looks at a packet's header. Answers are dropped, or two servers could keep each other busy for ever.
func (s *Server) accept(h dns.Header) dns.MsgAcceptAction {
	const response, opcodeShift, opcodeMask = 1 << 15, 11, 0xf
	switch {
	case h.Bits&response != 0:
		s.malformed.Add(1)
		return dns.MsgIgnore
	case int(h.Bits>>opcodeShift)&opcodeMask != dns.OpcodeQuery:
		s.refused.Add(1)
		return dns.MsgRejectNotImplemented
	case h.Qdcount != 1 || h.Ancount != 0 || h.Nscount > 1 || h.Arcount > 2:
		s.malformed.Add(1)
		return dns.MsgReject
	default:
		return dns.MsgAccept
	}
}

// serve answers one query. A client that has gone away is nobody's fault, so failed writes are not reported.
func (s *Server) serve(ctx context.Context, w dns.ResponseWriter, query *dns.Msg) {
	limit := dns.MaxMsgSize
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		limit = udpLimit(query)
	}
	if packet := s.packet(ctx, query, limit); packet != nil {
		_, _ = w.Write(packet)
	}
}

// packet gives the answer in wire form. Records from upstream that cannot be written again become a failure.
func (s *Server) packet(ctx context.Context, query *dns.Msg, limit int) []byte {
	r := s.answer(ctx, query, limit)
	if r == nil {
		return nil
	}
	packet, err := r.Pack()
	if err == nil && len(packet) <= limit {
		return packet
	}
	s.failed.Add(1)
	packet, err = failure(query, dns.RcodeServerFailure).Pack()
	if err != nil {
		return nil // a question that could be read can be written; if not, silence is all there is
	}
	return packet
}
