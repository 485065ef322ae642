package balance

import (
	"slices"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

func TestShares(t *testing.T) {
	end := func(port uint16, weight uint32, healthy bool) *conf.Endpoint {
		return &conf.Endpoint{Address: "10.0.0.1", Port: port, Weight: weight, Healthy: healthy}
	}
	for _, c := range []struct {
		name       string
		localities []conf.Locality
		weighted   bool
		want       []float64
	}{
		{"the first priority alone", []conf.Locality{{Endpoints: []*conf.Endpoint{end(1, 1, true)}}, {Priority: 1, Endpoints: []*conf.Endpoint{end(2, 1, true)}}}, false,
			[]float64{1, 0}},
		{"failover", []conf.Locality{{Endpoints: []*conf.Endpoint{end(1, 1, false)}}, {Priority: 1, Endpoints: []*conf.Endpoint{end(2, 1, true), end(3, 3, true)}}}, false,
			[]float64{0, 0.25, 0.75}},
		{"localities by weight", []conf.Locality{{Zone: "a", Weight: 3, Endpoints: []*conf.Endpoint{end(1, 1, true)}},
			{Zone: "b", Weight: 1, Endpoints: []*conf.Endpoint{end(2, 1, true), end(3, 1, true)}}}, true, []float64{0.75, 0.125, 0.125}},
		{"none", []conf.Locality{{Endpoints: []*conf.Endpoint{end(1, 1, false)}}}, false, []float64{0}},
	} {
		b := New(&conf.Cluster{Policy: conf.RoundRobin, LocalityWeighted: c.weighted, Localities: c.localities}, nil, Options{})
		if got := b.Shares(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
