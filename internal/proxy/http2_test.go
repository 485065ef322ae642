package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/conn"
	weft2 "github.com/weftmesh/weft/internal/proxy/http2"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// speaks gives a client or server that version alone, without TLS.
func speaks(version int) *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(version == 1)
	p.SetUnencryptedHTTP2(version == 2)
	return p
}

// clientOf is a client in the pod that speaks the version.
func (p *pod) clientOf(version int) *http.Client {
	c := p.client()
	c.Transport.(*http.Transport).Protocols = speaks(version)
	return c
}

// serveOf is serve in one version.
func (p *pod) serveOf(version int, port uint16, h http.Handler) {
	p.m.t.Helper()
	l, err := p.Listen(netip.AddrPortFrom(p.Addr(), port))
	if err != nil {
		p.m.t.Fatal(err)
	}
	s := &http.Server{Handler: h, Protocols: speaks(version)}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }() // ends with the server
	p.m.t.Cleanup(func() { s.Close(); <-done })
}

// bare is a host without a sidecar that lives as long as the pod's.
func (p *pod) bare(ip string) *pod {
	return &pod{Host: p.m.net.Host(netip.MustParseAddr(ip)), m: p.m, stop: p.stop, id: p.id}
}

// versions runs a test for each pair of versions, through one proxy and through two.
func versions(t *testing.T, h http.Handler, each func(*testing.T, *pod, *http.Client)) {
	for _, from := range []int{1, 2} {
		for _, to := range []int{1, 2} {
			for _, mutual := range []bool{false, true} {
				t.Run(fmt.Sprintf("%d to %d, mutual TLS %v", from, to, mutual), func(t *testing.T) {
					m := newMesh(t)
					client, server := m.pod("frontend", "10.0.0.1", nil), m.pod("web", "10.0.0.2", nil)
					server.serveOf(to, 9080, h)
					version := conf.HTTP1
					if to == 2 {
						version = conf.HTTP2
					}
					client.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
						c := meshCluster("web", 9080, server)
						if !mutual {
							c.Transports, c.Speaks = []conf.TransportMatch{{}}, version
						}
						s.Clusters["web"] = c
					})
					chain := inboundHTTP()
					chain.Routes = table(forwardTo("app"))
					l := strict(9080)
					if l.Chains[0].HTTP = chain; !mutual {
						l = permissive(9080)
					}
					server.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
						s.Inbound = l
						s.Clusters["app"] = &conf.Cluster{Name: "app", Discovery: conf.OriginalDst, Speaks: version, Transports: []conf.TransportMatch{{}}}
					})
					client.knows("web", 9080, forwardTo("web"))
					each(t, client, client.clientOf(from))
				})
			}
		}
	}
}

