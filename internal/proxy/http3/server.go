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
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	quichttp "github.com/quic-go/quic-go/http3"
)

// NextProto is the ALPN identifier of HTTP/3 (RFC 9114 section 3.1).
const NextProto = quichttp.NextProtoH3

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
	// MaxHeadBytes bounds a request's header section; 0 means 60 KiB. MaxStreams bounds a connection's requests under way; 0
	// means 100.
	MaxHeadBytes int
	MaxStreams   int64
	// IdleTimeout ends connections without requests; 0 means one hour, which is also what the transport waits.
	IdleTimeout time.Duration
	Log         *slog.Logger // nil discards
}

// Conn is what is known of a client's connection.
type Conn struct {
	Local, Remote netip.AddrPort
	ServerName    string
	Client        *x509.Certificate // that the client showed; nil for none
	TLS           tls.ConnectionState

	quic *quic.Conn
}

// Close ends the connection at once.
func (c *Conn) Close() error {
	return c.quic.CloseWithError(quic.ApplicationErrorCode(quichttp.ErrCodeNoError), "")
}

// Server serves HTTP/3 on UDP sockets.
type Server struct {
	opt  Options
	http *quichttp.Server
	open atomic.Int64

	mu       sync.Mutex
	requests int           // under way
	draining chan struct{} // closed when Drain was called and no request is under way
}

type contextKey struct{}

// entered is a connection with what Enter gave for it.
type entered struct {
	conn  *Conn
	value any
	err   error
}

// New makes a server that serves nothing yet.
func New(o Options) *Server {
	if o.MaxHeadBytes == 0 {
		o.MaxHeadBytes = 60 << 10
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
	s := &Server{opt: o}
	s.http = &quichttp.Server{
		TLSConfig: quichttp.ConfigureTLSConfig(&tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: s.config}),
		QUICConfig: &quic.Config{MaxIncomingStreams: o.MaxStreams, MaxIdleTimeout: o.IdleTimeout, KeepAlivePeriod: 0,
			// A request that came with the first packet could be a replayed one.
			Allow0RTT: false},
		Handler:        http.HandlerFunc(s.serve),
		MaxHeaderBytes: o.MaxHeadBytes,
		IdleTimeout:    o.IdleTimeout,
		ConnContext:    s.enter,
		Logger:         o.Log,
	}
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

// Serve serves a socket until the server is closed or shut down, or the socket fails. It does not close the socket.
func (s *Server) Serve(pc net.PacketConn) error {
	err := s.http.Serve(pc)
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, quic.ErrServerClosed) {
		return nil
	}
	return err
}

// Drain takes no new requests (GOAWAY) and waits until those under way have ended or the context does; then everything is closed,
// also what clients keep open. It is called once.
func (s *Server) Drain(ctx context.Context) error {
	idle := make(chan struct{})
	s.mu.Lock()
	s.draining = idle
	s.mu.Unlock()
	refused, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { // ends by stop
		s.http.Shutdown(refused) // first it sends GOAWAY; its end is ours
		close(ended)
	}()
	s.request(0)
	var err error
	select {
	case <-idle:
		linger(ctx, ended)
	case <-ended: // every client has left
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	stop()
	<-ended
	return err
}

// lingerTime is what the last responses get to arrive: the library does not tell when they have, and closing destroys them.
const lingerTime = time.Second

// linger waits for the clients to leave, as most do once they have their answers.
func linger(ctx context.Context, left <-chan struct{}) {
	t := time.NewTimer(lingerTime)
	defer t.Stop()
	select {
	case <-left:
	case <-t.C:
	case <-ctx.Done():
	}
}

// request counts those under way.
func (s *Server) request(by int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.requests += by; s.requests == 0 && s.draining != nil {
		close(s.draining)
		s.draining = nil
	}
}

// Open is the number of connections.
func (s *Server) Open() int { return int(s.open.Load()) }

// Close ends everything at once.
func (s *Server) Close() error { return s.http.Close() }

func (s *Server) enter(ctx context.Context, q *quic.Conn) context.Context {
	state := q.ConnectionState().TLS
	e := &entered{conn: &Conn{Local: addrPort(q.LocalAddr()), Remote: addrPort(q.RemoteAddr()), ServerName: state.ServerName, TLS: state, quic: q}}
	if len(state.PeerCertificates) > 0 {
		e.conn.Client = state.PeerCertificates[0]
	}
	if s.opt.Enter != nil {
		if e.value, e.err = s.opt.Enter(e.conn); e.err != nil {
			s.opt.Log.Debug("an HTTP/3 connection is refused", "remote", e.conn.Remote, "error", e.err)
			q.CloseWithError(quic.ApplicationErrorCode(quichttp.ErrCodeRequestRejected), "")
		}
	}
	s.open.Add(1)
	context.AfterFunc(q.Context(), func() {
		s.open.Add(-1)
		if s.opt.Leave != nil && e.err == nil {
			s.opt.Leave(e.value)
		}
	})
	return context.WithValue(ctx, contextKey{}, e)
}

func addrPort(a net.Addr) netip.AddrPort {
	if u, ok := a.(*net.UDPAddr); ok {
		p := u.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	return netip.AddrPort{}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	e, ok := r.Context().Value(contextKey{}).(*entered)
	if !ok || e.err != nil {
		panic(http.ErrAbortHandler)
	}
	s.request(1)
	defer s.request(-1)
	st, err := newStream(w, r)
	if err != nil {
		s.opt.Log.Debug("an HTTP/3 request is refused", "remote", e.conn.Remote, "error", err)
		if errors.Is(err, errExpectation) {
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	st.local, st.remote = e.conn.Local, e.conn.Remote
	s.opt.Handle(e.value, st)
	st.end()
}
