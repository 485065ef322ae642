package conn

import (
	"net"
	"net/netip"
	"time"
)

// ToNet gives c as a net.Conn, for libraries that want one (crypto/tls). The net.Conn owns c from here on. A socket is
// handed out as it is, with its descriptor.
func ToNet(c Conn) net.Conn {
	if s, ok := c.(*socket); ok {
		return s.nc
	}
	return &netAdapter{c: c}
}

// netAdapter is a Conn seen as a net.Conn.
type netAdapter struct{ c Conn }

func (a *netAdapter) Read(p []byte) (int, error)         { return a.c.Read(p) }
func (a *netAdapter) Write(p []byte) (int, error)        { return a.c.Write(p) }
func (a *netAdapter) Close() error                       { return a.c.Close() }
func (a *netAdapter) CloseWrite() error                  { return a.c.CloseWrite() }
func (a *netAdapter) SetReadDeadline(t time.Time) error  { return a.c.SetReadDeadline(t) }
func (a *netAdapter) SetWriteDeadline(t time.Time) error { return a.c.SetWriteDeadline(t) }
func (a *netAdapter) LocalAddr() net.Addr                { return tcpAddr(a.c.LocalAddr()) }
func (a *netAdapter) RemoteAddr() net.Addr               { return tcpAddr(a.c.RemoteAddr()) }

func (a *netAdapter) SetDeadline(t time.Time) error {
	if err := a.c.SetReadDeadline(t); err != nil {
		return err
	}
	return a.c.SetWriteDeadline(t)
}

func tcpAddr(ap netip.AddrPort) net.Addr { return net.TCPAddrFromAddrPort(ap) }
