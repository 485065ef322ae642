package proxy

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/wire"
	"github.com/weftmesh/weft/test/envoy"
)

// envoyConfig is a proxy that makes tunnels, whatever they are asked for, to one target.
const envoyConfig = `{
"admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
"static_resources": {
 "listeners": [{"name": "tunnels", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
  "filter_chains": [{"filters": [{"name": "http", "typed_config": {
   "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
   "stat_prefix": "tunnels", "http2_protocol_options": {"allow_connect": true}, "upgrade_configs": [{"upgrade_type": "CONNECT"}],
   "http_filters": [{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
   "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
    {"match": {"connect_matcher": {}}, "route": {"cluster": "target", "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]}},
    {"match": {"prefix": "/tunnel"}, "route": {"cluster": "target", "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {"allow_post": true}}]}}
   ]}]}}}]}]}],
 "clusters": [{"name": "target", "type": "STATIC", "load_assignment": {"cluster_name": "target", "endpoints": [{"lb_endpoints": [{"endpoint": {
  "address": {"socket_address": {"address": "127.0.0.1", "port_value": %d}}}}]}]}}]
}}`

// realEnvoy runs an Envoy that makes tunnels to target, and gives its address.
func realEnvoy(t *testing.T, target netip.AddrPort) netip.AddrPort {
	t.Helper()
	return envoy.Start(t, fmt.Appendf(nil, envoyConfig, target.Port()))
}

// tunnels makes connections to the virtual address at a port go through the proxy at an address.
func (p *pod) tunnels(port uint16, proxy netip.AddrPort, speaks conf.Version, t conf.Tunnel) {
	tcp := &conf.TCP{Clusters: []conf.WeightedCluster{{Cluster: "forward", Weight: 1}}, TotalWeight: 1, Tunnel: &t}
	target := &conf.Target{Name: "shop", Listener: &conf.Listener{Name: "shop", Chains: []*conf.Chain{{TCP: tcp}}}}
	p.config.publish(func(s *conf.Snapshot, names map[string]*conf.Target) {
		names[wire.ListenerName(vip, port)] = target
		s.Clusters["forward"] = &conf.Cluster{Name: "forward", Discovery: conf.Static, Total: 1, Speaks: speaks, ConnectTimeout: 4 * time.Second,
			Transports: []conf.TransportMatch{{}}, Localities: []conf.Locality{{Endpoints: []*conf.Endpoint{{
				Address: proxy.Addr().String(), Port: proxy.Port(), Weight: 1, Healthy: true, Addr: proxy}}}}}
	})
}

// TestTunnelsThroughEnvoy carries connections through a real Envoy: by each method, in each version of HTTP, with half-closes.
func TestTunnelsThroughEnvoy(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { // ends with the listener and its connections
		defer close(served)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.Copy(c, c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-served })
	m := newMesh(t)
	client := m.pod("productpage", "10.0.0.1", nil)
	address := realEnvoy(t, netip.MustParseAddrPort(l.Addr().String()))
	m.real.Store(address.String(), address.String())
	for i, tc := range []struct {
		name   string
		speaks conf.Version
		tunnel conf.Tunnel
		halves bool // a CONNECT of HTTP/1 has no half-close in Envoy
	}{
		{"CONNECT of HTTP/1.1", conf.HTTP1, conf.Tunnel{Target: "shop.example.com:443"}, false},
		{"CONNECT of HTTP/2", conf.HTTP2, conf.Tunnel{Target: "shop.example.com:443"}, true},
		{"POST of HTTP/1.1", conf.HTTP1, conf.Tunnel{Target: "shop.example.com:443", Post: true, Path: "/tunnel"}, true},
		{"POST of HTTP/2", conf.HTTP2, conf.Tunnel{Target: "shop.example.com:443", Post: true, Path: "/tunnel"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			port := uint16(7000 + i)
			client.tunnels(port, address, tc.speaks, tc.tunnel)
			c := client.connects(port)
			c.SetDeadline(time.Now().Add(enough))
			sent := strings.Repeat("0123456789abcdef", 16<<10)
			go func() { // ends with the connection's deadline
				io.WriteString(c, sent)
				if tc.halves {
					c.(interface{ CloseWrite() error }).CloseWrite()
				}
			}()
			got, err := make([]byte, len(sent)), error(nil)
			if tc.halves {
				got, err = io.ReadAll(c)
			} else {
				_, err = io.ReadFull(c, got)
				c.Close()
			}
			if err != nil || string(got) != sent {
				t.Errorf("%d of %d bytes came back: %v\n%s", len(got), len(sent), err, client.log)
			}
			eventually(t, "nothing is in use", func() bool {
				open, _, _, _ := client.proxy.clusters.Get("forward").Breaker.InUse()
				return open == 0 || tc.speaks == conf.HTTP2 && open == 1 // kept for others
			})
		})
	}
}

