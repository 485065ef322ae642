// Package broker lets proxies that live in network namespaces of their own use the host's network. The server, in `weft up`, gives
// over a unix socket: listening sockets (gateways), connections to the outside, and answers of the host's DNS servers. Sockets
// are handed over as file descriptors, so no byte of traffic passes through it.
//
// A socket's permissions are its only authentication: each proxy has a socket of its own, with the policy of its role.
package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxPacket bounds a request or reply: a DNS message of 64 KiB in base64, and its frame.
const maxPacket = 96 << 10

// request is one packet from a client; a connection carries one request and its reply, and closing it early cancels.
type request struct {
	Verb    string `json:"verb"` // listen, release, dial, dns
	Port    uint16 `json:"port,omitempty"`
	Network string `json:"network,omitempty"`
	Alone   bool   `json:"alone,omitempty"` // of a port of UDP: without one of TCP
	Address string `json:"address,omitempty"`
	Message []byte `json:"message,omitempty"`
}

// reply answers it; a socket comes with it as a file descriptor.
type reply struct {
	Message []byte `json:"message,omitempty"`
	Err     *fault `json:"err,omitempty"`
}

// fault carries an error across the socket so that errors.Is still finds the errno, and a failed lookup stays one.
type fault struct {
	Text     string        `json:"text"`
	Errno    syscall.Errno `json:"errno,omitempty"`
	Host     string        `json:"host,omitempty"` // of a failed lookup
	NotFound bool          `json:"notFound,omitempty"`
	Timeout  bool          `json:"timeout,omitempty"`
}

func faultOf(err error) *fault {
	f := &fault{Text: err.Error()}
	errors.As(err, &f.Errno)
	var dns *net.DNSError
	if errors.As(err, &dns) {
		f.Host, f.NotFound, f.Text = dns.Name, dns.IsNotFound, dns.Err
	}
	var t interface{ Timeout() bool }
	f.Timeout = errors.As(err, &t) && t.Timeout()
	return f
}

func (f *fault) error() error {
	switch {
	case f.Host != "":
		return &net.DNSError{Err: f.Text, Name: f.Host, IsNotFound: f.NotFound, IsTimeout: f.Timeout}
	case f.Errno != 0:
		return f.Errno
	case f.Timeout:
		return os.ErrDeadlineExceeded
	}
	return errors.New(f.Text)
}

// Client asks a broker. The zero Path is not usable; the methods may be called from any goroutine.
type Client struct {
	Path string // of the unix socket
}

// Listen gives the listening TCP socket of a gateway's port. The broker keeps the socket open: closing the listener leaves
// connections in its queue, and the next Listen for the port, from any process, accepts them. Release ends it, and so does the end of
// all sockets through which it was asked for.
func (c Client) Listen(port uint16) (net.Listener, error) {
	_, file, err := c.ask(context.Background(), request{Verb: "listen", Port: port})
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: &net.TCPAddr{Port: int(port)}, Err: err}
	}
	defer file.Close()
	l, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("broker: listen %d: %w", port, err)
	}
	return l, nil
}

// ListenPacket gives a UDP socket at a gateway's port, whose number on the host is that of the TCP port. Unlike a listener it is the
// client's alone: it fails with EADDRINUSE while another process has it.
func (c Client) ListenPacket(port uint16) (net.PacketConn, error) {
	return c.listenPacket(request{Verb: "listen", Network: "udp", Port: port})
}

func (c Client) listenPacket(r request) (net.PacketConn, error) {
	_, file, err := c.ask(context.Background(), r)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "udp", Addr: &net.UDPAddr{Port: int(r.Port)}, Err: err}
	}
	defer file.Close()
	pc, err := net.FilePacketConn(file)
	if err != nil {
		return nil, fmt.Errorf("broker: listen udp %d: %w", r.Port, err)
	}
	return pc, nil
}

// ListenDatagrams gives the UDP socket of a gateway's port that is for datagrams, kept as Listen keeps its. No port of TCP is opened
// beside it; where one of the same number is open already, both have the same number on the host too.
func (c Client) ListenDatagrams(port uint16) (net.PacketConn, error) {
	return c.listenPacket(request{Verb: "listen", Network: "udp", Port: port, Alone: true})
}

