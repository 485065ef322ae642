package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/proxyproto"
	"github.com/weftmesh/weft/internal/wire"
)

// announces makes a cluster whose endpoints are sent a PROXY protocol header.
func (p *pod) announces(name string, port uint16, version uint8, to netip.Addr) {
	c := &conf.Cluster{Name: name, Discovery: conf.Static, Total: 1, Port: port,
		Transports: []conf.TransportMatch{{ProxyProtocol: version}},
		Localities: []conf.Locality{{Endpoints: []*conf.Endpoint{{Address: to.String(), Port: port, Weight: 1, Healthy: true,
			Addr: netip.AddrPortFrom(to, port)}}}}}
	p.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) { s.Clusters[name] = c })
}

// takes makes a gateway's port read PROXY protocol headers.
func (p *pod) takes(port uint16, want *conf.ProxyProtocol, chain *conf.Chain) {
	p.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		s.Gateways = []*conf.Listener{{Name: wire.GatewayListenerName(port), Address: netip.AddrPortFrom(netip.IPv4Unspecified(), port),
			Direction: "gateway", ProxyProtocol: want, Chains: []*conf.Chain{chain}}}
	})
}

// bare is a host without a sidecar.
func bare(m *mesh, ip string) *pod {
	return &pod{Host: m.net.Host(netip.MustParseAddr(ip)), m: m, stop: func() {}}
}

// headed serves a TCP application that wants a PROXY protocol header, says what it read, and echoes the next line.
func (p *pod) headed(port uint16) {
	p.serveRaw(port, func(c net.Conn) {
		r := bufio.NewReader(c)
		head, err := r.Peek(12)
		if err != nil {
			return
		}
		n := 0
		if head[0] == 'P' {
			line, _ := r.ReadString('\n')
			fmt.Fprintf(c, "%s", line)
		} else {
			all := make([]byte, 28)
			io.ReadFull(r, all)
			var h proxyproto.Header
			h, n, err = proxyproto.Parse(all)
			fmt.Fprintf(c, "v2 %d %v %v %v\n", n, h.Source.Addr(), h.Destination, err)
		}
		line, _ := r.ReadString('\n')
		io.WriteString(c, line)
	})
}

func TestProxyProtocolIsReadAndWritten(t *testing.T) {
	m := newMesh(t)
	edge, server := m.pod("ingress", "10.0.0.1", asGateway), bare(m, "10.0.0.2")
	server.headed(3306)
	outside := bare(m, "192.168.0.9")
	for _, version := range []uint8{1, 2} {
		edge.announces("mysql", 3306, version, server.Addr())
		edge.takes(8000, &conf.ProxyProtocol{}, &conf.Chain{TCP: &conf.TCP{TotalWeight: 1, Clusters: []conf.WeightedCluster{{Cluster: "mysql", Weight: 1}}}})
		eventually(t, "port open", func() bool {
			c, err := outside.Dial(t.Context(), netip.MustParseAddrPort("10.0.0.1:8000"))
			if err == nil {
				c.Close()
			}
			return err == nil
		})
		c, err := outside.Dial(t.Context(), netip.MustParseAddrPort("10.0.0.1:8000"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		head := proxyproto.Append(nil, 3-version, netip.MustParseAddrPort("203.0.113.7:51000"), netip.MustParseAddrPort("198.51.100.1:443"))
		if _, err := c.Write(append(head, "hello\n"...)); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(c)
		told, _ := r.ReadString('\n')
		echo, _ := r.ReadString('\n')
		want := "PROXY TCP4 203.0.113.7 198.51.100.1 51000 8000\r\n"
		if version == 2 {
			want = "v2 28 203.0.113.7 198.51.100.1:8000 <nil>\n"
		}
		if told != want || echo != "hello\n" {
			t.Errorf("version %d: the server was told %q, and echoes %q", version, told, echo)
		}
	}
}

func TestProxyProtocolNamesTheClientOfRequests(t *testing.T) {
	m := newMesh(t)
	edge, server := m.pod("ingress", "10.0.0.1", asGateway), m.pod("reviews", "10.0.0.2", nil)
	server.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("X-Forwarded-For")) }))
	edge.cluster("reviews", 9080, server)
	http1 := &conf.HTTP{Routes: table(forwardTo("reviews")), UseRemoteAddress: true}
	denyPeer := &conf.Chain{HTTP: http1, Match: conf.ChainMatch{DirectPrefixes: []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")},
		SourcePrefixes: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}}}
	edge.takes(8000, &conf.ProxyProtocol{Disallowed: [3]bool{false, false, true}}, denyPeer)
	outside := bare(m, "192.168.0.9")
	ask := func(head string) string {
		var c net.Conn
		eventually(t, "port open", func() (ok bool) {
			var err error
			c, err = outside.Dial(t.Context(), netip.MustParseAddrPort("10.0.0.1:8000"))
			return err == nil
		})
		defer c.Close()
		io.WriteString(c, head+"GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
		all, _ := io.ReadAll(c)
		_, body, _ := strings.Cut(string(all), "\r\n\r\n")
		return body
	}
	if got := ask("PROXY TCP4 203.0.113.7 198.51.100.1 51000 443\r\n"); got != "203.0.113.7" {
		t.Errorf("the server was told of %q", got)
	}
	if got := ask("PROXY TCP4 203.0.114.7 198.51.100.1 51000 443\r\n"); got != "" {
		t.Errorf("the chain's source prefix let %q in", got)
	}
	if got := ask(""); got != "" {
		t.Errorf("without a header: %q", got)
	}
	if got := ask(string(proxyproto.Append(nil, 2, netip.MustParseAddrPort("203.0.113.7:1"), netip.MustParseAddrPort("203.0.113.8:2")))); got != "" {
		t.Errorf("a version that is not allowed: %q", got)
	}
	eventually(t, "the reasons are logged", func() bool {
		return edge.logged("PROXY protocol version 2 is not allowed here") && edge.logged("no PROXY protocol header")
	})
	edge.takes(8000, &conf.ProxyProtocol{Optional: true}, &conf.Chain{HTTP: http1})
	eventually(t, "optional", func() bool { return ask("") == "192.168.0.9" })
	if got := ask("PROXY UNKNOWN\r\n"); got != "192.168.0.9" {
		t.Errorf("a balancer's own check: %q", got)
	}
}

