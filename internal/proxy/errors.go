package proxy

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	http1 "github.com/weftmesh/weft/internal/proxy/http"
	"github.com/weftmesh/weft/internal/proxy/http2"
	"github.com/weftmesh/weft/internal/proxy/upstream"
)

// Fault is whose doing a failure is.
type Fault uint8

// The parties.
const (
	OfClient Fault = iota + 1
	OfUpstream
	OfMesh
)

// String names the party.
func (f Fault) String() string { return [...]string{"", "client", "upstream", "mesh"}[f] }

// kind is what went wrong; everything that a client, a log or a metric says of a failure follows from it.
type kind uint8

const (
	malformed kind = iota + 1
	noRoute
	noChain
	noConfig
	noCluster
	noHealthy
	connectFailed
	connectTimeout
	tlsFailed
	overflow
	upstreamClosed
	upstreamReset
	upstreamRefused
	upstreamTimeout
	tryTimeout
	upstreamMalformed
	clientGone
	clientReset
	clientBroken
	clientTLS
	badPath
	denied
	injected
	refusedMethod
	refusedUpgrade
	unroutable
	unwritable
	overLimit
	overGlobalLimit
	limitUnknown
	panicked
	stalled
	tunnelIdle
	overloaded
	outlived
	slowHead
	notTaken
)

// kinds is the one place where failures become status codes and Envoy's response flags and details. Details in braces say why the
// request to the upstream was reset: see Error.Details. Sources: Envoy's documentation of access logs and of response code details.
var kinds = [...]struct {
	fault     Fault
	status    int
	flag      string
	details   string
	retryable bool
	public    string // what a client outside the mesh is told
}{
	malformed:         {OfClient, 400, "DPE", "codec_error", false, "malformed request"},
	badPath:           {OfClient, 400, "DPE", "path_normalization_failed", false, "malformed request"},
	noRoute:           {OfMesh, 404, "NR", "route_not_found", false, "no route for this host and path"},
	noChain:           {OfMesh, 0, "NR", "filter_chain_not_found", false, "connections of this kind are not taken here"},
	noConfig:          {OfMesh, 503, "NC", "no_configuration", false, "no configuration for this destination yet"},
	noCluster:         {OfMesh, 503, "NC", "cluster_not_found", false, "the route leads to a service that does not exist"},
	noHealthy:         {OfUpstream, 503, "UH", "no_healthy_upstream", true, "no healthy upstream"},
	connectFailed:     {OfUpstream, 503, "UF", "{remote_connection_failure}", true, "cannot connect to the upstream"},
	connectTimeout:    {OfUpstream, 503, "UF", "{connection_timeout}", true, "cannot connect to the upstream"},
	tlsFailed:         {OfUpstream, 503, "UF", "{remote_connection_failure|TLS_error}", true, "cannot connect to the upstream"},
	overflow:          {OfMesh, 503, "UO", "{overflow}", false, "the upstream is at its limit"},
	upstreamClosed:    {OfUpstream, 503, "UC", "{connection_termination}", true, "the upstream closed the connection before it answered"},
	upstreamReset:     {OfUpstream, 503, "UR", "{remote_reset}", true, "the upstream reset the request"},
	upstreamRefused:   {OfUpstream, 503, "UR", "{remote_refused_stream_reset}", true, "the upstream reset the request"},
	upstreamTimeout:   {OfUpstream, 504, "UT", "response_timeout", true, "upstream request timeout"},
	tryTimeout:        {OfUpstream, 504, "UT", "upstream_per_try_timeout", true, "upstream request timeout"},
	upstreamMalformed: {OfUpstream, 502, "UPE", "{protocol_error}", false, "the upstream's answer is malformed"},
	clientGone:        {OfClient, 0, "DC", "downstream_remote_disconnect", false, ""},
	clientReset:       {OfClient, 0, "DR", "remote_reset", false, ""},
	clientBroken:      {OfClient, 0, "DPE", "codec_error", false, ""},
	clientTLS:         {OfClient, 0, "DPE", "tls_handshake_failed", false, ""},
	denied:            {OfMesh, 403, "-", "rbac_access_denied", false, "RBAC: access denied"},
	injected:          {OfMesh, 0, "FI", "fault_filter_abort", false, "fault filter abort"},
	refusedMethod:     {OfClient, 405, "-", "method_not_allowed", false, "CONNECT is not allowed here"},
	unwritable:        {OfMesh, 500, "-", "direct_response", false, "the request cannot be forwarded as the route has changed it"},
	stalled:           {OfMesh, 408, "SI", "stream_idle_timeout", false, "nothing was sent for too long"},
	tunnelIdle:        {OfMesh, 0, "SI", "tcp_session_idle_timeout", false, ""},
	panicked:          {OfMesh, 500, "-", "internal_error", false, "internal error"},
	refusedUpgrade:    {OfClient, 403, "-", "upgrade_failed", false, "this upgrade is not allowed here"},
	overGlobalLimit:   {OfClient, 429, "RL", "request_rate_limited", false, "too many requests"},
	limitUnknown:      {OfMesh, 500, "RLSE", "rate_limiter_error", false, "the limits cannot be looked up"},
	overLimit:         {OfClient, 429, "RL", "local_rate_limited", false, "too many requests"},
	overloaded:        {OfMesh, 503, "OM", "overload", false, "overloaded"},
	slowHead:          {OfClient, 408, "-", "request_header_timeout", false, "the request's head took too long"},
	notTaken:          {OfMesh, 421, "NR", "filter_chain_not_found", false, "this connection is not taken here any more: connect again"},
	outlived:          {OfMesh, 0, "DT", "max_duration_timeout", false, ""},
	unroutable:        {OfMesh, 502, "NR", "outbound_refused", false, "the mesh does not know this destination, and its policy refuses unknown ones"},
}

