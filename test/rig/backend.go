package rig

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"testing"
)

// Received is a request as it came over the wire to a Backend. It was parsed by net/http, which is not our parser.
type Received struct {
	*http.Request
	Raw  []byte // the bytes from the request line to the end of the body
	Body string
	Conn int   // which connection, counted from 1
	Err  error // of the parser, or of the body; nil for a whole request
}

// Backend is an application that keeps the bytes which reach it and answers as it is told.
type Backend struct {
	l  net.Listener
	wg sync.WaitGroup

	mu       sync.Mutex
	answer   func(net.Conn, *Received) bool
	received []Received
	open     map[net.Conn]int // by number
	conns    int
}

// NewBackend serves on loopback until the test ends. answer gets each whole request, writes what it wants, and reports whether the
// connection goes on.
func NewBackend(t testing.TB, answer func(net.Conn, *Received) bool) *Backend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &Backend{l: l, answer: answer, open: map[net.Conn]int{}}
	b.wg.Go(b.accept)
	t.Cleanup(func() {
		l.Close()
		b.Reset()
		b.wg.Wait()
	})
	return b
}

// Addr is where it listens.
func (b *Backend) Addr() netip.AddrPort { return b.l.Addr().(*net.TCPAddr).AddrPort() }

func (b *Backend) accept() {
	for {
		c, err := b.l.Accept()
		if err != nil {
			return // closed by the cleanup
		}
		b.mu.Lock()
		b.conns++
		n := b.conns
		b.open[c] = n
		b.mu.Unlock()
		b.wg.Go(func() { b.serve(c, n) })
	}
}

// Reset closes the connections that are open, and forgets what came over them.
func (b *Backend) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.open {
		c.Close()
	}
	b.received = nil
}

// Answer replaces what the backend does with requests, and forgets those that came.
func (b *Backend) Answer(answer func(net.Conn, *Received) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer, b.received = answer, nil
}

// Received gives the requests that came since Answer or Take, whole ones and others.
func (b *Backend) Received() []Received {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.received)
}

// Take gives the requests and forgets them.
func (b *Backend) Take() []Received {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.received
	b.received = nil
	return r
}

// Open is the number of open connections, and Accepted of all there ever were.
func (b *Backend) Open() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.open)
}

// Alive reports whether a connection is open still, by the number that requests have.
func (b *Backend) Alive(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.open {
		if m == n {
			return true
		}
	}
	return false
}

// Accepted is the number of connections so far.
func (b *Backend) Accepted() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.conns
}

func (b *Backend) serve(c net.Conn, n int) {
	defer func() {
		c.Close()
		b.mu.Lock()
		delete(b.open, c)
		b.mu.Unlock()
	}()
	t := &tee{r: c}
	br := bufio.NewReader(t)
	for {
		r, ok := receive(c, t, br)
		if !ok {
			return
		}
		r.Conn = n
		b.mu.Lock()
		b.received = append(b.received, r)
		answer := b.answer
		b.mu.Unlock()
		if r.Err != nil || !answer(c, &r) {
			return
		}
	}
}

// tee keeps what was read.
type tee struct {
	r    io.Reader
	kept []byte
}

func (t *tee) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	t.kept = append(t.kept, p[:n]...)
	return n, err
}

// receive reads a request, for whose body it asks where a client waits for that, as RFC 9110 section 10.1.1 wants it of a server; ok is
// false when the connection ended before its first byte.
func receive(c io.Writer, t *tee, br *bufio.Reader) (r Received, ok bool) {
	if _, err := br.Peek(1); err != nil {
		return r, false
	}
	if r.Request, r.Err = http.ReadRequest(br); r.Err == nil {
		if r.Request.Header.Get("Expect") == "100-continue" {
			io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
		}
		var body []byte
		body, r.Err = io.ReadAll(r.Request.Body)
		r.Body = string(body)
	}
	used := len(t.kept) - br.Buffered()
	r.Raw = bytes.Clone(t.kept[:used])
	t.kept = t.kept[used:]
	return r, true
}
