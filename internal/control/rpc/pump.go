package rpc

import (
	"net"
	"sync"
	"syscall"
	"time"
)

// pump does for a connection without a descriptor, such as one of a network in memory, what the kernel does for others: it keeps some of
// what comes and of what is to go, never blocks who asks, and gives news. Two goroutines block in its place.
type pump struct {
	raw  net.Conn
	news func() // set by run

	mu      sync.Mutex // guards what follows
	changed sync.Cond
	in, out []byte
	ended   error // of reading
	failed  error // of writing
	closed  bool
}

// pumped is how much is kept in each direction, in bytes.
const pumped = 64 << 10

// goodbye is how long the peer of a closed connection may take for what is still to go.
const goodbye = time.Second

func newPump(raw net.Conn) *pump {
	p := &pump{raw: raw}
	p.changed.L = &p.mu
	return p
}

// run moves bytes until the pump is closed and, by then, what was to go has gone.
func (p *pump) run(news func()) {
	p.news = news
	var reader sync.WaitGroup
	reader.Go(p.read) // ends when raw is closed
	p.write()
	_ = p.raw.Close()
	reader.Wait()
}

func (p *pump) read() {
	chunk := make([]byte, pumped/4)
	for {
		n, err := p.raw.Read(chunk)
		p.mu.Lock()
		for len(p.in) > pumped-n && !p.closed {
			p.changed.Wait()
		}
		p.in, p.ended = append(p.in, chunk[:n]...), err
		over := err != nil || p.closed
		p.mu.Unlock()
		p.news()
		if over {
			return
		}
	}
}

func (p *pump) write() {
	for {
		p.mu.Lock()
		for len(p.out) == 0 && !p.closed {
			p.changed.Wait()
		}
		chunk := p.out
		p.out = nil
		p.mu.Unlock()
		if len(chunk) == 0 {
			return
		}
		_, err := p.raw.Write(chunk)
		p.mu.Lock()
		p.failed = err
		p.mu.Unlock()
		p.news()
		if err != nil {
			return
		}
	}
}

// recv is recvfrom(2) of a non-blocking socket, with the end of the connection as an error.
func (p *pump) recv(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.in) == 0 {
		if p.ended != nil {
			return 0, p.ended
		}
		return 0, syscall.EAGAIN
	}
	n := copy(b, p.in)
	p.in = p.in[n:]
	p.changed.Broadcast()
	return n, nil
}

// send is sendto(2) of a non-blocking socket.
func (p *pump) send(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := min(len(b), pumped-len(p.out))
	switch {
	case p.failed != nil:
		return 0, p.failed
	case n <= 0:
		return 0, syscall.EAGAIN
	}
	p.out = append(p.out, b[:n]...)
	p.changed.Broadcast()
	return n, nil
}

// close has the pump end. It does not wait for that.
func (p *pump) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.changed.Broadcast()
	_ = p.raw.SetDeadline(time.Now().Add(goodbye)) // a peer that reads nothing is not waited for
}