func TestEveryVersionToEveryVersion(t *testing.T) {
	handler := http.NewServeMux()
	handler.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set("X-Host", r.Host)
		w.Header().Set("X-Cookie", r.Header.Get("Cookie"))
		b, err := io.ReadAll(r.Body)
		w.Write(b)
		w.Header().Set("X-Sum", fmt.Sprint(len(b), " ", r.Trailer.Get("X-Asked"), " ", err))
	})
	handler.HandleFunc("/status", func(w http.ResponseWriter, r *http.Request) {
		var code int
		fmt.Sscan(r.URL.Query().Get("code"), &code)
		if code == 200 {
			w.Header().Set("Content-Length", "5")
		}
		w.WriteHeader(code)
	})
	handler.HandleFunc("/hints", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		io.WriteString(w, "final")
	})
	handler.HandleFunc("/early", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		io.WriteString(w, "enough")
	})
	handler.HandleFunc("/cut", func(w http.ResponseWriter, r *http.Request) {
		w.Write(make([]byte, 100000))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	versions(t, handler, func(t *testing.T, p *pod, c *http.Client) {
		for _, size := range []int{0, 1, 1000, 200000, 3 << 20} {
			for _, sized := range []bool{true, false} {
				body := bytes.Repeat([]byte("x"), size)
				r, err := http.NewRequest("POST", "http://web:9080/echo", io.MultiReader(bytes.NewReader(body)))
				if err != nil {
					t.Fatal(err)
				}
				r.AddCookie(&http.Cookie{Name: "a", Value: "1"})
				r.AddCookie(&http.Cookie{Name: "b", Value: "2"})
				want := fmt.Sprint(size, "  <nil>")
				if sized {
					if r.ContentLength = int64(size); size == 0 {
						r.Body = http.NoBody
					}
				} else {
					r.Trailer, want = http.Header{"X-Asked": {"yes"}}, fmt.Sprint(size, " yes <nil>")
				}
				res, err := c.Do(r)
				if err != nil {
					t.Fatalf("%d bytes, sized %v: %v", size, sized, err)
				}
				got, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || !bytes.Equal(got, body) || res.Header.Get("X-Host") != "web:9080" || res.Header.Get("X-Cookie") != "a=1; b=2" {
					t.Fatalf("%d bytes, sized %v: %d bytes, %v, %v", size, sized, len(got), err, res.Header)
				}
				if sum := res.Trailer.Get("X-Sum"); sum != want {
					t.Errorf("%d bytes, sized %v: trailer %q, want %q", size, sized, sum, want)
				}
			}
		}
		for _, code := range []int{200, 204, 304, 404, 503} {
			for _, method := range []string{"HEAD", "GET"} {
				if code == 200 && method == "GET" {
					continue
				}
				if status, body, h := p.do(c, method, fmt.Sprintf("http://web:9080/status?code=%d", code), nil); status != code || body != "" {
					t.Errorf("%s %d: %d %q", method, code, status, body)
				} else if code == 200 && h.Get("Content-Length") != "5" {
					t.Errorf("HEAD: %v", h)
				}
			}
		}
		var hinted atomic.Bool
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hinted.Store(code == 103 && h.Get("Link") == "</style.css>")
			return nil
		}})
		r, _ := http.NewRequestWithContext(ctx, "GET", "http://web:9080/hints", nil)
		if res, err := c.Do(r); err != nil || !hinted.Load() {
			t.Errorf("early hints: %v, %v", hinted.Load(), err)
		} else {
			res.Body.Close()
		}
		if status, body, _ := p.do(c, "POST", "http://web:9080/early", io.LimitReader(zeros{}, 8<<20)); status != 413 || body != "enough" {
			// A client of HTTP/1 may be cut off while it sends.
			if !strings.Contains(body, "reset") && !strings.Contains(body, "broken pipe") && !strings.Contains(body, "closed") {
				t.Errorf("early answer: %d %q", status, body)
			}
		}
		res, err := c.Get("http://web:9080/cut")
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, res.Body); err == nil {
			t.Errorf("a response that was cut off looks whole: %d bytes", n)
		}
		res.Body.Close()
		if status, body, _ := p.get(c, "http://web:9080/status?code=404"); status != 404 {
			t.Errorf("afterwards: %d %q", status, body)
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestClientsLeavingIsPassedOn(t *testing.T) {
	var gone atomic.Int64
	arrived := make(chan struct{}, 1)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/begun" {
			w.Write([]byte("begun"))
			w.(http.Flusher).Flush()
		} else {
			arrived <- struct{}{}
		}
		<-r.Context().Done()
		gone.Add(1)
	})
	versions(t, h, func(t *testing.T, p *pod, c *http.Client) {
		gone.Store(0)
		for _, path := range []string{"/", "/begun"} {
			ctx, cancel := context.WithCancel(t.Context())
			r, _ := http.NewRequestWithContext(ctx, "GET", "http://web:9080"+path, nil)
			if path == "/" {
				go func() { <-arrived; cancel() }() // ends when the request is there
			}
			res, err := c.Do(r)
			if path == "/begun" {
				if err != nil {
					t.Fatal(err)
				}
				io.ReadFull(res.Body, make([]byte, 5))
			}
			cancel()
		}
		eventually(t, "the server hears of it", func() bool { return gone.Load() == 2 })
		eventually(t, "log", func() bool { return p.logged(" DC ") || p.logged(" DR ") })
	})
}

func TestStreamsShareFewConnectionsAndDoNotStallEachOther(t *testing.T) {
	m := newMesh(t)
	client, server := m.pod("frontend", "10.0.0.1", nil), m.pod("web", "10.0.0.2", nil)
	var conns atomic.Int64
	release := make(chan struct{})
	l, err := server.Listen(netip.MustParseAddrPort("10.0.0.2:9080"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Protocols: speaks(2), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/wait":
			<-release
		case "/big":
			io.CopyN(w, zeros{}, 32<<20)
		}
	}), ConnState: func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			conns.Add(1)
		}
	}}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }() // ends with the server
	t.Cleanup(func() { s.Close(); <-done })
	server.accepts(permissive(9080))
	client.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		c := meshCluster("web", 9080, server)
		c.Transports = []conf.TransportMatch{{}}
		s.Clusters["web"] = c
	})
	client.knows("web", 9080, forwardTo("web"))
	c := client.clientOf(2)
	slow, err := c.Get("http://web:9080/big") // nobody reads it
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Body.Close()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if status, body, _ := client.get(c, "http://web:9080/wait"); status != 200 {
				t.Errorf("%d %q", status, body)
			}
		})
	}
	for range 50 {
		if status, body, _ := client.get(c, "http://web:9080/"); status != 200 {
			t.Fatalf("beside a stalled stream: %d %q", status, body)
		}
	}
	close(release)
	wg.Wait()
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections to the endpoint", n)
	}
}

