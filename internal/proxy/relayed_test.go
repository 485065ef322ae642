package proxy

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/balance"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/wire"
)

// Relayed connections end when they have lasted, or been silent, for too long; the log says which.
func TestRelayedConnectionsEnd(t *testing.T) {
	for _, tc := range []struct {
		name, flag string
		limit      conf.TCP
		talks      bool
	}{
		{"lasted", " DT ", conf.TCP{MaxDuration: time.Second, IdleTimeout: time.Minute}, true},
		{"silent", " SI ", conf.TCP{MaxDuration: time.Minute, IdleTimeout: time.Second}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMesh(t)
			client, server := m.pod("productpage", "10.0.0.1", nil), m.pod("db", "10.0.0.2", nil)
			server.serveRaw(5432, func(c net.Conn) { io.Copy(c, c) })
			client.cluster("db", 5432, server)
			limit := tc.limit
			limit.Clusters, limit.TotalWeight = []conf.WeightedCluster{{Cluster: "db", Weight: 1}}, 1
			target := &conf.Target{Name: "db", Listener: &conf.Listener{Name: "db", Chains: []*conf.Chain{{TCP: &limit}}}}
			client.config.publish(func(_ *conf.Snapshot, names map[string]*conf.Target) { names[wire.ListenerName(vip, 5432)] = target })
			c, err := client.Dial(t.Context(), netip.MustParseAddrPort(vip+":5432"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(enough))
			echoed := 0
			for err == nil {
				if !tc.talks && echoed > 0 {
					_, err = c.Read(make([]byte, 1))
					break
				}
				if _, err = io.WriteString(c, "x"); err == nil {
					_, err = io.ReadFull(c, make([]byte, 1))
					echoed++
				}
			}
			if n, ok := err.(net.Error); echoed == 0 || err == nil || ok && n.Timeout() {
				t.Fatalf("%d bytes came back, then %v", echoed, err)
			}
			eventually(t, "the log says why", func() bool { return client.logged(tc.flag) })
		})
	}
}

// TestRelayedConnectionClearsItsEndpoint: an endpoint that could not be connected to, and then takes a connection, gets its share again.
func TestRelayedConnectionClearsItsEndpoint(t *testing.T) {
	m := newMesh(t)
	client, server := m.pod("productpage", "10.0.0.1", nil), m.pod("db", "10.0.0.2", nil)
	server.serveRaw(5432, func(c net.Conn) { io.Copy(c, c) })
	client.cluster("db", 5432, server)
	tcp := &conf.TCP{Clusters: []conf.WeightedCluster{{Cluster: "db", Weight: 1}}, TotalWeight: 1}
	target := &conf.Target{Name: "db", Listener: &conf.Listener{Name: "db", Chains: []*conf.Chain{{TCP: tcp}}}}
	client.config.publish(func(_ *conf.Snapshot, names map[string]*conf.Target) { names[wire.ListenerName(vip, 5432)] = target })
	b := client.proxy.clusters.Get("db").Balancer
	b.Report(b.Hosts()[0], balance.ConnectFailed, 0, errors.New("connection refused"))
	c, err := client.Dial(t.Context(), netip.MustParseAddrPort(vip+":5432"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if h := b.Hosts()[0]; !h.Healthy() {
		t.Errorf("the endpoint is %s", h.Condition())
	}
}
