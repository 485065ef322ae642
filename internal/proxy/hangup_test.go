package proxy

import (
	"bufio"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/track"
)

func TestHangUpWhileWaitingReachesTheApplication(t *testing.T) {
	client, server := pair(t)
	left := make(chan struct{})
	server.serve(9080, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done() // net/http ends it when its client is gone
		close(left)
	}))
	c, err := client.Dial(t.Context(), netip.MustParseAddrPort(vip+":9080"))
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "GET /slow HTTP/1.1\r\nHost: reviews:9080\r\n\r\n")
	eventually(t, "request under way", func() bool { return server.proxy.entered.Load() == 1 })
	c.Close()
	<-left
	eventually(t, "flag", func() bool { return client.logged("/slow", " 0 DC downstream_remote_disconnect") })
}

// A client that still waits when the proxy's drain time is over has not gone away, nor has the endpoint.
func TestCutOffAtTheEndOfDrainingIsTheMeshs(t *testing.T) {
	client, server := pair(t)
	arrived := make(chan struct{}, 2)
	server.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			io.WriteString(w, "some")
			w.(http.Flusher).Flush()
		}
		arrived <- struct{}{}
		<-r.Context().Done()
	}))
	for _, path := range []string{"/waits", "/body"} {
		c, err := client.Dial(t.Context(), netip.MustParseAddrPort(vip+":9080"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: reviews:9080\r\n\r\n")
		<-arrived
		if path == "/body" {
			if _, err := io.ReadFull(c, make([]byte, len("HTTP/1.1 200 OK"))); err != nil {
				t.Fatal(err)
			}
		}
	}
	client.kill()
	for path, status := range map[string]string{"/waits": " 0 ", "/body": " 200 "} {
		if !client.logged(path, status+"LR downstream_local_disconnect", "its time for draining is over") {
			t.Errorf("%s: %s", path, client.log.String())
		}
	}
}

// TestTunnelsThatAreCutOffSayWhy: the proxy that ends tells that it was it, the one on the other side that it was the other.
func TestTunnelsThatAreCutOffSayWhy(t *testing.T) {
	for _, ends := range []string{"client's", "server's"} {
		t.Run(ends, func(t *testing.T) {
			client, server := pair(t)
			server.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c, rw, err := w.(http.Hijacker).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				io.WriteString(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: proof\r\n\r\nhello")
				rw.Flush()
				io.Copy(c, rw)
			}))
			c, err := client.Dial(t.Context(), netip.MustParseAddrPort(vip+":9080"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: reviews:9080\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
			r := bufio.NewReader(c)
			if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 101 {
				t.Fatalf("%v, %v", res, err)
			}
			if _, err := io.ReadFull(r, make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
			cut, other := client, server
			if ends == "server's" {
				cut, other = server, client
			}
			cut.kill()
			if !cut.logged("/ws", " 101 LR downstream_local_disconnect", "its time for draining is over") {
				t.Errorf("the one that ended: %s", cut.log.String())
			}
			eventually(t, "the other's log", func() bool { return other.logged("/ws", " 101 ") })
			if other.logged(" 101 - ") {
				t.Errorf("the other: %s", other.log.String())
			}
		})
	}
}

func TestHangUpEndsAnInjectedDelay(t *testing.T) {
	client, server := pair(t)
	server.serve(9080, hello("reviews"))
	r := forwardTo("reviews")
	r.Fault = &conf.Fault{Delay: time.Hour, DelayFraction: 1e6}
	client.knows("reviews", 9080, r)
	c, err := client.Dial(t.Context(), netip.MustParseAddrPort(vip+":9080"))
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "GET /delayed HTTP/1.1\r\nHost: reviews:9080\r\n\r\n")
	c.Close()
	eventually(t, "flag", func() bool { return client.logged("/delayed", "DC") })
}

func TestPipelinedRequestIsNoHangUp(t *testing.T) {
	client, server := pair(t)
	server.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/1" {
			time.Sleep(2 * track.WatchAfter) // long enough for the client to be watched
		}
		io.WriteString(w, r.URL.Path)
	}))
	c, err := client.Dial(t.Context(), netip.MustParseAddrPort(vip+":9080"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET /1 HTTP/1.1\r\nHost: reviews:9080\r\n\r\nGET /2 HTTP/1.1\r\nHost: reviews:9080\r\nConnection: close\r\n\r\n")
	b, err := io.ReadAll(c)
	if err != nil || !endsWithBoth(string(b)) {
		t.Fatalf("%q, %v", b, err)
	}
}

func endsWithBoth(s string) bool {
	return len(s) > 4 && s[len(s)-2:] == "/2" && strings.Contains(s, "\r\n\r\n/1HTTP/1.1 200")
}
