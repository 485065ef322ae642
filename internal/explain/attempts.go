package explain

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/weftmesh/weft/internal/explain/chance"
	"github.com/weftmesh/weft/internal/proxy/filter/retry"
	"github.com/weftmesh/weft/internal/proxy/grpc"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// connectRetries are how often a connection that is no HTTP is tried on another endpoint, as the proxy has it.
const connectRetries = 2

// ending says how an attempt ends on a way where it fails, and whether the proxy makes another.
func (e *evaluation) ending(w *Way, d *Destination) {
	closes := w.Inbound != nil && w.Inbound.closes()
	switch {
	case w.failure() == "":
		return
	case closes && w.Inbound.unshaken:
		w.Status, w.Flag = http.StatusServiceUnavailable, "UF"
	case closes:
		w.Status, w.Flag = http.StatusServiceUnavailable, "UC"
	default:
		w.Status = http.StatusForbidden
	}
	if e.report.Protocol != "http" {
		if w.Retried = w.Inbound.unshaken; closes || e.talk.scheme != "http" {
			w.Status = 0 // else the other side reads the bytes as what they are
		}
		return
	}
	if e.retries == nil || e.retries.Attempts == 0 {
		return
	}
	a, r := e.attempt(w, d), e.talk.request
	w.Retried = retry.Wanted(e.retries, &a, retry.Repeatable(r))
	if a.Safe = true; !w.Retried && retry.Wanted(e.retries, &a, true) {
		w.unsafe = r.Method
	}
}

// attempt is one that fails on a way, as the proxy sees it.
func (e *evaluation) attempt(w *Way, d *Destination) retry.Attempt {
	r := e.talk.request
	a := retry.Attempt{GRPC: -1, Safe: retry.Safe(r)}
	switch {
	case w.Inbound.closes():
		a.Unsent = w.Inbound.unshaken || d.HTTP != "" // whoever speaks HTTP/2 waits for the endpoint's first word
		return a
	case grpc.Is(r):
		a.Status, a.GRPC = http.StatusOK, grpcDenied
	default:
		a.Status = w.Status
	}
	a.Begun, a.Header = true, &message.Header{}
	return a
}

// grpcDenied is the code PERMISSION_DENIED.
const grpcDenied = 7

// again sets how often the destination's requests are tried again, and which part of them fails in the end. way judges an endpoint.
func (e *evaluation) again(d *Destination, way func(i int) *Way) {
	again := chance.Again{Times: connectRetries}
	if e.report.Protocol == "http" {
		if again.Times = 0; e.retries != nil {
			again = chance.Again{Times: int(e.retries.Attempts), SameHosts: !e.retries.OtherHosts, Elsewhere: e.retries.OtherLocalities}
		}
	}
	d.retries = again.Times
	retried := slices.ContainsFunc(d.Ways, func(w Way) bool { return w.Retried })
	var all []chance.Endpoints
	for i := range d.Endpoints {
		if ep := &d.Endpoints[i]; ep.Share > 0 || retried && ep.ready() {
			w := way(i)
			all = append(all, chance.Endpoints{Share: ep.Share, Priority: ep.Priority, Fails: w.failure() != "", Retried: w.Retried, Count: 1})
		}
	}
	if len(all) > 0 {
		d.Failing = chance.Failing(all, again)
	}
}

// AfterRetries says what retries make of requests that fail at first; empty where none of them is retried, or all endpoints fail.
func (d *Destination) AfterRetries() string {
	if d.refused() || !slices.ContainsFunc(d.Ways, func(w Way) bool { return w.Retried }) {
		return ""
	}
	times := "once"
	if d.retries > 1 {
		times = fmt.Sprintf("up to %d times", d.retries)
	}
	rest := "none fails"
	switch p := percent(d.Failing); {
	case d.Failing > 0 && p == "0%":
		rest = "less than 0.1% fail"
	case d.Failing > 0:
		rest = p + " fail"
	}
	return "retried " + times + ", on another endpoint each time: " + rest + " in the end"
}
