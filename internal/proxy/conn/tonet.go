package conn

import (
	"net"
	"net/netip"
	"time"
)

// ToNet gives c as a net.Conn, for libraries that want one (crypto/tls). The net.Conn owns c from here on. For crypto/tls
// it reads and writes long streams in large pieces: see FromNet.
func ToNet(c Conn) net.Conn { return &netAdapter{c: c} }

// netAdapter is a Conn seen as a net.Conn.
type netAdapter struct {
	c      Conn
	ahead  ahead
	gather gather
}

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

// untouched reports whether nothing lies in the adapter.
func (a *netAdapter) untouched() bool { return a.ahead.empty() && !a.gather.corked }
