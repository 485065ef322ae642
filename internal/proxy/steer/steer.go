// Package steer lets the processes of one proxy share a port of QUIC while one takes the place of another. What QUIC knows of a connection
// is in the process that made it, but the port is one socket: one process reads it, and passes on what belongs to those before it.
//
// Which process a connection is of is said by the connection ids that it chose (RFC 9000 section 5.1): all have the same length, and the
// process's number in front. A client begins with an id of its own choice, of 8 bytes or more (section 7.2), so that the length tells
// which is which. Each process writes to the socket by itself.
package steer

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// idLength of our connection ids: less than any that a client begins with.
const idLength = 7

// Conn is a process's share of a port. It is what quic-go wants of a socket, and makes the connection ids. Its methods may be called from
// any goroutine, but ReadBatch from one at a time.
type Conn struct {
	*net.UDPConn // the port, which processes share

	// Set once.
	number byte
	batch  *ipv4.PacketConn
	in     *net.UnixConn // what another process reads for us

	// Owned by the reader.
	buf, frame []byte

	mu        sync.Mutex
	elsewhere bool      // another process reads the port
	deadline  time.Time // of reading
	out       *net.UnixConn
	before    map[byte]*net.UnixConn // processes before this one that still have connections
}

// New makes the share of the process with that number, which differs from those of all that share the port. With reads it reads the port
// from the beginning, else when Take is called.
func New(port *net.UDPConn, number byte, reads bool) (*Conn, error) {
	in, out, err := pair()
	if err != nil {
		return nil, fmt.Errorf("steer: %w", err)
	}
	return &Conn{UDPConn: port, number: number, batch: ipv4.NewPacketConn(port), in: in, out: out, elsewhere: !reads, buf: make([]byte, mostFrame),
		before: map[byte]*net.UnixConn{}}, nil
}

// pair makes a connection of packets within the machine. A packet is lost where its reader is slow, as any may be.
func pair() (in, out *net.UnixConn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	in, err = End(os.NewFile(uintptr(fds[0]), "steer"))
	out, err2 := End(os.NewFile(uintptr(fds[1]), "steer"))
	if err = errors.Join(err, err2); err != nil {
		closeAll(in, out)
		return nil, nil, err
	}
	_ = out.SetWriteBuffer(1 << 20) // as much of it as the system allows
	return in, out, nil
}

// End makes the end of such a connection of its descriptor, which it closes.
func End(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("not a connection of packets")
	}
	return u, nil
}

func closeAll(list ...*net.UnixConn) {
	for _, c := range list {
		if c != nil {
			c.Close()
		}
	}
}

// Out is the end by which a successor passes on what it reads for this process. It is closed by Yield.
func (c *Conn) Out() *net.UnixConn { return c.out }

// Pass has what belongs to the process of that number, one before this, passed on by out, until that process has ended: then gone is called.
func (c *Conn) Pass(number byte, out *net.UnixConn, gone func()) {
	c.mu.Lock()
	c.before[number] = out
	c.mu.Unlock()
	go func() { // ends with that process, or by Yield or Close
		for err := error(nil); err == nil; {
			_, err = out.Read(make([]byte, 1))
		}
		c.mu.Lock()
		if c.before[number] == out {
			delete(c.before, number)
		}
		c.mu.Unlock()
		out.Close()
		gone()
	}()
}

// Take begins to read the port.
func (c *Conn) Take() { c.turn(false) }

// Yield leaves reading the port, and passing on, to a successor.
func (c *Conn) Yield() {
	c.turn(true)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.release()
}

// release closes the copies of what successors have. mu is held.
func (c *Conn) release() {
	closeAll(c.out)
	for _, out := range c.before {
		closeAll(out)
	}
}

func (c *Conn) turn(elsewhere bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.elsewhere = elsewhere
	c.limit()
}

var longAgo = time.Unix(1, 0)

// limit interrupts whoever reads what is not to be read. mu is held.
func (c *Conn) limit() {
	port, in := c.deadline, longAgo
	if c.elsewhere {
		port, in = in, port
	}
	_ = c.UDPConn.SetReadDeadline(port) // a socket that is closed ends reading by itself
	_ = c.in.SetReadDeadline(in)
}

// SetReadDeadline implements net.PacketConn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	c.limit()
	return nil
}

// SetDeadline implements net.PacketConn.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// Close closes this process's share.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.release()
	return errors.Join(c.UDPConn.Close(), c.in.Close())
}

// GenerateConnectionID implements quic.ConnectionIDGenerator.
func (c *Conn) GenerateConnectionID() (quic.ConnectionID, error) {
	var id [idLength]byte
	_, err := rand.Read(id[1:])
	id[0] = c.number
	return quic.ConnectionIDFromBytes(id[:]), err
}

// ConnectionIDLen implements quic.ConnectionIDGenerator.
func (*Conn) ConnectionIDLen() int { return idLength }

// ReadBatch gives packets of this process, as the method of ipv4.PacketConn. It may give empty ones.
func (c *Conn) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	for {
		c.mu.Lock()
		elsewhere, passing := c.elsewhere, len(c.before) > 0
		c.mu.Unlock()
		n, err := 0, error(nil)
		if elsewhere {
			n, err = c.readPassed(&ms[0])
		} else if n, err = c.batch.ReadBatch(ms, flags); passing {
			c.sort(ms[:max(n, 0)])
		}
		switch {
		case n > 0:
			return n, nil
		case elsewhere && errors.Is(err, io.EOF):
			c.turn(false) // whoever read for us has ended, with all that it may have handed the port to
		case !errors.Is(err, os.ErrDeadlineExceeded) || !c.turned(elsewhere):
			return 0, err
		}
	}
}

func (c *Conn) turned(elsewhere bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.elsewhere != elsewhere
}

// sort passes on what belongs to processes before this one, and leaves it empty.
func (c *Conn) sort(ms []ipv4.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range ms {
		m := &ms[i]
		number, told := owner(m.Buffers[0][:m.N])
		if out := c.before[number]; told && number != c.number && out != nil {
			c.pass(out, m)
			m.N, m.NN = 0, 0
		}
	}
}

// owner gives the number in a packet's connection id, if that is one of ours: behind the first byte in a short header, behind first byte,
// version and length in a long one (RFC 9000 section 17, RFC 8999 section 5).
func owner(p []byte) (number byte, told bool) {
	const long = 0x80
	switch {
	case len(p) > idLength && p[0]&long == 0:
		return p[1], true
	case len(p) > 6+idLength && p[0]&long != 0 && p[5] == idLength:
		return p[6], true
	}
	return 0, false
}
