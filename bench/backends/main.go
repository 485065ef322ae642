// Command backends compares ways to schedule connections: goroutines on Go's netpoller, goroutines on pollers of our own, and
// coroutines that such a poller resumes. Each runs the same straight-line proxy of HTTP/1.1 (read a head, take a kept connection,
// write, read, write), which is far less than weft-proxy does: what differs is the back end alone. It is the evidence of
// docs/adr/0005-io-back-end.md.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"
)

// stream is a connection as the proxy sees it.
type stream interface {
	Read(p []byte) (int, error)
	Write(p []byte) (int, error)
	Close() error
	SetReadDeadline(t time.Time) error
}

// backend runs proxies.
type backend interface {
	// serve calls handle for each connection to the address, for ever.
	serve(address string, handle func(r routine, c stream)) error
}

// routine is what a handler runs on.
type routine interface {
	dial(to netip.AddrPort) (stream, error)
	// pool keeps idle upstream connections.
	pool() *pool
	// callOut runs f, which may block.
	callOut(f func())
}

// settings are the flags.
type settings struct {
	upstream netip.AddrPort
	locks    bool // take a lock that all connections share
	callOuts bool // ask a goroutine for every tenth request
	timeouts bool // set a deadline for each request
}

func main() {
	mode := flag.String("mode", "poll", "`BACKEND`: net, poll or coroutine")
	listen := flag.String("listen", "127.0.0.1:8080", "`ADDRESS` to listen on")
	upstream := flag.String("upstream", "", "`ADDRESS` of the server behind")
	var s settings
	flag.BoolVar(&s.locks, "locks", false, "take a shared lock for each request")
	flag.BoolVar(&s.callOuts, "callouts", false, "ask a goroutine for every tenth request")
	flag.BoolVar(&s.timeouts, "timeouts", false, "set a deadline for each request")
	flag.Parse()
	if err := run(*mode, *listen, *upstream, s); err != nil {
		fmt.Fprintln(os.Stderr, "backends:", err)
		os.Exit(1)
	}
}

func run(mode, listen, upstream string, s settings) (err error) {
	if s.upstream, err = netip.ParseAddrPort(upstream); err != nil {
		return err
	}
	var b backend
	switch mode {
	case "net", "poll":
		b, err = newGoroutines(mode)
	case "coroutine":
		b, err = newCoroutines()
	default:
		err = fmt.Errorf("no back end %q", mode)
	}
	if err != nil {
		return err
	}
	p := &proxy{settings: s, asks: make(chan chan struct{})}
	go p.answer() // for the life of the process
	return b.serve(listen, p.handle)
}

type proxy struct {
	settings
	mu     sync.Mutex
	counts [64]uint64
	asks   chan chan struct{}
}

func (p *proxy) answer() {
	for a := range p.asks {
		a <- struct{}{}
	}
}

// handle carries the requests of one connection.
func (p *proxy) handle(r routine, c stream) {
	defer c.Close()
	in, out := make([]byte, 8<<10), make([]byte, 8<<10)
	for i := 0; ; i++ {
		n, err := message(c, in)
		if err != nil {
			return
		}
		p.work(r, i)
		if !p.forward(r, c, in[:n], out) {
			return
		}
	}
}

// work is what a mesh does beside carrying bytes.
func (p *proxy) work(r routine, i int) {
	if p.locks {
		p.mu.Lock()
		p.counts[i&63]++
		p.mu.Unlock()
	}
	if p.callOuts && i%10 == 0 {
		r.callOut(func() {
			done := make(chan struct{}, 1)
			p.asks <- done
			<-done
		})
	}
}

func (p *proxy) forward(r routine, c stream, request, buf []byte) bool {
	up := r.pool().get()
	if up == nil {
		var err error
		if up, err = r.dial(p.upstream); err != nil {
			fmt.Fprintln(os.Stderr, "backends:", err)
			return false
		}
	}
	if p.timeouts {
		up.SetReadDeadline(time.Now().Add(15 * time.Second))
	}
	_, err := up.Write(request)
	n := 0
	if err == nil {
		n, err = message(up, buf)
	}
	if err != nil {
		up.Close()
		return false
	}
	if p.timeouts {
		up.SetReadDeadline(time.Time{})
	}
	r.pool().put(up)
	_, err = c.Write(buf[:n])
	return err == nil
}

// message reads a head and the body that it announces.
func message(c stream, buf []byte) (int, error) {
	for n := 0; ; {
		m, err := c.Read(buf[n:])
		if err != nil {
			return 0, err
		}
		n += m
		if end := bytes.Index(buf[:n], []byte("\r\n\r\n")); end >= 0 {
			if size := end + 4 + length(buf[:end]); n >= size {
				return size, nil
			}
		}
		if n == len(buf) {
			return 0, errors.New("message too long")
		}
	}
}

func length(head []byte) int {
	_, rest, ok := bytes.Cut(head, []byte("\r\nContent-Length: "))
	if !ok {
		return 0
	}
	value, _, _ := bytes.Cut(rest, []byte("\r"))
	n, err := strconv.Atoi(string(value))
	if err != nil {
		return 0
	}
	return n
}

// pool is a stack of idle connections.
type pool struct {
	mu   sync.Mutex
	idle []stream
}

func (p *pool) get() (c stream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.idle) - 1; n >= 0 {
		c, p.idle = p.idle[n], p.idle[:n]
	}
	return c
}

func (p *pool) put(c stream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, c)
}