func TestLimitsOfConnectionsMakeMore(t *testing.T) {
	m := newMesh(t)
	client := m.pod("frontend", "10.0.0.1", nil)
	server := client.bare("10.0.0.2")
	l, err := server.Listen(netip.MustParseAddrPort("10.0.0.2:9080"))
	if err != nil {
		t.Fatal(err)
	}
	var conns atomic.Int64
	base := &http.Server{Protocols: speaks(2), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 5}, Handler: hello("web"),
		ConnState: func(_ net.Conn, st http.ConnState) {
			if st == http.StateNew {
				conns.Add(1)
			}
		}}
	done := make(chan struct{})
	go func() { defer close(done); base.Serve(l) }() // ends with the server
	t.Cleanup(func() { base.Close(); <-done })
	client.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		c := meshCluster("web", 9080, server)
		c.Transports, c.MaxRequestsPerConnection = []conf.TransportMatch{{}}, 20
		s.Clusters["web"] = c
	})
	client.knows("web", 9080, forwardTo("web"))
	c := client.clientOf(2)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 20 {
				if status, body, _ := client.get(c, "http://web:9080/"); status != 200 {
					t.Errorf("%d %q", status, body)
				}
			}
		})
	}
	wg.Wait()
	if n := conns.Load(); n < 20 {
		t.Errorf("%d connections for 400 requests of 20 each", n)
	}
}

// TestRefusedStreamsAreRepeated lets the server refuse streams, which is safe to repeat, and reset others, which is not.
func TestRefusedStreamsAreRepeated(t *testing.T) {
	m := newMesh(t)
	client := m.pod("frontend", "10.0.0.1", nil)
	server := client.bare("10.0.0.2")
	var asked atomic.Int64
	codes := make(chan http2.ErrCode, 1)
	server.serveRaw(9080, func(c net.Conn) {
		io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
		f := http2.NewFramer(c, c)
		f.WriteSettings()
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			switch frame := frame.(type) {
			case *http2.SettingsFrame:
				if !frame.IsAck() {
					f.WriteSettingsAck()
				}
			case *http2.HeadersFrame:
				asked.Add(1)
				if code := <-codes; code != http2.ErrCodeNo {
					f.WriteRSTStream(frame.StreamID, code)
				} else {
					f.WriteHeaders(http2.HeadersFrameParam{StreamID: frame.StreamID, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true})
				}
			}
		}
	})
	client.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		c := meshCluster("web", 9080, server)
		c.Transports, c.Speaks = []conf.TransportMatch{{}}, conf.HTTP2
		s.Clusters["web"] = c
	})
	client.knows("web", 9080, forwardTo("web"))
	c := client.clientOf(1)
	go func() { codes <- http2.ErrCodeRefusedStream; codes <- http2.ErrCodeNo }() // ends with the two requests
	if status, body, _ := client.do(c, "POST", "http://web:9080/", strings.NewReader("")); status != 200 || asked.Load() != 2 {
		t.Errorf("refused: %d %q after %d requests", status, body, asked.Load())
	}
	asked.Store(0)
	codes <- http2.ErrCodeInternal
	if status, body, _ := client.do(c, "POST", "http://web:9080/", strings.NewReader("")); status != 503 || asked.Load() != 1 {
		t.Errorf("reset: %d %q after %d requests", status, body, asked.Load())
	}
	eventually(t, "log", func() bool { return client.logged(" 503 UR ") })
	codes <- http2.ErrCodeEnhanceYourCalm
	_, err := client.clientOf(2).Get("http://web:9080/")
	if se := (http2.StreamError{}); errors.As(err, &se) {
		t.Errorf("a failure before the answer came as %v", err)
	}
}

