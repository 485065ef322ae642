package steady

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/wire"
	"github.com/weftmesh/weft/test/rig"
)

// changingRequests is how many requests TestNothingFailsWhileEverythingChanges sends; make soak sends a million.
func changingRequests(t *testing.T) int64 {
	t.Helper()
	text := os.Getenv("STEADY_REQUESTS")
	if text == "" {
		return 40_000
	}
	n, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, 64)
	if err != nil {
		t.Fatalf("STEADY_REQUESTS: %v", err)
	}
	return n
}

// world is a client's sidecar, upgraded as it goes, and the sidecars of a service's instances.
type world struct {
	t       *testing.T
	r       *rig.Rig
	client  *rig.Proxy
	address string
	servers []*rig.Proxy
	at      []string // of the servers

	sent, swaps, rotations, churns atomic.Int64
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "weft") // the paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{t: t, r: rig.New(t)}
	quiet := func(o *proxy.Options) { o.AccessLog = io.Discard }
	for range 3 {
		p, at := w.r.InboundOptions(quiet, echoes(t))
		w.servers, w.at = append(w.servers, p), append(w.at, at)
	}
	w.client, w.address = w.r.OutboundOptions(func(o *proxy.Options) {
		quiet(o)
		o.Bootstrap.UpgradeSocket = filepath.Join(dir, "upgrade")
		o.Bootstrap.UpgradeDrainSeconds = 60
	}, rig.Mutual(w.at[0]))
	return w
}

// echoes is an application that sends bodies back.
func echoes(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	both := new(http.Protocols)
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	s := &http.Server{Protocols: both, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if b, err := io.ReadAll(r.Body); err == nil {
				w.Write(b)
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

// TestNothingFailsWhileEverythingChanges sends POSTs, which nothing may send twice by itself, over kept and new connections, of HTTP/1.1
// and HTTP/2, while routes are swapped, certificates rotated and endpoints exchanged without pause, and the client's proxy is upgraded
// twice: each is answered, by what it has sent. No retry policy helps.
func TestNothingFailsWhileEverythingChanges(t *testing.T) {
	w, total := newWorld(t), changingRequests(t)
	stop := make(chan struct{})
	var clients, changes sync.WaitGroup
	for i := range 8 {
		clients.Go(func() { w.ask(i, total) })
	}
	for _, change := range []func(int){w.swap, w.rotate, w.churn} {
		changes.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
					change(n)
				}
			}
		})
	}
	for i := range int64(2) {
		await(t, func() bool { return w.sent.Load() > total*(i+1)/3 || t.Failed() })
		w.client = w.client.Upgrade()
	}
	clients.Wait()
	close(stop)
	changes.Wait()
	t.Logf("%d requests through %d swaps of routes, %d rotations of certificates, %d changes of endpoints and 2 upgrades",
		w.sent.Load(), w.swaps.Load(), w.rotations.Load(), w.churns.Load())
}

// changed reports whether enough has to prove something.
func (w *world) changed() bool {
	return w.swaps.Load() >= 20 && w.rotations.Load() >= 10 && w.churns.Load() >= 20
}

// await waits for as long as it takes: go test has a time limit of its own.
func await(t *testing.T, holds func() bool) {
	t.Helper()
	for tick := time.NewTicker(10 * time.Millisecond); !holds(); <-tick.C {
		if t.Context().Err() != nil {
			return
		}
	}
}

func (w *world) ask(i int, total int64) {
	tr := &http.Transport{DisableKeepAlives: i%4 == 1}
	if i%2 == 0 {
		tr.Protocols = new(http.Protocols)
		tr.Protocols.SetUnencryptedHTTP2(i%4 == 2)
		tr.Protocols.SetHTTP1(i%4 != 2)
	}
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr, Timeout: 5 * time.Minute}
	for (w.sent.Add(1) <= total || !w.changed()) && !w.t.Failed() {
		body := fmt.Appendf(nil, "%d of client %d %s", w.sent.Load(), i, strings.Repeat("x", i*i*64))
		if err := post(c, "http://"+w.address+"/", body); err != nil {
			w.t.Errorf("request %d of client %d: %v", w.sent.Load(), i, err)
		}
	}
	w.sent.Add(-1)
}

func post(c *http.Client, url string, body []byte) error {
	res, err := c.Post(url, "text/plain", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || !bytes.Equal(got, body) {
		return fmt.Errorf("status %d, %d bytes for %d, %v: %.200s", res.StatusCode, len(got), len(body), err, got)
	}
	return nil
}

// swap publishes another route table.
func (w *world) swap(n int) {
	route := rig.Forward("backend")
	route.Request.Set = []conf.HeaderValue{{Name: "X-Round", Value: strconv.Itoa(n)}}
	route.Forward.Timeout = time.Minute + time.Duration(n)*time.Millisecond
	w.client.Config.Publish(func(_ *conf.Snapshot, names map[string]*conf.Target) {
		name := wire.ListenerName(rig.Service, rig.ServicePort)
		target := *names[name]
		target.Routes = rig.Table(route)
		names[name] = &target
	})
	w.swaps.Add(1)
	rest(w.t.Context(), 5*time.Millisecond)
}

// rotate gives one of the proxies another certificate.
func (w *world) rotate(n int) {
	if i := n % (len(w.servers) + 1); i < len(w.servers) {
		w.servers[i].Source.Publish(w.r.Material("server"))
	} else {
		w.client.Source.Publish(w.r.Material("client"))
	}
	w.rotations.Add(1)
	rest(w.t.Context(), 200*time.Millisecond)
}

// churn leaves one of the endpoints out.
func (w *world) churn(n int) {
	var endpoints []*conf.Endpoint
	for i, at := range w.at {
		if i != n%len(w.at) {
			endpoints = append(endpoints, rig.Mutual(at))
		}
	}
	w.client.Config.Publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		s.Clusters["backend"] = rig.Cluster("backend", endpoints...)
	})
	w.churns.Add(1)
	rest(w.t.Context(), 25*time.Millisecond)
}
