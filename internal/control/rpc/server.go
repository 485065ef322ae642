package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

// Options of New. Zero fields take their defaults.
type Options struct {
	// TLS of the connections; required. Clients that do not negotiate "h2" are not served.
	TLS *tls.Config
	Log *slog.Logger // slog.Default
	// Refused hears of each connection that does not become one of TLS, and why, from a goroutine of its own; nil for nobody.
	Refused func(peer net.Addr, err error)
	// HandshakeTimeout is how long a connection may take to become a TLS connection; 10 s.
	HandshakeTimeout time.Duration
	// A connection that was silent for Keepalive is pinged, and closed when nothing comes for KeepaliveTimeout; 30 s and 10 s.
	Keepalive, KeepaliveTimeout time.Duration
	// MaxStreams bounds the streams of a connection that are open at once; 100.
	MaxStreams int
	// MaxStrangers bounds the connections whose clients have shown no certificate, of which a new one ends the oldest; a quarter of the
	// descriptors of the process, 4096 at most.
	MaxStrangers int
	// MaxOfOne bounds the connections that show one certificate, of which a new one ends the oldest; 256. A proxy has one or two, with its
	// successor; gRPC's library one for each process; the rest is for instances that share a file.
	MaxOfOne int
	// MaxMessage bounds the messages of clients, in bytes; 4 MiB.
	MaxMessage int
}

func (o *Options) defaults() {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&o.HandshakeTimeout, 10 * time.Second}, {&o.Keepalive, 30 * time.Second}, {&o.KeepaliveTimeout, 10 * time.Second}} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if o.MaxStreams <= 0 {
		o.MaxStreams = 100
	}
	if o.MaxStrangers <= 0 {
		o.MaxStrangers = bearable(descriptors())
	}
	if o.MaxOfOne <= 0 {
		o.MaxOfOne = 256
	}
	if o.MaxMessage <= 0 {
		o.MaxMessage = 4 << 20
	}
}

// Server serves the methods that were registered before Run.
type Server struct {
	// Set once, before Run.
	options Options
	tls     *tls.Config
	unary   map[string]unary
	streams map[string]Opener

	queue   *queue
	workers sync.WaitGroup
	poller  *poller   // set by Run
	polling sync.Once // the poller runs since there is something to poll
	strange crowd
	holders holders
	clock   atomic.Int64 // nanoseconds since 1970, set every tick: precise enough for who was heard when

	mu       sync.Mutex // guards what follows
	conns    map[*conn]struct{}
	stopping bool
	empty    chan struct{} // closed when it is stopping and the last connection has ended
	calls    sync.WaitGroup
}

// New makes a server without methods.
func New(o Options) *Server {
	o.defaults()
	config := o.TLS.Clone()
	config.DynamicRecordSizingDisabled = true // responses are written whole: small records would cost a system call each
	return &Server{options: o, tls: config, unary: map[string]unary{}, streams: map[string]Opener{}, queue: newQueue(),
		strange: crowd{most: o.MaxStrangers}, holders: holders{most: o.MaxOfOne, by: map[string]*crowd{}}, conns: map[*conn]struct{}{}, empty: make(chan struct{})}
}

// RegisterService implements grpc.ServiceRegistrar for services of unary methods.
func (s *Server) RegisterService(d *grpc.ServiceDesc, service any) {
	if len(d.Streams) > 0 {
		panic(fmt.Sprintf("rpc: %s has streams: they need HandleStream", d.ServiceName))
	}
	for _, m := range d.Methods {
		s.unary["/"+d.ServiceName+"/"+m.MethodName] = unary{service, m.Handler}
	}
}

// Opener makes the handler of a stream that a client has opened, or refuses the stream with a gRPC status.
type Opener func(*Stream) (Handler, error)

// HandleStream registers a method whose messages are a stream in both directions, by its full name: "/package.Service/Method".
func (s *Server) HandleStream(method string, open Opener) { s.streams[method] = open }

