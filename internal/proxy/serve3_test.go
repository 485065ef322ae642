package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/wire"
)

// edge3 is a gateway with HTTPS at 443 and HTTP/3 beside it, in front of a server, and a client that speaks HTTP/3 to it.
func edge3(t *testing.T, handler http.Handler, change func(*conf.HTTP)) (edge *pod, web *httptest.Server, client *http.Client) {
	return edge3As(t, asGateway, handler, change)
}

// edge3As is edge3 with a bootstrap file of the caller's.
func edge3As(t *testing.T, boot func(*wire.Bootstrap), handler http.Handler, change func(*conf.HTTP)) (edge *pod, web *httptest.Server, client *http.Client) {
	m := newMesh(t)
	edge = m.pod("ingress", "10.0.0.1", boot)
	server := m.pod("productpage", "10.0.0.2", nil)
	server.serve(9080, handler)
	edge.cluster("productpage", 9080, server)
	web = httptest.NewUnstartedServer(nil) // for its certificate of example.com
	web.StartTLS()
	t.Cleanup(web.Close)
	h := &conf.HTTP{Routes: table(forwardTo("productpage")), UseRemoteAddress: true}
	if change != nil {
		change(h)
	}
	pair := keyPair(t, web.TLS.Certificates[0])
	chain := func(alpn ...string) []*conf.Chain {
		return []*conf.Chain{{Match: conf.ChainMatch{ServerNames: []string{"example.com"}},
			TLS: &conf.DownstreamTLS{Certificates: []conf.KeyPair{pair}, ALPN: alpn}, HTTP: h}}
	}
	at := netip.MustParseAddrPort("0.0.0.0:443")
	edge.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		s.Gateways = []*conf.Listener{{Name: "0.0.0.0_443", Address: at, Chains: chain("http/1.1")},
			{Name: "udp_0.0.0.0_443", Address: at, QUIC: true, Chains: chain("h3")}}
	})
	eventually(t, "the UDP port", func() bool { return edge.udp.Load() != nil })
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	transport := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "example.com"}}
	t.Cleanup(func() { transport.Close() })
	return edge, web, &http.Client{Transport: transport, Timeout: enough}
}

// TestHTTP3ConnectionsAreLimited: one is allowed, another is refused, and taken once the first has left.
func TestHTTP3ConnectionsAreLimited(t *testing.T) {
	edge, web, client := edge3As(t, func(b *wire.Bootstrap) {
		asGateway(b)
		b.MaxListenerConnections = 1
	}, hello("productpage"), nil)
	first := client.Transport.(*http3.Transport)
	get := func(tr *http3.Transport) error {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+edge.udp.Load().(net.Addr).String()+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "example.com"
		res, err := tr.RoundTrip(req)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		return err
	}
	another := func() error {
		roots := x509.NewCertPool()
		roots.AddCert(web.Certificate())
		tr := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "example.com"}}
		defer tr.Close()
		return get(tr)
	}
	if err := get(first); err != nil {
		t.Fatal(err)
	}
	if err := another(); err == nil {
		t.Error("a second connection is taken where one is allowed")
	}
	if got := edge.proxy.guard.Facts(); got.Connections != 1 || got.TurnedAway == 0 {
		t.Errorf("counted: %+v", got)
	}
	first.Close()
	eventually(t, "room for another", func() bool { return another() == nil })
	eventually(t, "all counted out", func() bool { return edge.proxy.guard.Facts().Connections == 0 })
}

func TestHTTP3AtGateway(t *testing.T) {
	edge, _, client := edge3(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "X-Sum")
		io.WriteString(w, r.Method+" "+r.Host+" "+r.Header.Get("X-Forwarded-Proto")+" "+string(body))
		w.Header().Set("X-Sum", "1")
	}), nil)
	base := "https://" + edge.udp.Load().(net.Addr).String()
	for _, c := range []struct {
		method string
		body   io.Reader
		want   string
	}{
		{"GET", nil, ""},
		{"POST", strings.NewReader("sized"), "sized"},
		{"POST", io.MultiReader(strings.NewReader("chunked")), "chunked"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, base+"/x", c.body)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "shop.example.com"
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if want := c.method + " shop.example.com https " + c.want; err != nil || res.StatusCode != 200 || string(body) != want {
			t.Fatalf("%d %q, %v; want %q", res.StatusCode, body, err, want)
		}
		if res.Trailer.Get("X-Sum") != "1" {
			t.Errorf("trailers %v", res.Trailer)
		}
	}
	eventually(t, "the access log", func() bool { return strings.Contains(edge.log.String(), `"POST /x HTTP/3"`) })
}

// TestHTTP3LargeHeads are refused with words, as those of the other versions are.
func TestHTTP3LargeHeads(t *testing.T) {
	edge, _, client := edge3(t, hello("x"), nil)
	for reason, change := range map[string]func(http.Header){
		"head is too large": func(h http.Header) { h.Set("X-Large", strings.Repeat("x", 70_000)) },
		"too many fields": func(h http.Header) {
			for i := range 101 {
				h.Set(fmt.Sprintf("X-%d", i), "")
			}
		},
	} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+edge.udp.Load().(net.Addr).String()+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "example.com"
		change(req.Header)
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != 431 || !strings.Contains(string(body), reason) {
			t.Errorf("%d %q, %v; want %s", res.StatusCode, body, err, reason)
		}
		eventually(t, "log", func() bool { return edge.logged(" 431 DPE http3.codec_error", reason) })
	}
}