func TestPanicEndsItsStreamAlone(t *testing.T) {
	client, server := pair(t)
	server.serveOf(2, 9080, hello("reviews"))
	c := client.clientOf(2)
	if status, _, _ := client.get(c, "http://reviews:9080/"); status != 200 {
		t.Fatal(status)
	}
	bad := forwardTo("reviews")
	bad.Match.Headers = []conf.HeaderMatch{{Name: ":path", Value: conf.StringMatch{Kind: conf.Regex}}} // has no expression
	client.knows("reviews", 9080, bad)
	for _, version := range []int{1, 2} {
		if status, body, _ := client.get(client.clientOf(version), "http://reviews:9080/"); status != 500 {
			t.Errorf("HTTP/%d: %d %q", version, status, body)
		}
	}
	client.knows("reviews", 9080, forwardTo("reviews"))
	if status, body, _ := client.get(c, "http://reviews:9080/"); status != 200 {
		t.Errorf("afterwards: %d %q", status, body)
	}
}

func TestDrainingSaysGoAway(t *testing.T) {
	client, server := pair(t)
	server.serveOf(2, 9080, hello("reviews"))
	c := client.clientOf(2)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if status, body, _ := client.get(c, "http://reviews:9080/"); status != 200 {
				t.Errorf("while it drains: %d %q", status, body)
				return
			}
		}
	})
	server.proxy.Drain()
	ctx, cancel := context.WithTimeout(t.Context(), enough)
	defer cancel()
	server.proxy.Drained(ctx)
	close(stop)
	wg.Wait()
}

// TestWebSocketsBetweenVersions checks the handshakes, and that bytes pass both ways until both sides have ended.
func TestWebSocketsBetweenVersions(t *testing.T) {
	const key = "dGhlIHNhbXBsZSBub25jZQ==" // and the proof below: RFC 6455 section 1.3
	one := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Sec-WebSocket-Key") == "" {
			http.Error(w, "no key", 400)
			return
		}
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: proof\r\n\r\n")
		rw.Flush()
		io.Copy(c, rw)
	})
	two := func(s *weft2.ServerStream) {
		r := s.Request()
		if _, ok := r.Header.Get("Sec-WebSocket-Key"); ok || r.Upgrade != "websocket" {
			s.WriteResponse(&message.Response{Status: 400})
			return
		}
		s.WriteResponse(&message.Response{Status: 101, Upgrade: "websocket"})
		c, err := s.Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		var b [100]byte
		for {
			n, err := c.Read(b[:])
			if err != nil {
				c.CloseWrite()
				return
			}
			c.Write(b[:n])
		}
	}
	for _, from := range []int{1, 2} {
		for _, to := range []int{1, 2} {
			t.Run(fmt.Sprintf("%d to %d", from, to), func(t *testing.T) {
				m := newMesh(t)
				client := m.pod("frontend", "10.0.0.1", nil)
				server := client.bare("10.0.0.2")
				version := conf.AsClient
				if to == 1 {
					server.serveOf(1, 9080, one)
				} else {
					version = conf.HTTP2
					server.serveRaw(9080, func(c net.Conn) { weft2.NewServerConn(conn.FromNet(c), "http", nil).Serve(two) })
				}
				client.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
					c := meshCluster("web", 9080, server)
					c.Transports, c.Speaks = []conf.TransportMatch{{}}, version
					s.Clusters["web"] = c
				})
				client.knows("web", 9080, forwardTo("web"))
				nc, err := client.Dial(t.Context(), netip.MustParseAddrPort(vip+":9080"))
				if err != nil {
					t.Fatal(err)
				}
				defer nc.Close()
				var tunnel conn.Conn
				if from == 1 {
					fmt.Fprintf(nc, "GET /ws HTTP/1.1\r\nHost: web:9080\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", key)
					r := bufio.NewReader(nc)
					res, err := http.ReadResponse(r, nil)
					if err != nil || res.StatusCode != 101 {
						t.Fatalf("%v, %v", res, err)
					}
					if proof := res.Header.Get("Sec-WebSocket-Accept"); to == 2 && proof != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
						t.Errorf("proof %q", proof)
					}
					tunnel = conn.FromNet(nc)
				} else {
					cc := weft2.NewClientConn(conn.FromNet(nc), nil)
					done := make(chan struct{})
					go func() { defer close(done); cc.Run() }() // ends with the connection
					defer func() { cc.Close(); <-done }()
					<-cc.Ready()
					s, err := cc.Open()
					if err != nil {
						t.Fatal(err)
					}
					q := message.Request{Method: "GET", Scheme: "http", Authority: "web:9080", Path: "/ws", Upgrade: "websocket"}
					q.Header.Add("sec-websocket-version", "13")
					var res message.Response
					if err := errors.Join(s.WriteRequest(&q), s.Flush(), s.ReadResponse(&res)); err != nil || res.Status != 101 {
						t.Fatalf("%d, %v", res.Status, err)
					}
					if _, ok := res.Header.Get("Sec-WebSocket-Accept"); ok {
						t.Error("a proof that has no place in HTTP/2")
					}
					if tunnel, err = s.Hijack(); err != nil {
						t.Fatal(err)
					}
				}
				var b [100]byte
				for _, text := range []string{"ping", "pong"} {
					if _, err := tunnel.Write([]byte(text)); err != nil {
						t.Fatal(err)
					}
					if n, err := io.ReadFull(tunnel, b[:len(text)]); err != nil || string(b[:n]) != text {
						t.Fatalf("%q, %v", b[:n], err)
					}
				}
				tunnel.CloseWrite()
				if _, err := tunnel.Read(b[:]); err != io.EOF {
					t.Errorf("the end came as %v", err)
				}
				eventually(t, "log", func() bool { return client.logged(" 101 ") })
			})
		}
	}
}

