package convert

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/apirules"
)

// maxDuration is the longest time that proxies take.
const maxDuration = 10 * 365 * 24 * time.Hour

// timeout reads a duration as Istio takes them: a number of whole milliseconds, at least one; 0 when there is none.
func (p *Part) timeout(d *durationpb.Duration, field string) time.Duration {
	if d != nil && d.AsDuration() == 0 {
		p.Err("InvalidDuration", field, "leave the field out, or give it 1ms or more", "0s is less than 1ms")
	}
	return p.timeoutOrZero(d, field)
}

// timeoutOrZero is timeout where a duration of 0 has a meaning of its own.
func (p *Part) timeoutOrZero(d *durationpb.Duration, field string) time.Duration {
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
	p.notTooLong(t, field)
	return t
}

func (p *Part) notTooLong(t time.Duration, field string) {
	if t > maxDuration {
		p.Err("InvalidDuration", field, "", "%s is more than ten years", t)
	}
}

// apiDuration reads a duration in the Gateway API's form.
func (p *Part) apiDuration(d *gatewayv1.Duration, field string) time.Duration {
	if d == nil {
		return 0
	}
	t, err := time.ParseDuration(string(*d))
	if err != nil || !apirules.Duration(string(*d)) {
		p.Err("InvalidDuration", field, `durations look like "500ms", "10s", "1h30m", with up to five digits each`, "%q is not a duration", *d)
		return 0
	}
	p.notTooLong(t, field)
	return t
}
