package conn

import (
	"crypto/tls"
	"net"
	"sync"

	"github.com/weftmesh/weft/internal/proxy/spare"
)

// tlsConn is TLS over a Conn of ours. crypto/tls makes one system call for each record of 16 KiB; for long streams that is
// most of what TLS costs here beside the cipher. So the writes of one Write are gathered in the adapter under TLS, and a
// reader that asks for much gets several records that are already there.
type tlsConn struct {
	peekConn
	under *netAdapter
}

func newTLSConn(base netConn, t *tls.Conn) Conn {
	if a, ok := t.NetConn().(*netAdapter); ok {
		return &tlsConn{peekConn: peekConn{netConn: base}, under: a}
	}
	return &peekConn{netConn: base}
}

// fullRecord is the plaintext of the largest record (RFC 8446 section 5.1).
const fullRecord = 16 << 10

// Write writes p with as few system calls as there are buffers.
func (c *tlsConn) Write(p []byte) (int, error) {
	if len(p) <= fullRecord {
		return c.nc.Write(p)
	}
	c.under.cork()
	n, err := c.nc.Write(p)
	if uerr := c.under.uncork(); err == nil {
		err = uerr
	}
	return n, err
}

// Read reads one record, and goes on with what can be had without waiting: the rest of a record whose first byte Wait took, and
// further records that were read ahead.
func (c *tlsConn) Read(p []byte) (int, error) {
	peeked := c.has
	n, err := c.peekConn.Read(p)
	if err != nil || n == len(p) || !peeked && c.under.ahead.empty() {
		return n, err
	}
	c.under.ahead.only = true
	for err == nil && n < len(p) {
		var more int
		more, err = c.nc.Read(p[n:])
		n += more
	}
	c.under.ahead.only = false
	return n, nil // n is not 0; an error that lasts comes again
}

// Quiet asks the transport as well as the adapter. A record that has arrived makes the connection not quiet even if it carries
// no data of the application (a late session ticket): that costs a new connection, the opposite mistake costs a request.
func (c *tlsConn) Quiet() bool { return !c.has && c.under.ahead.empty() && Quiet(c.under.c) }

// bulk is the size of buffers for long streams: sixteen records with their heads.
const bulk = 16 * (fullRecord + 256)

var bulkBuffers = sync.Pool{New: func() any { return new([bulk]byte) }}

// takeBulk gives nil if memory cannot be spared.
func takeBulk() *[bulk]byte {
	if !spare.Take(bulk) {
		return nil
	}
	return bulkBuffers.Get().(*[bulk]byte)
}

func putBulk(b *[bulk]byte) {
	bulkBuffers.Put(b)
	spare.Give(bulk)
}

// gather is the writing half of an adapter: between cork and uncork it collects what is written. Its mutex is for the reading
// side of crypto/tls, which writes too (alerts, key updates).
type gather struct {
	mu     sync.Mutex
	corked bool
	buf    *[bulk]byte // taken at the first write after cork
	n      int
	err    error // sticky: what was gathered is lost to TLS, which believes it sent
}

func (a *netAdapter) cork() {
	a.gather.mu.Lock()
	a.gather.corked = true
	a.gather.mu.Unlock()
}

func (a *netAdapter) uncork() error {
	g := &a.gather
	g.mu.Lock()
	defer g.mu.Unlock()
	g.corked = false
	err := a.flush()
	if g.buf != nil {
		putBulk(g.buf)
		g.buf = nil
	}
	return err
}

// flush is called with the mutex held.
func (a *netAdapter) flush() error {
	g := &a.gather
	if g.err == nil && g.n > 0 {
		_, g.err = a.c.Write(g.buf[:g.n])
	}
	g.n = 0
	return g.err
}

// Write collects or writes p.
func (a *netAdapter) Write(p []byte) (int, error) {
	g := &a.gather
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.corked || len(p) > bulk {
		if err := a.flush(); err != nil {
			return 0, err
		}
		return a.c.Write(p)
	}
	if g.n+len(p) > bulk {
		if err := a.flush(); err != nil {
			return 0, err
		}
	}
	if g.buf == nil {
		if g.buf = takeBulk(); g.buf == nil {
			return a.c.Write(p)
		}
	}
	g.n += copy(g.buf[g.n:], p)
	return len(p), nil
}

// errNotHere is what TLS gets instead of waiting. It is temporary by the word of net.Error, so that crypto/tls keeps the part
// of a record that it has and goes on from there.
var errNotHere net.Error = notHere{}

type notHere struct{}

func (notHere) Error() string   { return "conn: nothing more was read ahead" }
func (notHere) Timeout() bool   { return true }
func (notHere) Temporary() bool { return true }

// ahead is the reading half of an adapter, owned by the reading goroutine. When reads fill what they are given, it reads a
// large buffer at a time, until a read finds little.
type ahead struct {
	only bool        // read what is here, do not ask the transport
	long bool        // the stream is long
	buf  *[bulk]byte // nil while there is nothing in it
	r, w int
}

func (h *ahead) empty() bool { return h.r == h.w }

// Read reads through a buffer while the stream is long. Between reads it holds none.
func (a *netAdapter) Read(p []byte) (int, error) {
	h := &a.ahead
	switch {
	case !h.empty():
		return h.hand(p), nil
	case h.only:
		return 0, errNotHere
	case h.long:
		return a.readLong(p)
	}
	n, err := a.c.Read(p)
	h.long = n == len(p) && n >= fullRecord/2
	return n, err
}

func (a *netAdapter) readLong(p []byte) (int, error) {
	if err := a.c.Wait(); err != nil {
		return 0, err
	}
	h := &a.ahead
	if h.buf = takeBulk(); h.buf == nil {
		return a.c.Read(p)
	}
	n, err := a.c.Read(h.buf[:])
	h.r, h.w, h.long = 0, n, n >= bulk/4
	if n == 0 {
		h.drop()
		return 0, err
	}
	return h.hand(p), nil
}

func (h *ahead) hand(p []byte) int {
	n := copy(p, h.buf[h.r:h.w])
	if h.r += n; h.empty() {
		h.drop()
	}
	return n
}

func (h *ahead) drop() {
	putBulk(h.buf)
	h.buf, h.r, h.w = nil, 0, 0
}