// Release gives a port up: the broker closes its copy of the listening socket, unless others asked for the port too, so that the host
// refuses connections once the listeners made of it are closed.
func (c Client) Release(port uint16) error {
	_, _, err := c.ask(context.Background(), request{Verb: "release", Port: port})
	return err
}

// ReleaseDatagrams is Release for what ListenDatagrams gave.
func (c Client) ReleaseDatagrams(port uint16) error {
	_, _, err := c.ask(context.Background(), request{Verb: "release", Network: "udp", Port: port})
	return err
}

// Dial connects from the host's network; the network is tcp, tcp4 or tcp6, and names are resolved by the host. Errors are
// *net.OpError with the host's errno or *net.DNSError inside.
func (c Client) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	_, file, err := c.ask(ctx, request{Verb: "dial", Network: network, Address: addr})
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: address{network, addr}, Err: err}
	}
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("broker: dial %s: %w", addr, err)
	}
	return conn, nil
}

// DialDatagrams gives a UDP socket of the host's network that is connected to an address. Only gateways get one.
func (c Client) DialDatagrams(ctx context.Context, to netip.AddrPort) (*net.UDPConn, error) {
	_, file, err := c.ask(ctx, request{Verb: "dial", Network: "udp", Address: to.String()})
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "udp", Addr: net.UDPAddrFromAddrPort(to), Err: err}
	}
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("broker: dial udp %s: %w", to, err)
	}
	return conn.(*net.UDPConn), nil
}

// ExchangeDNS forwards a DNS message in wire form to the host's servers and returns the answer as it came. It fails when none
// of them answers.
func (c Client) ExchangeDNS(ctx context.Context, msg []byte) ([]byte, error) {
	r, _, err := c.ask(ctx, request{Verb: "dns", Message: msg})
	if err != nil {
		return nil, fmt.Errorf("broker: dns: %w", err)
	}
	return r.Message, nil
}

// address is a host:port that was not resolved here.
type address struct{ network, addr string }

func (a address) Network() string { return a.network }
func (a address) String() string  { return a.addr }

// ask sends one request and waits for its reply. For listen and dial, a nil error means that the file is there.
func (c Client) ask(ctx context.Context, req request) (reply, *os.File, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unixpacket", c.Path)
	if err != nil {
		return reply{}, nil, fmt.Errorf("broker: %w", err)
	}
	conn := nc.(*net.UnixConn)
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	raw, err := json.Marshal(req)
	if err != nil {
		return reply{}, nil, err
	}
	if _, err := conn.Write(raw); err != nil {
		return reply{}, nil, ctxErr(ctx, err)
	}
	var r reply
	file, err := receive(conn, &r)
	if err != nil {
		return reply{}, nil, ctxErr(ctx, err)
	}
	if r.Err != nil {
		return reply{}, nil, r.Err.error()
	}
	if file == nil && (req.Verb == "listen" || req.Verb == "dial") {
		return reply{}, nil, errors.New("broker: reply without a socket")
	}
	if req.Verb == "listen" && req.Network == "udp" && !req.Alone {
		_, _ = conn.Read(make([]byte, 1)) // the broker hangs up when it has closed its copy: the port is ours alone, and free when we close it
	}
	return r, file, nil
}

func ctxErr(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// receive reads one packet and the one descriptor that may come with it.
func receive(conn *net.UnixConn, into any) (*os.File, error) {
	buf, oob := make([]byte, maxPacket), make([]byte, unix.CmsgSpace(4))
	n, oobn, flags, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	file, err := descriptor(oob[:oobn])
	if err != nil {
		return nil, err
	}
	switch {
	case n == 0:
		err = errors.New("closed without an answer")
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = errors.New("packet too long")
	default:
		err = json.Unmarshal(buf[:n], into)
	}
	if err != nil {
		if file != nil {
			file.Close()
		}
		return nil, fmt.Errorf("broker: %w", err)
	}
	return file, nil
}

func descriptor(oob []byte) (*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	cmsgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(cmsgs) == 0 {
		return nil, err
	}
	fds, err := unix.ParseUnixRights(&cmsgs[0])
	if err != nil || len(fds) == 0 {
		return nil, err
	}
	unix.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), "broker"), nil
}
