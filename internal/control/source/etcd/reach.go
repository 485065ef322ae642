package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
)

// dialing has connections tried again as often as everything else here; gRPC's own pauses grow to two minutes.
func dialing() []grpc.DialOption {
	pauses := backoff.Config{BaseDelay: firstPause, Multiplier: 1.6, Jitter: 0.2, MaxDelay: lastPause}
	return []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{Backoff: pauses, MinConnectTimeout: lastPause})}
}

// How often etcd is asked whether it answers, and how long it may take before that is said.
const (
	askEvery    = 3 * time.Second
	silentAfter = 3 * time.Second
)

// tellAway logs when etcd cannot be reached any more or does not answer, and when it does again, until the context ends: a watch outlasts
// that in silence.
func (s *Store) tellAway(ctx context.Context) {
	conn, away := s.client.ActiveConnection(), false
	connected, broken := false, false
	epoch, since := 0, time.Now() // since when etcd is what it is
	for ctx.Err() == nil {
		state := conn.GetState()
		ready := state == connectivity.Ready
		broken = broken || connected && !ready
		connected = connected || ready
		problem := ""
		switch {
		case state == connectivity.TransientFailure:
			problem = "no connection"
		case !s.answers(ctx):
			problem = "no answer"
		}
		switch {
		case ctx.Err() != nil:
		case problem != "" && !away:
			away = true
			s.intake.Lost("etcd", "etcd", problem+" from "+strings.Join(s.options.Endpoints, ", "))
			s.log.Warn("etcd cannot be read; "+s.intake.Meanwhile(), "error", problem, "endpoints", s.options.Endpoints)
		case problem == "" && away:
			away = false
			s.intake.Back("etcd")
			s.log.Info("etcd answers again")
		}
		if problem == "" && broken {
			broken = false
			s.again() // it may be restored, and past what was read already
		}
		if now := s.epoch(); now != epoch {
			epoch, since = now, time.Now()
		} else if time.Since(since) > remarkTime {
			s.intake.Remark(nil)
		}
		pause, cancel := context.WithTimeout(ctx, askEvery)
		conn.WaitForStateChange(pause, state)
		cancel()
	}
}

func (s *Store) epoch() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view.epoch
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
