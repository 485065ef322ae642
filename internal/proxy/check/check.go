// Package check asks endpoints whether they are well: Envoy's active health checks. It knows how to ask and when; how an endpoint is
// reached, and what its answer is good for, is decided elsewhere.
package check

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// Target is an endpoint.
type Target struct {
	// Connect opens a connection for one check, through the cluster's transport; http2 says that it will carry HTTP/2.
	Connect func(ctx context.Context, http2 bool) (net.Conn, error)
	// Host is the authority of requests where the check names none.
	Host string
	// Report takes each change of the verdict, and the first one.
	Report func(well bool, err error)
	// Used reports whether the cluster has had requests.
	Used func() bool
}

// Run checks t until ctx ends. The first answer counts at once; after that the thresholds hold.
func Run(ctx context.Context, c *conf.HealthCheck, t Target) {
	timer := time.NewTimer(jitter(c.InitialJitter))
	defer timer.Stop()
	s := &standing{check: c}
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		err := Once(ctx, c, t)
		if ctx.Err() != nil {
			return
		}
		if s.take(err) {
			t.Report(s.well, err)
		}
		timer.Reset(s.wait(t.Used()))
	}
}

func jitter(most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	return rand.N(most)
}

// standing is what the answers so far amount to.
type standing struct {
	check   *conf.HealthCheck
	decided bool
	well    bool
	against uint32 // answers in a row that contradict well
}

// take counts an answer and reports whether the verdict is new.
func (s *standing) take(err error) bool {
	good := err == nil
	if !s.decided {
		s.decided, s.well = true, good
		return true
	}
	if good == s.well {
		s.against = 0
		return false
	}
	threshold := s.check.HealthyThreshold
	if s.well {
		threshold = s.check.UnhealthyThreshold
		if _, status := errors.AsType[*StatusError](err); status && !errors.Is(err, errRetriable) {
			threshold = 1 // as in Envoy, an unexpected status counts at once
		}
	}
	if s.against++; s.against < threshold {
		return false
	}
	s.well, s.against = good, 0
	return true
}

// wait is the time until the next check.
func (s *standing) wait(used bool) time.Duration {
	c, d := s.check, s.check.Interval
	or := func(v time.Duration) {
		if v > 0 {
			d = v
		}
	}
	switch edge := s.against > 0; {
	case !used && s.well && !edge:
		if d = neverUsed; c.NoTraffic > 0 {
			d = c.NoTraffic
		}
		d = max(d, c.Interval)
	case s.well && edge:
		or(c.Unhealthy)
		or(c.UnhealthyEdge)
	case s.well:
	case edge:
		or(c.HealthyEdge)
	default:
		or(c.Unhealthy)
	}
	return d + jitter(c.IntervalJitter) + jitter(d*time.Duration(c.JitterPercent)/100)
}

// neverUsed is Envoy's interval for clusters without requests so far.
const neverUsed = time.Minute

// StatusError is an answer with an unexpected status.
type StatusError struct {
	Status    string
	retriable bool
}

func (e *StatusError) Error() string { return "health check: answered " + e.Status }

// Is reports whether the status is one that counts towards the threshold.
func (e *StatusError) Is(target error) bool { return target == errRetriable && e.retriable }

var errRetriable = errors.New("retriable")

// Once makes one check; nil means that the endpoint is well.
func Once(ctx context.Context, c *conf.HealthCheck, t Target) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	var err error
	switch {
	case c.HTTP != nil:
		err = askHTTP(ctx, c.HTTP, t)
	case c.GRPC != nil:
		err = askGRPC(ctx, c.GRPC, t)
	default:
		err = askTCP(ctx, c.TCP, t)
	}
	if _, ok := errors.AsType[*StatusError](err); err == nil || ok {
		return err
	}
	return fmt.Errorf("health check: %w", err)
}

