package proxy

import (
	"sync"

	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/http2"
	"github.com/weftmesh/weft/internal/proxy/side"
	"github.com/weftmesh/weft/internal/proxy/track"
)

// session is a client's connection of HTTP/2. Each of its streams has an exchange of its own on a goroutine of its own.
type session struct {
	d    *connection
	conn *http2.ServerConn
}

// lane is what one stream at a time needs: a view of the client that it need not share.
type lane struct {
	connection
	side *side.Client2
}

// serveHTTP2 serves streams until the connection ends.
func (d *connection) serveHTTP2() {
	v := &session{d: d, conn: http2.NewServerConn(d.conn, d.Scheme(), d.options2())}
	t := d.track
	t.Conn = d.conn
	drain := sync.OnceFunc(func() {
		go v.conn.Drain() // ends when the GOAWAY was written, or with the connection
	})
	t.Drain, t.Slow, t.Shed = drain, v.conn.Slow, v.conn.Shed
	t.Enter(track.Idle, d.p.opt.Now())
	d.p.tracker.Add(t)
	defer d.p.tracker.Remove(t)
	v.conn.Serve(v.serve)
}

func (d *connection) options2() *http2.Options {
	o := *http2.DefaultOptions()
	o.IdleTimeout = defaultIdle
	if d.HTTP != nil {
		if d.HTTP.IdleTimeout > 0 {
			o.IdleTimeout = d.HTTP.IdleTimeout
		}
		if d.HTTP.MaxHeaderBytes > 0 {
			o.HeadBytes = d.HTTP.MaxHeaderBytes
		}
	}
	return &o
}

// lane gives the stream's own, which is kept for those after it.
func (v *session) lane(s *http2.ServerStream) *lane {
	l, ok := s.Kept.(*lane)
	if !ok {
		l = &lane{connection: *v.d, side: side.NewClient2()}
		s.Kept = l
	}
	return l
}

// serve serves one stream.
func (v *session) serve(s *http2.ServerStream) {
	p := v.d.p
	v.d.track.Begin(p.opt.Now())
	defer func() { v.d.track.Finish(p.opt.Now()) }()
	l := v.lane(s)
	if !l.renew() {
		v.conn.Drain() // first, lest the client repeats its request here
		s.Reset(http2.RefusedStream)
		return
	}
	l.side.ServerStream = s
	x := p.carrier.Begin(&l.Client, l.side)
	h := x.Req.Header
	h.CopyFrom(&s.Request().Header)
	x.Req = *s.Request()
	x.Req.Header, x.Req.Scheme = h, l.Scheme()
	if bad := s.Refusal(); bad != nil {
		x.Refuse(failure.Malformed, bad.Status, bad)
	} else {
		x.Carry()
	}
	p.carrier.Discard(x)
	l.side.End()
}
