package proxy

import (
	"errors"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

func TestSilenceAtPortsOfTLSIsShort(t *testing.T) {
	ends, passes, plain := &conf.Chain{TLS: &conf.DownstreamTLS{}}, &conf.Chain{Match: conf.ChainMatch{Transport: conf.TLSTransport}}, &conf.Chain{}
	for _, c := range []struct {
		chains []*conf.Chain
		want   time.Duration
	}{
		{[]*conf.Chain{ends}, handshakeTime},
		{[]*conf.Chain{passes, ends}, handshakeTime},
		{[]*conf.Chain{ends, plain}, defaultIdle},
	} {
		if got := silenceAt(&conf.Listener{Chains: c.chains}); got != c.want {
			t.Errorf("%d chains: %s, want %s", len(c.chains), got, c.want)
		}
	}
}

// TestSilentClientsDoNotHoldUpDraining: a connection on which nothing was ever said is as idle as one between requests.
func TestSilentClientsDoNotHoldUpDraining(t *testing.T) {
	m := newMesh(t)
	server := m.pod("reviews", "10.0.0.2", nil)
	server.accepts(strict(9080))
	server.serve(9080, hello("reviews"))
	c, err := bare(m, "192.168.0.9").Dial(t.Context(), netip.MustParseAddrPort("10.0.0.2:9080"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	eventually(t, "it is seen", func() bool { open, working := server.proxy.tracker.Counts(); return open == 1 && working == 0 })
	server.proxy.Drain()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a silent connection when the proxy drains: %v", err)
	}
}
