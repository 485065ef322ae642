package http3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	quichttp "github.com/quic-go/quic-go/http3"
)

// NextProto is the ALPN identifier of HTTP/3 (RFC 9114 section 3.1).
const NextProto = quichttp.NextProtoH3

// What a client may send that is not read yet, on a stream and in all: as with HTTP/2.
const (
	streamWindow = 1 << 20
	connWindow   = 8 << 20
)

// Options of a Server. TLS and Handle are required.
type Options struct {
	// TLS gives the configuration for a handshake. Its NextProtos are replaced by HTTP/3's; QUIC has TLS 1.3 alone.
	TLS func(*tls.ClientHelloInfo) (*tls.Config, error)
	// Enter is told of a connection after its handshake and gives what its requests are handled with; Leave of its end. An
	// error of Enter closes the connection.
	Enter func(*Conn) (any, error)
	Leave func(any)
	// Handle serves one request; the goroutine is its own. The stream is dead once it returns.
	Handle func(connection any, s *Stream)
	// MaxHeadBytes bounds a request's header section that is read: beyond it the library answers 431 by itself, with no word. Heads that
	// are read and too large are Handle's to refuse. 0 means 256 KiB. MaxStreams bounds a connection's requests under way; 0
	// means 100.
	MaxHeadBytes int
	MaxStreams   int64
	// IdleTimeout ends connections without requests; 0 means one hour, which is also what the transport waits.
	IdleTimeout time.Duration
	// Full reports whether no client is to be taken now; nil is never.
	Full func() bool
	// Closing reports whether clients are to leave although new ones are taken; nil is never.
	Closing func() bool
	// DrainTime is what draining may take; clients are asked to leave within half of it, and within 10 s; 0 means 10 s.
	DrainTime time.Duration
	Log       *slog.Logger // nil discards
}

// Conn is what is known of a client's connection.
type Conn struct {
	Local, Remote netip.AddrPort
	ServerName    string
	Client        *x509.Certificate // that the client showed; nil for none
	TLS           tls.ConnectionState

	quic *quic.Conn
	of   *client
}

// Close ends the connection at once.
func (c *Conn) Close() error {
	return c.quic.CloseWithError(quic.ApplicationErrorCode(quichttp.ErrCodeNoError), "")
}

// Server serves HTTP/3 on UDP sockets.
type Server struct {
	// Set once.
	opt  Options
	tls  *tls.Config
	quic *quic.Config
	ctx  context.Context // ends by stop
	stop context.CancelFunc

	work sync.WaitGroup // the clients

	mu       sync.Mutex
	clients  map[*client]struct{}
	draining time.Time // since when; zero for not at all
	asking   time.Time // since when clients are asked to leave; zero while they are not
	tried    time.Time // when a client last began a handshake
	cut      bool      // whether answers were cut off by the server's end
	sockets  int       // that are served
}

type contextKey struct{}

// client is a client's connection.
type client struct {
	s    *Server
	http *quichttp.Server // of this connection alone: each is asked to leave at a moment of its own
	quic *quic.Conn

	// Written before any request comes.
	began time.Time
	conn  *Conn
	value any
	err   error // of Enter

	// Guarded by the server's mu.
	entered  bool
	requests int // under way
	streams  map[*Stream]struct{}
	rested   time.Time // when the last ended
	asked    bool      // to leave
	heard    uint64    // packets
	hearing  time.Time // since when it is no more
	mute     mute
}

// New makes a server that serves nothing yet.
func New(o Options) *Server {
	if o.MaxHeadBytes == 0 {
		o.MaxHeadBytes = 256 << 10
	}
	if o.MaxStreams == 0 {
		o.MaxStreams = 100
	}
	if o.IdleTimeout == 0 {
		o.IdleTimeout = time.Hour
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{opt: o, clients: map[*client]struct{}{}}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.tls = quichttp.ConfigureTLSConfig(&tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: s.config})
	s.quic = &quic.Config{MaxIncomingStreams: o.MaxStreams, MaxIdleTimeout: o.IdleTimeout, KeepAlivePeriod: 0,
		MaxStreamReceiveWindow: streamWindow, MaxConnectionReceiveWindow: connWindow,
		// A request that came with the first packet could be a replayed one.
		Allow0RTT: false}
	s.quic.GetConfigForClient = s.admit
	return s
}

func (s *Server) config(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	c, err := s.opt.TLS(hello)
	if err != nil {
		return nil, err
	}
	c = c.Clone()
	c.NextProtos, c.MinVersion = []string{NextProto}, tls.VersionTLS13
	return c, nil
}

// admit lets a client begin its handshake.
func (s *Server) admit(*quic.ClientInfo) (*quic.Config, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.draining.IsZero() && time.Since(s.draining) > s.patience()/4 { // what was read before has to be taken: nobody else will
		return nil, errors.New("this proxy is draining")
	}
	if s.opt.Full != nil && s.opt.Full() {
		return nil, errors.New("this proxy takes no client now")
	}
	s.tried = time.Now()
	return s.quic, nil
}

