package retry

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// Wishes are what a request itself asks for, and the policy that comes of it and of the route's.
type Wishes struct {
	// Policy for the request; nil for no retries.
	Policy *conf.Retry
	// Timeout of the whole request where Timed is set; 0 means none then.
	Timeout time.Duration
	Timed   bool
}

// The fields by which a client steers retries and time-outs. Source: Envoy's documentation of the router filter.
const (
	retryOn       = "X-Envoy-Retry-On"
	retryGRPCOn   = "X-Envoy-Retry-Grpc-On"
	maxRetries    = "X-Envoy-Max-Retries"
	statusCodes   = "X-Envoy-Retriable-Status-Codes"
	headerNames   = "X-Envoy-Retriable-Header-Names"
	timeout       = "X-Envoy-Upstream-Rq-Timeout-Ms"
	perTryTimeout = "X-Envoy-Upstream-Rq-Per-Try-Timeout-Ms"
	hedge         = "X-Envoy-Hedge-On-Per-Try-Timeout"
)

var steering = [...]string{retryOn, retryGRPCOn, maxRetries, statusCodes, headerNames, timeout, perTryTimeout, hedge}

// Wanting reads what a request asks for, takes it out of its head, and joins it with the route's policy p, which may be nil. Of a
// client that is not trusted it is only taken out. What cannot be read is passed over, as in Envoy. It allocates only where there
// is something to join.
func Wanting(p *conf.Retry, r *message.Request, trusted bool) Wishes {
	w := Wishes{Policy: p}
	if p != nil && len(p.RequestHeaders) > 0 && !anyHeader(p.RequestHeaders, r.Lookup) {
		w.Policy = nil
	}
	if !steered(&r.Header) {
		return w
	}
	if trusted {
		w.join(&r.Header)
	}
	for _, name := range steering {
		r.Header.Del(name)
	}
	return w
}

func steered(h *message.Header) bool {
	if !h.MayBegin("x-envoy-") {
		return false
	}
	for i := range h.Len() {
		n := h.Name(i)
		if len(n) < len("x-envoy-") || n[0]|0x20 != 'x' || n[1] != '-' || !message.EqualFold(n[:len("x-envoy-")], "x-envoy-") {
			continue
		}
		for _, s := range steering {
			if message.EqualFold(n, s) {
				return true
			}
		}
	}
	return false
}

// maxAsked bounds the attempts that a client can ask for.
const maxAsked = 100

func (w *Wishes) join(h *message.Header) {
	if ms, ok := number(h, timeout); ok {
		w.Timeout, w.Timed = time.Duration(ms)*time.Millisecond, true
	}
	on, _ := h.Get(retryOn)
	grpc, _ := h.Get(retryGRPCOn)
	more := conditions(on) | conditions(grpc)
	if w.Policy == nil && more == 0 {
		return
	}
	own := conf.Retry{Attempts: 1, OtherHosts: true}
	if w.Policy != nil {
		own = *w.Policy
	}
	own.On |= more
	if n, ok := number(h, maxRetries); ok {
		own.Attempts = uint32(min(n, maxAsked))
	}
	if ms, ok := number(h, perTryTimeout); ok {
		own.PerTry = time.Duration(ms) * time.Millisecond
	}
	if v, ok := h.Get(hedge); ok {
		own.Hedge = v == "true"
	}
	if list, ok := h.Get(statusCodes); ok {
		own.StatusCodes = slices.Clone(own.StatusCodes)
		for _, s := range strings.Split(list, ",") {
			if code, err := strconv.Atoi(strings.TrimSpace(s)); err == nil && code >= 100 && code <= 599 {
				own.StatusCodes = append(own.StatusCodes, code)
			}
		}
	}
	if list, ok := h.Get(headerNames); ok {
		own.Headers = slices.Clone(own.Headers)
		for _, name := range strings.Split(list, ",") {
			if name = strings.TrimSpace(name); name != "" {
				own.Headers = append(own.Headers, conf.HeaderMatch{Name: strings.ToLower(name), Present: true})
			}
		}
	}
	w.Policy = &own
}

// conditions joins those of a list; names that are not known are passed over.
func conditions(list string) (on conf.RetryOn) {
	for name := range strings.SplitSeq(list, ",") {
		c, _ := conf.RetryCondition(strings.TrimSpace(name))
		on |= c
	}
	return on
}

// maxMillis bounds the times that a client can ask for: a year.
const maxMillis = 365 * 24 * 3600 * 1000

func number(h *message.Header, name string) (uint64, bool) {
	v, ok := h.Get(name)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(v, 10, 64)
	return min(n, maxMillis), err == nil
}

func anyHeader(list []conf.HeaderMatch, lookup func(string) (string, bool)) bool {
	for i := range list {
		if v, ok := lookup(list[i].Name); list[i].Match(v, ok) {
			return true
		}
	}
	return false
}
