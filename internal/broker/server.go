package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// dialTime bounds a connection attempt, when its client does not give up before.
const dialTime = 10 * time.Second

// Options of a Server.
type Options struct {
	Address string            // where gateways' ports listen on the host; default 127.0.0.1
	Publish map[uint16]uint16 // gateway's port to host's port; 0 picks a free one; a missing port stands for itself
	// HostAlias is an address that clients may dial for the host's own loopback; the zero value is none. HostName is a name for it.
	HostAlias netip.Addr
	HostName  string
	// Resolvers are the "ip:port" servers for DNS; empty reads the host's resolv.conf at each exchange.
	Resolvers []string
	// Changed is called after each change of what Published gives; nil for nothing to do.
	Changed func()
	Log     *slog.Logger
}

// Policy says what the clients of one socket may do besides dialling and DNS.
type Policy struct {
	Listen bool // gateways only
}

// Published is a gateway's port and where the host listens for it.
type Published struct {
	Port    uint16
	UDP     bool // for datagrams; else for connections
	Address string
}

// Unpublished is a gateway's port on which the host does not let us listen.
type Unpublished struct {
	Port    uint16
	UDP     bool
	Address string // of the host
	Err     error
	at      time.Time
}

// triedLately is how long a failed attempt to listen is news: gateways try again every second as long as they want the port.
const triedLately = 3 * time.Second

// Server serves any number of sockets over one set of published ports. Close ends it.
type Server struct {
	opt Options

	mu        sync.Mutex
	published map[portKey]*kept // nothing here ever accepts, or reads, from them
	failed    map[portKey]Unpublished
	sockets   map[*net.UnixListener]bool
	conns     map[*net.UnixConn]bool
	closed    bool
	running   sync.WaitGroup // the accept loops and the handlers
}

// portKey names a gateway's port: those of UDP are others than those of TCP.
type portKey struct {
	port uint16
	udp  bool
}

// kept is a socket of a port, and the paths of the sockets through which it was asked for and not released.
type kept struct {
	socket
	address string
	by      map[string]bool
}

type socket interface {
	syscall.Conn
	io.Closer
}

// NewServer makes a server without sockets.
func NewServer(opt Options) *Server {
	if opt.Address == "" {
		opt.Address = "127.0.0.1"
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Changed == nil {
		opt.Changed = func() {}
	}
	return &Server{opt: opt, published: map[portKey]*kept{}, failed: map[portKey]Unpublished{}, sockets: map[*net.UnixListener]bool{}, conns: map[*net.UnixConn]bool{}}
}

// Serve makes a unix socket with mode 0600 and serves it until stop or Close, which remove it. The folder should be private, as
// the mode is set after the socket exists.
func (s *Server) Serve(path string, policy Policy) (stop func(), err error) {
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("broker: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		l.Close()
		return nil, fmt.Errorf("broker: %w", net.ErrClosed)
	}
	s.sockets[l] = true
	s.running.Go(func() { s.accept(l, policy, path) }) // ends when l closes
	return func() {
		l.Close()
		s.mu.Lock()
		delete(s.sockets, l)
		for k := range s.published {
			s.release(k, path)
		}
		s.mu.Unlock()
		s.opt.Changed()
	}, nil
}

// Close closes all sockets, ends what is under way and waits for it. Sockets already handed over stay open.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	for l := range s.sockets {
		l.Close()
	}
	for c := range s.conns {
		c.Close()
	}
	for _, l := range s.published {
		l.Close()
	}
	clear(s.published)
	s.mu.Unlock()
	s.running.Wait()
}

// Published lists the ports that gateways asked for, by port.
func (s *Server) Published() []Published {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Published
	for k, p := range s.published {
		out = append(out, Published{k.port, k.udp, p.address})
	}
	slices.SortFunc(out, func(a, b Published) int { return comparePorts(a.Port, a.UDP, b.Port, b.UDP) })
	return out
}