// TestAnnouncedConnectionsAreNotShared sends two clients' requests to a server that is told whose they are.
func TestAnnouncedConnectionsAreNotShared(t *testing.T) {
	m := newMesh(t)
	edge, server := m.pod("ingress", "10.0.0.1", asGateway), bare(m, "10.0.0.2")
	server.serveRaw(7000, func(c net.Conn) {
		r := bufio.NewReader(c)
		line, _ := r.ReadString('\n')
		for {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(line), line)
		}
	})
	edge.announces("reviews", 7000, 1, server.Addr())
	edge.opens("reviews", 8080)
	for _, ip := range []string{"192.168.0.9", "192.168.0.10"} {
		v := bare(m, ip)
		c := v.client()
		c.Transport.(*http.Transport).DialContext = dialTo(v, edge, 8080)
		eventually(t, "gateway serves", func() bool { status, _, _ := v.get(c, "http://shop.example/"); return status == 200 })
		for range 3 {
			if _, body, _ := v.get(c, "http://shop.example/"); !strings.HasPrefix(body, "PROXY TCP4 "+ip+" ") {
				t.Errorf("a request of %s came on a connection of %q", ip, body)
			}
		}
	}
}

// TestAnnouncedHTTP2ConnectionsAreNotShared has two clients ask at once: each request comes on a connection of its client.
func TestAnnouncedHTTP2ConnectionsAreNotShared(t *testing.T) {
	m := newMesh(t)
	edge, server := m.pod("ingress", "10.0.0.1", asGateway), bare(m, "10.0.0.2")
	server.serveRaw(7000, func(c net.Conn) {
		r := bufio.NewReader(c)
		line, _ := r.ReadString('\n')
		(&http2.Server{}).ServeConn(&readAhead{c, r}, &http2.ServeConnOpts{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, line)
		})})
	})
	edge.announces("reviews", 7000, 1, server.Addr())
	edge.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		c := *s.Clusters["reviews"]
		c.Speaks = conf.HTTP2
		s.Clusters["reviews"] = &c
	})
	edge.opens("reviews", 8080)
	var asking sync.WaitGroup
	for _, ip := range []string{"192.168.0.9", "192.168.0.10"} {
		v := bare(m, ip)
		c := v.client()
		c.Transport.(*http.Transport).DialContext = dialTo(v, edge, 8080)
		eventually(t, "gateway serves", func() bool { status, _, _ := v.get(c, "http://shop.example/"); return status == 200 })
		for range 20 {
			asking.Go(func() {
				for range 5 {
					res, err := c.Get("http://shop.example/")
					if err != nil {
						t.Error(err)
						return
					}
					body, err := io.ReadAll(res.Body)
					res.Body.Close()
					if err != nil || res.StatusCode != 200 || !strings.HasPrefix(string(body), "PROXY TCP4 "+ip+" ") {
						t.Errorf("a request of %s: %d, on a connection of %q, %v", ip, res.StatusCode, body, err)
					}
				}
			})
		}
	}
	asking.Wait()
}

// readAhead is a connection of which something was read already.
type readAhead struct {
	net.Conn
	r *bufio.Reader
}

func (c *readAhead) Read(p []byte) (int, error) { return c.r.Read(p) }
