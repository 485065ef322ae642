package fault

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/test/rig"
)

// soakRequests is how many requests TestSoak sends; make soak sets more.
func soakRequests(t *testing.T) int64 {
	t.Helper()
	text := os.Getenv("SOAK_REQUESTS")
	if text == "" {
		return 200_000
	}
	n, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, 64)
	if err != nil {
		t.Fatalf("SOAK_REQUESTS: %v", err)
	}
	return n
}

// application echoes bodies.
func application(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if body, err := io.ReadAll(r.Body); err == nil {
				w.Write(body)
			}
		})}
	done := make(chan struct{})
	go func() { // ends with the server
		defer close(done)
		s.Serve(l)
	}()
	t.Cleanup(func() { s.Close(); <-done })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// soaker sends requests of every kind over connections that it keeps, closes and resets.
type soaker struct {
	address string
	random  *rand.Rand
	conn    *net.TCPConn
	r       *bufio.Reader
	body    string
}

// one sends a request; abandoned reports that it was broken off on purpose.
func (s *soaker) one() (abandoned bool, err error) {
	if s.conn == nil {
		c, err := net.Dial("tcp", s.address)
		if err != nil {
			return false, err
		}
		s.conn, s.r = c.(*net.TCPConn), bufio.NewReader(c)
	}
	method, head, body := "GET", "", ""
	size := s.random.IntN(1024)
	if s.random.IntN(20) == 0 {
		size = s.random.IntN(len(s.body))
	}
	switch s.random.IntN(8) {
	case 0:
		method, body = "POST", s.body[:size]
		head = fmt.Sprintf("Content-Length: %d\r\n", size)
	case 1:
		method, head = "PUT", "Transfer-Encoding: chunked\r\nTrailer: T\r\n"
		body = fmt.Sprintf("%x\r\n%s\r\n0\r\nT: v\r\n\r\n", size+1, s.body[:size+1])
		size++
	case 2:
		method = "HEAD"
	}
	if method == "GET" || method == "HEAD" {
		size = 0
	}
	request := method + " /soak HTTP/1.1\r\nHost: a\r\n" + head + "\r\n" + body
	if s.random.IntN(100) == 0 {
		io.WriteString(s.conn, request[:s.random.IntN(len(request))])
		s.drop(s.random.IntN(2) == 0)
		return true, nil
	}
	if _, err := io.WriteString(s.conn, request); err != nil {
		return false, err
	}
	res, err := http.ReadResponse(s.r, &http.Request{Method: method})
	if err != nil {
		return false, err
	}
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 || len(b) != size {
		return false, fmt.Errorf("%s: status %d, %d bytes for %d, %v", method, res.StatusCode, len(b), size, err)
	}
	if s.random.IntN(50) == 0 || res.Close {
		s.drop(false)
	}
	return false, nil
}

func (s *soaker) drop(hard bool) {
	if s.conn == nil {
		return
	}
	if hard {
		s.conn.SetLinger(0)
	}
	s.conn.Close()
	s.conn = nil
}

// TestSoak sends requests until nothing that leaks could hide: after each quarter there are as many goroutines and descriptors as
// after the first, and the heap is as large.
func TestSoak(t *testing.T) {
	app := application(t)
	quiet := func(o *proxy.Options) { o.AccessLog = io.Discard }
	r := rig.New(t)
	_, at := r.InboundOptions(quiet, app)
	client, address := r.OutboundOptions(quiet)
	client.Config.Publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		c := rig.Cluster("backend", rig.Mutual(at))
		c.IdleTimeout = time.Second // or one would wait for the minute of connections between proxies
		s.Clusters["backend"] = c
	})
	total := soakRequests(t)
	empty := rig.Measure(t)
	var first uint64
	for quarter := range 4 {
		soak(t, address, total/4)
		if t.Failed() {
			return
		}
		empty.Back(t)
		heap := rig.Heap()
		t.Logf("after %d requests: %v, %d KiB of heap", total/4*int64(quarter+1), rig.Measure(t), heap>>10)
		if quarter == 0 {
			first = heap
		} else if heap > first+first/4+2<<20 {
			t.Errorf("the heap grew from %d to %d bytes", first, heap)
		}
	}
}

// soak sends n requests from a few clients. It returns with no connection of theirs left.
func soak(t *testing.T, address string, n int64) {
	t.Helper()
	var left atomic.Int64
	left.Store(n)
	var clients sync.WaitGroup
	for i := range 16 {
		clients.Go(func() {
			s := soaker{address: address, random: rand.New(rand.NewPCG(uint64(i), uint64(n))), body: strings.Repeat("0123456789abcdef", 1024)}
			defer s.drop(false)
			for left.Add(-1) >= 0 && !t.Failed() {
				if _, err := s.one(); err != nil {
					t.Errorf("a request failed: %v", err)
				}
			}
		})
	}
	clients.Wait()
}
