package side

import "github.com/weftmesh/weft/internal/proxy/relay"

// OpenTunnel sends the head after which another protocol follows. What ends a message without a body in HTTP/1 would end the tunnel
// in HTTP/2.
func OpenTunnel(s relay.Sink, stream bool) error {
	if stream {
		return s.Flush()
	}
	return s.FinishBody(nil)
}
