package control

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weftmesh/weft/internal/control/rpc"
)

// refusedPause is how long the log is silent about refused handshakes of one reason after a line about one: who is refused tries again.
const refusedPause = time.Minute

// The reasons for which connections to the address for proxies do not come to be, as the metric has them.
const (
	refusedExpired     = "certificate_expired"
	refusedUnknown     = "unknown_authority"
	refusedCertificate = "certificate"       // anything else about the client's
	refusedByClient    = "refused_by_client" // it does not take ours
	refusedNoHTTP2     = "no_h2"
	refusedLeft        = "closed" // the client went, as what only looks whether a port is open does
	refusedTimeout     = "timeout"
	refusedTLS         = "tls" // no TLS, or none that is new enough
)

// refusals counts the handshakes that fail, and logs some of each reason.
type refusals struct {
	log   *slog.Logger
	count *prometheus.CounterVec

	mu   sync.Mutex
	told map[string]time.Time // when a line was written last, by reason
	more map[string]int       // refused since then
}

func newRefusals(log *slog.Logger, count *prometheus.CounterVec) *refusals {
	return &refusals{log: log, count: count, told: map[string]time.Time{}, more: map[string]int{}}
}

// take hears of one, as rpc.Options.Refused.
func (r *refusals) take(peer net.Addr, err error) {
	reason := refusalOf(err)
	r.count.WithLabelValues(reason).Inc()
	if reason == refusedLeft {
		return
	}
	if more, due := r.due(reason, time.Now()); due {
		r.log.Warn("a client's TLS handshake was refused", "peer", peer.String(), "reason", reason, "error", err, "before", more)
	}
}

// due reports whether a line is to be written, and how many were refused for that reason since the last.
func (r *refusals) due(reason string, now time.Time) (more int, due bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last, told := r.told[reason]; told && now.Sub(last) < refusedPause {
		r.more[reason]++
		return 0, false
	}
	more = r.more[reason]
	r.told[reason], r.more[reason] = now, 0
	return more, true
}

// certificateError is what is wrong with a client's certificate.
type certificateError struct{ error }

func (e certificateError) Unwrap() error { return e.error }

// markCertificates has errors about clients' certificates be told from others of the handshake. It changes the configuration.
func markCertificates(c *tls.Config) *tls.Config {
	verify := c.VerifyConnection
	c.VerifyConnection = func(s tls.ConnectionState) error {
		if err := verify(s); err != nil {
			return certificateError{err}
		}
		return nil
	}
	return c
}

// refusalOf gives the reason for which a handshake failed.
func refusalOf(err error) string {
	var (
		certificate certificateError
		invalid     x509.CertificateInvalidError
		unknown     x509.UnknownAuthorityError
		network     *net.OpError
	)
	switch {
	case errors.As(err, &certificate) && errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return refusedExpired
	case errors.As(err, &certificate) && errors.As(err, &unknown):
		return refusedUnknown
	case errors.As(err, &certificate):
		return refusedCertificate
	case errors.Is(err, rpc.ErrNoHTTP2):
		return refusedNoHTTP2
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return refusedTimeout
	case errors.As(err, &network) && network.Op == "remote error": // crypto/tls: an alert
		return refusedByClient
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return refusedLeft
	}
	return refusedTLS
}
