// Package retry decides whether a failed attempt is made again. A request that may have been acted on is sent a second time only for a
// condition of the policy that says so. An answer that the policy names is one, whatever the method: it tells what became of the request,
// and whoever named it knows what it means there. Where no answer came nobody knows: then the method or an idempotency key must say that
// a repetition does no harm, or the policy name that very case (reset; safe-reset, for requests that ask for nothing to be done, which is
// in the mesh's default).
package retry

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/steady"
)

// Attempt is how an attempt ended.
type Attempt struct {
	// Status is the response's; 0 when there was none.
	Status int
	// GRPC is the grpc-status of a trailers-only response; -1 when there is none.
	GRPC int
	// Unsent is set when the connection failed before a byte of the request was written, or the response is that of the
	// workload's own proxy, which says so.
	Unsent bool
	// Unanswered is set when the response is that of the workload's own proxy, as the workload broke off before it answered.
	Unanswered bool
	// Begun is set when any byte of a response has arrived; a response with Status has.
	Begun bool
	// Header is the response's; nil when there was none.
	Header *message.Header
	// TimedOut is set when the attempt's own time ran out.
	TimedOut bool
	// Safe is set when the request asks for nothing to be done: see Safe.
	Safe bool
}

// Safe reports whether a request only asks for something, so that there is nothing that could be done twice (RFC 9110 section 9.2.1).
func Safe(r *message.Request) bool {
	switch r.Method {
	case "GET", "HEAD", "OPTIONS", "TRACE":
		return true
	}
	return false
}

// Repeatable reports whether sending a request twice means no more than sending it once (RFC 9110 section 9.2.2), or the
// client says that the server will notice (draft-ietf-httpapi-idempotency-key-header).
func Repeatable(r *message.Request) bool {
	if Safe(r) || r.Method == "PUT" || r.Method == "DELETE" {
		return true
	}
	_, keyed := r.Header.Get("Idempotency-Key")
	return keyed
}

// Wanted reports whether the policy wants another attempt, and safety allows one. A nil policy wants none.
func Wanted(p *conf.Retry, a *Attempt, repeatable bool) bool {
	if p == nil {
		return false
	}
	if a.Status != 0 && wantsGRPC(p.On, a.GRPC) {
		// All of gRPC is POST: a policy that names its codes can mean nothing but that these requests may be repeated.
		return true
	}
	if limited(a) {
		return p.On&conf.OnRateLimited != 0 // it was turned away, not acted on
	}
	on := p.On
	switch answered := a.Status != 0 && !a.Unsent && !a.Unanswered; {
	case answered:
		return wantsStatus(p, a)
	case !a.Unsent && !repeatable:
		return on&conf.OnReset != 0
	case a.Status != 0 && wantsStatus(p, a):
		return true
	case on&(conf.On5xx|conf.OnGatewayError) != 0:
		return true // Envoy counts an upstream that does not answer as one that answered 503
	case on&conf.OnSafeReset != 0 && a.Safe && !a.TimedOut:
		return true
	case a.Unsent:
		return on&(conf.OnConnectFailure|conf.OnReset|conf.OnResetBeforeRequest|conf.OnRefusedStream) != 0
	}
	// It was sent, and no answer came of which anything was passed on: the endpoint may have acted on it.
	return on&conf.OnReset != 0
}

// limited reports whether a rate limit of the upstream's proxy turned the request away. Such answers ask for less, not for more:
// they are not repeated on account of their status.
func limited(a *Attempt) bool {
	if a.Header == nil {
		return false
	}
	_, ok := a.Header.Get("X-Envoy-Ratelimited")
	return ok
}

func wantsStatus(p *conf.Retry, a *Attempt) bool {
	on := p.On
	if on&conf.OnHeaders != 0 && a.Header != nil && anyHeader(p.Headers, responseLookup(a)) {
		return true
	}
	switch {
	case on&conf.On5xx != 0 && a.Status >= 500,
		on&conf.OnGatewayError != 0 && a.Status >= 502 && a.Status <= 504,
		on&conf.OnRetriable4xx != 0 && a.Status == 409:
		return true
	}
	if on&conf.OnStatus != 0 {
		for _, s := range p.StatusCodes {
			if s == a.Status {
				return true
			}
		}
	}
	return false
}

// responseLookup gives fields of the response, its status as ":status".
func responseLookup(a *Attempt) func(string) (string, bool) {
	return func(name string) (string, bool) {
		if name == ":status" {
			return strconv.Itoa(a.Status), true
		}
		return a.Header.Get(name)
	}
}

// gRPC status codes (github.com/grpc/grpc/blob/master/doc/statuscodes.md).
func wantsGRPC(on conf.RetryOn, code int) bool {
	switch code {
	case 1:
		return on&conf.OnGRPCCancelled != 0
	case 4:
		return on&conf.OnGRPCDeadline != 0
	case 8:
		return on&conf.OnGRPCExhausted != 0
	case 13:
		return on&conf.OnGRPCInternal != 0
	case 14:
		return on&conf.OnGRPCUnavailable != 0
	}
	return false
}

// Envoy's default of the base interval.
const defaultBackOff = 25 * time.Millisecond

// BackOff is how long to wait before retry n, 1 for the first: chance below an interval that doubles each time up to a
// limit. random is uniform over all of uint64. The first retry of what was never sent need not wait at all.
func BackOff(p *conf.Retry, n int, random uint64) time.Duration {
	base := p.BackOff
	if base <= 0 {
		base = defaultBackOff
	}
	most := p.MaxBackOff
	if most <= 0 {
		most = 10 * base
	}
	interval := base
	for i := 1; i < n && interval < most; i++ {
		interval *= 2
	}
	return time.Duration(random % uint64(min(interval, most)))
}

// Budget keeps retries in proportion to requests, so that a service that fails is not buried under repetitions: a fifth of the
// requests, ten in a second in any case, and at most 200 that were saved up. Requests that were never sent are not charged to it. The
// zero value is ready to use.
type Budget struct {
	spent atomic.Int64 // in tenths of a retry; what is left is burst - spent
	until atomic.Int64 // up to when time was paid in, in ns of Unix time
}

const (
	perRetry   = 10
	perRequest = 2 // a fifth
	burst      = 200 * perRetry
	// perTenth is the time that pays for a tenth of a retry.
	perTenth = 10 * time.Millisecond
)

// Request pays in for a request.
func (b *Budget) Request() {
	if v := b.spent.Load(); v > 0 {
		b.spent.CompareAndSwap(v, max(v-perRequest, 0)) // a lost race pays in a little less
	}
}

// Retry takes a retry out, or reports that there is none left.
func (b *Budget) Retry(now time.Time) bool {
	b.refill(steady.Time(now).UnixNano())
	if b.spent.Add(perRetry) <= burst {
		return true
	}
	b.spent.Add(-perRetry)
	return false
}

// refill pays in for the time since it was last paid for.
func (b *Budget) refill(now int64) {
	until := b.until.Load()
	tenths := min((now-until)/int64(perTenth), burst)
	if tenths < 1 {
		return
	}
	next := until + tenths*int64(perTenth)
	if tenths == burst {
		next = now
	}
	if !b.until.CompareAndSwap(until, next) {
		return // somebody else pays it in
	}
	for {
		v := b.spent.Load()
		if b.spent.CompareAndSwap(v, max(v-tenths, 0)) {
			return
		}
	}
}
