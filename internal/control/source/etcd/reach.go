package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
)

// dialing has connections tried again as often as everything else here; gRPC's own pauses grow to two minutes.
func dialing() []grpc.DialOption {
	pauses := backoff.Config{BaseDelay: firstPause, Multiplier: 1.6, Jitter: 0.2, MaxDelay: lastPause}
	return []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{Backoff: pauses, MinConnectTimeout: lastPause})}
}

// tellAway logs when etcd cannot be reached any more, and when it can again, until the context ends: a watch outlasts that in silence.
func (s *Store) tellAway(ctx context.Context) {
	conn, away := s.client.ActiveConnection(), false
	for state := conn.GetState(); ; state = conn.GetState() {
		switch {
		case state == connectivity.TransientFailure && !away:
			away = true
			s.log.Warn("etcd cannot be reached; "+s.intake.Meanwhile(), "endpoints", s.options.Endpoints)
		case state == connectivity.Ready && away:
			away = false
			s.log.Info("etcd is reached again")
		}
		if !conn.WaitForStateChange(ctx, state) {
			return
		}
	}
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
