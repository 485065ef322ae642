package rpc

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// conn is one connection.
type conn struct {
	// Set once.
	server  *Server
	sock    *socket
	tls     *tls.Conn
	expires time.Time // of the client's certificate; zero without one
	leave   func()    // its place in its crowd; set while the server's mu is held, and called so

	// For everybody.
	state atomic.Int32
	hurry atomic.Bool           // it was hastened
	check atomic.Bool           // it is due
	why   atomic.Pointer[error] // why it has to end, when it has
	heard atomic.Int64          // when something was read last, by the server's clock

	mu      sync.Mutex
	answers []answer // guarded by mu: of unary calls, to be sent

	// Whoever has the turn owns what follows.
	space      *workspace // lent
	closed     bool
	pace       pace
	pinged     time.Time // when a ping was sent that was not answered; else zero
	greeted    bool      // the preface has come
	introduced bool      // the client's settings have come
	rest       []byte    // of a frame that is not all there
	decoder    *hpack.Decoder
	block      block
	streams    []*Stream
	left       int    // of streams from the first on, those that have not spoken yet; 0 for all
	long       bool   // the turn was not long enough
	last       uint32 // the highest stream that was opened
	window     int64  // for what is sent
	initial    int64  // window of a new stream
	credit     int    // bytes of DATA that the client has not been given back
}

// block is a header block that is not all there.
type block struct {
	stream uint32 // 0 for none
	end    bool   // of the stream
	bytes  []byte
}

func newConn(s *Server, sock *socket, t *tls.Conn) *conn {
	c := &conn{server: s, sock: sock, tls: t, leave: func() {}, window: defaultWindow, initial: defaultWindow, decoder: hpack.NewDecoder(4096, nil)}
	c.decoder.SetMaxStringLength(maxHead)
	c.heard.Store(s.clock.Load())
	if leaf := c.certificate(); leaf != nil {
		c.expires = leaf.NotAfter
	}
	return c
}

// certificate is the client's; nil without one.
func (c *conn) certificate() *x509.Certificate {
	if peers := c.tls.ConnectionState().PeerCertificates; len(peers) > 0 {
		return peers[0]
	}
	return nil
}

// Why connections end, besides errors of the protocol and of the network.
var (
	errStopping = errors.New("the server is stopping")
	errDead     = errors.New("the client does not answer a ping")
	errExpired  = errors.New("the client certificate has expired")
)

// grace is for streams to end by themselves, with a reason, when the client's certificate has ended. The connection ends then: a client
// that kept it would show the old certificate for ever.
const grace = 2 * time.Second

// due reports whether the connection needs a turn at this time although nothing woke it. It may be called by anyone.
func (c *conn) due(now time.Time) bool {
	silent := time.Duration(now.UnixNano() - c.heard.Load())
	return silent >= c.server.options.Keepalive || !c.expires.IsZero() && now.After(c.expires)
}

// cut has the connection end. It may be called by anyone at any time and never blocks.
func (c *conn) cut(why error) {
	c.why.CompareAndSwap(nil, &why)
	c.hasten()
}

// turn does what there is to do. One goroutine at a time has it.
func (c *conn) turn(b *workspace) {
	if c.closed {
		return
	}
	c.space = b
	err := c.protect()
	if err != nil {
		c.end(err)
	}
	b.out = b.out[:0]
	c.space = nil
}

// protect makes a panic an error of this connection alone.
func (c *conn) protect() (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.server.options.Log.Error("a connection of the control plane failed", "peer", c.sock.remote.String(), "panic", p, "stack", string(debug.Stack()))
			err = connError{codeInternal, fmt.Sprint("panic: ", p)}
		}
	}()
	if why := c.why.Load(); why != nil {
		return *why
	}
	if err := c.sock.flush(); err != nil {
		return err
	}
	if c.check.Swap(false) {
		if err := c.examine(time.Now()); err != nil {
			return err
		}
	}
	if err := c.read(); err != nil {
		return errors.Join(err, c.flush())
	}
	c.reply()
	if err := c.advance(); err != nil {
		return err
	}
	return c.flush()
}

