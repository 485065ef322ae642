package steer

import (
	"encoding/binary"
	"net"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// A packet is passed on behind a head: the client's address (16 bytes) and port (2), the lengths of its zone and of what the kernel said
// of the packet (1 each), and these two.
const (
	frameHead = 16 + 2 + 1 + 1
	mostFrame = 4 << 10 // more than any packet of QUIC on a port that finds out what fits a path
)

// pass is for the reader alone.
func (c *Conn) pass(out *net.UnixConn, m *ipv4.Message) {
	from, ok := m.Addr.(*net.UDPAddr)
	if !ok || len(from.Zone) > 255 || m.NN > 255 {
		return
	}
	b := append(c.frame[:0], from.IP.To16()...)
	b = binary.BigEndian.AppendUint16(b, uint16(from.Port))
	b = append(b, byte(len(from.Zone)), byte(m.NN))
	b = append(b, from.Zone...)
	b = append(b, m.OOB[:m.NN]...)
	b = append(b, m.Buffers[0][:m.N]...)
	c.frame = b
	raw, err := out.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Write(func(fd uintptr) bool {
		_, _ = unix.SendmsgN(int(fd), b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL) // lost where the other does not keep up, or has ended
		return true
	})
}

// readPassed reads one packet that another process has passed on.
func (c *Conn) readPassed(m *ipv4.Message) (int, error) {
	n, err := c.in.Read(c.buf)
	if err != nil {
		return 0, err
	}
	m.N, m.NN = 0, 0
	b := c.buf[:n]
	if len(b) < frameHead || len(b) < frameHead+int(b[18])+int(b[19]) {
		return 1, nil // an empty one: nobody of ours writes such
	}
	zone, control := b[frameHead:frameHead+int(b[18])], b[frameHead+int(b[18]):]
	control, packet := control[:b[19]], control[b[19]:]
	m.Addr = &net.UDPAddr{IP: append(net.IP(nil), b[:16]...), Port: int(binary.BigEndian.Uint16(b[16:])), Zone: string(zone)}
	m.NN, m.N = copy(m.OOB, control), copy(m.Buffers[0], packet)
	return 1, nil
}
