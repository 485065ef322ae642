// Package loopback draws TCP ports of 127.0.0.1 for programs that must be told where to listen before they do. Whoever draws from it, in
// whichever process, gets ports that nobody else does: a process takes the host's ports in blocks, and holds the UDP port at the head of
// each of its blocks for as long as it lives, which is what tells the others. No file is left behind, and users do not matter.
package loopback

import (
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
)

// Ports are drawn from below the range that systems give to connections and to listeners on port 0 (Linux: 32768 and up,
// net.ipv4.ip_local_port_range), so nobody is given one by chance between the draw and the use.
const (
	lowest    = 15100
	highest   = 32767
	blockSize = 32
	blocks    = (highest - lowest + 1) / blockSize
)

// Ports hands out ports. The zero value is ready to use, and may be used by several goroutines.
type Ports struct {
	mu     sync.Mutex
	guards []net.PacketConn // of the blocks that are ours
	free   []uint16         // of our blocks: nobody has them
}

// Take draws a port on which nothing listens. What listens there nonetheless by the time of its use is no user of this package.
func (p *Ports) Take() (uint16, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		for i := len(p.free) - 1; i >= 0; i-- {
			if port := p.free[i]; unused(port) {
				p.free = slices.Delete(p.free, i, i+1)
				return port, nil
			}
		}
		if err := p.claim(); err != nil {
			return 0, err
		}
	}
}

// Give returns a port that Take gave. Ports that it did not give are left alone.
func (p *Ports) Give(port uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ours := slices.ContainsFunc(p.guards, func(g net.PacketConn) bool {
		head := g.LocalAddr().(*net.UDPAddr).Port
		return int(port) > head && int(port) < head+blockSize
	})
	if ours && !slices.Contains(p.free, port) {
		p.free = append([]uint16{port}, p.free...) // what was used last is drawn last: connections may linger
	}
}

// Close gives all of them up.
func (p *Ports) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range p.guards {
		_ = g.Close() // nothing was written
	}
	p.guards, p.free = nil, nil
}

// claim takes a block that nobody has; mu is held.
func (p *Ports) claim() error {
	first := rand.IntN(blocks)
	for i := range blocks {
		head := lowest + (first+i)%blocks*blockSize
		guard, err := net.ListenPacket("udp4", address(head))
		if err != nil {
			continue // somebody has it, or uses its head for something else
		}
		p.guards = append(p.guards, guard)
		for port := head + blockSize - 1; port > head; port-- {
			p.free = append(p.free, uint16(port))
		}
		return nil
	}
	return fmt.Errorf("no port of 127.0.0.1 is free: all %d blocks between %d and %d are taken", blocks, lowest, highest)
}

func unused(port uint16) bool {
	l, err := net.Listen("tcp4", address(int(port)))
	if err != nil {
		return false
	}
	return l.Close() == nil
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
