package conformance

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weftmesh/weft/test/rig"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if peers.dir != "" {
			os.RemoveAll(peers.dir)
		}
		os.Exit(code)
	}))
}

// patience bounds every wait of these tests: whoever runs into it has found something.
const patience = 2 * time.Minute

// way is a direction in which the proxy stands between a client and a backend.
type way struct {
	name    string
	address string
	backend *rig.Backend
	proxies []*rig.Proxy
}

// ways starts a proxy, or two, for each direction, with a backend of its own.
func ways(t *testing.T, answer func(net.Conn, *rig.Received) bool) []way {
	t.Helper()
	r := rig.New(t)
	var all []way
	add := func(name string, start func(*rig.Backend) ([]*rig.Proxy, string)) {
		b := rig.NewBackend(t, answer)
		proxies, address := start(b)
		all = append(all, way{name, address, b, proxies})
	}
	add("gateway", func(b *rig.Backend) ([]*rig.Proxy, string) {
		p, a := r.Gateway(nil, rig.Plain(b.Addr().String()))
		return []*rig.Proxy{p}, a
	})
	add("outbound", func(b *rig.Backend) ([]*rig.Proxy, string) {
		p, a := r.Outbound(rig.Plain(b.Addr().String()))
		return []*rig.Proxy{p}, a
	})
	add("inbound", func(b *rig.Backend) ([]*rig.Proxy, string) {
		p, a := r.Inbound(b.Addr())
		return []*rig.Proxy{p}, a
	})
	add("pair", func(b *rig.Backend) ([]*rig.Proxy, string) {
		c, s, a := r.Pair(b.Addr())
		return []*rig.Proxy{c, s}, a
	})
	return all
}

// summary says in one line what a backend understood: method, target, Host, framing, body, and trailers if there were any.
func summary(r *rig.Received) string {
	if r.Err != nil {
		return fmt.Sprintf("broken: %v", r.Err)
	}
	framing := "-"
	switch {
	case len(r.TransferEncoding) > 0:
		framing = strings.Join(r.TransferEncoding, ",")
	case r.Header.Get("Content-Length") != "" || r.ContentLength > 0:
		framing = fmt.Sprint(r.ContentLength)
	}
	s := strings.TrimRight(strings.Join([]string{r.Method, r.RequestURI, r.Host, framing, r.Body}, " "), " ")
	if r.Header.Get("Expect") != "" {
		s += " expecting"
	}
	for k, v := range r.Trailer {
		s += fmt.Sprintf(" +%s=%s", k, strings.Join(v, ","))
	}
	return s
}

// echo answers with the summary of what came.
func echo(c net.Conn, r *rig.Received) bool {
	body := summary(r)
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(body))
	if r.Method == http.MethodHead {
		body = ""
	}
	_, err := io.WriteString(c, head+body)
	return err == nil
}

// client is a connection whose responses are read by net/http.
type client struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func dial(t *testing.T, address string) *client {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return &client{t, c, bufio.NewReader(c)}
}

// send writes; a peer that has refused the beginning need not read the end.
func (c *client) send(s string) { io.WriteString(c.conn, s) }

// answer is a response as a client understood it.
type answer struct {
	*http.Response
	body string
	err  error // of the body
}

// read reads a response to a request of that method; informational ones count as responses.
func (c *client) read(method string) (answer, error) {
	res, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		return answer{}, err
	}
	b, err := io.ReadAll(res.Body)
	return answer{res, string(b), err}, nil
}

// ended reports whether the proxy has ended the connection. It may have done so with a reset.
func (c *client) ended() bool {
	_, err := c.r.Peek(1)
	if err == nil {
		return false
	}
	var timeout net.Error
	return !errors.As(err, &timeout) || !timeout.Timeout()
}

// Ends of a conversation.
const (
	open   = "open"   // another request is answered
	closed = "closed" // by the proxy, after the answers
	waits  = "waits"  // the proxy waits for more, and drops what it has when nothing comes
)

const probe = "GET /probe HTTP/1.1\r\nHost: probe\r\n\r\n"

// end finds out how a conversation ended.
func (c *client) end(expected string) string {
	switch expected {
	case waits:
		c.conn.(*net.TCPConn).CloseWrite()
		if !c.ended() {
			return "answered"
		}
		return waits
	case closed:
		if c.ended() {
			return closed
		}
		return "not closed"
	}
	c.send(probe)
	if a, err := c.read("GET"); err != nil || !strings.HasPrefix(a.body, "GET /probe ") {
		return fmt.Sprintf("no answer to another request: %v, %q", err, a.body)
	}
	return open
}

// talk is one conversation and what has to come of it.
type talk struct {
	name string
	send string
	// gets are the statuses of the responses, and how the connection ends: "200 400 closed".
	gets string
	// sees are the requests that reach the backend, as summary gives them.
	sees []string
}

// play holds one conversation against what it should be.
func (w *way) play(t *testing.T, c talk) {
	t.Helper()
	w.backend.Take()
	cl := dial(t, w.address)
	cl.send(c.send)
	words := strings.Fields(c.gets)
	statuses, end := words[:len(words)-1], words[len(words)-1]
	var got []string
	for range statuses {
		method, _, _ := strings.Cut(c.send, " ")
		a, err := cl.read(method)
		if err != nil {
			got = append(got, err.Error())
			break
		}
		got = append(got, fmt.Sprint(a.StatusCode))
	}
	if len(got) == len(statuses) {
		got = append(got, cl.end(end))
	}
	if g := strings.Join(got, " "); g != c.gets {
		t.Errorf("got %q, want %q", g, c.gets)
	}
	cl.conn.Close()
	var saw []string
	for _, r := range w.backend.Take() {
		if s := summary(&r); !strings.HasPrefix(s, "GET /probe ") && r.Err == nil {
			saw = append(saw, s) // a body that breaks off may begin to arrive, and must not seem whole
		}
	}
	if !slices.Equal(saw, c.sees) {
		t.Errorf("the backend saw %q, want %q", saw, c.sees)
	}
}

// playAll plays each conversation in each direction, but for those left out ("direction name").
func playAll(t *testing.T, talks []talk, out ...string) {
	t.Helper()
	for _, w := range ways(t, echo) {
		t.Run(w.name, func(t *testing.T) {
			for _, c := range talks {
				if slices.Contains(out, w.name+" "+c.name) {
					continue
				}
				t.Run(c.name, func(t *testing.T) { w.play(t, c) })
			}
		})
	}
}
