package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// byHead serves requests by what answer does when their heads are there. It is false where the connection is to be closed.
func (p *pod) byHead(port uint16, answer func(c net.Conn, r *http.Request) bool) {
	p.serveRaw(port, func(c net.Conn) {
		for r := bufio.NewReader(c); ; {
			req, err := http.ReadRequest(r)
			if err != nil || !answer(c, req) {
				return
			}
			io.Copy(io.Discard, req.Body)
		}
	})
}

// speaker is a client of HTTP/1.1 whose every byte a test says.
type speaker struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func (p *pod) speaker(t *testing.T) *speaker {
	c := p.connects(9080)
	t.Cleanup(func() { c.Close() })
	return &speaker{t, c, bufio.NewReader(c)}
}

func (s *speaker) says(format string, args ...any) {
	s.t.Helper()
	if _, err := fmt.Fprintf(s, format, args...); err != nil {
		s.t.Fatal(err)
	}
}

// hears reads an answer with its body.
func (s *speaker) hears(status int) *http.Response {
	s.t.Helper()
	res, err := http.ReadResponse(s.r, nil)
	if err != nil || res.StatusCode != status {
		s.t.Fatalf("%v, %v, want %d", res, err, status)
	}
	if _, err := io.ReadAll(res.Body); err != nil {
		s.t.Fatal(err)
	}
	return res
}

// TestEarlyAnswersToSlowBodies: an endpoint that answers when it has seen the head is heard at once, however short the body is that the
// client has not sent yet. The connection of the client goes on once it has.
func TestEarlyAnswersToSlowBodies(t *testing.T) {
	for retries, policy := range map[string]*conf.Retry{"without": nil, "with": istioRetries()} {
		client, server := pair(t)
		server.byHead(9080, func(c net.Conn, r *http.Request) bool {
			io.WriteString(c, okResponse)
			return true
		})
		route := forwardTo("reviews")
		route.Forward.Retry = policy
		client.knows("reviews", 9080, route)
		for _, size := range []int{1, 5, 4096, 65_536, 65_537} {
			for _, first := range []int{0, 3} {
				if first >= size {
					continue
				}
				t.Run(fmt.Sprintf("%s retries %d of %d", retries, first, size), func(t *testing.T) {
					s := client.speaker(t)
					s.says("PUT / HTTP/1.1\r\nHost: reviews:9080\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("b", first))
					if res := s.hears(200); res.Close {
						t.Error("the connection ends")
					}
					s.says("%s", strings.Repeat("b", size-first))
					if size <= 65_536 {
						s.says("GET / HTTP/1.1\r\nHost: reviews:9080\r\n\r\n")
						s.hears(200)
					}
				})
			}
		}
	}
}

// TestEarlyAnswersToSlowStreams does it for HTTP/2.
func TestEarlyAnswersToSlowStreams(t *testing.T) {
	client, server := pair(t)
	server.byHead(9080, func(c net.Conn, r *http.Request) bool {
		io.WriteString(c, okResponse)
		return true
	})
	tr := &http2.Transport{}
	cc, err := tr.NewClientConn(client.connects(9080))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	body, w := io.Pipe()
	defer w.Close()
	go w.Write([]byte("abc")) // ends with the pipe
	req, _ := http.NewRequestWithContext(t.Context(), "PUT", "http://reviews:9080/", body)
	req.ContentLength = 5
	res, err := cc.RoundTrip(req)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("%v, %v", res, err)
	}
	res.Body.Close()
}

// TestExpectationsAreTheEndpoints: a client that waits for 100 hears what the endpoint says to its head, and nobody else.
func TestExpectationsAreTheEndpoints(t *testing.T) {
	client, server := pair(t)
	heads := make(chan string, 1)
	server.byHead(9080, func(c net.Conn, r *http.Request) bool {
		switch heads <- r.URL.Path + " " + r.Header.Get("Expect"); r.URL.Path {
		case "/refused":
			io.WriteString(c, "HTTP/1.1 413 Too Much\r\nContent-Length: 0\r\n\r\n")
			return false
		case "/welcome":
			io.WriteString(c, "HTTP/1.1 100 Continue\r\nX-From: endpoint\r\n\r\n")
		}
		b, err := io.ReadAll(r.Body)
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Got: %d\r\nContent-Length: 0\r\n\r\n", len(b))
		return err == nil
	})
	for _, size := range []int{5, 100_000} {
		for retries, policy := range map[string]*conf.Retry{"without": nil, "with": istioRetries()} {
			t.Run(fmt.Sprintf("%d %s retries", size, retries), func(t *testing.T) {
				route := forwardTo("reviews")
				route.Forward.Retry = policy
				client.knows("reviews", 9080, route)
				s := client.speaker(t)
				asks := func(path string) {
					s.says("PUT %s HTTP/1.1\r\nHost: reviews:9080\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", path, size)
					if got := <-heads; got != path+" 100-continue" {
						t.Fatal(got)
					}
				}
				asks("/welcome")
				if from := s.hears(100).Header.Get("X-From"); from != "endpoint" {
					t.Errorf("the 100 is from %q", from)
				}
				s.says("%s", strings.Repeat("b", size))
				if got := s.hears(200).Header.Get("X-Got"); got != fmt.Sprint(size) {
					t.Errorf("%s bytes arrived", got)
				}
				asks("/silent") // until the client goes on by itself
				s.says("%s", strings.Repeat("b", size))
				if got := s.hears(200).Header.Get("X-Got"); got != fmt.Sprint(size) {
					t.Errorf("%s bytes arrived", got)
				}
				asks("/refused")
				if res := s.hears(413); !res.Close {
					t.Error("the connection is to go on, with or without the body that nobody waits for")
				}
			})
		}
	}
}

// TestSlowBodiesAreRetried: what came of a body is sent again, and what comes later goes to the last attempt.
func TestSlowBodiesAreRetried(t *testing.T) {
	for name, head := range map[string]string{"half": "\r\nabc", "nothing": "\r\n", "expecting": "Expect: 100-continue\r\n\r\n"} {
		for _, how := range []string{"answers 503", "closes", "closes a kept connection"} {
			t.Run(name+" "+how, func(t *testing.T) {
				client, server := pair(t)
				var tries atomic.Int32
				tried := make(chan struct{})
				server.byHead(9080, func(c net.Conn, r *http.Request) bool {
					if r.URL.Path == "/before" {
						io.WriteString(c, okResponse)
						return true
					}
					if tries.Add(1) == 1 {
						if how == "answers 503" {
							io.WriteString(c, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
						}
						return false
					}
					close(tried)
					b, err := io.ReadAll(r.Body)
					fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Got: %s\r\nContent-Length: 0\r\n\r\n", b)
					return err == nil
				})
				route := forwardTo("reviews")
				route.Forward.Retry = istioRetries()
				route.Forward.Retry.On |= conf.On5xx
				client.knows("reviews", 9080, route)
				s := client.speaker(t)
				if how == "closes a kept connection" {
					s.says("GET /before HTTP/1.1\r\nHost: reviews:9080\r\n\r\n")
					s.hears(200)
				}
				s.says("PUT / HTTP/1.1\r\nHost: reviews:9080\r\nContent-Length: 6\r\n%s", head)
				<-tried
				s.says("%s", "abcdef"[len(head)-strings.LastIndex(head, "\n")-1:])
				if got := s.hears(200).Header.Get("X-Got"); got != "abcdef" {
					t.Errorf("%q arrived", got)
				}
				if tries.Load() != 2 {
					t.Errorf("%d attempts", tries.Load())
				}
			})
		}
	}
}
