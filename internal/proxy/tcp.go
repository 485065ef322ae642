package proxy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/weftmesh/weft/internal/proxy/balance"
	"github.com/weftmesh/weft/internal/proxy/cluster"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/downstream"
	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/filter/authz"
	"github.com/weftmesh/weft/internal/proxy/record"
	"github.com/weftmesh/weft/internal/proxy/relay"
	"github.com/weftmesh/weft/internal/proxy/route"
	"github.com/weftmesh/weft/internal/proxy/side"
	"github.com/weftmesh/weft/internal/proxy/track"
	"github.com/weftmesh/weft/internal/proxy/upstream"
	"github.com/weftmesh/weft/internal/telemetry"
)

// stream is one relayed connection: what an exchange is for HTTP. It is owned by the goroutine of the client's connection.
type stream struct {
	p     *Proxy
	d     *connection
	tcp   *conf.TCP
	start time.Time

	cluster *cluster.Cluster
	to      *cluster.Endpoint
	up      *upstream.Conn
	opened  *upstream.Conn // ahead of its use; nil if it was not, or is in use
	held    held
	failed  []*balance.Host
	counts  relay.Counts
	err     *failure.Error
}

// held is what a stream has in use of its cluster for its upstream.
type held struct {
	paid bool      // a connection of the breaker
	call side.Call // through a proxy; nil without
}

// release gives it back, once the connection is closed.
func (s *stream) release() {
	if s.opened != nil {
		s.opened.Close()
		s.opened = nil
	}
	if s.held.paid {
		s.cluster.Breaker.ConnectionDone()
	}
	if s.held.call != nil {
		s.held.call.End(false, s.p.opt.Now())
	}
	s.held = held{}
}

// connectTries bounds the endpoints that a relayed connection is tried on: nothing was sent to any of them.
const connectTries = 3

// relayTCP carries the connection to one of the chain's clusters. early, which may be nil, is a connection opened already; it
// is used or closed.
func (d *connection) relayTCP(tcp *conf.TCP, s *stream) {
	if s == nil {
		s = &stream{p: d.p, d: d, tcp: tcp, start: d.p.opt.Now()}
	}
	d.track.Enter(track.Busy, s.start)
	if s.authorize() && (s.up != nil || s.open()) {
		s.carry()
	}
	s.close()
	s.record()
}

// newStream prepares a stream whose upstream may be opened before the client has spoken.
func (d *connection) newStream(tcp *conf.TCP) *stream {
	return &stream{p: d.p, d: d, tcp: tcp, start: d.p.opt.Now()}
}

func (s *stream) fail(k failure.Kind, op string, cause error) bool {
	s.err = failure.New(k, op, cause)
	return false
}

func (s *stream) authorize() bool {
	if len(s.tcp.RBAC) == 0 {
		return true
	}
	d := s.d
	v := authz.Evaluate(s.tcp.RBAC, &authz.Input{Peer: d.PeerURI, Source: d.Direct.Addr(), Remote: d.Remote.Addr(),
		Destination: d.Destination.Addr(), Port: d.Port, SNI: d.SNI})
	if v.Allowed {
		return true
	}
	s.err = failure.New(failure.Denied, "authorize", errors.New(v.Rule))
	s.err.Policy = v.Policy
	return false
}

// open picks an endpoint and connects, trying others where that fails.
func (s *stream) open() bool {
	split := route.Pick(s.tcp.Clusters, s.tcp.TotalWeight, rand.Uint32())
	if split == nil {
		return s.fail(failure.NoCluster, "route", errors.New("no cluster"))
	}
	if s.cluster = s.d.Cluster(split.Cluster); s.cluster == nil {
		return s.fail(failure.NoCluster, "route", fmt.Errorf("cluster %s: not known", split.Cluster))
	}
	s.cluster = s.cluster.Resolved(s.p.ctx, time.Time{})
	for range connectTries {
		s.to = s.cluster.PickFor(s.d.SNI, s.choice(), s.d.App)
		if s.to == nil {
			return s.fail(failure.NoHealthy, "pick", s.cluster.WhyNone())
		}
		if s.connect() {
			return true
		}
		if s.cluster.Conf.Discovery == conf.OriginalDst || s.err.Kind == failure.Overflow || refused(s.err) {
			return false // there is no other, or it would say the same
		}
		s.failed = append(s.failed, s.to.Host)
	}
	return false
}

func (s *stream) choice() *balance.Choice {
	ch := &balance.Choice{Failed: s.failed}
	if s.tcp.HashSource {
		ch.Hash, ch.Hashed = route.HashSource(s.d.Remote.Addr()), true
	}
	return ch
}

func (s *stream) connect() bool {
	if s.to.Err != nil {
		return s.fail(failure.TLSFailed, "connect", s.to.Err)
	}
	s.cluster.Use()
	if s.tcp.Tunnel != nil {
		return s.through(s.tcp.Tunnel)
	}
	if !s.cluster.Breaker.Connection() {
		return s.fail(failure.Overflow, "connect", errors.New("too many connections"))
	}
	up, err := s.to.Raw.Connect(s.d.Connecting(s.to), time.Time{})
	if err != nil {
		s.cluster.Breaker.ConnectionDone()
		return s.unreached(err)
	}
	s.held.paid = true
	return s.reached(up)
}

