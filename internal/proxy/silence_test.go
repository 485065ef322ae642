package proxy

import (
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
