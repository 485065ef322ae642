// Package grpc is what of gRPC a proxy reads and writes in the messages of HTTP: which requests are its own, statuses, time-outs.
package grpc

import (
	"strconv"
	"strings"

	"github.com/weftmesh/weft/internal/proxy/message"
)

// Is reports whether a request is one of gRPC: a POST of its media type (PROTOCOL-HTTP2.md of gRPC). gRPC-Web, whose type begins
// alike, is another protocol.
func Is(r *message.Request) bool { return r.Method == "POST" && Typed(r) }

// Typed reports whether a request has the media type of gRPC, whatever its method: routes for gRPC look at no more, as Envoy's do.
func Typed(r *message.Request) bool {
	v, ok := r.Header.Get("Content-Type")
	return ok && IsMedia(v)
}

// Media is the media type of gRPC where nothing is said of how messages are encoded.
const Media = "application/grpc"

// IsMedia reports whether a media type is gRPC's.
func IsMedia(v string) bool {
	if len(v) < len(Media) || !message.EqualFold(v[:len(Media)], Media) {
		return false
	}
	return len(v) == len(Media) || v[len(Media)] == '+' || v[len(Media)] == ';'
}

// The codes of gRPC that are spoken of here (statuscodes.md of gRPC).
const (
	Unknown           = 2
	DeadlineExceeded  = 4
	ResourceExhausted = 8
	PermissionDenied  = 7
	Unimplemented     = 12
	Internal          = 13
	Unavailable       = 14
	Unauthenticated   = 16
)

// OfHTTP gives the code that stands for a failure told by HTTP (http-grpc-status-mapping.md of gRPC).
func OfHTTP(status int) int {
	switch status {
	case 400:
		return Internal
	case 401:
		return Unauthenticated
	case 403:
		return PermissionDenied
	case 404:
		return Unimplemented
	case 429, 502, 503, 504:
		return Unavailable
	}
	return Unknown
}

// toHTTP gives the HTTP status that a code means to whoever judges an endpoint's health.
// Source: Envoy's Grpc::Utility::grpcToHttpStatus, googleapis' google/rpc/code.proto.
var toHTTP = [...]int{200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401}

// Meaning is the HTTP status that a response means: that of its code where it has one of gRPC, else its own.
func Meaning(code, status int) int {
	if code > 0 && code < len(toHTTP) {
		return toHTTP[code]
	}
	return status
}

func StatusOf(h *message.Header, otherwise int) int {
	if v, ok := h.Get("Grpc-Status"); ok {
		if n, err := strconv.Atoi(v); err == nil && n >= 0 {
			return n
		}
	}
	return otherwise
}

// Text gives gRPC's own codes as text that outlives the message, and "other" for any else: it becomes a label.
func Text(code int) string {
	switch {
	case code < 0:
		return ""
	case code < len(texts):
		return texts[code]
	}
	return "other"
}

var texts = [...]string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"}

// PercentEncoded writes text as grpc-message has it: printable ASCII but for the percent sign stays.
func PercentEncoded(text string) string {
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