// Unpublished lists the ports that gateways ask for in vain, by port.
func (s *Server) Unpublished() []Unpublished {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Unpublished
	for _, u := range s.failed {
		if time.Since(u.at) < triedLately {
			out = append(out, u)
		}
	}
	slices.SortFunc(out, func(a, b Unpublished) int { return comparePorts(a.Port, a.UDP, b.Port, b.UDP) })
	return out
}

// comparePorts orders by number, ports of TCP first.
func comparePorts(a uint16, aUDP bool, b uint16, bUDP bool) int {
	switch {
	case a != b:
		return int(a) - int(b)
	case aUDP == bUDP:
		return 0
	case bUDP:
		return -1
	}
	return 1
}

func (s *Server) accept(l *net.UnixListener, policy Policy, path string) {
	for {
		conn, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors or memory: let some go first
			s.opt.Log.Warn("broker cannot accept", "error", err)
			time.Sleep(50 * time.Millisecond)
			continue
		}
		if !s.admit(conn) {
			return
		}
		go func() { // ends with the reply, or when its connection closes
			defer s.leave(conn)
			s.serve(conn, policy, path)
		}()
	}
}

func (s *Server) admit(conn *net.UnixConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		conn.Close()
		return false
	}
	s.conns[conn] = true
	s.running.Add(1)
	return true
}

func (s *Server) leave(conn *net.UnixConn) {
	s.mu.Lock()
	delete(s.conns, conn)
	s.mu.Unlock()
	conn.Close()
	s.running.Done()
}

func (s *Server) serve(conn *net.UnixConn, policy Policy, path string) {
	var req request
	file, err := receive(conn, &req)
	if err != nil {
		return
	}
	if file != nil {
		file.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), dialTime)
	defer cancel()
	go func() { // ends when the client closes, or conn is closed by leave
		conn.Read(make([]byte, 1))
		cancel()
	}()
	switch {
	case req.Verb == "listen" && req.Network == "udp" && !req.Alone && policy.Listen:
		u, err := s.listenPacket(ctx, req.Port, path)
		if err != nil {
			s.answer(conn, reply{}, nil, err)
			return
		}
		defer u.Close()
		s.answer(conn, reply{}, u, nil)
	case req.Verb == "listen" && policy.Listen:
		l, err := s.listen(ctx, portKey{req.Port, req.Network == "udp"}, path)
		s.answer(conn, reply{}, l, err) // l is not looked at when err is there
	case req.Verb == "release" && policy.Listen:
		s.mu.Lock()
		s.release(portKey{req.Port, req.Network == "udp"}, path)
		s.mu.Unlock()
		s.opt.Changed()
		s.answer(conn, reply{}, nil, nil)
	case req.Verb == "listen", req.Verb == "release":
		s.answer(conn, reply{}, nil, unix.EACCES)
	case req.Verb == "dial" && req.Network == "udp" && policy.Listen:
		c, err := s.dialDatagrams(ctx, req.Address)
		if err != nil {
			s.answer(conn, reply{}, nil, err)
			return
		}
		defer c.Close()
		s.answer(conn, reply{}, c, nil)
	case req.Verb == "dial":
		c, err := s.dial(ctx, req.Network, req.Address)
		if err != nil {
			s.answer(conn, reply{}, nil, err)
			return
		}
		defer c.Close()
		s.answer(conn, reply{}, c, nil)
	case req.Verb == "dns":
		msg, err := s.exchange(ctx, req.Message)
		s.answer(conn, reply{Message: msg}, nil, err)
	default:
		s.answer(conn, reply{}, nil, fmt.Errorf("unknown verb %q", req.Verb))
	}
}

func (s *Server) answer(conn *net.UnixConn, r reply, socket syscall.Conn, err error) {
	if err != nil {
		r.Err = faultOf(err)
	}
	raw, err := json.Marshal(r)
	if err != nil {
		s.opt.Log.Error("broker cannot answer", "error", err)
		return
	}
	if r.Err != nil || socket == nil {
		conn.Write(raw) // a client that left needs no answer
		return
	}
	rc, err := socket.SyscallConn()
	if err != nil {
		return
	}
	rc.Control(func(fd uintptr) { conn.WriteMsgUnix(raw, unix.UnixRights(int(fd)), nil) })
}

