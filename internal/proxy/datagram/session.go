package datagram

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/weftmesh/weft/internal/proxy/balance"
	"github.com/weftmesh/weft/internal/proxy/cluster"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/filter/authz"
	"github.com/weftmesh/weft/internal/proxy/route"
	"github.com/weftmesh/weft/internal/telemetry"
)

// session is the datagrams of one client, and the answers to them.
type session struct {
	// Set once.

	s       *Server
	client  netip.AddrPort
	local   netip.AddrPort // where the client sent the first
	control []byte         // makes replies come from there
	start   time.Time
	cluster *cluster.Cluster
	to      *cluster.Endpoint
	conn    *net.UDPConn
	edge    *telemetry.Edge

	// Guarded by the server's mu.

	at   *list.Element
	used time.Time

	checked  atomic.Pointer[checked]
	received atomic.Int64 // bytes from the client
	sent     atomic.Int64 // and to it
}

// checked is the configuration by which a session was last found to be right.
type checked struct {
	listener *conf.Listener
	cluster  *cluster.Cluster
}

// openTries bounds the endpoints that a session is tried on.
const openTries = 3

// open begins the session of a client; nil where its datagrams are dropped.
func (s *Server) open(l *conf.Listener, from netip.AddrPort, control []byte) *session {
	e := &session{s: s, client: from, start: s.o.Now(), local: l.Address}
	if a := destinationOf(control); a.IsValid() {
		e.local = netip.AddrPortFrom(a, l.Address.Port())
		e.control = replyFrom(control)
	}
	if err := e.begin(l); err != nil {
		s.refuse(e, l, err)
		return nil
	}
	e.checked.Store(&checked{l, e.cluster})
	e.to.Host.Begin()
	e.edge = s.o.Edge(e.cluster, e.to)
	if !s.admit(e) {
		e.release()
		return nil
	}
	s.counts.total.Add(1)
	e.edge.Opened()
	return e
}

// noTime has ended. Nobody waits for a name here, since all clients of the port would: datagrams that come before the first answer are
// lost, as any may be.
var noTime = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// begin asks the policies, picks an endpoint and opens a socket to it.
func (e *session) begin(l *conf.Listener) *failure.Error {
	d := l.Datagrams
	if err := e.authorize(d); err != nil {
		return err
	}
	split := route.Pick(d.Clusters, d.TotalWeight, rand.Uint32())
	if split != nil {
		e.cluster = e.s.o.Cluster(split.Cluster)
	}
	if e.cluster != nil {
		e.cluster = e.cluster.Resolved(noTime, time.Time{})
	}
	if e.cluster == nil {
		e.s.counts.noRoute.Add(1)
		return failure.New(failure.NoCluster, "route", errors.New("no cluster"))
	}
	return e.pick(d)
}

func (e *session) authorize(d *conf.Datagrams) *failure.Error {
	if len(d.RBAC) == 0 {
		return nil
	}
	client := e.client.Addr().Unmap()
	v := authz.Evaluate(d.RBAC, &authz.Input{Source: client, Remote: client, Destination: e.local.Addr().Unmap(), Port: e.local.Port()})
	if v.Allowed {
		return nil
	}
	err := failure.New(failure.Denied, "authorize", errors.New(v.Rule))
	err.Policy = v.Policy
	return err
}

func (e *session) pick(d *conf.Datagrams) *failure.Error {
	ch := &balance.Choice{}
	if d.HashSource {
		ch.Hash, ch.Hashed = route.HashSource(e.client.Addr()), true
	}
	var last *failure.Error
	for range openTries {
		to := e.cluster.Pick(ch, netip.AddrPort{})
		if to == nil {
			return failure.New(failure.NoHealthy, "pick", e.cluster.WhyNone())
		}
		if slices.ContainsFunc(ch.Failed, func(h *balance.Host) bool { return h == to.Host }) {
			return last
		}
		if last = e.connect(to); last == nil || last.Kind == failure.Overflow {
			return last
		}
		ch.Failed = append(ch.Failed, to.Host)
	}
	return last
}

func (e *session) connect(to *cluster.Endpoint) *failure.Error {
	e.cluster.Use()
	if !e.cluster.Breaker.Connection() {
		return failure.New(failure.Overflow, "connect", errors.New("too many sessions"))
	}
	address := to.Host.Endpoint.Addr
	err := error(nil)
	if !address.IsValid() {
		err = fmt.Errorf("%s is no address that datagrams could be sent to", to.Raw.Address)
	} else if e.conn, err = e.s.o.Dial(context.Background(), address); err == nil { // it waits for nothing
		e.to = to
		return nil
	}
	e.cluster.Breaker.ConnectionDone()
	e.cluster.Balancer.Report(to.Host, balance.ConnectFailed, 0, err)
	return failure.New(failure.ConnectFailed, "connect", err)
}

