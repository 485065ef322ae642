package parts

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/apirules"
)

// maxDuration is the longest time that proxies take.
const MaxDuration = 10 * 365 * 24 * time.Hour

// Timeout reads a duration as Istio takes them: a number of whole milliseconds, at least one; 0 when there is none.
func (p *Part) Timeout(d *durationpb.Duration, field string) time.Duration {
	if d != nil && d.AsDuration() == 0 {
		p.Err("InvalidDuration", field, "leave the field out, or give it 1ms or more", "0s is less than 1ms")
	}
	return p.TimeoutOrZero(d, field)
}

// TimeoutOrZero is Timeout where a duration of 0 has a meaning of its own.
func (p *Part) TimeoutOrZero(d *durationpb.Duration, field string) time.Duration {
	if d == nil {
		return 0
	}
	t := d.AsDuration()
	switch {
	case t < 0:
		p.Err("InvalidDuration", field, "", "%s is negative", t)
	case t > 0 && t < time.Millisecond:
		p.Err("InvalidDuration", field, "", "%s is less than 1ms", t)
	case t%time.Millisecond != 0:
		p.Err("InvalidDuration", field, "", "%s is not a number of whole milliseconds", t)
	}
	p.NotTooLong(t, field)
	return t
}

// NotTooLong refuses a duration beyond what proxies take.
func (p *Part) NotTooLong(t time.Duration, field string) {
	if t > MaxDuration {
		p.Err("InvalidDuration", field, "", "%s is more than ten years", t)
	}
}

// APIDuration reads a duration in the Gateway API's form.
func (p *Part) APIDuration(d *gatewayv1.Duration, field string) time.Duration {
	if d == nil {
		return 0
	}
	t, err := time.ParseDuration(string(*d))
	if err != nil || !apirules.Duration(string(*d)) {
		p.Err("InvalidDuration", field, `durations look like "500ms", "10s", "1h30m", with up to five digits each`, "%q is not a duration", *d)
		return 0
	}
	p.NotTooLong(t, field)
	return t
}
