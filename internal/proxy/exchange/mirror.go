package exchange

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/weftmesh/weft/internal/proxy/balance"
	"github.com/weftmesh/weft/internal/proxy/cluster"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/side"
	"github.com/weftmesh/weft/internal/proxy/upstream"
)

const (
	// maxMirrors bounds the mirrored requests under way, mirrorTime each of them.
	maxMirrors = 256
	mirrorTime = 15 * time.Second
)

// mirror sends copies of the request as the route says. Nobody waits for them; what is too much, or has a body too long to
// keep, is not sent and counted.
func (x *Exchange) mirror() {
	if x.matched.Route == nil {
		return
	}
	mirrors := x.matched.Route.Forward.Mirrors
	for i := range mirrors {
		if m := &mirrors[i]; m.Fraction >= 1e6 || x.p.random32()%1e6 < m.Fraction {
			x.mirrorTo(m)
		}
	}
}

func (x *Exchange) mirrorTo(m *conf.Mirror) {
	p := x.p
	c := p.Clusters.Get(m.Cluster)
	if c == nil || x.Req.Upgrade != "" || x.Req.Body.Kind != message.NoBody && x.body == nil && !x.down.BodyDone() {
		p.Unmirrored.Add(1)
		return
	}
	if p.mirrors.Add(1) > maxMirrors {
		p.mirrors.Add(-1)
		p.Unmirrored.Add(1)
		return
	}
	s := &shadow{p: p, cluster: c, direct: x.direct, keepHost: m.KeepHost, body: bytes.Clone(x.body)}
	s.req = cloneRequest(&x.Req)
	p.shadows.Go(func() { // ends within mirrorTime, or with the proxy
		defer p.mirrors.Add(-1)
		if !s.send() {
			p.Unmirrored.Add(1)
		}
	})
}

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
	p        *Carrier
	cluster  *cluster.Cluster
	direct   netip.AddrPort
	keepHost bool
	req      message.Request
	body     []byte
}

// send makes one attempt and drops the answer.
func (s *shadow) send() bool {
	s.cluster = s.cluster.Resolved(s.p.ctx, time.Time{})
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
	now := s.p.Now()
	deadline := now.Add(mirrorTime)
	call, err := s.open(to, now, deadline)
	if err != nil {
		return false
	}
	to.Host.Begin()
	defer to.Host.End()
	call.SetReadDeadline(deadline)
	ok := s.exchange(call)
	call.SetReadDeadline(time.Time{})
	call.End(true, s.p.Now())
	return ok
}

func (s *shadow) open(to *cluster.Endpoint, now, deadline time.Time) (side.Call, error) {
	if multiplexed(s.cluster.Conf, to, &s.req, false) {
		c := &side.Call2{}
		s.req.Scheme = to.Scheme(s.req.Scheme)
		if err := c.Lease(s.p.ctx, to.Pool, deadline, s.p.Now); !errors.Is(err, upstream.ErrHTTP1) {
			return c, err
		}
	}
	up, err := to.Pool.Get(s.p.ctx, now, deadline)
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
