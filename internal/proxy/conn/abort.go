package conn

import "crypto/tls"

// under gives the transport below TLS and what was sniffed.
func under(c Conn) Conn {
	for {
		switch o := c.(type) {
		case *prefixed:
			c = o.Conn
		case *tlsConn:
			c = o.under.c
		case *peekConn:
			t, ok := o.nc.(*tls.Conn)
			if !ok {
				return c
			}
			c = FromNet(t.NetConn())
		default:
			return c
		}
	}
}

// Abort closes the transport under c and has the kernel forget what it has not sent. A TCP peer is told by a reset. As Close, it may be
// called at any time from anywhere.
func Abort(c Conn) error {
	c = under(c)
	Control(c, func(fd uintptr) { setBreaks(fd, true) }) // without a descriptor there is nothing that the kernel holds
	return c.Close()
}

// Sent is how many bytes the kernel has taken for the peer since the connection began, those of a write under way among them. It is 0
// where the transport does not count.
func Sent(c Conn) int64 { return sentPolled(under(c)) }
