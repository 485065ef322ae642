package exchange

import (
	"fmt"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/upstream"
)

// pick chooses the endpoint of the attempt.
func (x *Exchange) pick() bool {
	if !x.counted {
		if !x.breaker().Request() {
			return x.fail(failure.Overflow, "pick", fmt.Errorf("cluster %s: %d under way, and no more are allowed", x.cluster.Conf.Name, x.limits().MaxRequests))
		}
		x.counted = true
		x.cluster.Use()
		x.cluster.Budget.Request()
	} else {
		x.cluster = x.cluster.Newest() // endpoints may have come since the last attempt
	}
	x.cluster = x.cluster.Resolved(x.p.ctx, x.deadline)
	x.choice.Failed = x.failed[:x.failures]
	if r := x.retries; r != nil {
		x.choice.Elsewhere, x.choice.SameHosts = r.OtherLocalities, !r.OtherHosts
	}
	if x.cluster.Conf.Policy.Hashed() && !x.choice.Hashed {
		x.hash()
	}
	to, known := x.belongs()
	if to == nil && (!known || !x.session().Strict) {
		to = x.cluster.PickFor(x.Req.Authority, &x.choice, x.direct)
	}
	if to == nil && known {
		return x.fail(failure.NoHealthy, "pick", fmt.Errorf("cluster %s: %s, to which the client's session belongs, is not to be had", x.cluster.Conf.Name, x.wanted))
	}
	if to == nil {
		return x.fail(failure.NoHealthy, "pick", x.cluster.WhyNone())
	}
	x.to = to
	x.to.Host.Begin()
	x.using = true
	if x.Req.Authority == "" {
		x.Req.Authority = x.cluster.Authority(to)
	}
	return true
}

// high reports whether the route gives the request the priority HIGH.
func (x *Exchange) high() bool {
	r := x.matched.Route
	return r != nil && r.Forward != nil && r.Forward.High
}

// limits are the cluster's for the request's priority, breaker counts against them, and pool has its connections to the endpoint.
func (x *Exchange) limits() *conf.Limits {
	if x.high() {
		return &x.cluster.Conf.High
	}
	return &x.cluster.Conf.Limits
}

func (x *Exchange) breaker() *upstream.Breaker {
	if x.high() {
		return x.cluster.High
	}
	return x.cluster.Breaker
}

func (x *Exchange) pool() *upstream.Pool {
	if x.high() {
		return x.to.Pool.High(x.cluster.High)
	}
	return x.to.Pool
}
