package exchange

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/filter/headers"
	"github.com/weftmesh/weft/internal/proxy/filter/ratelimit"
	"github.com/weftmesh/weft/internal/proxy/steady"
)

// errOverloaded is what refused requests are told.
var errOverloaded = errors.New("the proxy is short of memory, or has as many requests as it may")

// enter turns the request away when the proxy cannot bear more.
func (x *Exchange) enter() bool {
	if x.entered = x.p.Guard.EnterRequest(); x.entered {
		return true
	}
	x.http = x.d.HTTP
	return x.fail(failure.Overloaded, "enter", errOverloaded)
}

// counting is what one look at limits needs, kept for the next.
type counting struct {
	request ratelimit.Request
	scratch ratelimit.Scratch
}

// within asks the limits of the listener, as the route replaces them.
func (x *Exchange) within() bool {
	if x.http == nil {
		return true
	}
	for _, l := range x.http.Limits {
		if rt := x.matched.Route; rt != nil && rt.Limits != nil {
			if own, replaced := rt.Limits[l.Filter]; replaced {
				l = own
			}
		}
		if l != nil && drawn(l.Enabled, x.p.random32) && !x.count(l) {
			return false
		}
	}
	return true
}

// drawn reports true for a share of the calls, in millionths.
func drawn(share uint32, random func() uint32) bool {
	return share >= 1e6 || share > 0 && uint64(random())*1e6>>32 < uint64(share)
}

// count counts the request in a limit's buckets and reports whether it may go on.
func (x *Exchange) count(l *conf.LocalLimit) bool {
	c := x.p.countings.Get().(*counting)
	c.request = ratelimit.Request{Request: &x.Req, Remote: x.d.Remote.Addr(), RemoteText: x.d.RemoteText(), Source: x.p.Bootstrap.Node.Workload}
	if x.split != nil {
		c.request.Destination = x.split.Cluster
	}
	v := x.p.limits.Get(l).Check(steady.Time(x.Start).UnixNano(), &c.request, x.limitRules(l.VirtualHost), &c.scratch)
	c.request = ratelimit.Request{}
	x.p.countings.Put(c)
	if l.Report && v.Limit != 0 && (!x.report || v.Left < x.quota.Left) {
		x.report, x.quota = true, v
	}
	switch {
	case !v.Over:
		return true
	case !drawn(l.Enforced, x.p.random32):
		x.apply(&l.Unenforced)
		return true
	}
	x.limitChange, x.limitExhausted = &l.Response, l.Exhausted
	x.fail(failure.OverLimit, "limit", overLimitBy(&v))
	x.err.Code = l.Status
	return false
}

// CountConnection counts a connection in a limit's bucket; the error says that it is over the limit.
func (c *Carrier) CountConnection(l *conf.LocalLimit) error {
	v := c.limits.Get(l).Check(steady.Time(c.Now()).UnixNano(), nil, [2][]conf.LimitRule{}, &ratelimit.Scratch{})
	if v.Over {
		return overLimitBy(&v)
	}
	return nil
}

// overLimitBy says what the limit is and when another request may come.
func overLimitBy(v *ratelimit.Verdict) error {
	burst := ""
	if v.Bucket.Max != v.Bucket.Fill {
		burst = fmt.Sprintf(" and %d at once", v.Bucket.Max)
	}
	return fmt.Errorf("over the limit of %d in %s%s; try again in %s", v.Bucket.Fill, v.Bucket.Interval, burst, roundUp(v.Next))
}

// limitRules gives the rules by which the route, its virtual host, or both describe the request.
func (x *Exchange) limitRules(host conf.HostRules) (rules [2][]conf.LimitRule) {
	rt := x.matched.Route
	if rt == nil {
		return rules
	}
	include := host == conf.IncludeHostRules
	if rt.Forward != nil {
		rules[0] = rt.Forward.LimitRules
		include = include || rt.Forward.HostLimits
	}
	if x.matched.Host != nil && (include || len(rules[0]) == 0 && host == conf.OverrideHostRules) {
		rules[1] = x.matched.Host.LimitRules
	}
	return rules
}

// markLimits tells the client in the response how much is left, and what a refusal is to say.
func (x *Exchange) markLimits() {
	h := &x.res.Header
	if x.report {
		h.Set("X-RateLimit-Limit", strconv.FormatUint(uint64(x.quota.Limit), 10))
		h.Set("X-RateLimit-Remaining", strconv.FormatUint(uint64(x.quota.Left), 10))
		h.Set("X-RateLimit-Reset", strconv.FormatInt(int64(roundUp(x.quota.Reset)/time.Second), 10))
	}
	for _, f := range x.toldByService {
		h.Set(f.Name, f.Value)
	}
	if x.limitChange != nil {
		headers.Apply(h, x.limitChange, x.operator)
	}
}

func roundUp(d time.Duration) time.Duration { return (d + time.Second - 1).Truncate(time.Second) }
