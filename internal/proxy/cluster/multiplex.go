package cluster

import (
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/http2"
	"github.com/weftmesh/weft/internal/proxy/upstream"
)

// mostStreams is far beyond what a connection carries, and far below what its numbers allow.
const mostStreams = 1 << 20

// multiplexes makes the session of a new connection to an endpoint.
func multiplexes(l conf.HTTP2Limits) func(c *upstream.Conn) upstream.Session {
	o := *http2.DefaultOptions()
	if l.MaxStreams > 0 {
		o.MaxStreams = int(min(l.MaxStreams, mostStreams))
	}
	if l.KeepAlive > 0 {
		o.KeepAlive = l.KeepAlive
	}
	if l.PingTimeout > 0 {
		o.PingTimeout = l.PingTimeout
	}
	return func(c *upstream.Conn) upstream.Session {
		s := http2.NewClientConn(c.Conn, &o)
		c.Codec = s
		return s
	}
}
