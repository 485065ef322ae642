package fault

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weftmesh/weft/test/rig"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds waits that should be short.
const patience = 2 * time.Minute

// topology is a client's way through the proxy to backends.
type topology struct {
	name    string
	address string
	backend *rig.Backend
}

// topologies are one sidecar, and a pair with mutual TLS.
func topologies(t *testing.T, answer func(net.Conn, *rig.Received) bool) []topology {
	t.Helper()
	r := rig.New(t)
	one, two := rig.NewBackend(t, answer), rig.NewBackend(t, answer)
	_, single := r.Outbound(rig.Plain(one.Addr().String()))
	_, _, pair := r.Pair(two.Addr())
	return []topology{{"sidecar", single, one}, {"pair", pair, two}}
}

func dial(t testing.TB, address string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// reset closes a connection as a crash of its machine's network would.
func reset(c net.Conn) {
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

// ending is how a connection is broken off.
var endings = []struct {
	name string
	end  func(net.Conn)
}{
	{"close", func(c net.Conn) { c.Close() }},
	{"half-close", func(c net.Conn) { c.(*net.TCPConn).CloseWrite() }},
	{"reset", reset},
}

const okResponse = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func ok(c net.Conn, _ *rig.Received) bool {
	_, err := io.WriteString(c, okResponse)
	return err == nil
}

// TestTruncatedRequests cuts requests at each byte: a backend never takes one for whole.
func TestTruncatedRequests(t *testing.T) {
	const head = "POST /cut HTTP/1.1\r\nHost: a\r\n"
	requests := map[string]string{
		"sized":   head + "Content-Length: 10\r\n\r\n0123456789",
		"chunked": head + "Transfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n5;x=y\r\n56789\r\n0\r\nT: v\r\n\r\n",
	}
	for _, w := range topologies(t, ok) {
		for name, request := range requests {
			for _, how := range endings {
				t.Run(w.name+" "+name+" "+how.name, func(t *testing.T) {
					before := rig.Measure(t)
					for n := range len(request) {
						c := dial(t, w.address)
						io.WriteString(c, request[:n])
						how.end(c)
						if how.name == "half-close" {
							if res, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil && res.StatusCode < 400 {
								t.Errorf("cut at %d: answered %d", n, res.StatusCode)
							}
							c.Close()
						}
					}
					before.Back(t, w.backend)
					for _, r := range w.backend.Take() {
						if r.Err == nil {
							t.Errorf("the backend took %q for whole", r.Raw)
						}
					}
				})
			}
		}
	}
}

// TestTruncatedResponses cuts responses at each byte: a client never takes one for whole.
func TestTruncatedResponses(t *testing.T) {
	responses := map[string]string{
		"sized":   "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789",
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n5;x=y\r\n56789\r\n0\r\nT: v\r\n\r\n",
	}
	for _, w := range topologies(t, ok) {
		for name, response := range responses {
			for _, how := range []int{0, 2} { // a backend's half-close is a close
				t.Run(w.name+" "+name+" "+endings[how].name, func(t *testing.T) {
					before := rig.Measure(t)
					for n := range len(response) {
						w.backend.Answer(func(c net.Conn, _ *rig.Received) bool {
							io.WriteString(c, response[:n])
							endings[how].end(c)
							return false
						})
						if got, err := get(t, w.address); err == nil && got.status < 500 {
							t.Errorf("cut at %d: the client took %d %q for whole", n, got.status, got.body)
						}
					}
					before.Back(t, w.backend)
					w.backend.Answer(ok)
					if got, err := get(t, w.address); err != nil || got.status != 200 {
						t.Errorf("afterwards: %v, %v", got, err)
					}
				})
			}
		}
	}
}

type got struct {
	status int
	body   string
}

// get asks over a connection of its own; the error says that there was no whole response.
func get(t testing.TB, address string) (got, error) {
	t.Helper()
	c := dial(t, address)
	defer c.Close()
	io.WriteString(c, "GET /g HTTP/1.1\r\nHost: a\r\n\r\n")
	return read(bufio.NewReader(c))
}

func read(r *bufio.Reader) (got, error) {
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		return got{}, err
	}
	b, err := io.ReadAll(res.Body)
	return got{res.StatusCode, string(b)}, err
}

// TestTruncatedStreams breaks a long body off in either direction after a megabyte, from either side: the other side hears of it
// soon, and does not take it for whole.
func TestTruncatedStreams(t *testing.T) {
	const part = 1 << 20
	download := func(head string, how func(net.Conn)) func(net.Conn, *rig.Received) bool {
		return func(c net.Conn, _ *rig.Received) bool {
			io.WriteString(c, head)
			io.WriteString(c, strings.Repeat("x", part))
			how(c)
			return false
		}
	}
	for _, w := range topologies(t, ok) {
		for _, how := range []int{0, 2} {
			for name, head := range map[string]string{
				"sized":   "HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n",
				"chunked": fmt.Sprintf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n", 10*part),
			} {
				t.Run(w.name+" download "+name+" "+endings[how].name, func(t *testing.T) {
					before := rig.Measure(t)
					w.backend.Answer(download(head, endings[how].end))
					if g, err := get(t, w.address); err == nil && g.status < 500 {
						t.Errorf("%d with %d bytes was taken for whole", g.status, len(g.body))
					} else if errors.Is(err, os.ErrDeadlineExceeded) {
						t.Error("the client was not told")
					}
					before.Back(t, w.backend)
				})
			}
			t.Run(w.name+" upload "+endings[how].name, func(t *testing.T) {
				before := rig.Measure(t)
				w.backend.Answer(ok)
				c := dial(t, w.address)
				io.WriteString(c, "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n"+strings.Repeat("x", part))
				endings[how].end(c)
				rig.Eventually(t, "the backend hears of it", func() bool { return len(w.backend.Received()) > 0 })
				if r := w.backend.Take(); r[0].Err == nil {
					t.Error("the backend took it for whole")
				}
				before.Back(t, w.backend)
			})
		}
	}
}