// keeps reports whether the session is still right by the newest configuration: its client may come, its cluster is one of the route's,
// and its endpoint is one of the cluster's and takes what comes.
func (e *session) keeps(l *conf.Listener) bool {
	c := e.s.o.Cluster(e.cluster.Conf.Name)
	was := e.checked.Load()
	if was.listener == l && was.cluster == c {
		return true
	}
	if c == nil || l.Datagrams == nil || e.authorize(l.Datagrams) != nil {
		return false
	}
	if !slices.ContainsFunc(l.Datagrams.Clusters, func(w conf.WeightedCluster) bool { return w.Cluster == c.Conf.Name && w.Weight > 0 }) {
		return false
	}
	mine := e.to.Host.Endpoint
	if !slices.ContainsFunc(c.Balancer.Hosts(), func(h *balance.Host) bool {
		return h.Endpoint.Address == mine.Address && h.Endpoint.Port == mine.Port && h.Endpoint.Healthy
	}) {
		return false
	}
	e.checked.Store(&checked{l, c})
	return true
}

// send passes a client's datagram on.
func (e *session) send(datagram []byte) {
	e.received.Add(int64(len(datagram)))
	if _, err := e.conn.Write(datagram); err != nil && !errors.Is(err, net.ErrClosed) {
		e.s.counts.dropped.Add(1)
		e.failed(err)
	}
}

// answers passes on what the endpoint sends, until the session's socket is closed. No buffer is held while nothing comes.
func (e *session) answers() {
	raw, err := e.conn.SyscallConn()
	if err != nil {
		e.end(err)
		return
	}
	for {
		buf := (*[largest]byte)(nil)
		n, cause := 0, error(nil)
		err := raw.Read(func(fd uintptr) bool {
			buf = buffers.Get().(*[largest]byte)
			n, cause = syscall.Read(int(fd), buf[:])
			if errors.Is(cause, syscall.EAGAIN) || errors.Is(cause, syscall.EINTR) {
				buffers.Put(buf)
				buf = nil
				return errors.Is(cause, syscall.EINTR)
			}
			return true
		})
		switch {
		case err != nil:
			return // closed
		case cause == nil:
			e.answer(buf[:n])
		case !errors.Is(cause, syscall.EINTR):
			e.failed(cause)
		}
		if buf != nil {
			buffers.Put(buf)
		}
	}
}

func (e *session) answer(datagram []byte) {
	s := e.s
	e.cluster.Balancer.Reached(e.to.Host)
	s.mu.Lock()
	if s.sessions[e.client] == e {
		s.touch(e)
	}
	s.mu.Unlock()
	if _, _, err := s.socket.WriteMsgUDPAddrPort(datagram, e.control, e.client); err != nil {
		s.counts.sendErrors.Add(1)
		return
	}
	e.sent.Add(int64(len(datagram)))
	s.counts.sent(len(datagram))
}

// failed takes what the endpoint's socket says: that nobody listens there, or that the way there is closed. A datagram that is too
// long, or finds a queue full, is lost alone.
func (e *session) failed(err error) {
	if errors.Is(err, syscall.EMSGSIZE) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.EAGAIN) {
		return
	}
	e.cluster.Balancer.Report(e.to.Host, balance.ConnectFailed, 0, failure.PlainCause(err))
	e.end(failure.PlainCause(err))
}

// end ends the session, once; why is nil where nothing is wrong.
func (e *session) end(why error) {
	if !e.s.remove(e) {
		return
	}
	e.release()
	e.s.o.Leave()
	e.edge.Closed(e.sent.Load(), e.received.Load())
	var err *failure.Error
	if why != nil {
		err = failure.New(failure.UpstreamClosed, "relay", why)
		if errors.Is(why, errCrowded) {
			err = failure.New(failure.Overflow, "relay", why)
		}
	}
	e.record(e.s.o.Listener(), err)
}

func (e *session) release() {
	e.conn.Close()
	e.to.Host.End()
	e.cluster.Breaker.ConnectionDone()
}

func (e *session) record(l *conf.Listener, err *failure.Error) {
	var logs []conf.AccessLog
	if l != nil && l.Datagrams != nil {
		logs = l.Datagrams.AccessLogs
	}
	line := telemetry.Entry{Start: e.start, Flags: "-", Received: e.received.Load(), Sent: e.sent.Load(), Duration: e.s.o.Now().Sub(e.start),
		UpstreamTime: -1, Remote: e.client, Local: e.local}
	if err != nil {
		line.Flags, line.Reason = err.Flag(), err.Reason()
		if err.Kind == failure.Denied {
			line.Termination = err.Details("")
		}
	}
	if e.cluster != nil {
		line.Cluster = e.cluster.Conf.Name
	}
	if e.to != nil {
		line.UpstreamHost = e.to.Raw.Address
	}
	e.s.o.Write(&line, logs)
}

// refusalEvery bounds the lines about datagrams that begin no session: whoever sends them decides how many they are.
const refusalEvery = time.Second

func (s *Server) refuse(e *session, l *conf.Listener, err *failure.Error) {
	if err.Kind == failure.Denied {
		s.counts.denied.Add(1)
	}
	s.mu.Lock()
	now := s.o.Now()
	silent := now.Sub(s.spoken) < refusalEvery
	if !silent {
		s.spoken = now
	}
	s.mu.Unlock()
	if !silent {
		e.record(l, err)
	}
}
