package cluster

import (
	"errors"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/grpc"
	"github.com/weftmesh/weft/internal/proxy/http2"
	"github.com/weftmesh/weft/internal/proxy/message"
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

// Multiplexed reports whether a request goes out as HTTP/2. Where the service's protocol is the client's, clients with whom HTTP/2 was
// negotiated at a gateway say nothing of it: they speak it because we offered it. gRPC knows nothing else. Upgrades go where they
// were invented, unless the service has declared HTTP/2, and what need not be HTTP/2 does not go so to an endpoint that has lately not
// understood it.
func (c *Cluster) Multiplexed(to *Endpoint, r *message.Request, negotiated bool) bool {
	switch c.Conf.Speaks {
	case conf.HTTP2:
		return true
	case conf.ByALPN:
		return to.TLS && r.Upgrade == "" && !to.Pool.HTTP1Only()
	case conf.AsClient:
		if r.Upgrade != "" || r.Proto < message.HTTP2 {
			return false
		}
		return r.Proto == message.HTTP2 && !negotiated && !to.Pool.NotHTTP2() || grpc.Is(r)
	}
	return false
}

// Instead reports whether a request that found no HTTP/2 is to go out as HTTP/1.1: the endpoint has chosen that, or nobody has declared
// what it speaks, it does not speak HTTP/2, and the request can do without.
func (c *Cluster) Instead(err error, r *message.Request) bool {
	return errors.Is(err, upstream.ErrHTTP1) || c.Conf.Speaks == conf.AsClient && errors.Is(err, upstream.ErrNotHTTP2) && !grpc.Is(r)
}