// Run serves the listeners until the context ends, then cuts all connections. It closes the listeners and returns when nothing that
// it started runs any more.
func (s *Server) Run(ctx context.Context, listeners ...net.Listener) error {
	p, err := openPoller()
	if err != nil {
		return err
	}
	s.poller = p
	s.clock.Store(time.Now().UnixNano())
	for range runtime.GOMAXPROCS(0) + 1 {
		s.workers.Go(func() { s.queue.work() }) // ends by queue.close
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		g.Go(func() error { return s.accept(ctx, g, l) })
	}
	g.Go(func() error { return s.tick(ctx) })
	g.Go(func() error {
		<-ctx.Done()
		for _, l := range listeners {
			_ = l.Close()
		}
		return nil
	})
	err = g.Wait()
	s.cut()
	<-s.empty
	s.calls.Wait()
	s.queue.close()
	p.close()
	s.workers.Wait()
	return err
}

// accept takes connections until the context ends.
func (s *Server) accept(ctx context.Context, g *errgroup.Group, l net.Listener) error {
	const longest = time.Second
	pause := 5 * time.Millisecond
	for {
		c, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = c.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("rpc: serve %s: %w", l.Addr(), err)
		case err != nil: // out of descriptors, for example: those that are there go on
			s.options.Log.Warn("no connection can be accepted", "address", l.Addr().String(), "error", err)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			pause = min(2*pause, longest)
			continue
		}
		pause = 5 * time.Millisecond
		stranger := s.strange.add(func() { _ = c.Close() })
		g.Go(func() error { s.greet(ctx, c, stranger); return nil })
	}
}

// ErrNoHTTP2 is why a client that does not negotiate it is refused.
var ErrNoHTTP2 = errors.New(`the client does not offer "h2" by ALPN`)

// greet makes a connection one of TLS and hands it to the workers.
func (s *Server) greet(ctx context.Context, raw net.Conn, stranger *place) {
	sock := newSocket(raw)
	t := tls.Server(sock, s.tls)
	handshake, cancel := context.WithTimeout(ctx, s.options.HandshakeTimeout)
	defer cancel()
	err := t.HandshakeContext(handshake)
	if err == nil && t.ConnectionState().NegotiatedProtocol != "h2" {
		err = ErrNoHTTP2
	}
	if err != nil && ctx.Err() == nil && s.options.Refused != nil {
		s.options.Refused(raw.RemoteAddr(), err)
	}
	if err == nil {
		err = sock.detach()
	}
	var c *conn
	if err == nil {
		c = newConn(s, sock, t)
		err = s.admit(c, stranger)
	}
	if err != nil {
		stranger.leave()
		_ = sock.Close()
		s.options.Log.Debug("a connection is refused", "peer", raw.RemoteAddr().String(), "error", err)
		return
	}
	c.wake()
}

// admit puts a connection under watch, and in its crowd.
func (s *Server) admit(c *conn, stranger *place) error {
	sock := c.sock
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return errStopping
	}
	sock.wake = c.wake
	if sock.pump != nil {
		s.workers.Go(func() { sock.pump.run(sock.pumpNews) }) // ends by pump.close
	} else if err := s.poller.watch(sock); err != nil {
		return err
	} else {
		s.polling.Do(func() { s.workers.Go(s.poller.run) }) // ends by poller.close
	}
	s.conns[c] = struct{}{}
	if leaf := c.certificate(); leaf != nil {
		stranger.leave()
		c.leave = s.holders.add(leaf.Raw, func() { c.cut(errTooMany) })
	} else {
		c.leave = stranger.leave
		stranger.becomes(func() { c.cut(errCrowded) })
	}
	return nil
}

// forget is called by a connection that has ended.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.leave()
	delete(s.conns, c)
	if s.stopping && len(s.conns) == 0 {
		close(s.empty)
	}
}

// cut ends all connections; each does it in a turn of its own.
func (s *Server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping = true
	if len(s.conns) == 0 {
		close(s.empty)
	}
	for c := range s.conns {
		c.cut(errStopping)
	}
}

// ticks is how often connections are looked at that nothing wakes.
const ticks = time.Second

// tick wakes the connections that were silent for long, and those whose certificate has ended.
func (s *Server) tick(ctx context.Context) error {
	t := time.NewTicker(min(ticks, s.options.Keepalive/4, s.options.KeepaliveTimeout/4))
	defer t.Stop()
	for {
		select {
		case now := <-t.C:
			s.clock.Store(now.UnixNano())
			s.mu.Lock()
			for c := range s.conns {
				if c.due(now) {
					c.check.Store(true)
					c.wake()
				}
			}
			s.mu.Unlock()
		case <-ctx.Done():
			return nil
		}
	}
}
