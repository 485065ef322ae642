package decode

import (
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode/walk"
)

func (d *decoder) retry(m *routev3.RetryPolicy) *conf.Retry {
	d.Only(m, "retry_on", "num_retries", "per_try_timeout", "retry_host_predicate", "retriable_status_codes", "retry_back_off",
		"retry_priority", "per_try_idle_timeout", "retriable_headers", "retriable_request_headers", "rate_limited_retry_back_off",
		"host_selection_retry_max_attempts") // without effect: the choice of another host needs no bound here
	r := &conf.Retry{Attempts: 1, PerTry: d.Duration("per_try_timeout", m.GetPerTryTimeout())}
	if m.GetNumRetries() != nil {
		r.Attempts = m.GetNumRetries().GetValue()
	}
	for _, name := range strings.Split(m.GetRetryOn(), ",") {
		name = strings.TrimSpace(name)
		on, known := conf.RetryCondition(name)
		if !known && name != "" {
			d.At("retry_on", func() { d.Fail("condition %q is not supported", name) })
		}
		r.On |= on
	}
	walk.Each(d.Walk, "retriable_status_codes", m.GetRetriableStatusCodes(), func(code uint32) {
		if code < 100 || code > 599 {
			d.Fail("%d is not a status", code)
		}
		r.StatusCodes = append(r.StatusCodes, int(code))
	})
	walk.Each(d.Walk, "retry_host_predicate", m.GetRetryHostPredicate(), func(p *routev3.RetryPolicy_RetryHostPredicate) {
		d.Only(p, "name", "typed_config") // the message of previous_hosts has no fields
		switch p.GetName() {
		case "envoy.retry_host_predicates.previous_hosts":
			r.OtherHosts = true
		case "envoy.retry_host_predicates.omit_canary_hosts": // there are none
		default:
			d.Fail("predicate %q is not supported", p.GetName())
		}
	})
	r.PerTryIdle = d.Duration("per_try_idle_timeout", m.GetPerTryIdleTimeout())
	r.Headers = d.HeaderMatches("retriable_headers", m.GetRetriableHeaders())
	r.RequestHeaders = d.HeaderMatches("retriable_request_headers", m.GetRetriableRequestHeaders())
	if b := m.GetRateLimitedRetryBackOff(); b != nil {
		d.At("rate_limited_retry_back_off", func() { r.RateLimited = d.rateLimited(b) })
	}
	if p := m.GetRetryPriority(); p != nil {
		d.At("retry_priority", func() {
			d.Only(p, "name", "typed_config") // how often priorities are reconsidered: at every attempt
			if r.OtherLocalities = p.GetName() == "envoy.retry_priorities.previous_priorities"; !r.OtherLocalities {
				d.Fail("%q is not supported", p.GetName())
			}
		})
	}
	d.At("retry_back_off", func() {
		b := m.GetRetryBackOff()
		d.Only(b, "base_interval", "max_interval")
		r.BackOff, r.MaxBackOff = d.Duration("base_interval", b.GetBaseInterval()), d.Duration("max_interval", b.GetMaxInterval())
	})
	if r.BackOff == 0 {
		r.BackOff = 25 * time.Millisecond
	}
	if r.MaxBackOff == 0 {
		r.MaxBackOff = 10 * r.BackOff
	}
	return r
}

// hedge reports whether attempts may overlap; without a policy, what is said further out holds.
func (d *decoder) hedge(m *routev3.HedgePolicy, outer bool) (hedge bool) {
	if m == nil {
		return outer
	}
	d.At("hedge_policy", func() {
		d.Only(m, "hedge_on_per_try_timeout", "initial_requests")
		if n := m.GetInitialRequests(); n != nil && n.GetValue() != 1 {
			d.At("initial_requests", func() { d.Fail("%d: only 1 is supported", n.GetValue()) })
		}
	})
	return m.GetHedgeOnPerTryTimeout()
}

// defaultRateLimitedMax is Envoy's longest wait that an upstream can ask for.
const defaultRateLimitedMax = 300 * time.Second

func (d *decoder) rateLimited(m *routev3.RetryPolicy_RateLimitedRetryBackOff) *conf.RateLimited {
	d.Only(m, "reset_headers", "max_interval")
	r := &conf.RateLimited{Max: d.Duration("max_interval", m.GetMaxInterval())}
	if r.Max == 0 {
		r.Max = defaultRateLimitedMax
	}
	walk.Each(d.Walk, "reset_headers", m.GetResetHeaders(), func(h *routev3.RetryPolicy_ResetHeader) {
		d.Only(h, "name", "format")
		d.Token("name", h.GetName())
		if f := h.GetFormat(); f != routev3.RetryPolicy_SECONDS && f != routev3.RetryPolicy_UNIX_TIMESTAMP {
			d.At("format", func() { d.Fail("%d is not known", f) })
		}
		r.Headers = append(r.Headers, conf.ResetHeader{Name: h.GetName(), Unix: h.GetFormat() == routev3.RetryPolicy_UNIX_TIMESTAMP})
	})
	d.atLeastOne("reset_headers", len(r.Headers))
	return r
}
