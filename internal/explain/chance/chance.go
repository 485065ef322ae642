// Package chance computes how many requests fail although they are tried again: another attempt goes to an endpoint at which the request
// has not failed yet, as the balancer chooses among them.
package chance

import (
	"cmp"
	"math"
	"slices"
)

// Endpoints are those that an attempt comes to with equal probability, and that treat it alike.
type Endpoints struct {
	Share    float64 // of the requests that each gets; 0 for those that only get what has failed elsewhere
	Priority uint32
	Fails    bool
	Retried  bool // what fails there is tried again
	Shunned  bool // the balancer leaves alone what fails there, for it could not be connected to, and has other priorities take its part
	Count    int
}

// Again is how another attempt is made: Times at most, at endpoints that have failed the request too where SameHosts is set, and
// preferably in priorities in which none has where Elsewhere is. Bound requests come to the same endpoint each time. Neither SameHosts
// nor Bound holds for endpoints that are shunned.
type Again struct {
	Times                       int
	SameHosts, Elsewhere, Bound bool
}

// Failing is the share of requests of which every attempt fails, or one that is not tried again. at has the part of it whose last attempt
// is at each of the endpoints, in their order: exactly 0 where none ends. There is at least one endpoint.
func Failing(all []Endpoints, again Again) (share float64, at []float64) {
	c := chances{again: again}
	for _, e := range all {
		c.add(e)
	}
	c.join()
	c.fail(again.Times+1, 1)
	for i, l := range c.of {
		at = append(at, c.lots[l].ended*float64(all[i].Count)/float64(c.lots[l].Count))
	}
	for i := range c.lots {
		share += c.lots[i].ended
	}
	return share, at
}

// chances is who may get the next attempt of a request.
type chances struct {
	lots    []lot
	of      []int // which lot each of the endpoints is in
	again   Again
	avoided int // endpoints at which the request has failed
}

// lot are endpoints with how many of them are left, at which the request has not failed, and the share of requests that ended there.
type lot struct {
	Endpoints
	left  int
	ended float64
}

// The bounds of what is told apart: maxAvoided is the proxy's, maxLots keeps the work small where every endpoint has a weight of its own.
const (
	maxAvoided = 4
	maxLots    = 12
)

func (c *chances) add(e Endpoints) {
	if i := slices.IndexFunc(c.lots, func(o lot) bool { return o.Share == e.Share && o.like(e) }); i >= 0 {
		c.lots[i].Count += e.Count
		c.lots[i].left += e.Count
		c.of = append(c.of, i)
		return
	}
	c.of = append(c.of, len(c.lots))
	c.lots = append(c.lots, lot{Endpoints: e, left: e.Count})
}

func (l *lot) like(e Endpoints) bool {
	return l.Priority == e.Priority && l.Fails == e.Fails && l.Retried == e.Retried && l.Shunned == e.Shunned && (l.Share == 0) == (e.Share == 0)
}

// join makes those equal that differ in their shares alone, where they are too many.
func (c *chances) join() {
	if len(c.lots) <= maxLots {
		return
	}
	var joined []lot
	place := make([]int, len(c.lots))
	for j, l := range c.lots {
		i := slices.IndexFunc(joined, func(o lot) bool { return o.like(l.Endpoints) })
		if place[j] = i; i < 0 {
			place[j] = len(joined)
			joined = append(joined, l)
			continue
		}
		o := &joined[i]
		o.Share = (o.Share*float64(o.Count) + l.Share*float64(l.Count)) / float64(o.Count+l.Count)
		o.Count += l.Count
		o.left = o.Count
	}
	c.lots = joined
	for i, l := range c.of {
		c.of[i] = place[l]
	}
}

// fail has a share of all requests make so many attempts at most, and files what ends in failure under where it does.
func (c *chances) fail(attempts int, share float64) {
	next := c.next()
	if c.settled() {
		c.repeat(next, attempts, share)
		return
	}
	for i, p := range next {
		l := &c.lots[i]
		switch {
		case p == 0 || !l.Fails:
		case !l.Retried, attempts == 1, c.again.Bound && !l.Shunned: // the same endpoint does not do better
			l.ended += share * p
		default:
			l.left--
			c.avoided++
			c.fail(attempts-1, share*p)
			l.left++
			c.avoided--
		}
	}
}

// settled reports whether it makes no difference to an attempt where those before it have failed.
func (c *chances) settled() bool {
	a := &c.again
	return c.avoided == maxAvoided || a.SameHosts && !a.Elsewhere && !a.Bound && !slices.ContainsFunc(c.lots, func(l lot) bool { return l.Shunned })
}

// repeat is fail where all attempts are alike.
func (c *chances) repeat(next []float64, attempts int, share float64) {
	again := 0.0
	for i, p := range next {
		if l := &c.lots[i]; l.Fails && l.Retried {
			again += p
		}
	}
	last := math.Pow(again, float64(attempts-1)) // the share of requests that come to their last attempt
	all := float64(attempts)                     // how many a request makes on average
	if again < 1 {
		all = (1 - last*again) / (1 - again)
	}
	for i, p := range next {
		switch l := &c.lots[i]; {
		case !l.Fails:
		case l.Retried:
			l.ended += share * p * last
		default:
			l.ended += share * p * all
		}
	}
}

// next gives the probability of each lot to get the next attempt.
func (c *chances) next() []float64 {
	if c.again.Elsewhere && c.avoided > 0 {
		if p := c.among(func(l *lot) bool { return !c.touched(l.Priority) }, c.eligible, true); p != nil {
			return p
		}
	}
	if p := c.among(func(l *lot) bool { return l.Share > 0 }, c.eligible, false); p != nil {
		return p
	}
	if c.shuns() {
		if p := c.among(func(*lot) bool { return true }, c.eligible, true); p != nil {
			return p
		}
	}
	// All that get requests have failed this one: the balancer keeps to the most wanted priority, and takes in need who has failed.
	first := slices.MinFunc(c.lots, func(a, b lot) int { return cmp.Compare(a.Priority, b.Priority) }).Priority
	wanted := func(l *lot) bool { return l.Priority == first }
	if p := c.among(wanted, c.eligible, true); p != nil {
		return p
	}
	return c.among(wanted, func(l *lot) int { return l.Count }, true)
}

// shuns reports whether the request has failed where the balancer leaves an endpoint alone for that.
func (c *chances) shuns() bool {
	return slices.ContainsFunc(c.lots, func(l lot) bool { return l.Shunned && l.left < l.Count })
}

// touched reports whether the request has failed in a priority.
func (c *chances) touched(priority uint32) bool {
	return slices.ContainsFunc(c.lots, func(l lot) bool { return l.Priority == priority && l.left < l.Count })
}

// eligible is how many of a lot another attempt may come to.
func (c *chances) eligible(l *lot) int {
	if c.again.SameHosts && !l.Shunned {
		return l.Count
	}
	return l.left
}

// among draws from so many of the lots by their shares, or alike from those of the most wanted priority; nil where there are none.
func (c *chances) among(takes func(*lot) bool, many func(*lot) int, wanted bool) []float64 {
	best, found, sum := uint32(0), false, 0.0
	for i := range c.lots {
		if l := &c.lots[i]; many(l) > 0 && takes(l) && (!found || l.Priority < best) {
			best, found = l.Priority, true
		}
	}
	out := make([]float64, len(c.lots))
	for i := range c.lots {
		l := &c.lots[i]
		if many(l) == 0 || !takes(l) || wanted && l.Priority != best {
			continue
		}
		if out[i] = float64(many(l)); !wanted {
			out[i] *= l.Share
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
