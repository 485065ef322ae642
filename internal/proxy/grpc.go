package proxy

import (
	"strconv"

	"github.com/weftmesh/weft/internal/proxy/message"
)

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
