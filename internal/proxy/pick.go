package proxy

import (
	"fmt"
	"strings"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/upstream"
	"github.com/weftmesh/weft/internal/wire"
)

// pick chooses the endpoint of the attempt.
func (x *exchange) pick() bool {
	if !x.counted {
		if !x.breaker().Request() {
			return x.fail(failure.Overflow, "pick", fmt.Errorf("cluster %s: %d under way, and no more are allowed", x.cluster.conf.Name, x.limits().MaxRequests))
		}
		x.counted = true
		if !x.cluster.used.Load() {
			x.cluster.used.Store(true)
		}
		x.cluster.budget.Request()
	} else if c := x.p.clusters.get(x.cluster.conf.Name); c != nil && c.lasting == x.cluster.lasting {
		x.cluster = c // endpoints may have come since the last attempt
	}
	x.cluster = x.cluster.resolved(x.p.ctx, x.deadline)
	x.choice.Avoid = x.failed[:x.failures]
	x.choice.Elsewhere = x.retries != nil && x.retries.OtherLocalities
	if x.cluster.conf.Policy.Hashed() && !x.choice.Hashed {
		x.hash()
	}
	to := x.cluster.pick(&x.choice, x.direct)
	if to == nil {
		return x.fail(failure.NoHealthy, "pick", x.cluster.whyNone())
	}
	x.to = to
	x.to.host.Begin()
	x.using = true
	if x.req.Authority == "" {
		x.req.Authority = x.cluster.authority(to)
	}
	return true
}

// high reports whether the route gives the request the priority HIGH.
func (x *exchange) high() bool {
	r := x.matched.Route
	return r != nil && r.Forward != nil && r.Forward.High
}

// limits are the cluster's for the request's priority, breaker counts against them, and pool has its connections to the endpoint.
func (x *exchange) limits() *conf.Limits {
	if x.high() {
		return &x.cluster.conf.High
	}
	return &x.cluster.conf.Limits
}

func (x *exchange) breaker() *upstream.Breaker {
	if x.high() {
		return x.cluster.high
	}
	return x.cluster.breaker
}

func (x *exchange) pool() *upstream.Pool {
	if x.high() {
		return x.to.pool.High(x.cluster.high)
	}
	return x.to.pool
}

// authority is what a request is addressed to that came without Host, as HTTP/1.0 allows: we forward it as HTTP/1.1, which
// requires one (RFC 9112 section 3.2). It is the service's name, or else the endpoint.
func (c *cluster) authority(to *endpoint) string {
	a := to.raw.Address
	if h := c.conf.ServiceHost; h != "" && h[0] != '*' {
		a = wire.ListenerName(h, c.conf.Port)
	}
	return strings.TrimSuffix(strings.TrimSuffix(a, ":0"), ":80")
}

// whyNone names what keeps each endpoint from being used.
func (c *cluster) whyNone() error {
	hosts := c.balancer.Hosts()
	if why := c.whyUnresolved(); len(hosts) == 0 && why != "" {
		return fmt.Errorf("cluster %s: %s", c.conf.Name, why)
	}
	if len(hosts) == 0 {
		return fmt.Errorf("cluster %s: has no endpoints", c.conf.Name)
	}
	var why []string
	for i, h := range hosts {
		if i == 3 {
			why = append(why, fmt.Sprintf("and %d more", len(hosts)-i))
			break
		}
		s := h.Endpoint.Address + " is " + h.Condition()
		if f := h.LastFailure(); f != nil {
			s += " (" + f.Text + ")"
		}
		why = append(why, s)
	}
	return fmt.Errorf("cluster %s: %s", c.conf.Name, strings.Join(why, ", "))
}
