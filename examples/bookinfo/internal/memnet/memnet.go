// Package memnet is a network of named hosts inside one process, for tests: real HTTP over in-memory connections, which
// testing/synctest can tell apart from work, unlike sockets.
package memnet

import (
	"context"
	"fmt"
	"net"
	"sync"
)

// Net maps host:port to listeners. The zero value is an empty network.
type Net struct {
	mu    sync.Mutex
	hosts map[string]*listener
}

// Listen opens address, such as "reviews:9080", until the listener is closed. It panics if the address is taken.
func (n *Net) Listen(address string) net.Listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hosts[address] != nil {
		panic("memnet: " + address + " is taken")
	}
	if n.hosts == nil {
		n.hosts = map[string]*listener{}
	}
	l := &listener{net: n, address: address, conns: make(chan net.Conn), done: make(chan struct{})}
	n.hosts[address] = l
	return l
}

// DialContext connects to address. It fails at once if nobody listens there. It fits http.Transport.
func (n *Net) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	l := n.hosts[address]
	n.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("dial %s: nobody listens", address)
	}
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.done:
		return nil, fmt.Errorf("dial %s: listener closed", address)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type listener struct {
	net     *Net
	address string
	conns   chan net.Conn
	once    sync.Once
	done    chan struct{} // closed by Close
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		l.net.mu.Lock()
		delete(l.net.hosts, l.address)
		l.net.mu.Unlock()
		close(l.done)
	})
	return nil
}

func (l *listener) Addr() net.Addr { return addr(l.address) }

type addr string

func (addr) Network() string  { return "mem" }
func (a addr) String() string { return string(a) }
