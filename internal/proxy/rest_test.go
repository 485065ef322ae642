package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/conn/conntest"
	"github.com/weftmesh/weft/internal/proxy/listen"
	"github.com/weftmesh/weft/internal/proxy/track"
)

// TestIdleConnectionsRest: a connection that was idle for a while has no goroutine until its client speaks again, is served then as
// before, and ends by its idle time-out while it rests.
func TestIdleConnectionsRest(t *testing.T) {
	m := newMesh(t)
	var later atomic.Int64
	m.now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	client := m.pod("productpage", "10.0.0.1", nil)
	server := &pod{Host: m.net.Host(netip.MustParseAddr("10.0.0.2")), m: m, stop: client.stop, id: client.id} // without a sidecar
	server.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }))
	c := meshCluster("reviews", 9080, server)
	c.Transports = []conf.TransportMatch{{}}
	client.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) { s.Clusters["reviews"] = c })
	client.knows("reviews", 9080, forwardTo("reviews"))

	e := conntest.Engine(t)
	if e.Name() != conn.Poll {
		t.Skip("connections of this back end keep their goroutines")
	}
	l := conntest.Listen(t, e)
	p := client.proxy
	s := &listen.Server{Log: p.log, Handle: func(a listen.Accepted) { p.traffic.get("test").serve(a, p.explicit("reviews:9080")) }}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	defer func() {
		l.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
		s.Close()
		s.Wait()
	}()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	from := bufio.NewReader(nc)
	call := func() {
		t.Helper()
		if _, err := io.WriteString(nc, "GET / HTTP/1.1\r\nHost: reviews:9080\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(from, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if res.Body.Close(); err != nil || res.StatusCode != 200 || string(body) != "hello" {
			t.Fatalf("%d %q, %v", res.StatusCode, body, err)
		}
	}
	for range 3 {
		call()
		if n := p.tracker.Resting(); n != 0 {
			t.Fatalf("%d connections rest at once", n)
		}
		later.Add(int64(track.SleepAfter) + 1)
		eventually(t, "the connection rests", func() bool { return p.tracker.Resting() == 1 })
	}
	if open, working := p.tracker.Counts(); open != 1 || working != 0 {
		t.Errorf("%d open, %d working", open, working)
	}
	later.Add(int64(defaultIdle) + 1)
	if _, err := from.ReadByte(); err != io.EOF {
		t.Fatalf("after the idle time-out: %v", err)
	}
	eventually(t, "the connection is forgotten", func() bool {
		open, _ := p.tracker.Counts()
		return open == 0 && s.Open() == 0 && p.traffic.get("test").active.Load() == 0
	})
}