// TestDeclinedUpgradesAreNoTunnels: to extended CONNECT any 2xx says that the tunnel is there. An endpoint that answers an upgrade by an
// ordinary 2xx has opened none, nor has a route that answers by itself.
func TestDeclinedUpgradesAreNoTunnels(t *testing.T) {
	m := newMesh(t)
	client := m.pod("frontend", "10.0.0.1", nil)
	server := client.bare("10.0.0.2")
	server.serveOf(1, 9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, _ := strconv.Atoi(r.URL.Path[1:])
		w.WriteHeader(status)
		if status != http.StatusNoContent {
			io.WriteString(w, "a page")
		}
	}))
	client.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		c := meshCluster("web", 9080, server)
		c.Transports = []conf.TransportMatch{{}}
		s.Clusters["web"] = c
	})
	client.knows("web", 9080, &conf.Route{Name: "direct", Match: conf.Match{Path: conf.StringMatch{Kind: conf.Exact, Value: "/direct"}, CaseSensitive: true}, Direct: &conf.Direct{Status: 200, Body: []byte("hello")}}, forwardTo("web"))
	nc, err := client.Dial(t.Context(), netip.MustParseAddrPort(vip+":9080"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	cc := weft2.NewClientConn(conn.FromNet(nc), nil)
	done := make(chan struct{})
	go func() { defer close(done); cc.Run() }() // ends with the connection
	defer func() { cc.Close(); <-done }()
	<-cc.Ready()
	for _, c := range []struct {
		protocol, path string
		want           int
	}{
		{"websocket", "/200", 502}, {"websocket", "/201", 502}, {"websocket", "/204", 502}, {"foo", "/200", 502},
		{"websocket", "/403", 403}, {"websocket", "/302", 302}, {"websocket", "/direct", 501},
	} {
		s, err := cc.Open()
		if err != nil {
			t.Fatal(err)
		}
		q := message.Request{Method: "GET", Scheme: "http", Authority: "web:9080", Path: c.path, Upgrade: c.protocol}
		q.Header.Add("sec-websocket-version", "13")
		var res message.Response
		if err := errors.Join(s.WriteRequest(&q), s.Flush(), s.ReadResponse(&res)); err != nil || res.Status != c.want {
			t.Errorf("%s %s: %d, %v, want %d", c.protocol, c.path, res.Status, err, c.want)
		}
		s.EndExchange()
	}
	eventually(t, "log", func() bool {
		return client.logged("GET /200", " 502 UPE websocket_handshake_unsuccessful", "the endpoint answered 200, not 101, to the upgrade to websocket")
	})
}

// TestBodiesThatStandStillAreCutOff lets the request's body stop, and then the response's.
func TestBodiesThatStandStillAreCutOff(t *testing.T) {
	stop := make(chan struct{})
	defer close(stop)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/up" {
			io.Copy(io.Discard, r.Body)
			return
		}
		w.Write([]byte("begun"))
		w.(http.Flusher).Flush()
		select {
		case <-stop:
		case <-r.Context().Done():
		}
	})
	versions(t, h, func(t *testing.T, p *pod, c *http.Client) {
		r := forwardTo("web")
		r.Forward.IdleTimeout = 80 * time.Millisecond
		p.knows("web", 9080, r)
		body, w := io.Pipe()
		defer w.Close()
		go w.Write([]byte("begun")) // ends when it is read, or the pipe is closed
		if status, text, _ := p.do(c, "POST", "http://web:9080/up", body); status != 408 {
			t.Errorf("request: %d %q", status, text)
		}
		for try := 0; ; try++ {
			res, err := c.Get("http://web:9080/")
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(res.Body)
			res.Body.Close()
			if res.StatusCode == 504 && try < 20 {
				continue // on a slow machine not even the head came in time
			}
			if err == nil || string(b) != "begun" {
				t.Errorf("response: %q, %v", b, err)
			}
			break
		}
		eventually(t, "log", func() bool { return p.logged("POST /up", " 408 SI ") && p.logged("GET /", " 200 SI ") })
	})
}