func TestHTTP3UnknownServerName(t *testing.T) {
	edge, _, _ := edge3(t, hello("x"), nil)
	transport := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "other.example"}}
	defer transport.Close()
	client := &http.Client{Transport: transport, Timeout: enough}
	if res, err := client.Get("https://" + edge.udp.Load().(net.Addr).String()); err == nil {
		res.Body.Close()
		t.Errorf("answered %d for a server name that is not configured", res.StatusCode)
	}
}

func TestAltSvc(t *testing.T) {
	edge, web, _ := edge3(t, hello("x"), nil)
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	v, c := visitor(edge.m, edge, 443)
	c.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: roots, NextProtos: []string{"http/1.1"}}
	for url, want := range map[string]string{"https://example.com/": `h3=":443"; ma=86400`, "https://example.com:8443/": `h3=":8443"; ma=86400`} {
		_, _, header := v.get(c, url)
		if got := header.Get("Alt-Svc"); got != want {
			t.Errorf("%s: Alt-Svc %q, want %q", url, got, want)
		}
	}
	edge.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) { s.Gateways = s.Gateways[:1] })
	eventually(t, "no Alt-Svc without HTTP/3", func() bool {
		_, _, header := v.get(c, "https://example.com/")
		return header != nil && header.Get("Alt-Svc") == ""
	})
}

func TestHTTP3ClientLeaves(t *testing.T) {
	entered, left := make(chan struct{}), make(chan struct{})
	edge, _, client := edge3(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
		close(left)
	}), nil)
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", "https://"+edge.udp.Load().(net.Addr).String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() { <-entered; cancel() }()
	if res, err := client.Do(req); err == nil {
		res.Body.Close()
		t.Error("answered")
	}
	<-left
}

// TestTunnelsOverHTTP3: WebSockets come by extended CONNECT (RFC 9220) and carry bytes both ways until both sides have ended; other
// protocols only where the route lets them, CONNECT alone never.
func TestTunnelsOverHTTP3(t *testing.T) {
	edge, web, _ := edge3(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/page" {
			io.WriteString(w, "no tunnel")
			return
		}
		if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Sec-WebSocket-Key") == "" || r.URL.Path != "/ws" {
			http.Error(w, "no handshake", 400)
			return
		}
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		io.WriteString(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: proof\r\n\r\nhello ")
		rw.Flush()
		io.Copy(c, rw)
		io.WriteString(c, " bye")
	}), nil)
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	qc, err := quic.DialAddr(t.Context(), edge.udp.Load().(net.Addr).String(), &tls.Config{RootCAs: roots, ServerName: "example.com", NextProtos: []string{"h3"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer qc.CloseWithError(0, "")
	client := (&http3.Transport{}).NewClientConn(qc)
	<-client.ReceivedSettings()
	if !client.Settings().EnableExtendedConnect {
		t.Fatal("extended CONNECT is not offered")
	}
	ask := func(r *http.Request) (*http3.RequestStream, *http.Response) {
		t.Helper()
		s, err := client.OpenRequestStream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.SetDeadline(time.Now().Add(enough))
		if err := s.SendRequestHeader(r); err != nil {
			t.Fatal(err)
		}
		res, err := s.ReadResponse()
		if err != nil {
			t.Fatal(err)
		}
		return s, res
	}
	tunnel := func(protocol, path string) *http.Request {
		return &http.Request{Method: "CONNECT", Proto: protocol, Host: "example.com", URL: &url.URL{Scheme: "https", Host: "example.com", Path: path},
			Header: http.Header{"Sec-Websocket-Version": {"13"}}}
	}
	s, res := ask(tunnel("websocket", "/ws"))
	if res.StatusCode != 200 || res.Header.Get("Sec-WebSocket-Accept") != "" {
		t.Fatalf("%d %v", res.StatusCode, res.Header)
	}
	long := strings.Repeat("0123456789", 20_000)
	go func() {
		io.WriteString(s, long)
		s.Close()
	}()
	if got, err := io.ReadAll(s); err != nil || string(got) != "hello "+long+" bye" {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	eventually(t, "log", func() bool { return edge.logged("GET /ws HTTP/3", " 101 ") })
	if _, res := ask(tunnel("websocket", "/else")); res.StatusCode != 400 {
		t.Errorf("refused by the backend: %d", res.StatusCode)
	}
	if _, res := ask(&http.Request{Method: "CONNECT", Host: "example.com:80", URL: &url.URL{Host: "example.com:80"}, Header: http.Header{}}); res.StatusCode != 405 {
		t.Errorf("CONNECT: %d", res.StatusCode)
	}
	for _, protocol := range []string{"websocket", "foo"} {
		if _, res := ask(tunnel(protocol, "/page")); res.StatusCode != 502 {
			t.Errorf("%s: an answer that is no tunnel came as %d", protocol, res.StatusCode)
		}
	}
	// Whoever leaves takes the backend's connection along.
	s, res = ask(tunnel("websocket", "/ws"))
	if res.StatusCode != 200 {
		t.Fatal(res.StatusCode)
	}
	s.CancelRead(0)
	s.CancelWrite(0)
	eventually(t, "the tunnel's end", func() bool { return strings.Count(edge.log.String(), "GET /ws HTTP/3") == 2 })
}

// TestHTTP3ClientsLeaveWhenItDrains: those that are there, at once, and those that still come, after they were served.
func TestHTTP3ClientsLeaveWhenItDrains(t *testing.T) {
	edge, _, client := edge3(t, hello("productpage"), nil)
	get := func() {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+edge.udp.Load().(net.Addr).String()+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "example.com"
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 200 {
			t.Errorf("answered %d", res.StatusCode)
		}
	}
	get()
	edge.proxy.Drain()
	for range 2 {
		eventually(t, "all left", func() bool { return edge.proxy.guard.Facts().Connections == 0 })
		get()
	}
}
