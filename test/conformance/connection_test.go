package conformance

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/weftmesh/weft/test/rig"
)

// TestPersistence: RFC 9112 section 9.3.
func TestPersistence(t *testing.T) {
	get := func(version, fields string) string {
		return "GET /g HTTP/" + version + "\r\nHost: a\r\n" + fields + "\r\n"
	}
	saw := []string{"GET /g a -"}
	playAll(t, []talk{
		{"1.1", get("1.1", ""), "200 open", saw},
		{"1.1 close", get("1.1", "Connection: close\r\n"), "200 closed", saw},
		{"1.1 close in upper case", get("1.1", "Connection: CLOSE\r\n"), "200 closed", saw},
		{"1.1 close in a list", get("1.1", "Connection: x, close ,y\r\n"), "200 closed", saw},
		{"1.1 close in a second field", get("1.1", "Connection: x\r\nConnection: close\r\n"), "200 closed", saw},
		{"1.1 close and keep-alive", get("1.1", "Connection: keep-alive, close\r\n"), "200 closed", saw},
		{"1.1 keep-alive", get("1.1", "Connection: keep-alive\r\n"), "200 open", saw},
		{"1.1 close within a word", get("1.1", "Connection: closed\r\n"), "200 open", saw},
		{"1.1 empty list", get("1.1", "Connection: ,,\r\n"), "200 open", saw},
		{"1.1 Proxy-Connection close", get("1.1", "Proxy-Connection: close\r\n"), "200 open", saw},
		{"1.0", get("1.0", ""), "200 closed", saw},
		{"1.0 keep-alive", get("1.0", "Connection: keep-alive\r\n"), "200 open", saw},
		{"1.0 keep-alive in mixed case", get("1.0", "Connection: Keep-Alive\r\n"), "200 open", saw},
		{"1.0 keep-alive and close", get("1.0", "Connection: keep-alive, close\r\n"), "200 closed", saw},
		{"1.0 Keep-Alive alone", get("1.0", "Keep-Alive: timeout=5\r\n"), "200 closed", saw},
		{"1.0 Proxy-Connection keep-alive", get("1.0", "Proxy-Connection: keep-alive\r\n"), "200 closed", saw},
		{"1.0 without Host", "GET /g HTTP/1.0\r\nX: y\r\n\r\n", "200 closed", []string{"GET /g " + rig.Service + ":9080 -"}},
		{"1.0 with an empty Host", "GET /g HTTP/1.0\r\nHost:\r\n\r\n", "200 closed", []string{"GET /g " + rig.Service + ":9080 -"}},
		{"what follows close is not served", get("1.1", "Connection: close\r\n") + smuggled, "200 closed", saw},
		{"what follows 1.0 is not served", get("1.0", "") + smuggled, "200 closed", saw},
	}, "inbound 1.0 without Host", "inbound 1.0 with an empty Host", "pair 1.0 without Host", "pair 1.0 with an empty Host")
}

