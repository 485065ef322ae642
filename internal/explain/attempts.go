package explain

import (
	"fmt"
	"slices"

	"github.com/weftmesh/weft/internal/proxy/filter/retry"
	"github.com/weftmesh/weft/internal/proxy/grpc"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// connectRetries are how often a connection that is no HTTP is tried on another endpoint, as the proxy has it.
const connectRetries = 2

// ending says how an attempt ends on a way where it fails, and whether the proxy makes another: for requests package retry decides.
func (e *evaluation) ending(w *Way, d *Destination) {
	if w.failure() == "" {
		return
	}
	in := w.Inbound
	if in.closes() {
		if w.Flag = "UC"; in.unshaken {
			w.Flag = "UF"
		}
	}
	if e.report.Protocol != "http" {
		if w.Retried = in.unshaken; !in.closes() && e.talk.scheme == "http" {
			w.Status = 403 // the other side reads the bytes as what they are
		}
		return
	}
	r := e.talk.request
	a := retry.Attempt{GRPC: -1, Safe: retry.Safe(r)}
	switch {
	case in.closes():
		w.Status, a.Unsent = 503, in.unshaken || d.HTTP != "" // whoever speaks HTTP/2 waits for the endpoint's first word
	case grpc.Is(r):
		w.Status, a.Status, a.GRPC, a.Begun, a.Header = 403, 200, grpcDenied, true, &message.Header{}
	default:
		w.Status, a.Status, a.Begun, a.Header = 403, 403, true, &message.Header{}
	}
	if e.retries == nil || e.retries.Attempts == 0 {
		return
	}
	w.Retried = retry.Wanted(e.retries, &a, retry.Repeatable(r))
	a.Safe = true
	if !w.Retried && retry.Wanted(e.retries, &a, true) {
		w.unsafe = r.Method
	}
}

// grpcDenied is the code PERMISSION_DENIED.
const grpcDenied = 7

// again sets how often the destination's requests are tried again, and which part of them fails in the end. way judges an endpoint.
func (e *evaluation) again(d *Destination, way func(i int) *Way) {
	d.retries = connectRetries
	var c chances
	if e.report.Protocol == "http" {
		if d.retries = 0; e.retries != nil {
			d.retries, c.elsewhere = int(e.retries.Attempts), e.retries.OtherLocalities
		}
	}
	retried := slices.ContainsFunc(d.Ways, func(w Way) bool { return w.Retried })
	for i := range d.Endpoints {
		if ep := &d.Endpoints[i]; ep.Share > 0 || retried && ep.ready() {
			c.add(ep, way(i))
		}
	}
	if len(c.lots) > 0 {
		c.join()
		d.Failing = c.failing(d.retries + 1)
	}
}

// chances is who may get the next attempt of a request.
type chances struct {
	lots      []lot
	elsewhere bool // another attempt prefers other priorities
	avoided   int  // endpoints at which the request has failed
}

// lot are endpoints that an attempt comes to with equal probability, and that treat it alike.
type lot struct {
	share          float64 // of each
	priority       uint32
	fails, retried bool
	count, left    int // left: at which the request has not failed
}

// The bounds of what is told apart: maxAvoided is the proxy's, maxLots keeps the work small where every endpoint has a weight of its own.
const (
	maxAvoided = 4
	maxLots    = 12
)

func (c *chances) add(e *Endpoint, w *Way) {
	l := lot{share: e.Share, priority: e.Priority, fails: w.failure() != "", retried: w.Retried, count: 1, left: 1}
	if i := slices.IndexFunc(c.lots, func(o lot) bool { return o.share == l.share && o.like(l) }); i >= 0 {
		c.lots[i].count++
		c.lots[i].left++
		return
	}
	c.lots = append(c.lots, l)
}

func (l lot) like(o lot) bool {
	return l.priority == o.priority && l.fails == o.fails && l.retried == o.retried && (l.share == 0) == (o.share == 0)
}

// join makes those equal that differ in their shares alone, where they are too many.
func (c *chances) join() {
	if len(c.lots) <= maxLots {
		return
	}
	var joined []lot
	for _, l := range c.lots {
		i := slices.IndexFunc(joined, l.like)
		if i < 0 {
			joined = append(joined, l)
			continue
		}
		o := &joined[i]
		o.share = (o.share*float64(o.count) + l.share*float64(l.count)) / float64(o.count+l.count)
		o.count += l.count
		o.left = o.count
	}
	c.lots = joined
}

// failing is the probability that all of so many attempts fail, or one that is not repeated.
func (c *chances) failing(attempts int) (sum float64) {
	next := c.next()
	if next == nil {
		return 1 // there is no other endpoint, and the same one does not do better
	}
	again := 0.0
	for i, p := range next {
		l := &c.lots[i]
		switch {
		case p == 0 || !l.fails:
		case !l.retried || attempts == 1:
			sum += p
		case c.avoided == maxAvoided:
			again += p
		default:
			l.left--
			c.avoided++
			sum += p * c.failing(attempts-1)
			l.left++
			c.avoided--
		}
	}
	if again > 0 {
		sum += again * c.failing(attempts-1)
	}
	return sum
}

// next gives the probability of each lot to get the next attempt; nil where none is left.
func (c *chances) next() []float64 {
	if c.elsewhere && c.avoided > 0 {
		if p := c.among(func(l *lot) bool { return !c.touched(l.priority) }, true); p != nil {
			return p
		}
	}
	if p := c.among(func(l *lot) bool { return l.share > 0 }, false); p != nil {
		return p
	}
	return c.among(func(*lot) bool { return true }, true)
}

// touched reports whether the request has failed in a priority.
func (c *chances) touched(priority uint32) bool {
	return slices.ContainsFunc(c.lots, func(l lot) bool { return l.priority == priority && l.left < l.count })
}

// among draws from lots by their shares, or alike from those of the most wanted priority.
func (c *chances) among(takes func(*lot) bool, wanted bool) []float64 {
	best, found, sum := uint32(0), false, 0.0
	for i := range c.lots {
		if l := &c.lots[i]; l.left > 0 && takes(l) && (!found || l.priority < best) {
			best, found = l.priority, true
		}
	}
	out := make([]float64, len(c.lots))
	for i := range c.lots {
		l := &c.lots[i]
		if l.left == 0 || !takes(l) || wanted && l.priority != best {
			continue
		}
		if out[i] = float64(l.left); !wanted {
			out[i] *= l.share
		}
		sum += out[i]
	}
	if !found {
		return nil
	}
	for i := range out {
		out[i] /= sum
	}
	return out
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
