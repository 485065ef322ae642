package proxy

import (
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// isGRPC reports whether a request is one of gRPC: a POST of its media type (PROTOCOL-HTTP2.md of gRPC). gRPC-Web, whose type begins
// alike, is another protocol.
func isGRPC(r *message.Request) bool {
	const media = "application/grpc"
	if r.Method != "POST" {
		return false
	}
	v, ok := r.Header.Get("Content-Type")
	if !ok || len(v) < len(media) || !message.EqualFold(v[:len(media)], media) {
		return false
	}
	return len(v) == len(media) || v[len(media)] == '+' || v[len(media)] == ';'
}

// The codes of gRPC that are spoken of here (statuscodes.md of gRPC).
const (
	grpcUnknown           = 2
	grpcDeadlineExceeded  = 4
	grpcResourceExhausted = 8
	grpcPermissionDenied  = 7
	grpcUnimplemented     = 12
	grpcInternal          = 13
	grpcUnavailable       = 14
	grpcUnauthenticated   = 16
)

// grpcOfHTTP gives the code that stands for a failure told by HTTP (http-grpc-status-mapping.md of gRPC).
func grpcOfHTTP(status int) int {
	switch status {
	case 400:
		return grpcInternal
	case 401:
		return grpcUnauthenticated
	case 403:
		return grpcPermissionDenied
	case 404:
		return grpcUnimplemented
	case 429, 502, 503, 504:
		return grpcUnavailable
	}
	return grpcUnknown
}

// httpOfGRPC gives the HTTP status that a code means to whoever judges an endpoint's health.
// Source: Envoy's Grpc::Utility::grpcToHttpStatus, googleapis' google/rpc/code.proto.
var httpOfGRPC = [...]int{200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401}

// meaning is the HTTP status that the response means: that of its code where it is one of gRPC.
func (x *exchange) meaning(grpc int) int {
	if grpc > 0 && grpc < len(httpOfGRPC) {
		return httpOfGRPC[grpc]
	}
	return x.res.Status
}

// grpcStatus gives the status of a trailers-only response, -1 when there is none.
func (x *exchange) grpcStatus() int { return grpcOf(&x.res.Header, -1) }

func grpcOf(h *message.Header, otherwise int) int {
	if v, ok := h.Get("Grpc-Status"); ok {
		if n, err := strconv.Atoi(v); err == nil && n >= 0 {
			return n
		}
	}
	return otherwise
}

// grpcText gives gRPC's own codes as text that outlives the message, and "other" for any else: it becomes a label.
func grpcText(code int) string {
	switch {
	case code < 0:
		return ""
	case code < len(grpcCodes):
		return grpcCodes[code]
	}
	return "other"
}

var grpcCodes = [...]string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"}

// answerGRPC sends a response without messages: x.res, which may have fields already, with a status of gRPC.
func (x *exchange) answerGRPC(code int, text string) {
	r := &x.res
	r.Status = 200
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("Grpc-Status", strconv.Itoa(code))
	if text != "" {
		r.Header.Set("Grpc-Message", percentEncoded(text))
	}
	x.grpc = grpcText(code)
	x.answer(nil)
}

// grpcFailure is the code that tells a client of gRPC about x.err.
func (x *exchange) grpcFailure() int {
	switch {
	case x.err.Kind == failure.Injected && x.fault.GRPC != 0:
		return x.fault.GRPC
	case (x.err.Kind == failure.OverLimit || x.err.Kind == failure.OverGlobalLimit) && x.limitExhausted:
		return grpcResourceExhausted
	case x.err.Kind == failure.UpstreamTimeout && x.limited && x.expired():
		return grpcDeadlineExceeded // it was the client's own limit
	}
	return grpcOfHTTP(x.err.Status())
}

// percentEncoded writes text as grpc-message has it: printable ASCII but for the percent sign stays.
func percentEncoded(text string) string {
	const digits = "0123456789ABCDEF"
	plain := func(c byte) bool { return c >= ' ' && c <= '~' && c != '%' }
	i := 0
	for i < len(text) && plain(text[i]) {
		i++
	}
	if i == len(text) {
		return text
	}
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; plain(c) {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
	return b.String()
}

// grpcUnits are those of grpc-timeout.
var grpcUnits = map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond,
	'u': time.Microsecond, 'n': time.Nanosecond}

// parseGRPCTimeout reads 1 to 8 digits and a unit. What is longer than a duration can be is the longest one.
func parseGRPCTimeout(v string) (time.Duration, bool) {
	n := len(v) - 1
	if n < 1 || n > 8 {
		return 0, false
	}
	unit, ok := grpcUnits[v[n]]
	if !ok {
		return 0, false
	}
	count := int64(0)
	for i := range n {
		if v[i] < '0' || v[i] > '9' {
			return 0, false
		}
		count = count*10 + int64(v[i]-'0')
	}
	if longest := int64(1<<63 - 1); count > longest/int64(unit) {
		return time.Duration(longest), true
	}
	return time.Duration(count) * unit, true
}

// appendGRPCTimeout writes d with the finest unit for which 8 digits do.
func appendGRPCTimeout(b []byte, d time.Duration) []byte {
	const most = 99999999
	for _, u := range [...]struct {
		unit time.Duration
		name byte
	}{{time.Microsecond, 'u'}, {time.Millisecond, 'm'}, {time.Second, 'S'}} {
		if n := max(int64(d/u.unit), 1); n <= most {
			return append(strconv.AppendInt(b, n, 10), u.name)
		}
	}
	return append(strconv.AppendInt(b, min(int64(d/time.Hour), most), 10), 'H')
}

const grpcTimeoutHeader = "Grpc-Timeout"

// limit ends the exchange no later than the client wants it, where that is one of gRPC.
func (x *exchange) limit() {
	v, ok := x.req.Header.Get(grpcTimeoutHeader)
	if !ok {
		return
	}
	d, ok := parseGRPCTimeout(v)
	if !ok {
		return // the server will say so
	}
	if f := x.matched.Route.Forward; d > f.GRPCTimeoutOffset {
		if d -= f.GRPCTimeoutOffset; f.MaxGRPCTimeout > 0 {
			d = min(d, f.MaxGRPCTimeout)
		}
	}
	if at := x.start.Add(d); d < maxLimit && (x.deadline.IsZero() || at.Before(x.deadline)) {
		x.deadline, x.limited = at, true
	}
}

// maxLimit is when a time-out is as good as none, and near what a time cannot hold.
const maxLimit = 10 * 365 * 24 * time.Hour

// attemptHeader tells which attempt a request is, and a response how many there were.
const attemptHeader = "X-Envoy-Attempt-Count"

// announce tells the next hop which attempt it sees, where it wants to know, and how much time is left for this attempt: gRPC's time-out less what has passed, and Envoy's header,
// by which a service can give up in time.
func (x *exchange) announce(deadline time.Time) {
	if h := x.matched.Host; h != nil && h.AttemptCount {
		x.req.Header.Set(attemptHeader, strconv.Itoa(x.attempt))
	}
	if deadline.IsZero() {
		return
	}
	left := max(deadline.Sub(x.p.Now()), time.Microsecond)
	b := strconv.AppendInt(x.left[:0], max(left.Milliseconds(), 1), 10)
	x.req.Header.Set("X-Envoy-Expected-Rq-Timeout-Ms", unsafe.String(unsafe.SliceData(b), len(b)))
	if _, ok := x.req.Header.Get(grpcTimeoutHeader); ok {
		b = appendGRPCTimeout(x.leftGRPC[:0], left)
		x.req.Header.Set(grpcTimeoutHeader, unsafe.String(unsafe.SliceData(b), len(b)))
	}
}
