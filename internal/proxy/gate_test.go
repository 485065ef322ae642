package proxy

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// TestGates has a chain take no more connections than its gates allow, over a change of its configuration too.
func TestGates(t *testing.T) {
	for name, gate := range map[string]conf.Gate{
		"at a time": {Key: "test", MaxConnections: 1},
		"rate":      {Key: "test", Rate: &conf.LocalLimit{Key: "rate", Bucket: &conf.TokenBucket{Max: 1, Fill: 1, Interval: time.Hour}}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t)
			client, server := m.pod("productpage", "10.0.0.1", nil), m.pod("db", "10.0.0.2", nil)
			server.serveRaw(5432, func(c net.Conn) { io.Copy(c, c) })
			client.cluster("db", 5432, server)
			tcpService(client, "db", 5432, false)
			accept := func() {
				l := strict(5432)
				for _, c := range l.Chains {
					c.Gates = []conf.Gate{gate}
				}
				server.accepts(l)
			}
			accept()
			dial := func() net.Conn { return client.connects(5432) }
			first := dial()
			if !echoes(first) {
				t.Fatal("the first connection is refused")
			}
			accept()
			if echoes(dial()) {
				t.Error("a second connection in spite of the limit")
			}
			eventually(t, "flag", func() bool { return server.logged(" RL ") })
			if !echoes(first) {
				t.Error("the first connection has ended")
			}
			if gate.Rate == nil {
				first.Close()
				eventually(t, "room for another", func() bool { return echoes(dial()) })
			}
		})
	}
}
