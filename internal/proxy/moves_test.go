package proxy

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/listen"
	"github.com/weftmesh/weft/internal/wire"
)

// frames serves one connection of HTTP/2 by hand: on is asked about each frame but SETTINGS, until it is false.
func frames(c net.Conn, on func(f *http2.Framer, frame http2.Frame) bool) {
	io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
	f := http2.NewFramer(c, c)
	f.WriteSettings()
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		if s, ok := frame.(*http2.SettingsFrame); ok {
			if !s.IsAck() {
				f.WriteSettingsAck()
			}
		} else if !on(f, frame) {
			return
		}
	}
}

func answer200(f *http2.Framer, id uint32) {
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true})
}

// leaving is a client of an endpoint of HTTP/2 whose connections are served by turn, the last function again and again.
func leaving(t *testing.T, turns ...func(net.Conn)) *pod {
	m := newMesh(t)
	client := m.pod("frontend", "10.0.0.1", nil)
	server := client.bare("10.0.0.2")
	var mu sync.Mutex
	server.serveRaw(9080, func(c net.Conn) {
		mu.Lock()
		turn := turns[0]
		if len(turns) > 1 {
			turns = turns[1:]
		}
		mu.Unlock()
		turn(c)
	})
	client.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		c := meshCluster("web", 9080, server)
		c.Transports, c.Speaks = []conf.TransportMatch{{}}, conf.HTTP2
		s.Clusters["web"] = c
	})
	r := forwardTo("web")
	r.Forward.Retry = &conf.Retry{} // no policy repeats anything, but what is sent is kept
	client.knows("web", 9080, r)
	return client
}

// goesAway answers no request, and says so.
func goesAway(c net.Conn) {
	frames(c, func(f *http2.Framer, frame http2.Frame) bool {
		if _, ok := frame.(*http2.HeadersFrame); ok {
			f.WriteGoAway(0, http2.ErrCodeNo, nil)
		}
		return true
	})
}

// TestRequestMovesOnFromConnectionsThatLeave: that nobody looks at a request is not its fault, however often it happens in a row.
func TestRequestMovesOnFromConnectionsThatLeave(t *testing.T) {
	var answered int
	serves := func(c net.Conn) {
		frames(c, func(f *http2.Framer, frame http2.Frame) bool {
			if h, ok := frame.(*http2.HeadersFrame); ok {
				answered++
				answer200(f, h.StreamID)
			}
			return true
		})
	}
	client := leaving(t, goesAway, goesAway, goesAway, serves)
	if status, body, _ := client.do(client.clientOf(2), "POST", "http://web:9080/", strings.NewReader("pay")); status != 200 || answered != 1 {
		t.Errorf("%d %q, answered %d times", status, body, answered)
	}
}

// TestRequestThatNobodyLooksAtFails: in the end.
func TestRequestThatNobodyLooksAtFails(t *testing.T) {
	client := leaving(t, goesAway)
	if status, body, _ := client.do(client.clientOf(2), "POST", "http://web:9080/", strings.NewReader("pay")); status != 503 {
		t.Errorf("%d %q", status, body)
	}
}

// TestSendingGoesOnElsewhere: the connection is given up while the client still sends its body.
func TestSendingGoesOnElsewhere(t *testing.T) {
	for _, version := range []int{1, 2} {
		for _, when := range []string{"before the body", "after its first part"} {
			t.Run("HTTP/"+string(rune('0'+version))+" "+when, func(t *testing.T) { sendingGoesOn(t, version, when == "before the body") })
		}
	}
}

func sendingGoesOn(t *testing.T, version int, before bool) {
	body, send := io.Pipe()
	left := make(chan struct{}, 1)
	first := func(c net.Conn) {
		frames(c, func(f *http2.Framer, frame http2.Frame) bool {
			_, head := frame.(*http2.HeadersFrame)
			d, data := frame.(*http2.DataFrame)
			if head && before || data && len(d.Data()) > 0 && !before {
				f.WriteGoAway(0, http2.ErrCodeNo, nil)
				left <- struct{}{}
			}
			return true
		})
	}
	var got strings.Builder
	moved := make(chan struct{}, 1)
	second := func(c net.Conn) {
		frames(c, func(f *http2.Framer, frame http2.Frame) bool {
			switch frame := frame.(type) {
			case *http2.HeadersFrame:
				moved <- struct{}{}
			case *http2.DataFrame:
				got.Write(frame.Data())
				if frame.StreamEnded() {
					answer200(f, frame.StreamID)
				}
			}
			return true
		})
	}
	client := leaving(t, first, second)
	go func() { // ends with the request
		if before && version == 2 {
			<-left
			<-moved
		}
		io.WriteString(send, "begun")
		if !before {
			<-left
		}
		if version == 2 {
			if !before {
				<-moved
			}
			io.WriteString(send, " and")
		}
		io.WriteString(send, " ended")
		send.Close()
	}()
	status, text, _ := client.do(client.clientOf(version), "POST", "http://web:9080/", body)
	send.CloseWithError(io.ErrClosedPipe)
	if version == 1 {
		// Nothing may be read of a client of HTTP/1 after an interruption: what came in time goes on, the rest fails by an error.
		if status == 200 && got.String() != "begun ended" || status != 200 && status != 503 {
			t.Errorf("%d %q after %q", status, text, got.String())
		}
		return
	}
	if status != 200 || got.String() != "begun and ended" {
		t.Errorf("%d %q after %q", status, text, got.String())
	}
}

// late is a listener that has taken a connection from the kernel when it is closed.
type late struct {
	net.Listener
	conn   net.Conn
	closed chan struct{}
	given  bool
}

