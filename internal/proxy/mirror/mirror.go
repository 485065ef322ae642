// Package mirror sends copies of requests whose answers nobody awaits.
package mirror

import (
	"bytes"
	"context"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/balance"
	"github.com/weftmesh/weft/internal/proxy/cluster"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/side"
)

const (
	// most bounds the mirrored requests under way, limit each of them.
	most  = 256
	limit = 15 * time.Second
)

// Mirrors are the mirrored requests of a proxy.
type Mirrors struct {
	// Set before the first.
	Clusters *cluster.Set
	Now      func() time.Time

	// Lost counts those that were not sent.
	Lost atomic.Uint64

	underWay atomic.Int64
	shadows  sync.WaitGroup
}

// Send sends a copy of a request, until ctx ends. Nobody waits for it; where there are too many it is not sent and counted.
// direct is where the request's own client was going.
func (m *Mirrors) Send(ctx context.Context, to *conf.Mirror, r *message.Request, body []byte, direct netip.AddrPort) {
	c := m.Clusters.Get(to.Cluster)
	if c == nil {
		m.Lost.Add(1)
		return
	}
	if m.underWay.Add(1) > most {
		m.underWay.Add(-1)
		m.Lost.Add(1)
		return
	}
	s := &shadow{m: m, cluster: c, direct: direct, keepHost: to.KeepHost, body: bytes.Clone(body)}
	s.req = cloneRequest(r)
	m.shadows.Go(func() { // ends within limit, or with ctx
		defer m.underWay.Add(-1)
		if !s.send(ctx) {
			m.Lost.Add(1)
		}
	})
}

// Wait waits for those that are under way.
func (m *Mirrors) Wait() { m.shadows.Wait() }

// shadowHost marks the host of a mirrored request, as Envoy does, unless it is an IPv6 address, which has no place for a mark.
func shadowHost(authority string) string {
	if strings.HasPrefix(authority, "[") {
		return authority
	}
	i := strings.LastIndexByte(authority, ':')
	if i < 0 {
		return authority + "-shadow"
	}
	return authority[:i] + "-shadow" + authority[i:]
}

// cloneRequest copies what otherwise dies with the exchange.
func cloneRequest(r *message.Request) message.Request {
	c := *r
	c.Method, c.Scheme = strings.Clone(r.Method), strings.Clone(r.Scheme)
	c.Authority, c.Path = strings.Clone(r.Authority), strings.Clone(r.Path)
	c.Header = message.Header{}
	for f := range r.Header.All() {
		c.Header.Add(strings.Clone(f.Name), strings.Clone(f.Value))
	}
	return c
}

// shadow is one mirrored request.
type shadow struct {
	m        *Mirrors
	cluster  *cluster.Cluster
	direct   netip.AddrPort
	keepHost bool
	req      message.Request
	body     []byte
}

// send makes one attempt and drops the answer.
func (s *shadow) send(ctx context.Context) bool {
	s.cluster = s.cluster.Resolved(ctx, time.Time{})
	to := s.cluster.PickFor(s.req.Authority, &balance.Choice{}, s.direct)
	if to == nil || to.Err != nil {
		return false
	}
	if s.req.Authority == "" {
		s.req.Authority = s.cluster.Authority(to)
	}
	if !s.keepHost {
		s.req.Authority = shadowHost(s.req.Authority)
	}
	now := s.m.Now()
	deadline := now.Add(limit)
	call, err := s.open(ctx, to, now, deadline)
	if err != nil {
		return false
	}
	to.Host.Begin()
	defer to.Host.End()
	call.SetReadDeadline(deadline)
	ok := s.exchange(call)
	call.SetReadDeadline(time.Time{})
	call.End(true, s.m.Now())
	return ok
}

func (s *shadow) open(ctx context.Context, to *cluster.Endpoint, now, deadline time.Time) (side.Call, error) {
	if s.cluster.Multiplexed(to, &s.req, false) {
		c := &side.Call2{}
		s.req.Scheme = to.Scheme(s.req.Scheme)
		if err := c.Lease(ctx, to.Pool, deadline, len(s.body) > 0, s.m.Now); !s.cluster.Instead(err, &s.req) {
			return c, err
		}
	}
	up, err := to.Pool.Get(ctx, now, deadline)
	if err != nil {
		return nil, err
	}
	return side.NewCall1(up, to.Pool), nil
}

func (s *shadow) exchange(call side.Call) bool {
	if call.WriteRequest(&s.req) != nil || len(s.body) > 0 && call.WriteBody(s.body) != nil || call.FinishBody(nil) != nil {
		return false
	}
	var res message.Response
	for {
		if call.ReadResponse(&res) != nil {
			return false
		}
		if res.Status >= 200 {
			break
		}
	}
	var scrap [4 << 10]byte
	for {
		if _, err := call.ReadBody(scrap[:]); err != nil {
			return true
		}
	}
}