// TestTunnelsThatFail: a proxy that refuses, says nothing in time, or ends the connection. The log says which.
func TestTunnelsThatFail(t *testing.T) {
	m := newMesh(t)
	client, proxy := m.pod("productpage", "10.0.0.1", nil), bare(m, "10.0.0.9")
	held := make(chan struct{})
	t.Cleanup(func() { close(held) })
	proxy.serveRaw(1, func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
		c.Read(make([]byte, 1<<10))
	})
	proxy.serveRaw(2, func(c net.Conn) { io.Copy(io.Discard, c) })
	proxy.serveRaw(3, func(c net.Conn) { c.Read(make([]byte, 1<<10)) })
	proxy.serveRaw(4, func(c net.Conn) {
		c.Read(make([]byte, 1<<10))
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
	})
	proxy.serveRaw(5, func(c net.Conn) {
		c.Read(make([]byte, 1<<10))
		io.WriteString(c, "what?\r\n\r\n")
	})
	for port, want := range map[uint16]string{
		1: "asked by CONNECT for shop:443, it answers 407 (Proxy Authentication Required)",
		2: "connect to 10.0.0.9:2: timed out",
		3: "the endpoint closed the connection",
		4: "101",
		5: "malformed",
	} {
		client.tunnels(7000+port, netip.AddrPortFrom(proxy.Addr(), port), conf.HTTP1, conf.Tunnel{Target: "shop:443"})
		c := client.connects(7000 + port)
		c.SetDeadline(time.Now().Add(enough))
		io.WriteString(c, "hello")
		if got, err := io.ReadAll(c); len(got) > 0 || os.IsTimeout(err) {
			t.Errorf("%d: %q, %v", port, got, err)
		}
		eventually(t, "the log says: "+want, func() bool { return client.logged("UF,URX", want) })
		if open, _, _, _ := client.proxy.clusters.Get("forward").Breaker.InUse(); open != 0 {
			t.Errorf("%d: %d connections are counted still", port, open)
		}
	}
}

// TestTunnelThroughOurselves goes through our own listener for HTTP_PROXY.
func TestTunnelThroughOurselves(t *testing.T) {
	m := newMesh(t)
	client, server := m.pod("productpage", "10.0.0.1", nil), bare(m, "10.0.0.2")
	forward := m.pod("forward", "10.0.0.9", func(b *wire.Bootstrap) { b.Outbound, b.ForwardProxy = "", "10.0.0.9:3128" })
	server.serveRaw(5432, func(c net.Conn) { io.Copy(c, c) })
	client.tunnels(7000, netip.MustParseAddrPort("10.0.0.9:3128"), conf.AsClient, conf.Tunnel{Target: "10.0.0.2:5432"})
	c := client.connects(7000)
	c.SetDeadline(time.Now().Add(enough))
	sent := "\x00hello" // surely no method of HTTP
	io.WriteString(c, sent)
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != sent {
		t.Errorf("%q came back, %v:\n%s\n%s", got, err, client.log, forward.log)
	}
}

// TestEarlyConnectionsAreNotForgotten: one that was opened to hear who speaks first, and was not needed, is no longer counted.
func TestEarlyConnectionsAreNotForgotten(t *testing.T) {
	m := newMesh(t)
	client, server := m.pod("productpage", "10.0.0.1", nil), m.pod("reviews", "10.0.0.2", nil)
	server.accepts(permissive(9080))
	server.serve(9080, hello("reviews"))
	client.cluster("reviews", 9080, server)
	target := &conf.Target{Name: "reviews", Routes: table(forwardTo("reviews")), Listener: &conf.Listener{Name: "reviews", Chains: []*conf.Chain{{
		HTTP: &conf.HTTP{}, TCP: &conf.TCP{Clusters: []conf.WeightedCluster{{Cluster: "reviews", Weight: 1}}, TotalWeight: 1}}}}}
	client.config.publish(func(_ *conf.Snapshot, names map[string]*conf.Target) { names[wire.ListenerName(vip, 9080)] = target })
	c := client.connects(9080)
	c.SetDeadline(time.Now().Add(enough))
	eventually(t, "the upstream is opened", func() bool {
		open, _, _, _ := client.proxy.clusters.Get("reviews").Breaker.InUse()
		return open == 1
	})
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: reviews\r\nConnection: close\r\n\r\n")
	if got, err := io.ReadAll(c); !strings.Contains(string(got), "reviews /") {
		t.Errorf("%q, %v", got, err)
	}
	eventually(t, "only the pool's is counted", func() bool {
		open, _, _, _ := client.proxy.clusters.Get("reviews").Breaker.InUse()
		return open == 1
	})
}
