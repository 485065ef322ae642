package proxy

import (
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/wire"
)

// TestUnixEndpoints sends requests and relays connections to unix sockets.
func TestUnixEndpoints(t *testing.T) {
	m := newMesh(t)
	client := m.pod("productpage", "10.0.0.1", nil)
	listen := func(name string) net.Listener {
		l, err := net.Listen("unix", filepath.Join(t.TempDir(), name))
		if err != nil {
			t.Fatal(err)
		}
		path := wire.UnixPrefix + l.Addr().String()
		client.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
			s.Clusters[name] = &conf.Cluster{Name: name, Discovery: conf.Static, Speaks: conf.AsClient, Total: 1, Transports: []conf.TransportMatch{{}},
				Localities: []conf.Locality{{Endpoints: []*conf.Endpoint{{Address: path, Weight: 1, Healthy: true}}}}}
		})
		return l
	}
	web, raw := listen("web"), listen("raw")
	s := &http.Server{Handler: hello("web")}
	served := make(chan struct{}, 2)
	go func() { s.Serve(web); served <- struct{}{} }() // ends by Close
	go func() {                                        // ends with the listener
		for c, err := raw.Accept(); err == nil; c, err = raw.Accept() {
			io.Copy(c, c)
			c.Close()
		}
		served <- struct{}{}
	}()
	t.Cleanup(func() {
		s.Close()
		raw.Close()
		<-served
		<-served
	})
	client.knows("web", 80, forwardTo("web"))
	target := &conf.Target{Name: "raw", Listener: &conf.Listener{Name: "raw", Chains: []*conf.Chain{{
		TCP: &conf.TCP{Clusters: []conf.WeightedCluster{{Cluster: "raw", Weight: 1}}, TotalWeight: 1}}}}}
	client.config.publish(func(_ *conf.Snapshot, names map[string]*conf.Target) { names[wire.ListenerName(vip, 7000)] = target })
	c := client.client()
	for range 2 { // the second one on the same connection
		if status, body, _ := client.get(c, "http://web/a"); status != 200 || body != "web /a" {
			t.Errorf("%d %q\n%s", status, body, client.log)
		}
	}
	r := client.connects(7000)
	r.SetDeadline(time.Now().Add(enough))
	if !echoes(r) {
		t.Errorf("nothing came back:\n%s", client.log)
	}
	r.Close()
	eventually(t, "the log names the sockets", func() bool {
		return client.logged("200", wire.UnixPrefix+web.Addr().String()) && client.logged(wire.UnixPrefix+raw.Addr().String())
	})
}
