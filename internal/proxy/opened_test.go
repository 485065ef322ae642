package proxy

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/wire"
)

// listensAt makes the pod's proxy listen at addresses, for what the workload calls or for what calls it.
func (p *pod) listensAt(direction string, addresses ...string) {
	p.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		s.Opened = nil
		for _, a := range addresses {
			s.Opened = append(s.Opened, &conf.Listener{Name: direction + " " + a, Address: netip.MustParseAddrPort(a), Direction: direction})
		}
	})
}

// at is a client in the pod that connects to one address, whatever the URL says.
func (p *pod) at(address string) *http.Client {
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return p.Dial(ctx, netip.MustParseAddrPort(address))
	}}
	p.m.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t}
}

// nobody is what an address means that takes requests: those that name no host of the mesh get nowhere.
func nobody(name string) *conf.Target {
	t := &conf.RouteTable{Name: name}
	t.Seal()
	return &conf.Target{Name: name, Listener: &conf.Listener{Name: name, Chains: []*conf.Chain{{HTTP: &conf.HTTP{Routes: t}}}}}
}

// TestOpenedOutbound: what comes to an address of the sidecar's own is routed by the host that it names, and never passed on. An
// address that somebody else has is no hindrance, is told of, and is taken once it is free.
func TestOpenedOutbound(t *testing.T) {
	m := newMesh(t)
	client, server := m.pod("productpage", "10.0.0.1", nil), m.pod("reviews", "10.0.0.2", nil)
	server.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "reviews for "+r.Host) }))
	taken, err := client.Listen(netip.MustParseAddrPort("127.0.0.1:9081"))
	if err != nil {
		t.Fatal(err)
	}
	client.cluster("reviews", 9080, server)
	client.knows("reviews", 9080, forwardTo("reviews"))
	client.config.publish(func(s *conf.Snapshot, names map[string]*conf.Target) {
		names["127.0.0.1:9080"] = nobody("127.0.0.1:9080")
		names["127.0.0.1:9081"] = &conf.Target{Name: "127.0.0.1:9081", Listener: &conf.Listener{Chains: []*conf.Chain{{
			TCP: &conf.TCP{Clusters: []conf.WeightedCluster{{Cluster: "reviews", Weight: 1}}, TotalWeight: 1}}}}}
	})
	client.listensAt("outbound", "127.0.0.1:9080", "127.0.0.1:9081", "127.0.0.1:9082")
	c := client.at("127.0.0.1:9080")
	eventually(t, "the free address serves although another is taken", func() bool {
		status, body, _ := client.get(c, "http://reviews:9080/")
		return status == 200 && body == "reviews for reviews:9080"
	})
	for _, host := range []string{"127.0.0.1:9080", "example.com"} {
		if status, _, _ := client.get(c, "http://"+host+"/"); status != 404 {
			t.Errorf("%s: %d", host, status)
		}
	}
	if why := client.proxy.Unready(); why != "" {
		t.Fatalf("not ready: %s", why)
	}
	page := httptest.NewRecorder()
	client.proxy.Handler().ServeHTTP(page, httptest.NewRequest("GET", "/ready", nil))
	if got, want := strings.TrimSpace(page.Body.String()), wire.ReadyBut+"outbound 127.0.0.1:9081: address already in use"; page.Code != 200 || got != want {
		t.Errorf("%d %q, want %q", page.Code, got, want)
	}
	// An address that means nothing, as when the object has just gone: its connections do not come back to it.
	status, _, _ := client.get(client.at("127.0.0.1:9082"), "http://example.com/")
	if status != 502 {
		t.Errorf("an address that means nothing: %d", status)
	}
	taken.Close()
	eventually(t, "the other is taken once it is free", func() bool {
		status, _, _ := client.get(client.at("127.0.0.1:9081"), "http://any.example/")
		return status == 200
	})
	client.listensAt("outbound", "127.0.0.1:9081")
	c.CloseIdleConnections()
	eventually(t, "an address that is not named any more is closed", func() bool {
		status, _, _ := client.get(c, "http://reviews:9080/")
		return status == 0
	})
}

// TestOpenedInbound: what comes to a port of the workload that the sidecar listens at is as what is captured on its way there.
func TestOpenedInbound(t *testing.T) {
	m := newMesh(t)
	server := m.pod("reviews", "10.0.0.2", func(b *wire.Bootstrap) { b.Outbound, b.Inbound = "", "" })
	server.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		s.Inbound = permissive(9080)
		for _, c := range s.Inbound.Chains {
			if c.HTTP != nil {
				c.HTTP.Routes = table(forwardTo("inbound|9080||"))
			}
		}
		s.Clusters["inbound|9080||"] = &conf.Cluster{Name: "inbound|9080||", Discovery: conf.Static, Localities: []conf.Locality{{Endpoints: []*conf.Endpoint{
			{Address: "10.0.0.2", Port: 8080, Weight: 1, Healthy: true, Addr: netip.MustParseAddrPort("10.0.0.2:8080")}}}}, Total: 1}
	})
	server.serve(8080, hello("reviews"))
	server.listensAt("inbound", "10.0.0.2:9080")
	client := m.pod("productpage", "10.0.0.1", nil)
	client.cluster("reviews", 9080, server)
	client.knows("reviews", 9080, forwardTo("reviews"))
	c := client.client()
	eventually(t, "the mesh is let in", func() bool {
		status, body, _ := client.get(c, "http://reviews:9080/a")
		return status == 200 && body == "reviews /a"
	})
	if status, _, _ := server.get(server.at("10.0.0.2:9080"), "http://reviews/b"); status != 200 {
		t.Errorf("from within, in plaintext: %d", status)
	}
	server.accepts(strict(9080))
	if status, _, _ := server.get(server.at("10.0.0.2:9080"), "http://reviews/b"); status != 0 {
		t.Errorf("plaintext where mutual TLS is required: %d", status)
	}
}