// Error is a failure on the request path: what was being done, whose fault it is, whether another attempt may help, and why.
type Error struct {
	Op    string
	Cause error

	kind kind
	// status replaces the kind's where the failure has one of its own (parse errors, injected aborts).
	status int
	// policy is the one that denied.
	policy string
	// late is set where the response had begun.
	late bool
}

func fail(k kind, op string, cause error) *Error { return &Error{Op: op, Cause: cause, kind: k} }

func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Op
	}
	return e.Op + ": " + e.Cause.Error()
}

func (e *Error) Unwrap() error { return e.Cause }

// Fault says whose doing it is.
func (e *Error) Fault() Fault { return kinds[e.kind].fault }

// Retryable reports whether another attempt may succeed; whether it is safe is for package retry to say.
func (e *Error) Retryable() bool { return kinds[e.kind].retryable }

// Status is the HTTP status to answer with, 0 for none.
func (e *Error) Status() int {
	if e.status != 0 {
		return e.status
	}
	return kinds[e.kind].status
}

// Flag is Envoy's response flag, "-" for a failure that has none.
func (e *Error) Flag() string { return kinds[e.kind].flag }

// Details are Envoy's response code details. codec is the version of HTTP that the client speaks, "http1" for instance: what it did
// wrong is told with it.
func (e *Error) Details(codec string) string {
	d := kinds[e.kind].details
	switch {
	case e.kind == denied && e.policy == "":
		return "rbac_access_denied_matched_policy[none]"
	case e.kind == denied:
		return "rbac_access_denied_matched_policy[" + e.policy + "]"
	case e.kind == malformed || e.kind == clientBroken || e.kind == clientReset:
		return codec + "." + d
	case d[0] == '{' && e.late:
		return "upstream_reset_after_response_started" + d
	case d[0] == '{':
		return "upstream_reset_before_response_started" + d
	}
	return d
}

// public is the text for clients outside the mesh: it names nothing inside.
func (e *Error) public() string {
	var one *http1.Error
	var two *http2.Error
	switch {
	case e.kind != malformed:
	case errors.As(e.Cause, &one):
		return one.Reason
	case errors.As(e.Cause, &two):
		return two.Reason
	}
	return kinds[e.kind].public
}

// unreached makes the Error of an endpoint that cannot be used.
func unreached(err error) *Error {
	var u *upstream.Error
	switch ok := errors.As(err, &u); {
	case ok && u.Op == upstream.Handshake:
		return fail(tlsFailed, "connect", err)
	case ok && u.Op == upstream.Overflow:
		return fail(overflow, "connect", err)
	case ok && u.Timeout():
		return fail(connectTimeout, "connect", err)
	}
	return fail(connectFailed, "connect", err)
}

// unprocessed reports whether the endpoint has surely not acted on the request: it said so, or no byte of it has left.
func unprocessed(err error) bool {
	var u interface{ Unprocessed() bool }
	return errors.As(err, &u) && u.Unprocessed()
}

// unanswered makes the Error of an exchange with an endpoint that broke off.
func unanswered(op string, err error) *Error {
	var one *http1.Error
	var two *http2.StreamError
	var all *http2.ConnError
	switch {
	case errors.As(err, &one):
		return fail(upstreamMalformed, op, err)
	case errors.As(err, &two) && two.Remote && two.Code == http2.RefusedStream:
		return fail(upstreamRefused, op, err)
	case errors.As(err, &two) && two.Remote:
		return fail(upstreamReset, op, err)
	case errors.As(err, &two):
		return fail(upstreamMalformed, op, err)
	case errors.As(err, &all) && all.Err == nil && !all.Remote:
		return fail(upstreamMalformed, op, err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fail(upstreamTimeout, op, errTimedOut)
	}
	return fail(upstreamClosed, op, plainCause(err))
}

// departed makes the Error of a client that cannot be heard or told anything any more.
func departed(op string, err error) *Error {
	var two *http2.StreamError
	var all *http2.ConnError
	switch {
	case errors.As(err, &two) && two.Remote:
		return fail(clientReset, op, err)
	case errors.As(err, &two), errors.As(err, &all) && all.Err == nil && !all.Remote:
		return fail(clientBroken, op, err)
	}
	return fail(clientGone, op, err)
}

var (
	errStalled  = errors.New("nothing passed for the idle time of streams")
	errTimedOut = errors.New("no complete answer in time")
	errClosed   = errors.New("the endpoint closed the connection")
	errReset    = errors.New("the endpoint reset the connection")
)

func plainCause(err error) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.EPIPE):
		return errClosed
	case errors.Is(err, syscall.ECONNRESET):
		return errReset
	}
	return fmt.Errorf("connection: %w", err)
}
