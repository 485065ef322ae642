package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/filter/headers"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/side"
	"github.com/weftmesh/weft/internal/proxy/upstream"
)

// refusal is a proxy's answer to a request for a tunnel that it does not make.
type refusal struct {
	method, target string
	status         int
}

func (r *refusal) Error() string {
	return fmt.Sprintf("asked by %s for %s, it answers %d (%s)", r.method, r.target, r.status, http.StatusText(r.status))
}

// refused reports whether a proxy has answered that a tunnel is not to be had, which has nothing to do with its own health.
func refused(err error) bool {
	var r *refusal
	return errors.As(err, &r) && r.status < 500
}

// through has the endpoint, which is a proxy, connect to the tunnel's target. Connecting and the answer have the time of connecting.
func (s *stream) through(t *conf.Tunnel) bool {
	way := s.to.Pool.Way()
	ctx, cancel := context.WithTimeout(s.d.Connecting(s.to), cmp.Or(way.Timeout, upstream.DefaultConnectTimeout))
	defer cancel()
	deadline, _ := ctx.Deadline()
	c, err := s.calling(ctx, deadline)
	if err != nil {
		return s.unreached(err)
	}
	s.held.call = c
	up, err := s.ask(c, t, deadline)
	if err == nil {
		return s.reached(up)
	}
	err = &upstream.Error{Op: upstream.Connect, Address: way.Address, Err: err}
	s.release()
	if refused(err) {
		s.err = failure.Unreached(err)
		return false
	}
	return s.unreached(err)
}

// calling takes a connection for one request, of the version of HTTP that the cluster speaks.
func (s *stream) calling(ctx context.Context, deadline time.Time) (side.Call, error) {
	v := s.cluster.Conf.Speaks
	if v == conf.HTTP2 || v == conf.ByALPN && s.to.TLS && !s.to.Pool.HTTP1Only() {
		c := &side.Call2{}
		err := c.Lease(ctx, s.to.Pool, deadline, true, s.p.opt.Now)
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, upstream.ErrHTTP1) {
			return nil, err
		}
	}
	up, err := s.to.Pool.Fresh(ctx, deadline)
	if err != nil {
		return nil, err
	}
	return side.NewCall1(up, s.to.Pool), nil
}

// ask makes the tunnel. An error that is no *refusal is the connection's.
func (s *stream) ask(c side.Call, t *conf.Tunnel, deadline time.Time) (*upstream.Conn, error) {
	c.SetReadDeadline(deadline)
	c.SetWriteDeadline(deadline)
	r := message.Request{Proto: message.HTTP11, Method: t.Method(), Authority: t.Target}
	if t.Post {
		r.Path, r.Scheme, r.Body.Kind = t.Path, s.to.Scheme("http"), message.Chunked
	}
	headers.Apply(&r.Header, &t.Headers, nil)
	err := c.WriteRequest(&r)
	if err == nil {
		err = side.OpenTunnel(c, t.Post || c.Shared())
	}
	var res message.Response
	for err == nil && res.Status < 200 && res.Status != http.StatusSwitchingProtocols {
		err = c.ReadResponse(&res)
	}
	if err != nil {
		return nil, failure.PlainCause(err)
	}
	if res.Status < 200 || res.Status > 299 {
		return nil, &refusal{r.Method, t.Target, res.Status}
	}
	var carried conn.Conn
	if one, ok := c.(*side.Call1); ok && t.Post {
		carried = one.Posted()
	} else if carried, err = c.Hijack(); err != nil {
		return nil, err
	}
	c.SetReadDeadline(time.Time{})
	c.SetWriteDeadline(time.Time{})
	return &upstream.Conn{Conn: carried}, nil
}
