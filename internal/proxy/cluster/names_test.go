package cluster

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/resolve"
	"github.com/weftmesh/weft/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// constant is a Config that does not change by itself.
type constant struct{ snapshot *conf.Snapshot }

func (c *constant) Snapshot() *conf.Snapshot { return c.snapshot }
func (c *constant) Changed() <-chan struct{} { return nil }

// Names of clusters that are gone are not resolved any more.
func TestNamesEnd(t *testing.T) {
	e := &conf.Endpoint{Address: "db.example", Port: 9080, Weight: 1, Healthy: true}
	c := &conf.Cluster{Name: "db", Discovery: conf.StrictDNS, Localities: []conf.Locality{{Endpoints: []*conf.Endpoint{e}}}, Total: 1,
		ConnectTimeout: 10 * time.Second, DNS: conf.DNS{Refresh: time.Millisecond}}
	config := &constant{&conf.Snapshot{Clusters: map[string]*conf.Cluster{"db": c}}}
	names := &resolve.Resolver{Exchange: func(_ context.Context, q *dns.Msg) (*dns.Msg, error) {
		m := new(dns.Msg).SetReply(q)
		if q.Question[0].Qtype == dns.TypeA {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET},
				A: netip.MustParseAddr("10.0.0.2").AsSlice()})
		}
		return m, nil
	}}
	r := New(Options{Config: config, Resolver: names, Now: time.Now})
	r.Open(t.Context())
	to := r.Get("db").Resolved(t.Context(), time.Time{})
	if got := to.Conf.Localities[0].Endpoints; len(got) != 1 || got[0].Address != "10.0.0.2" {
		t.Fatalf("endpoints %v: %v", got, to.WhyNone())
	}
	config.snapshot = &conf.Snapshot{}
	if r.Get("db") != nil {
		t.Error("the cluster is still there")
	}
	ended := make(chan struct{})
	go func() {
		r.resolving.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(2 * time.Minute):
		t.Fatal("names are still resolved")
	}
	if r.Get(wire.BlackHoleCluster) == nil {
		t.Error("the clusters that need no configuration are gone too")
	}
}