func (l *late) Accept() (net.Conn, error) {
	<-l.closed
	if l.given {
		return nil, net.ErrClosed
	}
	l.given = true
	return l.conn, nil
}

func (l *late) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

func (l *late) Addr() net.Addr { return &net.TCPAddr{} }

// TestAcceptedAtTheLastMomentIsCounted: draining must not end while the last connection is on its way to its handler.
func TestAcceptedAtTheLastMomentIsCounted(t *testing.T) {
	client, _ := pair(t)
	ours, theirs := net.Pipe()
	defer theirs.Close()
	r := newRunning(client.proxy, context.Background())
	release := make(chan struct{})
	l := &late{conn: ours, closed: make(chan struct{})}
	r.listeners = []bound{{Listener: l, name: "late", at: "late", handle: func(listen.Accepted) { <-release }}}
	s := r.serve(r.listeners[0])
	r.stopAccepting()
	if n := r.open(); n != 1 {
		t.Errorf("%d connections are open", n)
	}
	close(release)
	s.Wait()
}

// TestClusterLeavesAfterRouting takes a request's cluster out of the configuration when it was routed there and has not connected yet,
// since a rate-limit service is asked: it goes where it was routed.
func TestClusterLeavesAfterRouting(t *testing.T) {
	m := newMesh(t)
	client, server := m.pod("productpage", "10.0.0.1", nil), m.pod("reviews", "10.0.0.2", nil)
	s := &limitService{limit: 2, asked: make(chan struct{}, 1), stall: make(chan struct{})}
	host := m.limits("10.0.0.9", s)
	server.serve(9080, hello("reviews"))
	client.cluster("reviews", 9080, server)
	client.announces("limits", 8081, 0, host.Addr())
	rt := forwardTo("reviews")
	rt.Forward.LimitRules = []conf.LimitRule{{Actions: []conf.LimitAction{{Kind: conf.LimitGeneric, Key: "all", Value: "requests"}}}}
	limit := &conf.GlobalLimit{Domain: "shop", Cluster: "limits", Timeout: time.Minute, Enabled: 1e6, Status: 429, Deny: true, ErrorStatus: 500}
	target := &conf.Target{Name: "reviews", Routes: table(rt),
		Listener: &conf.Listener{Name: "reviews", Chains: []*conf.Chain{{HTTP: &conf.HTTP{GlobalLimits: []*conf.GlobalLimit{limit}}}}}}
	client.config.publish(func(_ *conf.Snapshot, names map[string]*conf.Target) {
		names[wire.ListenerName("reviews", 9080)] = target
	})
	done := make(chan int, 1)
	go func() {
		status, _, _ := client.get(client.client(), "http://reviews:9080/")
		done <- status
	}()
	<-s.asked
	client.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) { delete(s.Clusters, "reviews") })
	eventually(t, "the cluster's leaving", func() bool { return client.proxy.clusters.Get("reviews") == nil })
	close(s.stall)
	if status := <-done; status != 200 {
		t.Errorf("status %d", status)
	}
	eventually(t, "the closing of its connections", func() bool {
		open, _ := server.proxy.tracker.Counts()
		return open == 0
	})
}

// TestPortTurnsToBytes: the clients of a port that is no HTTP port any more come again on new connections, which are relayed.
func TestPortTurnsToBytes(t *testing.T) {
	m := newMesh(t)
	client, server := m.pod("productpage", "10.0.0.1", nil), m.pod("reviews", "10.0.0.2", nil)
	l, err := server.Listen(netip.MustParseAddrPort("10.0.0.2:9080"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Protocols: new(http.Protocols), Handler: hello("reviews")}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }() // ends with the server
	t.Cleanup(func() { s.Close(); <-done })
	client.cluster("reviews", 9080, server)
	bytesAlone := func() {
		tcpService(client, "reviews", 9080, false)
		client.config.publish(func(_ *conf.Snapshot, names map[string]*conf.Target) {
			names[wire.ListenerName("reviews", 9080)] = names[wire.ListenerName(vip, 9080)]
		})
	}
	for _, h2 := range []bool{false, true} {
		for _, method := range []string{"GET", "POST"} {
			client.knows("reviews", 9080, forwardTo("reviews"))
			c, connections := client.client(), atomic.Int64{}
			tr := c.Transport.(*http.Transport)
			dial := tr.DialContext
			tr.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
				connections.Add(1)
				return dial(ctx, network, address)
			}
			if h2 {
				tr.Protocols = new(http.Protocols)
				tr.Protocols.SetUnencryptedHTTP2(true)
			}
			ask := func() int { status, _, _ := client.do(c, method, "http://reviews:9080/", nil); return status }
			if got := ask(); got != 200 {
				t.Fatalf("%s, HTTP/2 %t: %d while the port is HTTP", method, h2, got)
			}
			bytesAlone()
			first, want := ask(), 200
			if method == "POST" && !h2 {
				want = http.StatusMisdirectedRequest // the client may not repeat it unasked
			}
			if second := ask(); first != want || second != 200 || connections.Load() != 2 {
				t.Errorf("%s, HTTP/2 %t: %d (want %d), then %d, over %d connections", method, h2, first, want, second, connections.Load())
			}
		}
	}
	// A request for another port of bytes says nothing about the connection.
	client.knows("ratings", 9081, forwardTo("reviews"))
	client.config.publish(func(_ *conf.Snapshot, names map[string]*conf.Target) {
		names[wire.ListenerName("reviews", 9081)] = names[wire.ListenerName("reviews", 9080)]
	})
	if status, _, h := client.get(client.client(), "http://reviews:9081/"); status != 404 || h.Get("Connection") != "" {
		t.Errorf("a port of bytes by name: %d, %v", status, h)
	}
}
