// Package chance computes how many requests fail although they are tried again: another attempt goes to an endpoint at which the request
// has not failed yet, as the balancer chooses among them.
package chance

import "slices"

// Endpoints are those that an attempt comes to with equal probability, and that treat it alike.
type Endpoints struct {
	Share    float64 // of the requests that each gets; 0 for those that only get what has failed elsewhere
	Priority uint32
	Fails    bool
	Retried  bool // what fails there is tried again
	Count    int
}

// Again is how another attempt is made: Times at most, at endpoints that have failed the request too where SameHosts is set, and
// preferably in priorities in which none has where Elsewhere is.
type Again struct {
	Times                int
	SameHosts, Elsewhere bool
}

// Failing is the share of requests of which every attempt fails, or one that is not tried again. There is at least one endpoint.
func Failing(all []Endpoints, again Again) float64 {
	c := chances{again: again}
	for _, e := range all {
		c.add(e)
	}
	c.join()
	return c.failing(again.Times + 1)
}

// chances is who may get the next attempt of a request.
type chances struct {
	lots    []lot
	again   Again
	avoided int // endpoints at which the request has failed
}

// lot are endpoints with how many of them are left: at which the request has not failed.
type lot struct {
	Endpoints
	left int
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
		return
	}
	c.lots = append(c.lots, lot{e, e.Count})
}

func (l *lot) like(e Endpoints) bool {
	return l.Priority == e.Priority && l.Fails == e.Fails && l.Retried == e.Retried && (l.Share == 0) == (e.Share == 0)
}

// join makes those equal that differ in their shares alone, where they are too many.
func (c *chances) join() {
	if len(c.lots) <= maxLots {
		return
	}
	var joined []lot
	for _, l := range c.lots {
		i := slices.IndexFunc(joined, func(o lot) bool { return o.like(l.Endpoints) })
		if i < 0 {
			joined = append(joined, l)
			continue
		}
		o := &joined[i]
		o.Share = (o.Share*float64(o.Count) + l.Share*float64(l.Count)) / float64(o.Count+l.Count)
		o.Count += l.Count
		o.left = o.Count
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
		case p == 0 || !l.Fails:
		case !l.Retried || attempts == 1:
			sum += p
		case c.avoided == maxAvoided, l.left == 0:
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
	if c.again.Elsewhere && c.avoided > 0 {
		if p := c.among(func(l *lot) bool { return !c.touched(l.Priority) }, true); p != nil {
			return p
		}
	}
	if p := c.among(func(l *lot) bool { return l.Share > 0 }, false); p != nil {
		return p
	}
	return c.among(func(*lot) bool { return true }, true)
}

// touched reports whether the request has failed in a priority.
func (c *chances) touched(priority uint32) bool {
	return slices.ContainsFunc(c.lots, func(l lot) bool { return l.Priority == priority && l.left < l.Count })
}

// eligible is how many of a lot another attempt may come to.
func (c *chances) eligible(l *lot) int {
	if c.again.SameHosts {
		return l.Count
	}
	return l.left
}

// among draws from lots by their shares, or alike from those of the most wanted priority.
func (c *chances) among(takes func(*lot) bool, wanted bool) []float64 {
	best, found, sum := uint32(0), false, 0.0
	for i := range c.lots {
		if l := &c.lots[i]; c.eligible(l) > 0 && takes(l) && (!found || l.Priority < best) {
			best, found = l.Priority, true
		}
	}
	out := make([]float64, len(c.lots))
	for i := range c.lots {
		l := &c.lots[i]
		if c.eligible(l) == 0 || !takes(l) || wanted && l.Priority != best {
			continue
		}
		if out[i] = float64(c.eligible(l)); !wanted {
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
