package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/listen"
	"github.com/weftmesh/weft/internal/wire"
)

func TestMemoryOfSpeakersExpiresAndIsBounded(t *testing.T) {
	var m memory
	now := time.Unix(1e9, 0)
	m.set("a", listen.ServerFirst, now)
	if m.get("a", now.Add(remembering-1)) != listen.ServerFirst || m.get("a", now.Add(remembering)) != listen.Neither {
		t.Error("it is remembered for another time than it should be")
	}
	for i := range 3 * maxRemembered {
		m.set(fmt.Sprint(i), listen.ClientFirst, now)
		if len(m.first) > maxRemembered {
			t.Fatalf("%d destinations are remembered", len(m.first))
		}
	}
}

// TestEagerClientsDoNotHideThatTheServerSpeaksFirst: one that speaks at once proves nothing about the server, a row of them does.
func TestEagerClientsDoNotHideThatTheServerSpeaksFirst(t *testing.T) {
	var m memory
	now := time.Unix(1e9, 0)
	speaks := func(s listen.Speaker, times int) {
		for range times {
			m.set("a", s, now)
		}
	}
	speaks(listen.ServerFirst, 1)
	for range 3 {
		if speaks(listen.ClientFirst, unlearning-1); m.get("a", now) != listen.ServerFirst {
			t.Fatal("eager clients have hidden it")
		}
		speaks(listen.ServerFirst, 1)
	}
	if speaks(listen.ClientFirst, unlearning); m.get("a", now) != listen.ClientFirst {
		t.Error("another program listens there, and it is not noticed")
	}
	speaks(listen.ServerFirst, 1)
	now = now.Add(remembering)
	if speaks(listen.ClientFirst, 1); m.get("a", now) != listen.ClientFirst {
		t.Error("what was long ago counts")
	}
}

// TestChainOfDestinationSubnet relays connections of one service by the address that the client chose.
func TestChainOfDestinationSubnet(t *testing.T) {
	m := newMesh(t)
	client, one, two := m.pod("app", "10.0.0.1", nil), bare(m, "10.0.0.2"), bare(m, "10.0.0.3")
	for name, p := range map[string]*pod{"one": one, "two": two} {
		p.serveRaw(5432, func(c net.Conn) { fmt.Fprint(c, name) })
		client.announces(name, 5432, 0, p.Addr())
	}
	relay := func(cluster string) *conf.TCP {
		return &conf.TCP{TotalWeight: 1, Clusters: []conf.WeightedCluster{{Cluster: cluster, Weight: 1}}}
	}
	l := &conf.Listener{Name: "db", Chains: []*conf.Chain{
		{TCP: relay("one"), Match: conf.ChainMatch{Destination: []netip.Prefix{netip.MustParsePrefix("10.78.0.0/24")}}},
		{TCP: relay("two"), Match: conf.ChainMatch{Destination: []netip.Prefix{netip.MustParsePrefix("10.78.1.0/24")}}},
	}}
	client.config.publish(func(_ *conf.Snapshot, names map[string]*conf.Target) {
		for _, ip := range []string{"10.78.0.1", "10.78.1.1", "10.78.2.1"} {
			names[wire.ListenerName(ip, 5432)] = &conf.Target{Name: "db", Listener: l}
		}
	})
	for ip, want := range map[string]string{"10.78.0.1": "one", "10.78.1.1": "two", "10.78.2.1": ""} {
		c, err := client.Dial(t.Context(), netip.MustParseAddrPort(ip+":5432"))
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 8)
		n, _ := c.Read(b)
		c.Close()
		if string(b[:n]) != want {
			t.Errorf("%s leads to %q, want %q", ip, b[:n], want)
		}
	}
}