// listen opens a port, or gives the socket that is kept; path is whose it is then too.
func (s *Server) listen(ctx context.Context, k portKey, path string) (*kept, error) {
	p, opened, err := s.keep(ctx, k, path)
	if opened {
		s.opt.Changed()
	}
	return p, err
}

func (s *Server) keep(ctx context.Context, k portKey, path string) (p *kept, opened bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.published[k]; p != nil {
		p.by[path] = true
		return p, false, nil
	}
	if s.closed {
		return nil, false, net.ErrClosed
	}
	if p, err = s.open(ctx, k); err != nil {
		s.failed[k] = Unpublished{k.port, k.udp, s.onHost(k.port), err, time.Now()}
		return nil, false, err
	}
	p.by = map[string]bool{path: true}
	delete(s.failed, k)
	s.published[k] = p
	return p, true, nil
}

// open is called with mu held.
func (s *Server) open(ctx context.Context, k portKey) (*kept, error) {
	var lc net.ListenConfig
	if k.udp {
		u, err := lc.ListenPacket(ctx, "udp", s.hostAddress(k.port))
		if err != nil {
			return nil, err
		}
		return &kept{socket: u.(*net.UDPConn), address: u.LocalAddr().String()}, nil
	}
	l, err := lc.Listen(ctx, "tcp", s.onHost(k.port))
	if err != nil {
		return nil, err
	}
	return &kept{socket: l.(*net.TCPListener), address: l.Addr().String()}, nil
}

// onHost is where the host is to listen for a gateway's port.
func (s *Server) onHost(port uint16) string {
	on := port
	if p, ok := s.opt.Publish[port]; ok {
		on = p
	}
	return net.JoinHostPort(s.opt.Address, strconv.Itoa(int(on)))
}

// hostAddress is where the host listens for a gateway's port of TCP, or would; mu is held. Clients know one number for both protocols.
func (s *Server) hostAddress(port uint16) string {
	if p := s.published[portKey{port, false}]; p != nil {
		return p.address
	}
	return s.onHost(port)
}

// release is called with mu held.
func (s *Server) release(k portKey, path string) {
	p := s.published[k]
	if p == nil {
		return
	}
	if delete(p.by, path); len(p.by) == 0 {
		p.Close()
		delete(s.published, k)
	}
}

// listenPacket opens the UDP port beside one of TCP. It is not kept: what HTTP/3 knows of its connections is in the process.
func (s *Server) listenPacket(ctx context.Context, port uint16, path string) (*net.UDPConn, error) {
	l, err := s.listen(ctx, portKey{port, false}, path)
	if err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	u, err := lc.ListenPacket(ctx, "udp", l.address)
	if err != nil {
		return nil, err
	}
	return u.(*net.UDPConn), nil
}

func (s *Server) dial(ctx context.Context, network, addr string) (*net.TCPConn, error) {
	if network != "tcp" && network != "tcp4" && network != "tcp6" {
		return nil, net.UnknownNetworkError(network)
	}
	if host, port, err := net.SplitHostPort(addr); err == nil && s.isHost(host) {
		addr = net.JoinHostPort("localhost", port)
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// isHost reports whether a client means the host's own loopback.
func (s *Server) isHost(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return s.opt.HostAlias.IsValid() && a.Unmap() == s.opt.HostAlias
	}
	return s.opt.HostName != "" && strings.EqualFold(strings.TrimSuffix(host, "."), s.opt.HostName)
}

// dialDatagrams takes addresses alone: a datagram tells by no answer which of a name's addresses is the right one.
func (s *Server) dialDatagrams(ctx context.Context, addr string) (*net.UDPConn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	if s.opt.HostAlias.IsValid() && to.Addr().Unmap() == s.opt.HostAlias {
		to = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), to.Port())
	}
	var d net.Dialer
	return d.DialUDP(ctx, "udp", netip.AddrPort{}, to)
}