// Serve serves a socket until the server is closed or has drained, or the socket fails. It does not close the socket. One that is a
// quic.ConnectionIDGenerator chooses the connection ids.
func (s *Server) Serve(pc net.PacketConn) error {
	t := &quic.Transport{Conn: pc}
	t.ConnectionIDGenerator, _ = pc.(quic.ConnectionIDGenerator)
	l, err := t.ListenEarly(s.tls, s.quic)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.sockets++
	s.mu.Unlock()
	defer s.leaveSocket(t, l)
	s.work.Go(s.watch) // ends by stop
	for {
		q, err := l.Accept(s.ctx)
		if s.ctx.Err() != nil {
			return nil
		}
		if err != nil {
			s.stop()
			return err
		}
		s.work.Go(func() { s.serveClient(q) }) // ends with the connection, or by stop
	}
}

// leaveSocket returns when the clients have ended, and those that were cut off had a time to hear of it: what told them may be lost, and is
// sent again to what they send (RFC 9000 section 10.2.1).
func (s *Server) leaveSocket(t *quic.Transport, l *quic.EarlyListener) {
	l.Close()
	s.work.Wait()
	s.mu.Lock()
	cut := s.cut
	s.mu.Unlock()
	if cut {
		time.Sleep(closingTime)
	}
	t.Close()
	s.mu.Lock()
	s.sockets--
	s.mu.Unlock()
}

func (s *Server) serveClient(q *quic.Conn) {
	now := time.Now()
	c := &client{s: s, quic: q, began: now, rested: now, streams: map[*Stream]struct{}{}}
	c.http = &quichttp.Server{Handler: http.HandlerFunc(s.serve), MaxHeaderBytes: s.opt.MaxHeadBytes, IdleTimeout: s.opt.IdleTimeout,
		ConnContext: c.enter, Logger: s.opt.Log}
	s.mu.Lock()
	s.clients[c] = struct{}{}
	s.mu.Unlock()
	unstop := context.AfterFunc(s.ctx, c.end)
	defer unstop()
	if err := c.http.ServeQUICConn(q); err != nil {
		s.opt.Log.Debug("an HTTP/3 connection ends", "remote", q.RemoteAddr(), "error", err)
	}
	_ = q.CloseWithError(quic.ApplicationErrorCode(quichttp.ErrCodeNoError), "") // where the server was closed before it began
	s.mu.Lock()
	delete(s.clients, c)
	entered := c.entered
	s.mu.Unlock()
	if s.opt.Leave != nil && entered && c.err == nil {
		s.opt.Leave(c.value)
	}
}

// end closes the connection. Answers that are under way, or may not have arrived, are cut off by that: the code tells the client so, lest
// it takes a part for the whole (RFC 9114 section 8.1).
func (c *client) end() {
	c.s.mu.Lock()
	code := quichttp.ErrCodeNoError
	if c.requests > 0 || time.Since(c.rested) < lingerTime {
		code = quichttp.ErrCodeInternalError
		c.s.cut = true
	}
	c.s.mu.Unlock()
	_ = c.quic.CloseWithError(quic.ApplicationErrorCode(code), "") // it may have ended
	c.http.Close()
}

// Open is the number of connections.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.clients)
}

// Close ends everything at once; Serve returns when that has ended.
func (s *Server) Close() error {
	s.stop()
	return nil
}

func (c *client) enter(ctx context.Context, q *quic.Conn) context.Context {
	s := c.s
	state := q.ConnectionState().TLS
	c.conn = &Conn{Local: addrPort(q.LocalAddr()), Remote: addrPort(q.RemoteAddr()), ServerName: state.ServerName, TLS: state, quic: q, of: c}
	if len(state.PeerCertificates) > 0 {
		c.conn.Client = state.PeerCertificates[0]
	}
	if s.opt.Enter != nil {
		if c.value, c.err = s.opt.Enter(c.conn); c.err != nil {
			s.opt.Log.Debug("an HTTP/3 connection is refused", "remote", c.conn.Remote, "error", c.err)
			q.CloseWithError(quic.ApplicationErrorCode(quichttp.ErrCodeRequestRejected), "")
		}
	}
	s.mu.Lock()
	c.entered = true
	s.mu.Unlock()
	return context.WithValue(ctx, contextKey{}, c)
}

func addrPort(a net.Addr) netip.AddrPort {
	if u, ok := a.(*net.UDPAddr); ok {
		p := u.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	return netip.AddrPort{}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	c, ok := r.Context().Value(contextKey{}).(*client)
	if !ok || c.err != nil {
		panic(http.ErrAbortHandler)
	}
	c.request(1)
	defer c.request(-1)
	st, err := newStream(w, r)
	if err != nil {
		s.opt.Log.Debug("an HTTP/3 request is refused", "remote", c.conn.Remote, "error", err)
		if errors.Is(err, errExpectation) {
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	st.local, st.remote = c.conn.Local, c.conn.Remote
	c.carries(st, true)
	defer c.carries(st, false)
	s.opt.Handle(c.value, st)
	st.end()
}

// request counts those under way.
func (c *client) request(by int) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.requests += by
	c.rested = time.Now()
}

// carries notes the beginning and the end of a stream.
func (c *client) carries(st *Stream, on bool) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if on {
		c.streams[st] = struct{}{}
	} else {
		delete(c.streams, st)
	}
}