// received counts what comes on connections, and these.
type received struct {
	net.Listener
	conns, bytes atomic.Int64
}

type receivedConn struct {
	net.Conn
	of *received
}

func (l *received) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	l.conns.Add(1)
	return receivedConn{c, l}, err
}

func (c receivedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.of.bytes.Add(int64(n))
	return n, err
}

// TestABodyThatIsNotReadHoldsUpNoOther: a server of Go gives all streams of a connection 1 MiB together.
func TestABodyThatIsNotReadHoldsUpNoOther(t *testing.T) {
	m := newMesh(t)
	client := m.pod("frontend", "10.0.0.1", nil)
	server := client.bare("10.0.0.2")
	nl, err := server.Listen(netip.MustParseAddrPort("10.0.0.2:9080"))
	if err != nil {
		t.Fatal(err)
	}
	l, release := &received{Listener: nl}, make(chan struct{})
	s := &http.Server{Protocols: speaks(2), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stall" {
			<-release
		}
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, " ", err)
	})}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }() // ends with the server
	t.Cleanup(func() { s.Close(); <-done })
	client.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		c := meshCluster("web", 9080, server)
		c.Transports, c.Speaks = []conf.TransportMatch{{}}, conf.HTTP2
		s.Clusters["web"] = c
	})
	client.knows("web", 9080, forwardTo("web"))
	c := client.clientOf(2)
	post := func(path string, size int64) string {
		_, text, _ := client.do(c, "POST", "http://web:9080"+path, io.LimitReader(zeros{}, size))
		return text
	}
	stalled := make(chan string)
	go func() { stalled <- post("/stall", 4<<20) }() // ends below
	eventually(t, "a full connection", func() bool { return l.bytes.Load() > 1<<20 })
	begun := time.Now()
	for i := range 12 {
		size := int64(1000 * i)
		if got, want := post("/", size), fmt.Sprint(size, " <nil>"); got != want {
			t.Fatalf("beside a body that is not read: %q, want %q", got, want)
		}
	}
	if took := time.Since(begun); took > 50*time.Second { // less than a connection is held up for at most
		t.Errorf("others took %s", took)
	}
	if n := l.conns.Load(); n != 2 {
		t.Errorf("%d connections", n)
	}
	close(release)
	if got := <-stalled; got != "4194304 <nil>" {
		t.Errorf("the first body: %q", got)
	}
}

// TestMirrorsAndRivalsOfStreams makes several calls of HTTP/2 for one request.
func TestMirrorsAndRivalsOfStreams(t *testing.T) {
	m := newMesh(t)
	client := m.pod("frontend", "10.0.0.1", nil)
	server := client.bare("10.0.0.2")
	var mirrored, slow atomic.Int64
	hang := make(chan struct{})
	defer close(hang)
	server.serveOf(2, 9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.Host, "-shadow:9080"):
			mirrored.Add(1)
		case slow.Add(-1) >= 0:
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		}
		io.WriteString(w, r.Proto)
	}))
	client.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		c := meshCluster("web", 9080, server)
		c.Transports, c.Speaks = []conf.TransportMatch{{}}, conf.HTTP2
		s.Clusters["web"] = c
	})
	r := forwardTo("web")
	r.Forward.Mirrors = []conf.Mirror{{Cluster: "web", Fraction: 1e6}}
	r.Forward.Retry = &conf.Retry{On: conf.OnReset, Attempts: 2, PerTry: 30 * time.Millisecond, Hedge: true}
	client.knows("web", 9080, r)
	c := client.clientOf(2)
	for range 20 {
		slow.Store(1)
		if status, body, _ := client.get(c, "http://web:9080/"); status != 200 || body != "HTTP/2.0" {
			t.Fatalf("%d %q", status, body)
		}
	}
	eventually(t, "mirrored", func() bool { return mirrored.Load() == 20 })
}
