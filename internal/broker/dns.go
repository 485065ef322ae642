package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// serverTime is how long one DNS server may take before the next is asked (resolv.conf's own default is 5 s, which is longer than
// most programs wait for the whole lookup).
const serverTime = 2 * time.Second

// exchange asks the host's DNS servers in their order, over UDP, and over TCP where the answer was cut (RFC 1035 4.2, RFC 7766 5).
func (s *Server) exchange(ctx context.Context, msg []byte) ([]byte, error) {
	if len(msg) < 12 {
		return nil, errors.New("DNS message shorter than its header")
	}
	if answer := s.hostAnswer(msg); answer != nil {
		return answer, nil
	}
	servers := s.opt.Resolvers
	if len(servers) == 0 {
		servers = nameservers("/etc/resolv.conf")
	}
	if len(servers) == 0 {
		return nil, errors.New("the host's resolv.conf names no server")
	}
	var failed error
	for _, server := range servers {
		answer, err := overUDP(ctx, server, msg)
		if err == nil && answer[2]&0x02 != 0 { // TC
			answer, err = overTCP(ctx, server, msg)
		}
		if err == nil {
			return answer, nil
		}
		failed = fmt.Errorf("server %s: %w", server, err)
	}
	return nil, failed
}

// hostAnswer answers for the name of the host itself; nil for any other.
func (s *Server) hostAnswer(msg []byte) []byte {
	query := new(dns.Msg)
	if s.opt.HostName == "" || query.Unpack(msg) != nil || len(query.Question) != 1 || !s.isHost(query.Question[0].Name) {
		return nil
	}
	r := new(dns.Msg).SetReply(query)
	r.RecursionAvailable = true
	header := dns.RR_Header{Name: query.Question[0].Name, Class: dns.ClassINET, Ttl: 60}
	switch a := s.opt.HostAlias; {
	case a.Is4() && query.Question[0].Qtype == dns.TypeA:
		header.Rrtype = dns.TypeA
		r.Answer = []dns.RR{&dns.A{Hdr: header, A: a.AsSlice()}}
	case a.Is6() && query.Question[0].Qtype == dns.TypeAAAA:
		header.Rrtype = dns.TypeAAAA
		r.Answer = []dns.RR{&dns.AAAA{Hdr: header, AAAA: a.AsSlice()}}
	}
	answer, err := r.Pack()
	if err != nil {
		return nil
	}
	return answer
}

func nameservers(file string) []string {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	var out []string
	for line := range strings.Lines(string(raw)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if ip, err := netip.ParseAddr(f[1]); err == nil {
			out = append(out, netip.AddrPortFrom(ip, 53).String())
		}
	}
	return out
}

func overUDP(ctx context.Context, server string, msg []byte) ([]byte, error) {
	conn, stop, err := connect(ctx, "udp", server)
	if err != nil {
		return nil, err
	}
	defer stop()
	if _, err := conn.Write(msg); err != nil {
		return nil, err
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		if answers(buf[:n], msg) {
			return buf[:n], nil
		}
	}
}

func overTCP(ctx context.Context, server string, msg []byte) ([]byte, error) {
	conn, stop, err := connect(ctx, "tcp", server)
	if err != nil {
		return nil, err
	}
	defer stop()
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	buf := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, buf); err != nil {
		return nil, err
	}
	if !answers(buf, msg) {
		return nil, errors.New("answer to another question")
	}
	return buf, nil
}

// connect gives a connection that ends with the context or after serverTime.
func connect(ctx context.Context, network, server string) (net.Conn, func(), error) {
	d := net.Dialer{Timeout: serverTime}
	conn, err := d.DialContext(ctx, network, server)
	if err != nil {
		return nil, nil, err
	}
	conn.SetDeadline(time.Now().Add(serverTime))
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	return conn, func() { stop(); conn.Close() }, nil
}

// answers reports whether a message is a response with the query's id. The socket is connected, so it came from the server.
func answers(resp, query []byte) bool {
	return len(resp) >= 12 && resp[0] == query[0] && resp[1] == query[1] && resp[2]&0x80 != 0
}