func (s *stream) unreached(err error) bool {
	s.err = failure.Unreached(err)
	if s.err.Kind != failure.Overflow && !errors.Is(err, context.Canceled) {
		s.cluster.Balancer.Report(s.to.Host, balance.ConnectFailed, 0, err)
	}
	return false
}

func (s *stream) reached(up *upstream.Conn) bool {
	s.to.Host.Begin()
	s.cluster.Balancer.Reached(s.to.Host)
	s.up, s.err = up, nil
	return true
}

var errOutlived = errors.New("the connection has lasted for as long as it may")

// carry relays until both sides have ended.
func (s *stream) carry() {
	s.cluster.Tally.Relays.Add(1)
	defer s.cluster.Tally.Relays.Add(-1)
	e := s.edge()
	e.Opened()
	ctx, cancel := s.p.ctx, func() {}
	if d := s.tcp.MaxDuration; d > 0 {
		ctx, cancel = context.WithTimeoutCause(ctx, d, errOutlived)
	}
	defer cancel()
	counts, err := relay.Tunnel(ctx, s.d.conn, s.up.Conn, s.idle())
	s.counts = counts
	e.Closed(counts.FromUpstream, counts.FromDownstream)
	var r *relay.Error
	switch {
	case err == nil:
	case errors.Is(err, relay.ErrIdle):
		s.fail(failure.TunnelIdle, "relay", err)
	case errors.Is(err, errOutlived):
		s.fail(failure.Outlived, "relay", err)
	case s.p.ctx.Err() != nil:
		s.fail(failure.CutOff, "relay", failure.ErrCutOff)
	case errors.As(err, &r) && r.Side == relay.Downstream:
		s.fail(failure.ClientGone, "relay", r.Err)
	case errors.As(err, &r):
		s.fail(failure.UpstreamClosed, "relay", failure.PlainCause(r.Err))
		s.err.Late = counts.FromUpstream > 0
		s.cluster.Balancer.Report(s.to.Host, balance.Broken, 0, s.err)
	}
}

func (s *stream) idle() time.Duration {
	if s.tcp.IdleTimeout > 0 {
		return s.tcp.IdleTimeout
	}
	return defaultIdle
}

func (s *stream) close() {
	if s.up != nil {
		s.up.Close()
		s.to.Host.End()
	}
	s.release()
}

func (s *stream) edge() *telemetry.Edge {
	if s.d.Direction == downstream.Inbound {
		return s.d.InboundEdge(s.cluster.Conf, "tcp")
	}
	if e := s.to.TCPEdge.Load(); e != nil {
		return e
	}
	e := s.p.book.Source(s.cluster.Conf, s.to, "tcp")
	s.to.TCPEdge.Store(e)
	return e
}

func (s *stream) record() {
	e := telemetry.Entry{Start: s.start, Flags: "-", Received: s.counts.FromDownstream, Sent: s.counts.FromUpstream,
		Duration: s.p.opt.Now().Sub(s.start), UpstreamTime: -1}
	if s.err != nil {
		s.describe(&e)
	}
	host := ""
	if s.to != nil {
		host = s.to.Raw.Address
	}
	if s.cluster != nil {
		e.Cluster = s.cluster.Conf.Name
	}
	var logs []conf.AccessLog
	if s.tcp != nil {
		logs = s.tcp.AccessLogs
	}
	local := s.d.Local
	if s.up != nil {
		local = s.up.LocalAddr()
	}
	if s.p.book.Silent(logs) {
		return
	}
	e.Remote, e.Local, e.ServerName, e.Peer = s.d.Remote, s.d.Destination, s.d.SNI, s.d.PeerURI
	e.UpstreamHost, e.UpstreamLocal = host, local
	s.p.book.Write(&e, logs)
}

// describe says what failed.
func (s *stream) describe(e *telemetry.Entry) {
	e.Flags, e.Reason = s.err.Flag(), s.err.Reason()
	switch s.err.Kind {
	case failure.Denied:
		e.Termination = s.err.Details("")
		return
	case failure.ConnectFailed, failure.ConnectTimeout, failure.TLSFailed:
		e.Flags = record.JoinFlags([]string{e.Flags, "URX"}) // as in Envoy: no further attempt is allowed
		if s.err.Kind == failure.TLSFailed {
			e.TransportFailure = s.err.Error()
		}
	}
	e.Details = s.err.Details("proxy_protocol")
}

// unheard logs a connection whose client did not say enough to tell what it wants.
func (d *connection) unheard(err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		d.turnAway(failure.TunnelIdle, "detect", errors.New("the client said nothing for too long"))
		return
	}
	d.turnAway(failure.ClientGone, "detect", err)
}

// turnAway logs a connection that is closed without an upstream.
func (d *connection) turnAway(k failure.Kind, op string, cause error) {
	s := stream{p: d.p, d: d, start: d.p.opt.Now()}
	s.fail(k, op, cause)
	s.record()
}
