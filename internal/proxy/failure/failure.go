// Package failure says what can go wrong on the way of a request or a relayed connection: whose fault it is, and the status, response
// flag and words that follow from it.
package failure

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"syscall"

	http1 "github.com/weftmesh/weft/internal/proxy/http"
	"github.com/weftmesh/weft/internal/proxy/http2"
	"github.com/weftmesh/weft/internal/proxy/slow"
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

// Kind is what went wrong; everything that a client, a log or a metric says of a failure follows from it.
type Kind uint8

// The kinds.
const (
	Malformed Kind = iota + 1
	NoRoute
	NoChain
	NoConfig
	NoCluster
	NoHealthy
	ConnectFailed
	ConnectTimeout
	TLSFailed
	Overflow
	UpstreamClosed
	UpstreamMute // it closed a connection on which nothing was said but the preface of HTTP/2, by us
	UpstreamReset
	UpstreamRefused
	UpstreamTimeout
	TryTimeout
	UpstreamMalformed
	UpstreamSilent
	UpstreamStalled
	ClientGone
	ClientReset
	ClientBroken
	ClientStalled
	ClientTLS
	BadPath
	Denied
	Injected
	RefusedMethod
	RefusedUpgrade
	NotUpgraded
	Unroutable
	Unwritable
	OverLimit
	OverGlobalLimit
	LimitUnknown
	Panicked
	Stalled
	TunnelIdle
	Overloaded
	Shed
	Outlived
	SlowHead
	NotTaken
	CutOff
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
	Malformed:         {OfClient, 400, "DPE", "codec_error", false, "malformed request"},
	BadPath:           {OfClient, 400, "DPE", "path_normalization_failed", false, "malformed request"},
	NoRoute:           {OfMesh, 404, "NR", "route_not_found", false, "no route for this host and path"},
	NoChain:           {OfMesh, 0, "NR", "filter_chain_not_found", false, "connections of this kind are not taken here"},
	NoConfig:          {OfMesh, 503, "NC", "no_configuration", false, "no configuration for this destination yet"},
	NoCluster:         {OfMesh, 503, "NC", "cluster_not_found", false, "the route leads to a service or port that does not exist"},
	NoHealthy:         {OfUpstream, 503, "UH", "no_healthy_upstream", true, "no healthy upstream"},
	ConnectFailed:     {OfUpstream, 503, "UF", "{remote_connection_failure}", true, "cannot connect to the upstream"},
	ConnectTimeout:    {OfUpstream, 503, "UF", "{connection_timeout}", true, "cannot connect to the upstream"},
	TLSFailed:         {OfUpstream, 503, "UF", "{remote_connection_failure|TLS_error}", true, "cannot connect to the upstream"},
	Overflow:          {OfMesh, 503, "UO", "{overflow}", false, "the upstream is at its limit"},
	UpstreamClosed:    {OfUpstream, 503, "UC", "{connection_termination}", true, "the upstream closed the connection before it answered"},
	UpstreamMute:      {OfUpstream, 503, "UC", "{connection_termination}", true, "the upstream closed the connection before it answered"},
	UpstreamReset:     {OfUpstream, 503, "UR", "{remote_reset}", true, "the upstream reset the request"},
	UpstreamRefused:   {OfUpstream, 503, "UR", "{remote_refused_stream_reset}", true, "the upstream reset the request"},
	UpstreamTimeout:   {OfUpstream, 504, "UT", "response_timeout", true, "upstream request timeout"},
	TryTimeout:        {OfUpstream, 504, "UT", "upstream_per_try_timeout", true, "upstream request timeout"},
	UpstreamMalformed: {OfUpstream, 502, "UPE", "{protocol_error}", true, "the upstream's answer is malformed"},
	UpstreamSilent:    {OfUpstream, 504, "SI", "stream_idle_timeout", false, "upstream request timeout"},
	UpstreamStalled:   {OfUpstream, 504, "UT", "response_timeout", true, "upstream request timeout"},
	ClientGone:        {OfClient, 0, "DC", "downstream_remote_disconnect", false, ""},
	ClientReset:       {OfClient, 0, "DR", "remote_reset", false, ""},
	ClientBroken:      {OfClient, 0, "DPE", "codec_error", false, ""},
	ClientStalled:     {OfClient, 0, "SI", "stream_idle_timeout", false, ""},
	ClientTLS:         {OfClient, 0, "DPE", "tls_handshake_failed", false, ""},
	Denied:            {OfMesh, 403, "-", "rbac_access_denied", false, "RBAC: access denied"},
	Injected:          {OfMesh, 0, "FI", "fault_filter_abort", false, "fault filter abort"},
	RefusedMethod:     {OfClient, 405, "-", "method_not_allowed", false, "CONNECT is not allowed here"},
	Unwritable:        {OfMesh, 500, "-", "direct_response", false, "the request cannot be forwarded as the route has changed it"},
	Stalled:           {OfMesh, 408, "SI", "stream_idle_timeout", false, "nothing was sent for too long"},
	TunnelIdle:        {OfMesh, 0, "SI", "tcp_session_idle_timeout", false, ""},
	Panicked:          {OfMesh, 500, "-", "internal_error", false, "internal error"},
	RefusedUpgrade:    {OfClient, 403, "-", "upgrade_failed", false, "this upgrade is not allowed here"},
	NotUpgraded:       {OfUpstream, 502, "UPE", "websocket_handshake_unsuccessful", false, "the upstream does not speak the protocol that was asked for"},
	OverGlobalLimit:   {OfClient, 429, "RL", "request_rate_limited", false, "too many requests"},
	LimitUnknown:      {OfMesh, 500, "RLSE", "rate_limiter_error", false, "the limits cannot be looked up"},
	OverLimit:         {OfClient, 429, "RL", "local_rate_limited", false, "too many requests"},
	Overloaded:        {OfMesh, 503, "OM", "overload", false, "overloaded"},
	Shed:              {OfMesh, 0, "OM", "overload", false, ""},
	SlowHead:          {OfClient, 408, "-", "request_header_timeout", false, "the request's head took too long"},
	NotTaken:          {OfMesh, 421, "NR", "filter_chain_not_found", false, "this connection is not taken here any more: connect again"},
	Outlived:          {OfMesh, 0, "DT", "max_duration_timeout", false, ""},
	CutOff:            {OfMesh, 0, "LR", "downstream_local_disconnect", false, ""},
	Unroutable:        {OfMesh, 502, "NR", "outbound_refused", false, "the mesh does not know this destination, and its policy refuses unknown ones"},
}

