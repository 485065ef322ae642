// Package load makes load that wrk does not make: requests at a fixed rate whether or not answers come (open loop), idle
// connections, and handshakes. It speaks just enough HTTP/1.1 to read answers with a Content-Length, because the generator's own
// cost is noise in what it measures.
package load

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Target is what requests are sent to.
type Target struct {
	Address string      // "ip:port"
	TLS     *tls.Config // nil for plaintext
	Path    string
	Headers []string // "Name: value"; Host must be among them
}

// Result of a run.
type Result struct {
	Requests int           // answered with 200
	Errors   int           // anything else, and requests never answered
	Bytes    int64         // of bodies
	Duration time.Duration // from the first request to the end of the run
	P50, P99 time.Duration // of the answered requests; 0 where not measured
}

// ioTimeout bounds connecting, and the wait for any one answer.
const ioTimeout = 5 * time.Second

// request is the head that each request consists of.
func (t Target) request(more ...string) []byte {
	lines := append([]string{"GET " + t.Path + " HTTP/1.1"}, t.Headers...)
	return []byte(strings.Join(append(lines, more...), "\r\n") + "\r\n\r\n")
}

// dial connects, with the handshake where there is TLS.
func (t Target) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, ioTimeout)
	defer cancel()
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", t.Address)
	if err != nil || t.TLS == nil {
		return nc, err
	}
	tc := tls.Client(nc, t.TLS)
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("handshake with %s: %w", t.Address, err), nc.Close())
	}
	return tc, nil
}

// Get sends one request on a connection of its own and gives the size of the answer's body.
func (t Target) Get(ctx context.Context) (int64, error) {
	nc, err := t.dial(ctx)
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	return roundTrip(nc, bufio.NewReader(nc), t.request("Connection: close"))
}

func roundTrip(nc net.Conn, r *bufio.Reader, request []byte) (int64, error) {
	if err := nc.SetDeadline(time.Now().Add(ioTimeout)); err != nil {
		return 0, err
	}
	if _, err := nc.Write(request); err != nil {
		return 0, err
	}
	return readAnswer(r)
}

// ErrStatus is of an answer that was read to its end and is not 200.
var ErrStatus = errors.New("answer is not 200")

// readAnswer reads one answer and gives the size of its body.
func readAnswer(r *bufio.Reader) (int64, error) {
	first, err := r.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(first) < len("HTTP/1.1 200") || string(first[:7]) != "HTTP/1." {
		return 0, fmt.Errorf("no status line: %q", first)
	}
	status := string(first[9:12])
	length := int64(-1)
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if len(line) <= 2 {
			break
		}
		const name = "content-length:"
		if len(line) > len(name) && strings.EqualFold(string(line[:len(name)]), name) {
			if length, err = strconv.ParseInt(strings.TrimSpace(string(line[len(name):])), 10, 64); err != nil {
				return 0, fmt.Errorf("content-length: %w", err)
			}
		}
	}
	if length < 0 {
		return 0, errors.New("answer has no content-length")
	}
	if _, err := io.CopyN(io.Discard, r, length); err != nil {
		return 0, err
	}
	if status != "200" {
		return length, fmt.Errorf("%w: %s", ErrStatus, status)
	}
	return length, nil
}

// quantiles sorts the latencies.
func (r *Result) quantiles(all []time.Duration) {
	if len(all) == 0 {
		return
	}
	slices.Sort(all)
	r.P50, r.P99 = all[len(all)/2], all[len(all)*99/100]
}
