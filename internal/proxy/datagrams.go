package proxy

import (
	"maps"
	"slices"
	"sync"

	"github.com/weftmesh/weft/internal/proxy/bind"
	"github.com/weftmesh/weft/internal/proxy/cluster"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/datagram"
	"github.com/weftmesh/weft/internal/telemetry"
)

// relays are those of datagrams, by listener.
type relays struct {
	mu     sync.Mutex
	byName map[string]*datagram.Server
}

func (r *relays) add(name string, s *datagram.Server) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byName == nil {
		r.byName = map[string]*datagram.Server{}
	}
	r.byName[name] = s
}

func (r *relays) stats(list []telemetry.Stat) []telemetry.Stat {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(r.byName)) {
		list = r.byName[name].Stats(list, name)
	}
	return list
}

// datagrams makes the relay of a gateway's listener for datagrams.
func (p *Proxy) datagrams(name string) bind.PacketServer {
	t, gate := p.traffic.get(name), p.guard.Gate()
	s := datagram.New(datagram.Options{
		Log:      p.log,
		Listener: func() *conf.Listener { return p.gatewayListener(name) },
		Cluster:  p.clusters.Get,
		Dial:     bind.DatagramDialer(p.opt.Bootstrap, p.dialer.Outside),
		Enter: func() bool {
			if !gate.Enter() {
				return false
			}
			t.total.Add(1)
			t.active.Add(1)
			p.entered.Add(1)
			p.arrivedAt.Store(p.opt.Now().UnixNano())
			return true
		},
		Leave: func() {
			gate.Leave()
			t.active.Add(-1)
			p.entered.Add(-1)
		},
		Edge: func(c *cluster.Cluster, to *cluster.Endpoint) *telemetry.Edge {
			e := to.TCPEdge.Load()
			if e == nil {
				e = p.book.Source(c.Conf, to, "udp")
				to.TCPEdge.Store(e)
			}
			return e
		},
		Write: p.book.Write,
		Now:   p.opt.Now,
	})
	p.relays.add(name, s)
	return s
}