// Error is a failure on the request path: what was being done, whose fault it is, whether another attempt may help, and why.
type Error struct {
	Op    string
	Cause error
	Kind  Kind
	// Code replaces the kind's status where the failure has one of its own (parse errors, injected aborts).
	Code int
	// Policy is the one that denied.
	Policy string
	// Late is set where the response had begun.
	Late bool
}

// New makes an Error.
func New(k Kind, op string, cause error) *Error { return &Error{Op: op, Cause: cause, Kind: k} }

func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Op
	}
	return e.Op + ": " + e.Cause.Error()
}

// Reason is the failure in plain words, for logs and for callers within the mesh.
func (e *Error) Reason() string {
	if e.Kind == Denied && e.Policy != "" {
		return "denied by policy " + e.Policy + ": " + e.Error()
	}
	return e.Error()
}

func (e *Error) Unwrap() error { return e.Cause }

// Fault says whose doing it is.
func (e *Error) Fault() Fault { return kinds[e.Kind].fault }

// Retryable reports whether another attempt may succeed; whether it is safe is for package retry to say.
func (e *Error) Retryable() bool { return kinds[e.Kind].retryable }

// Status is the HTTP status to answer with, 0 for none.
func (e *Error) Status() int {
	if e.Code != 0 {
		return e.Code
	}
	return kinds[e.Kind].status
}

// Flag is Envoy's response flag, "-" for a failure that has none.
func (e *Error) Flag() string { return kinds[e.Kind].flag }

// Details are Envoy's response code details. codec is the version of HTTP that the client speaks, "http1" for instance: what it did
// wrong is told with it.
func (e *Error) Details(codec string) string {
	d := kinds[e.Kind].details
	switch {
	case e.Kind == Denied && e.Policy == "":
		return "rbac_access_denied_matched_policy[none]"
	case e.Kind == Denied:
		return "rbac_access_denied_matched_policy[" + e.Policy + "]"
	case e.Kind == Malformed || e.Kind == ClientBroken || e.Kind == ClientReset:
		return codec + "." + d
	case d[0] == '{' && e.Late:
		return "upstream_reset_after_response_started" + d
	case d[0] == '{':
		return "upstream_reset_before_response_started" + d
	}
	return d
}

