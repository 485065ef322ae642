package explain

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/weftmesh/weft/internal/explain/chance"
	"github.com/weftmesh/weft/internal/proxy/filter/retry"
	"github.com/weftmesh/weft/internal/proxy/grpc"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/route"
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

// again sets how the destination's requests are tried again, and which part of them fails in the end. way judges an endpoint.
func (e *evaluation) again(d *Destination, way func(i int) *Way) {
	d.again = e.repeats(d)
	retried := slices.ContainsFunc(d.Ways, func(w Way) bool { return w.Retried })
	var all []chance.Endpoints
	var ways []*Way
	for i := range d.Endpoints {
		if ep := &d.Endpoints[i]; ep.Share > 0 || retried && ep.ready() {
			w := way(i)
			ways = append(ways, w)
			all = append(all, chance.Endpoints{Share: ep.Share, Priority: ep.Priority, Fails: w.failure() != "", Retried: w.Retried,
				Shunned: w.Flag == "UF", Count: 1})
		}
	}
	if len(all) == 0 {
		return
	}
	var at []float64
	if d.Failing, at = chance.Failing(all, d.again); d.refused() {
		d.last = last(ways, at)
	}
}

// repeats says how the destination's requests are tried again.
func (e *evaluation) repeats(d *Destination) chance.Again {
	r := e.retries
	switch {
	case e.report.Protocol != "http":
		return chance.Again{Times: connectRetries}
	case r == nil:
		return chance.Again{}
	}
	again := chance.Again{Times: int(r.Attempts), SameHosts: !r.OtherHosts, Elsewhere: r.OtherLocalities}
	if again.SameHosts && !again.Elsewhere && d.Conf.Policy.Hashed() {
		_, _, again.Bound = route.Hash(e.route.Forward.Hash, e.forwarded(), e.view.Client.Address, 0)
	}
	return again
}

// last is a way like which all requests end, of which at has the parts that end on each; nil where chance decides about that.
func last(ways []*Way, at []float64) *Way {
	var end *Way
	for i, w := range ways {
		switch {
		case at[i] == 0:
		case end == nil:
			end = w
		case end.Status != w.Status || end.Flag != w.Flag:
			return nil
		}
	}
	if end == nil {
		return nil
	}
	w := *end // those that are the destination's are sorted afterwards
	return &w
}

// AfterRetries says what retries make of requests that fail at first; empty where none of them is retried, or all fail in the end.
func (d *Destination) AfterRetries() string {
	if d.refused() || !slices.ContainsFunc(d.Ways, func(w Way) bool { return w.Retried }) {
		return ""
	}
	times := "once"
	if d.again.Times > 1 {
		times = fmt.Sprintf("up to %d times", d.again.Times)
	}
	rest := "none fails"
	switch p := percent(d.Failing); {
	case d.Failing > 0 && p == "0%":
		rest = "less than 0.1% fail"
	case d.Failing > 0:
		rest = p + " fail"
	}
	return "retried " + times + ", " + d.whither() + ": " + rest + " in the end"
}

// whither says which endpoints another attempt comes to.
func (d *Destination) whither() string {
	switch {
	case d.again.Bound:
		return "on the same endpoint each time, as its hash says"
	case d.again.SameHosts && d.again.Elsewhere:
		return "in other priorities first, else on any endpoint, even one that has failed"
	case d.again.SameHosts:
		return "on any endpoint, even one that has failed"
	case d.again.Elsewhere:
		return "on another endpoint each time, in other priorities first"
	}
	return "on another endpoint each time"
}