// TestPipelining: RFC 9112 section 9.3.2. An error ends the connection after the answers to what came before it.
func TestPipelining(t *testing.T) {
	get := func(n int) string { return fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", n) }
	var many, statuses string
	var saw []string
	for i := range 50 {
		many, statuses, saw = many+get(i), statuses+"200 ", append(saw, fmt.Sprintf("GET /%d a -", i))
	}
	one := []string{"GET /1 a -"}
	playAll(t, []talk{
		{"fifty", many, statuses + "open", saw},
		{"a malformed one second", get(1) + "GET / /\r\n\r\n" + get(2), "200 400 closed", one},
		{"two lengths second", get(1) + post + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab" + get(2), "200 400 closed", one},
		{"two lengths and TE second", get(1) + post + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + get(2), "200 400 closed", one},
		{"another version second", get(1) + "GET / HTTP/2.0\r\nHost: a\r\n\r\n" + get(2), "200 505 closed", one},
		{"too large second", get(1) + "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 70<<10) + "\r\n\r\n" + get(2), "200 431 closed", one},
		{"bytes of TLS second", get(1) + "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "200 400 closed", one},
		{"a body, then another", post + "Content-Length: 3\r\n\r\nabc" + get(1), "200 200 open", []string{"POST /p a 3 abc", "GET /1 a -"}},
		{"a body with CRLF behind it", post + "Content-Length: 3\r\n\r\nabc\r\n" + get(1), "200 200 open", []string{"POST /p a 3 abc", "GET /1 a -"}},
		{"chunks, then another", post + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + get(1), "200 200 open", []string{"POST /p a chunked abc", "GET /1 a -"}},
		{"half of another", get(1) + "GET /2 HTTP/1.1\r\nHo", "200 waits", one},
	})
}

// TestExpect: RFC 9110 section 10.1.1.
func TestExpect(t *testing.T) {
	playAll(t, append(refused("417", map[string]string{
		"unknown":                          post + "Expect: 200-ok\r\nContent-Length: 5\r\n\r\nhello",
		"unknown, no content":              "GET /g HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n",
		"known and unknown":                post + "Expect: 100-continue, x\r\nContent-Length: 5\r\n\r\nhello",
		"known with a parameter":           post + "Expect: 100-continue;q=1\r\nContent-Length: 5\r\n\r\nhello",
		"known, then unknown in a field":   post + "Expect: 100-continue\r\nExpect: x\r\nContent-Length: 5\r\n\r\nhello",
		"unknown with an escaped HTTP/1.1": post + "Expect: 100-continue=yes\r\nContent-Length: 5\r\n\r\nhello",
	}), []talk{
		{"content is sent without waiting", post + "Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", "100 200 open", []string{"POST /p a 5 hello expecting"}},
		{"any case", post + "eXPECT: 100-Continue\r\nContent-Length: 5\r\n\r\nhello", "100 200 open", []string{"POST /p a 5 hello expecting"}},
		{"twice", post + "Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", "100 200 open", []string{"POST /p a 5 hello expecting"}},
		{"chunks", post + "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "100 200 open", []string{"POST /p a chunked hello expecting"}},
		{"no content", "GET /g HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", "200 open", []string{"GET /g a -"}},
		{"content of no bytes", post + "Expect: 100-continue\r\nContent-Length: 0\r\n\r\n", "200 open", []string{"POST /p a 0"}},
		{"1.0 is told nothing", "POST /p HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", "200 closed", []string{"POST /p a 5 hello"}},
		{"listed by Connection", post + "Connection: Expect\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", "100 200 open", []string{"POST /p a 5 hello expecting"}},
		{"a bad length is not welcomed", post + "Expect: 100-continue\r\nContent-Length: x\r\n\r\n", "400 closed", nil},
	}...))
}

// TestExpectWaits sends the body only after the 100, as clients that mean it do, in each size that the proxy treats differently.
func TestExpectWaits(t *testing.T) {
	for _, w := range ways(t, echo) {
		for _, size := range []int{1, 1000, 100_000, 5_000_000} {
			t.Run(fmt.Sprintf("%s %d bytes", w.name, size), func(t *testing.T) {
				c := dial(t, w.address)
				c.send(post + fmt.Sprintf("Expect: 100-continue\r\nContent-Length: %d\r\n\r\n", size))
				if a, err := c.read("POST"); err != nil || a.StatusCode != 100 {
					t.Fatalf("%v, %v", a.Response, err)
				}
				c.send(strings.Repeat("b", size))
				if a, err := c.read("POST"); err != nil || a.StatusCode != 200 || len(a.body) < size {
					t.Fatalf("%v, %v", a.Response, err)
				}
				if end := c.end(open); end != open {
					t.Error(end)
				}
			})
		}
	}
}

// TestUpgradeSmuggling: a protocol changes only when both sides say so; HTTP/2 by upgrade (RFC 9113 withdrew it) never does, or
// the requests within would pass every policy.
func TestUpgradeSmuggling(t *testing.T) {
	get := func(fields string) string { return "GET /g HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n" }
	saw := []string{"GET /g a -"}
	playAll(t, []talk{
		{"h2c", get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"), "200 open", saw},
		{"h2c without HTTP2-Settings", get("Connection: Upgrade\r\nUpgrade: h2c\r\n"), "200 open", saw},
		{"H2C", get("Connection: upgrade\r\nUpgrade: H2C\r\n"), "200 open", saw},
		{"h2c in a list", get("Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n"), "200 open", saw},
		{"h2c in a second field", get("Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n"), "200 open", saw},
		{"h2c first, then another", get("Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n"), "200 open", saw},
		{"h2", get("Connection: Upgrade\r\nUpgrade: h2\r\n"), "200 open", saw},
		{"websocket, refused by the backend", get("Connection: Upgrade\r\nUpgrade: websocket\r\n") + smuggled, "200 200 open", append(saw[:1:1], "GET /smuggled a -")},
		{"Upgrade that Connection does not list", get("Upgrade: websocket\r\n"), "200 open", saw},
		{"Connection lists Upgrade, and there is none", get("Connection: Upgrade\r\n"), "200 open", saw},
		{"1.0", "GET /g HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "200 closed", saw},
	})
}

// TestUpgradesThatReachTheBackend: what it is told of an upgrade is what the proxy has agreed to carry.
func TestUpgradesThatReachTheBackend(t *testing.T) {
	for _, w := range ways(t, echo) {
		for offer, want := range map[string]string{"websocket": "websocket", "h2c": "", "websocket, h2c": "", "TLS/1.0": "TLS/1.0"} {
			t.Run(w.name+" "+offer, func(t *testing.T) {
				w.backend.Take()
				c := dial(t, w.address)
				c.send("GET /g HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: " + offer + "\r\n\r\n")
				if a, err := c.read("GET"); err != nil || a.StatusCode != 200 {
					t.Fatalf("%v, %v", a.Response, err)
				}
				r := w.backend.Take()
				if len(r) != 1 || r[0].Header.Get("Upgrade") != want || strings.Contains(r[0].Header.Get("Connection"), "Upgrade") != (want != "") {
					t.Fatalf("the backend got %v", r[0].Header)
				}
			})
		}
	}
}

// TestUpgradeRequired: a 426 keeps the field that says what it requires (RFC 9110 section 15.5.22); in other answers Upgrade ends at
// the hop.
func TestUpgradeRequired(t *testing.T) {
	for _, w := range ways(t, echo)[:3] {
		for _, c := range []struct{ name, status, sends, asks, want string }{
			{"kept", "426", "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n", "", "Upgrade: websocket\r\nConnection: Upgrade\r\n"},
			{"for an upgrade", "426", "Connection: upgrade\r\nUpgrade: a/1, b\r\n", "Connection: Upgrade\r\nUpgrade: websocket\r\n", "Upgrade: a/1, b\r\nConnection: Upgrade\r\n"},
			{"with close", "426", "Connection: upgrade\r\nUpgrade: a\r\n", "Connection: close\r\n", "Upgrade: a\r\nConnection: Upgrade, close\r\n"},
			{"not listed by Connection", "426", "Upgrade: a\r\n", "", ""},
			{"another status", "200", "Connection: Upgrade\r\nUpgrade: h2c\r\n", "", ""},
		} {
			t.Run(w.name+" "+c.name, func(t *testing.T) {
				w.backend.Answer(func(conn net.Conn, r *rig.Received) bool {
					_, err := io.WriteString(conn, "HTTP/1.1 "+c.status+" X\r\nContent-Length: 0\r\n"+c.sends+"\r\n")
					return err == nil
				})
				cl := dial(t, w.address)
				cl.send("GET /g HTTP/1.1\r\nHost: a\r\n" + c.asks + "\r\n")
				head, err := readHead(cl.r)
				if err != nil || !strings.HasPrefix(head, "HTTP/1.1 "+c.status) || !strings.HasSuffix(head, c.want+"\r\n") ||
					c.want == "" && strings.Contains(head, "pgrade") {
					t.Fatalf("%q, %v", head, err)
				}
			})
		}
	}
}

// TestHopByHop: RFC 9110 section 7.6.1. What Connection lists ends here, but for what the message means.
func TestHopByHop(t *testing.T) {
	for _, w := range ways(t, echo) {
		t.Run(w.name, func(t *testing.T) {
			w.backend.Take()
			c := dial(t, w.address)
			c.send("POST /p HTTP/1.1\r\nX-Early: 1\r\nConnection: X-Early, x-LATE ,, host,expect, content-length,X-Forwarded-Proto\r\nHost: a\r\n" +
				"Content-Length: 2\r\nConnection: X-Third\r\nX-Late: 1\r\nX-Third: 1\r\nX-Kept: 1\r\nKeep-Alive: 1\r\nProxy-Connection: x\r\nTE: gzip\r\n\r\nhi")
			if a, err := c.read("POST"); err != nil || a.StatusCode != 200 {
				t.Fatalf("%v, %v", a.Response, err)
			}
			r := w.backend.Take()
			if len(r) != 1 || summary(&r[0]) != "POST /p a 2 hi" {
				t.Fatalf("the backend got %v", r)
			}
			for _, name := range []string{"X-Early", "X-Late", "X-Third", "Keep-Alive", "Proxy-Connection", "Te", "Connection", "Expect"} {
				if v := r[0].Header.Get(name); v != "" {
					t.Errorf("%s: %s was forwarded", name, v)
				}
			}
			if r[0].Header.Get("X-Kept") == "" {
				t.Error("X-Kept was not forwarded")
			}
		})
	}
}

// TestConnect: RFC 9110 section 9.3.6. Only the forward proxy takes it.
func TestConnect(t *testing.T) {
	playAll(t, append(refused("405", map[string]string{
		"name and port": "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n" + smuggled,
		"IPv6":          "CONNECT [::1]:80 HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
	}), refused("400", map[string]string{
		"no port":        "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n",
		"empty port":     "CONNECT a: HTTP/1.1\r\nHost: a\r\n\r\n",
		"origin form":    "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n",
		"absolute form":  "CONNECT http://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n",
		"userinfo":       "CONNECT u@a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
		"with content":   "CONNECT a:80 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
		"with chunks":    "CONNECT a:80 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"port too large": "CONNECT a:99999 HTTP/1.1\r\nHost: a\r\n\r\n",
	})...))
}

// TestForwardProxy goes through it by absolute form, and by CONNECT.
func TestForwardProxy(t *testing.T) {
	b := rig.NewBackend(t, echo)
	outside := rig.NewBackend(t, echo)
	p, _ := rig.New(t).Outbound(rig.Plain(b.Addr().String()))
	w := way{"forward", p.Forward(), b, []*rig.Proxy{p}}
	service := rig.Service + ":9080"
	for _, c := range append(refused("400", map[string]string{
		"CONNECT without a port":   "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n",
		"CONNECT with content":     "CONNECT a:80 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
		"absolute form, two hosts": "GET http://" + service + "/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
	}), []talk{
		{"absolute form", "GET http://" + service + "/g HTTP/1.1\r\nHost: other\r\n\r\n", "200 waits", []string{"GET /g " + service + " -"}},
		{"1.0 is not kept", "GET http://" + service + "/g HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "200 closed", []string{"GET /g " + service + " -"}},
		{"Proxy-Connection says nothing", "GET http://" + service + "/g HTTP/1.1\r\nHost: x\r\nProxy-Connection: close\r\n\r\n", "200 waits", []string{"GET /g " + service + " -"}},
	}...) {
		t.Run(c.name, func(t *testing.T) { w.play(t, c) })
	}
	for name, to := range map[string]struct {
		address string
		backend *rig.Backend
	}{"service": {service, b}, "outside": {outside.Addr().String(), outside}} {
		t.Run("CONNECT to "+name, func(t *testing.T) {
			to.backend.Take()
			c := dial(t, p.Forward())
			c.send("CONNECT " + to.address + " HTTP/1.1\r\nHost: " + to.address + "\r\n\r\nGET /early HTTP/1.1\r\nHost: in\r\n\r\n")
			head, err := readHead(c.r)
			if err != nil || !strings.HasPrefix(head, "HTTP/1.1 200 ") || strings.Contains(head, "Content-Length") || strings.Contains(head, "Transfer-Encoding") {
				t.Fatalf("%q, %v", head, err)
			}
			for range 2 {
				if a, err := c.read("GET"); err != nil || a.StatusCode != 200 {
					t.Fatalf("%v, %v", a.Response, err)
				}
				c.send("GET /late HTTP/1.1\r\nHost: in\r\n\r\n")
			}
			if r := to.backend.Take(); len(r) < 2 || summary(&r[0]) != "GET /early in -" {
				t.Fatalf("%d requests through the tunnel", len(r))
			}
		})
	}
}

// readHead gives a head with its empty line.
func readHead(r *bufio.Reader) (string, error) {
	var head strings.Builder
	for {
		line, err := r.ReadString('\n')
		head.WriteString(line)
		if err != nil || line == "\r\n" {
			return head.String(), err
		}
	}
}

// TestWebSocketBytes: an upgrade that both sides want carries whatever follows, also what came with the heads.
func TestWebSocketBytes(t *testing.T) {
	upgrade := func(c net.Conn, r *rig.Received) bool {
		if r.Header.Get("Upgrade") == "" {
			return echo(c, r)
		}
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Kept: 1\r\n\r\nfirst ")
		io.Copy(c, c)
		return false
	}
	for _, w := range ways(t, upgrade) {
		t.Run(w.name, func(t *testing.T) {
			c := dial(t, w.address)
			c.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: x\r\n\r\n")
			head, err := readHead(c.r)
			if err != nil || !strings.HasPrefix(head, "HTTP/1.1 101 ") || !strings.Contains(head, "X-Kept: 1\r\n") || !strings.Contains(head, "Upgrade: websocket\r\n") {
				t.Fatalf("%q, %v", head, err)
			}
			big := strings.Repeat("0123456789", 100_000)
			go func() { // ends with its writes
				c.send(big)
				c.conn.(*net.TCPConn).CloseWrite()
			}()
			if got, err := io.ReadAll(c.r); err != nil || string(got) != "first "+big {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
		})
	}
}

// TestWebSocketHandshakes: a handshake that lacks something reaches the backend as it is, which alone may refuse it (RFC 6455 section 4.2),
// and so does the refusal.
func TestWebSocketHandshakes(t *testing.T) {
	const refusal = "HTTP/1.1 400 Bad Request\r\nSec-WebSocket-Version: 13, 8\r\nContent-Length: 2\r\n\r\nno"
	for _, w := range ways(t, func(c net.Conn, r *rig.Received) bool { _, err := io.WriteString(c, refusal); return err == nil }) {
		for name, fields := range map[string]string{
			"no key":            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
			"a short key":       "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n",
			"two keys":          "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a\r\nSec-WebSocket-Key: b\r\n",
			"another version":   "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 7\r\n",
			"offers":            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a\r\nSec-WebSocket-Protocol: chat, b\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
			"no offer of a key": "Sec-WebSocket-Key: a\r\nSec-WebSocket-Version: 13\r\n",
		} {
			t.Run(w.name+" "+name, func(t *testing.T) {
				w.backend.Take()
				c := dial(t, w.address)
				c.send("GET /ws HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n")
				a, err := c.read("GET")
				if err != nil || a.StatusCode != 400 || a.body != "no" || a.Header.Get("Sec-WebSocket-Version") != "13, 8" {
					t.Fatalf("%v, %v", a.Response, err)
				}
				r := w.backend.Take()
				if len(r) != 1 {
					t.Fatalf("%d requests", len(r))
				}
				got := string(r[0].Raw)
				for _, line := range strings.Split(strings.TrimSuffix(fields, "\r\n"), "\r\n") {
					if strings.HasPrefix(line, "Sec-") && !strings.Contains(got, line+"\r\n") {
						t.Errorf("%q is lost in %q", line, got)
					}
				}
				if strings.Count(got, "Sec-WebSocket") != strings.Count(fields, "Sec-WebSocket") {
					t.Errorf("more than %q in %q", fields, got)
				}
			})
		}
	}
}

// TestWebSocketOverHTTP2 bridges an extended CONNECT (RFC 8441) to a backend that upgrades by HTTP/1.1.
func TestWebSocketOverHTTP2(t *testing.T) {
	upgrade := func(c net.Conn, r *rig.Received) bool {
		if r.Method != "GET" || !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") || r.Header.Get("Sec-WebSocket-Key") == "" {
			return echo(c, r)
		}
		sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "+
			base64.StdEncoding.EncodeToString(sum[:])+"\r\n\r\nfirst ")
		io.Copy(c, c)
		return false
	}
	for _, w := range ways(t, upgrade) {
		t.Run(w.name, func(t *testing.T) {
			c := dialH2(t, w.address)
			c.headers(1, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "a", ":path", "/ws",
				"sec-websocket-version", "13")
			if err := c.f.WriteData(1, false, []byte("second ")); err != nil {
				t.Fatal(err)
			}
			if err := c.f.WriteData(1, true, []byte("third")); err != nil {
				t.Fatal(err)
			}
			var got, allowed string
			for status := ""; ; {
				f, err := c.f.ReadFrame()
				if err != nil {
					t.Fatalf("%v after %q", err, got)
				}
				switch f := f.(type) {
				case *http2.SettingsFrame:
					if v, ok := f.Value(http2.SettingEnableConnectProtocol); ok {
						allowed = fmt.Sprint(v)
					}
				case *http2.MetaHeadersFrame:
					status = f.PseudoValue("status")
				case *http2.DataFrame:
					got += string(f.Data())
				case *http2.RSTStreamFrame:
					t.Fatalf("reset: %v", f.ErrCode)
				}
				if f.Header().StreamID != 1 || !f.Header().Flags.Has(http2.FlagDataEndStream) || f.Header().Type == http2.FrameSettings {
					continue
				}
				if status != "200" || got != "first second third" || allowed != "1" {
					t.Fatalf("%s %q, extended CONNECT allowed: %q", status, got, allowed)
				}
				return
			}
		})
	}
}