// Public is the text for clients outside the mesh: it names nothing inside.
func (e *Error) Public() string {
	var one *http1.Error
	var two *http2.Error
	switch {
	case e.Kind != Malformed:
	case errors.As(e.Cause, &one):
		return one.Reason
	case errors.As(e.Cause, &two):
		return two.Reason
	}
	return kinds[e.Kind].public
}

// PublicText is what our own failures of that status say to the outside.
func PublicText(status int) string {
	switch status {
	case 403:
		return kinds[Denied].public
	case 404:
		return kinds[NoRoute].public
	case 504:
		return kinds[UpstreamTimeout].public
	case 503:
		return "the service is unavailable"
	}
	return http.StatusText(status)
}

// NeverSent are the failures of a proxy that has not passed a byte of the request on.
func (e *Error) NeverSent() bool {
	switch e.Kind {
	case ConnectFailed, ConnectTimeout, TLSFailed, UpstreamMute, NoHealthy, NoCluster, NoConfig, Overflow, Overloaded, NotTaken:
		return true
	}
	return false
}

// Unreached makes the Error of an endpoint that cannot be used.
func Unreached(err error) *Error {
	var u *upstream.Error
	var two *http2.ConnError
	switch ok := errors.As(err, &u); {
	case ok && u.Op == upstream.Handshake:
		return New(TLSFailed, "connect", err)
	case ok && u.Op == upstream.Overflow:
		return New(Overflow, "connect", err)
	case errors.Is(err, upstream.ErrSilent):
		return New(UpstreamMute, "connect", err)
	case errors.Is(err, upstream.ErrNotHTTP2), errors.As(err, &two) && two.Err == nil && !two.Remote:
		return New(UpstreamMalformed, "connect", err)
	case ok && u.Timeout():
		return New(ConnectTimeout, "connect", err)
	}
	return New(ConnectFailed, "connect", err)
}

// Unprocessed reports whether the endpoint has surely not acted on the request: it said so, or no byte of it has left.
func Unprocessed(err error) bool {
	var u interface{ Unprocessed() bool }
	return errors.As(err, &u) && u.Unprocessed()
}

// Unanswered makes the Error of an exchange with an endpoint that broke off.
func Unanswered(op string, err error) *Error {
	var one *http1.Error
	var two *http2.StreamError
	var all *http2.ConnError
	switch {
	case errors.As(err, &one):
		return New(UpstreamMalformed, op, err)
	case errors.As(err, &two) && two.Remote && two.Code == http2.RefusedStream:
		return New(UpstreamRefused, op, err)
	case errors.As(err, &two) && two.Remote:
		return New(UpstreamReset, op, err)
	case errors.As(err, &two) && two.Stalled > 0:
		return New(UpstreamStalled, op, fmt.Errorf("the endpoint took nothing of the request's body for %s", two.Stalled))
	case errors.As(err, &two):
		return New(UpstreamMalformed, op, err)
	case errors.As(err, &all) && all.Err == nil && !all.Remote:
		return New(UpstreamMalformed, op, err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return New(UpstreamTimeout, op, errTimedOut)
	}
	return New(UpstreamClosed, op, PlainCause(err))
}

// Departed makes the Error of a client that cannot be heard or told anything any more.
func Departed(op string, err error) *Error {
	var two *http2.StreamError
	var all *http2.ConnError
	switch {
	case errors.As(err, &two) && two.Remote:
		return New(ClientReset, op, err)
	case errors.As(err, &two) && two.Shed, errors.Is(err, slow.ErrShed):
		return New(Shed, op, slow.ErrShed)
	case errors.As(err, &two) && two.Stalled > 0:
		return New(ClientStalled, op, fmt.Errorf("the client took nothing of the answer for %s", two.Stalled))
	case errors.As(err, &two), errors.As(err, &all) && all.Err == nil && !all.Remote:
		return New(ClientBroken, op, err)
	}
	return New(ClientGone, op, err)
}

var (
	// ErrCutOff is the cause of CutOff.
	ErrCutOff   = errors.New("the proxy ends, and its time for draining is over")
	ErrStalled  = errors.New("nothing passed for the idle time of streams")
	errTimedOut = errors.New("no complete answer in time")
	errClosed   = errors.New("the endpoint closed the connection")
	errReset    = errors.New("the endpoint reset the connection")
)

// PlainCause says of a connection's error what there is to know in words that do not depend on the system.
func PlainCause(err error) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.EPIPE):
		return errClosed
	case errors.Is(err, syscall.ECONNRESET):
		return errReset
	}
	return fmt.Errorf("connection: %w", err)
}