// examine looks at what depends on the time alone.
func (c *conn) examine(now time.Time) error {
	if !c.expires.IsZero() && now.After(c.expires) {
		if now.After(c.expires.Add(grace)) {
			return errExpired
		}
		for _, s := range c.streams {
			s.active = true // its handler finds out
		}
	}
	if silent := time.Duration(now.UnixNano() - c.heard.Load()); silent < c.server.options.Keepalive {
		return nil
	}
	if c.pinged.IsZero() {
		c.pinged = now
		c.space.out = append(appendFrame(c.space.out, framePing, 0, 0, 8), "weft...."...)
		return nil
	}
	if now.Sub(c.pinged) > c.server.options.KeepaliveTimeout {
		return errDead
	}
	return nil
}

// readsATurn bounds what one connection reads while others wait, and maxWaiting the answers that wait for a client that does not read
// but goes on asking.
const (
	readsATurn = 8
	maxWaiting = 256 << 10
)

// read takes what the client has sent.
func (c *conn) read() error {
	for range readsATurn {
		if len(c.sock.rest) > maxWaiting || !c.pace.open(time.Now(), c.wake) {
			return nil // it is woken when that changes
		}
		n, err := c.tls.Read(c.space.in)
		if n > 0 {
			c.heard.Store(c.server.clock.Load())
			c.pinged = time.Time{}
			if err := c.take(c.space.in[:n]); err != nil {
				return err
			}
		}
		if err == errAgain {
			return nil
		}
		if err != nil {
			return err
		}
	}
	c.wake()
	return nil
}

// take handles what was read.
func (c *conn) take(b []byte) error {
	partial := len(c.rest) > 0
	if partial {
		c.rest = append(c.rest, b...)
		b = c.rest
	}
	all := len(b)
	if !c.greeted {
		n := min(len(b), len(preface))
		if string(b[:n]) != preface[:n] {
			return violation("this is not HTTP/2")
		}
		if n == len(preface) {
			c.greeted = true
			b = b[n:]
			c.greet()
		}
	}
	for c.greeted {
		f, n, err := readFrame(b)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		if err := c.handle(&f); err != nil {
			return err
		}
		b = b[n:]
	}
	switch {
	case len(b) == 0:
		c.rest = nil
	case !partial || len(b) < all:
		c.rest = append([]byte(nil), b...)
	}
	return nil
}

// greet sends the server's settings. Without a table, header fields leave nothing behind in the decoder.
func (c *conn) greet() {
	o := &c.server.options
	b := appendFrame(c.space.out, frameSettings, 0, 0, 3*6)
	b = appendSetting(b, settingTableSize, 0)
	b = appendSetting(b, settingStreams, uint32(o.MaxStreams))
	c.space.out = appendSetting(b, settingHeaderList, maxHead)
}

// flushFrom is when frames are written although there may be more.
const flushFrom = 64 << 10

// flush writes what has gathered.
func (c *conn) flush() error {
	if len(c.space.out) == 0 {
		return nil
	}
	_, err := c.tls.Write(c.space.out)
	c.space.out = c.space.out[:0]
	return err
}

// end closes the connection and tells the handlers.
func (c *conn) end(err error) {
	c.closed = true
	var broken connError
	if errors.As(err, &broken) {
		b := appendFrame(c.space.out, frameGoAway, 0, 0, 8+len(broken.reason))
		b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, c.last), uint32(broken.code))
		c.space.out = append(b, broken.reason...)
		_ = c.flush()
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, errStopping) {
		c.server.options.Log.Debug("a connection ends", "peer", c.sock.remote.String(), "error", err)
	}
	reason := status.Error(codes.Unavailable, "the connection ended: "+err.Error())
	for _, s := range c.streams {
		s.leave(reason)
	}
	c.streams, c.rest, c.block.bytes = nil, nil, nil
	c.pace.end()
	_ = c.tls.Close() // which says goodbye as far as the kernel has room
	_ = c.sock.Close()
	c.server.forget(c)
}

// Peer is who is at the other end of a stream.
type Peer struct {
	Address net.Addr
	// Certificates are what the client has shown and the handshake has verified, its own first; none if it has none.
	Certificates []*x509.Certificate
}

func (c *conn) peer() Peer {
	return Peer{Address: c.sock.remote, Certificates: c.tls.ConnectionState().PeerCertificates}
}
