package sourcetest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Cable relays TCP connections to a server until it is cut.
type Cable struct {
	to   string
	addr string

	mu       sync.Mutex
	listener net.Listener // nil while cut
	conns    map[net.Conn]bool
	relays   sync.WaitGroup
}

// NewCable lays a cable to an address. It is gone when the test ends.
func NewCable(t *testing.T, to string) *Cable {
	t.Helper()
	c := &Cable{to: to, addr: "127.0.0.1:0", conns: map[net.Conn]bool{}}
	c.Mend(t)
	t.Cleanup(func() { c.Cut(t); c.relays.Wait() })
	return c
}

// Addr is its near end.
func (c *Cable) Addr() string { return c.addr }

// Cut ends all connections and refuses new ones.
func (c *Cable) Cut(*testing.T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.listener != nil {
		_ = c.listener.Close() // what matters is that it is gone
		c.listener = nil
	}
	for conn := range c.conns {
		_ = conn.Close()
	}
	clear(c.conns)
}

// Mend takes connections again, at the same address.
func (c *Cable) Mend(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", c.addr)
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listener, c.addr = l, l.Addr().String()
	c.relays.Go(func() { // ends with Cut
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.relays.Go(func() { c.relay(l, conn) })
		}
	})
}

func (c *Cable) relay(l net.Listener, near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", c.to)
	if err != nil {
		return
	}
	defer far.Close()
	if !c.add(l, near, far) {
		return
	}
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		go func() { // ends when one of both connections does
			_, _ = io.Copy(way[0], way[1])
			_ = way[0].(*net.TCPConn).CloseWrite()
			done <- struct{}{}
		}()
	}
	<-done
	<-done
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, near)
	delete(c.conns, far)
}

// add is false when the cable was cut meanwhile.
func (c *Cable) add(l net.Listener, both ...net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.listener != l {
		return false
	}
	for _, conn := range both {
		c.conns[conn] = true
	}
	return true
}
