package bind

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/weftmesh/weft/internal/proxy/steer"
)

// QUIC is the Network of a Socket that is a gateway's port for HTTP/3, Steer of one by which the packets of such a port get to a process
// that has connections there. Its Address is the port's, with the process's number behind a slash.
const (
	QUIC  = "gateway-quic"
	Steer = "gateway-quic-steer"
)

// ListenGatewayPacket opens a gateway's port for HTTP/3. One that was handed over is read after Own; its connections stay with the
// processes that made them.
func (s *Sockets) ListenGatewayPacket(ctx context.Context, address string) (net.PacketConn, error) {
	f := s.take(QUIC, address)
	if f == nil {
		pc, err := s.net.ListenGatewayPacket(ctx, address)
		if err == nil && pc == nil {
			err = errors.New("there is no UDP here")
		}
		if err != nil {
			return nil, err
		}
		return s.share(address, pc, true)
	}
	defer f.Close()
	pc, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("inherited socket: %w", err)
	}
	c, err := s.share(address, pc, false)
	if err == nil {
		err = s.behind(address, c)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// share makes this process's share of a port, and notes what a successor needs.
func (s *Sockets) share(address string, pc net.PacketConn, reads bool) (*steer.Conn, error) {
	u, ok := pc.(*net.UDPConn)
	if !ok {
		pc.Close()
		return nil, errors.New("HTTP/3 is served on sockets of the system alone")
	}
	c, err := steer.New(u, s.Number, reads)
	if err != nil {
		u.Close()
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = append(s.open, opened{Socket{QUIC, address, u}, c}, opened{Socket{Steer, steered(address, s.Number), c.Out()}, c})
	return c, nil
}

func steered(address string, number byte) string { return address + "/" + strconv.Itoa(int(number)) }

// behind has the packets of processes before this one passed on.
func (s *Sockets) behind(address string, c *steer.Conn) error {
	for number := range 256 {
		f := s.take(Steer, steered(address, byte(number)))
		if f == nil {
			continue
		}
		out, err := steer.End(f)
		if err != nil {
			return fmt.Errorf("inherited socket: %w", err)
		}
		s.mu.Lock()
		s.open = append(s.open, opened{Socket{Steer, steered(address, byte(number)), out}, c})
		s.mu.Unlock()
		c.Pass(byte(number), out, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.open = slices.DeleteFunc(s.open, func(o opened) bool { return o.Conn == out })
		})
	}
	return nil
}
