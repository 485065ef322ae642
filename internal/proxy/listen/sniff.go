package listen

import (
	"bytes"
	"errors"
	"io"
	"os"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
)

// Protocol is what the first bytes of a connection are.
type Protocol uint8

// The protocols told apart.
const (
	// Unknown is anything else, a connection that ended before it said enough included.
	Unknown Protocol = iota
	// Silent means that nothing came within the time given.
	Silent
	// TLS is a ClientHello.
	TLS
	// HTTP1 is a request line of HTTP/1.x.
	HTTP1
	// HTTP2 is the connection preface with prior knowledge (RFC 9113 section 3.4).
	HTTP2
)

// String names the protocol as logs do.
func (p Protocol) String() string {
	return [...]string{"unknown", "silent", "tls", "http/1", "http/2"}[p]
}

// Sniffed is what the first bytes said.
type Sniffed struct {
	Protocol Protocol
	// ServerName (lower case) and ALPN are a ClientHello's.
	ServerName string
	ALPN       []string
}

const (
	// maxHello bounds a ClientHello: one record is at most 16 KiB, and what needs more is no honest client.
	maxHello = 16 << 10
	// maxLine bounds the look for the end of a request line whose method is not a usual one.
	maxLine = 4 << 10
)

// Sniff reads from c until it knows the protocol, and gives a Conn that reads the same bytes again. wait bounds the time until
// the first byte (zero or less: none is waited for beyond what has come), talk the time from then on.
//
// A client that says nothing in time is Silent, with c unchanged. One that ends or stalls half way is Unknown, and the Conn
// delivers what it said. The error is that of the connection.
func Sniff(c conn.Conn, wait, talk time.Duration) (Sniffed, conn.Conn, error) {
	quiet, err := waitFirst(c, wait)
	if err != nil || quiet {
		return Sniffed{Protocol: Silent}, c, err
	}
	if err := c.SetReadDeadline(time.Now().Add(talk)); err != nil {
		return Sniffed{}, c, err
	}
	s, seen, err := look(c)
	if e := c.SetReadDeadline(time.Time{}); err == nil {
		err = e
	}
	return s, conn.WithPrefix(c, seen), err
}

// waitFirst reports whether the client was silent for the whole time.
func waitFirst(c conn.Conn, wait time.Duration) (bool, error) {
	if err := c.SetReadDeadline(time.Now().Add(max(wait, time.Millisecond))); err != nil {
		return false, err
	}
	err := c.Wait()
	if e := c.SetReadDeadline(time.Time{}); err == nil && e != nil {
		return false, e
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return true, nil
	}
	return false, err
}

// look reads until classify is sure.
func look(c conn.Conn) (Sniffed, []byte, error) {
	seen := make([]byte, 0, 1024)
	for {
		if len(seen) == cap(seen) {
			seen = append(seen, 0)[:len(seen)]
		}
		n, err := c.Read(seen[len(seen):cap(seen)])
		seen = seen[:len(seen)+n]
		if s, sure := classify(seen); sure {
			return s, seen, nil
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF), errors.Is(err, os.ErrDeadlineExceeded):
			return Sniffed{}, seen, nil
		default:
			return Sniffed{}, seen, err
		}
	}
}

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// classify says what b is the beginning of; sure is false when more bytes are needed.
func classify(b []byte) (s Sniffed, sure bool) {
	if len(b) == 0 {
		return s, false
	}
	if b[0] == recordHandshake {
		return classifyTLS(b)
	}
	if n := min(len(b), len(preface)); string(b[:n]) == preface[:n] {
		s.Protocol = HTTP2
		// "P" may yet become POST; after "PR" only PROPFIND and PROPPATCH share more, which differ at the next byte.
		return s, n >= 4
	}
	return classifyLine(b)
}

// methods that decide at once; any other token needs the whole request line.
var methods = [][]byte{[]byte("GET "), []byte("POST "), []byte("PUT "), []byte("HEAD "), []byte("DELETE "), []byte("PATCH "),
	[]byte("OPTIONS "), []byte("CONNECT "), []byte("TRACE ")}

// classifyLine takes a usual method with a target of HTTP's forms at once ("GET key" is Redis), and any other line when it
// ends in a version.
func classifyLine(b []byte) (s Sniffed, sure bool) {
	for _, m := range methods {
		n := min(len(b), len(m))
		if !bytes.Equal(b[:n], m[:n]) {
			continue
		}
		if len(b) <= len(m) {
			return s, false
		}
		if c := b[len(m)]; c == '/' || c == '*' {
			s.Protocol = HTTP1
			return s, true
		}
		break
	}
	for i, c := range b {
		switch {
		case c == '\n':
			return lineEnd(b[:i])
		case c < ' ' && c != '\r' && c != '\t', c >= 0x7f:
			return s, true
		}
	}
	return s, len(b) >= maxLine
}

func lineEnd(line []byte) (s Sniffed, sure bool) {
	line = bytes.TrimRight(line, "\r")
	if i := bytes.LastIndexByte(line, ' '); i > 0 && bytes.HasPrefix(line[i+1:], []byte("HTTP/")) {
		s.Protocol = HTTP1
	}
	return s, true
}

// Speaker is the end of a connection pair that spoke first.
type Speaker uint8

// The ends.
const (
	Neither Speaker = iota
	ClientFirst
	ServerFirst
)

// First waits until the client or the server has something to read (an end of stream counts) and says who, consuming nothing.
// It is how a protocol whose server speaks first passes without anybody waiting for a time-out. Afterwards neither has a read
// deadline. Whoever has both is reported as the client.
func First(client, server conn.Conn) (Speaker, error) {
	spoke := make(chan error, 1)
	go func() { // ends when the server speaks or the deadline below interrupts it; First waits for it
		err := server.Wait()
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			client.SetReadDeadline(conn.LongAgo)
		}
		spoke <- err
	}()
	clientErr := client.Wait()
	server.SetReadDeadline(conn.LongAgo)
	serverErr := <-spoke
	if err := errors.Join(client.SetReadDeadline(time.Time{}), server.SetReadDeadline(time.Time{})); err != nil {
		return Neither, err
	}
	switch {
	case clientErr == nil:
		return ClientFirst, nil
	case !errors.Is(clientErr, os.ErrDeadlineExceeded):
		return Neither, clientErr
	}
	return ServerFirst, serverErr
}
