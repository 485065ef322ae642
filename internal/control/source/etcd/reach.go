package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/stats"
)

// ReturnTime bounds how long a control plane takes, from when etcd answers again, to have read it anew and put back what it lost.
const ReturnTime = 5 * time.Second

// lastDial is the longest pause between attempts to connect, which leaves of ReturnTime enough for the rest.
const lastDial = 2 * time.Second

// dialing has connections tried again soon, gRPC's own pauses grow to two minutes, and counted.
func dialing(c *connections) []grpc.DialOption {
	pauses := backoff.Config{BaseDelay: firstPause, Multiplier: 1.6, Jitter: 0.2, MaxDelay: lastDial}
	return []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{Backoff: pauses, MinConnectTimeout: lastPause}), grpc.WithStatsHandler(c)}
}

// connections counts those that were made: a state that is looked at now and then does not show that one was lost in between, as when this
// process stood still for a while.
type connections struct{ made atomic.Int64 }

// HandleConn implements stats.Handler.
func (c *connections) HandleConn(_ context.Context, s stats.ConnStats) {
	if _, begins := s.(*stats.ConnBegin); begins {
		c.made.Add(1)
	}
}

// TagConn implements stats.Handler.
func (*connections) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// TagRPC implements stats.Handler.
func (*connections) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements stats.Handler.
func (*connections) HandleRPC(context.Context, stats.RPCStats) {}

// How often etcd is asked whether it answers, and how long it may take before that is said.
const (
	askEvery    = 3 * time.Second
	silentAfter = 3 * time.Second
)

// watchOver asks etcd whether it answers, until the context ends, since a watch outlasts in silence that it does not. It tells when etcd is
// away, and has everything read anew once it is back: it may have been restored, and be past what was read already.
func (s *Store) watchOver(ctx context.Context) {
	conn := s.client.ActiveConnection()
	away, broken, made := false, false, s.connections.made.Load() // broken: since it was read, the connection was not there all the time
	for ctx.Err() == nil {
		state, now := conn.GetState(), s.connections.made.Load()
		problem := s.problem(ctx, state)
		if ctx.Err() != nil {
			return
		}
		if gone := problem != ""; gone != away {
			away = gone
			s.tellAway(problem)
		}
		broken = broken || s.intake.Opened() && (away || state != connectivity.Ready || now != made)
		made = now
		if broken && !away {
			broken = false
			s.again()
		}
		pause, cancel := context.WithTimeout(ctx, askEvery)
		conn.WaitForStateChange(pause, state)
		cancel()
	}
}

// tellAway says that etcd is away, because of a problem, or back, for none.
func (s *Store) tellAway(problem string) {
	if problem == "" {
		s.intake.Back("etcd")
		s.log.Info("etcd answers again")
		return
	}
	s.intake.Lost("etcd", problem+" from "+strings.Join(s.options.Endpoints, ", "))
	s.log.Warn("etcd cannot be read; "+s.intake.Meanwhile(), "error", problem, "endpoints", s.options.Endpoints)
}

// problem says what is wrong with etcd; nothing when it answers.
func (s *Store) problem(ctx context.Context, state connectivity.State) string {
	switch {
	case state == connectivity.TransientFailure:
		return "no connection"
	case !s.answers(ctx):
		return "no answer"
	}
	return ""
}

// answers asks for something small, and has everything read anew when the answer is of an etcd that is not what it was.
func (s *Store) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, silentAfter)
	defer cancel()
	at := s.position()
	answer, err := s.client.Get(ctx, s.options.Prefix+appliedPart, clientv3.WithKeysOnly())
	if err == nil && at.ahead(answer.Header) {
		s.again()
	}
	return !passing(err)
}

// reasonTime bounds how long each endpoint is asked why it does not answer.
const reasonTime = time.Second

// reason says why there is no answer, as far as that can be found out: the client keeps it to itself. It begins with a colon, or is
// empty.
func (s *Store) reason() string {
	var all []string
	for _, endpoint := range s.options.Endpoints {
		if err := s.knock(endpoint); err != nil {
			all = append(all, err.Error())
		}
	}
	if len(all) == 0 {
		return ""
	}
	return ": " + strings.Join(all, "; ")
}

// knock connects as the client does, and waits for the first byte of HTTP/2, before which TLS may refuse our certificate.
func (s *Store) knock(endpoint string) error {
	address, secure := endpoint, s.options.TLS != nil
	if u, err := url.Parse(endpoint); err == nil && u.Host != "" {
		address, secure = u.Host, u.Scheme == "https"
	}
	dialer := &net.Dialer{Timeout: reasonTime}
	var conn net.Conn
	var err error
	if secure {
		conn, err = tls.DialWithDialer(dialer, "tcp", address, s.options.TLS)
	} else {
		conn, err = dialer.Dial("tcp", address)
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(reasonTime)); err != nil {
		return err
	}
	var slow net.Error
	if _, err = conn.Read(make([]byte, 1)); errors.As(err, &slow) && slow.Timeout() {
		return nil // it listens, and that is all there is to know
	}
	return err
}