// send makes one request on a connection of its own.
func send(r *http.Request, t Target, http2 bool) (*http.Response, func(), error) {
	tr := &http.Transport{DisableKeepAlives: true, Protocols: new(http.Protocols),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return t.Connect(ctx, http2) }}
	tr.Protocols.SetHTTP1(!http2)
	tr.Protocols.SetUnencryptedHTTP2(http2) // encryption is the connection's own
	resp, err := tr.RoundTrip(r)
	if err != nil {
		tr.CloseIdleConnections()
		return nil, nil, err
	}
	return resp, func() {
		resp.Body.Close()
		tr.CloseIdleConnections()
	}, nil
}

func askHTTP(ctx context.Context, c *conf.HTTPCheck, t Target) error {
	r, err := http.NewRequestWithContext(ctx, c.Method, "http://endpoint"+c.Path, nil)
	if err != nil {
		return err
	}
	r.Host = orElse(c.Host, t.Host)
	r.Header.Set("User-Agent", "Envoy/HC")
	resp, done, err := send(r, t, false)
	if err != nil {
		return err
	}
	defer done()
	in := func(list []conf.StatusRange) bool {
		return slices.ContainsFunc(list, func(s conf.StatusRange) bool { return resp.StatusCode >= s.Start && resp.StatusCode < s.End })
	}
	if in(c.Expected) || len(c.Expected) == 0 && resp.StatusCode == http.StatusOK {
		return nil
	}
	return &StatusError{Status: resp.Status, retriable: in(c.Retriable)}
}

func orElse(s, otherwise string) string {
	if s != "" {
		return s
	}
	return otherwise
}

// askGRPC calls grpc.health.v1.Health/Check. Its messages have one field each: the service's name, and the status, of which 1 is SERVING.
func askGRPC(ctx context.Context, c *conf.GRPCCheck, t Target) error {
	var m []byte
	if c.Service != "" {
		m = append(binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(c.Service))), c.Service...)
	}
	frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m))), m...)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://endpoint/grpc.health.v1.Health/Check", bytes.NewReader(frame))
	if err != nil {
		return err
	}
	r.Host = orElse(c.Authority, t.Host)
	r.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "User-Agent": {"Envoy/HC"}}
	resp, done, err := send(r, t, true)
	if err != nil {
		return err
	}
	defer done()
	const most = 1 << 10
	body, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err != nil {
		return err
	}
	code := orElse(resp.Trailer.Get("Grpc-Status"), resp.Header.Get("Grpc-Status"))
	switch {
	case resp.StatusCode != http.StatusOK:
		return &StatusError{Status: resp.Status}
	case code != "0":
		return &StatusError{Status: "gRPC status " + code}
	case !bytes.Equal(body, []byte{0, 0, 0, 0, 2, 1 << 3, 1}):
		return &StatusError{Status: "that it does not serve"}
	}
	return nil
}

func askTCP(ctx context.Context, c *conf.TCPCheck, t Target) error {
	nc, err := t.Connect(ctx, false)
	if err != nil {
		return err
	}
	defer nc.Close()
	if end, ok := ctx.Deadline(); ok {
		if err := nc.SetDeadline(end); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	defer stop()
	if len(c.Send) > 0 {
		if _, err := nc.Write(c.Send); err != nil {
			return err
		}
	}
	return await(nc, c.Receive)
}

// await reads until all of want have come, in order, with anything between them.
func await(r io.Reader, want [][]byte) error {
	const most = 64 << 10
	var got strings.Builder
	var buf [1024]byte
	for {
		rest, found := got.String(), true
		for _, w := range want {
			_, after, ok := strings.Cut(rest, string(w))
			rest, found = after, found && ok
		}
		if found {
			return nil
		}
		if got.Len() > most {
			return errors.New("the answer has nothing of what is expected")
		}
		n, err := r.Read(buf[:])
		got.Write(buf[:n])
		if err != nil && n == 0 {
			return err
		}
	}
}
