package serve

import (
	"maps"
	"slices"
	"time"

	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"

	"github.com/weftmesh/weft/internal/printable"
)

// answers is what a client has said, and has still to say, of the responses of one type. It is known for each resource: one is refused
// from the nack of a response that has it until the client accepts a later response that has it, or is no longer subscribed to it.
//
// Responses that a client skips, since it answers a later one, count as accepted: who refuses has to say so. Envoy's
// state-of-the-world streams skip, as they answer only the last of what came while they held a type's requests back.
type answers struct {
	// flights are the responses of which an answer counts, oldest first. The first skipped of them are waited for no more.
	flights []flight
	skipped int

	refusals []*refusal // oldest first
	ackedAt  time.Time
	acks     int
}

// flight is a response under way.
type flight struct {
	nonce uint64
	at    time.Time
	items []carried
}

type carried struct {
	sub     *sub
	version uint64
}

// refusal is what a client refused with one answer, and neither accepted nor refused again since.
type refusal struct {
	message   string
	at, since time.Time
	of        map[*sub]bool
	// brief: there is nothing that could be accepted later, since the response was empty or has nothing but resources that are gone. It is
	// over with the next answer.
	brief bool
	gone  []string // of which the brief one was
}

// waiting are the responses that the client has to answer, oldest first.
func (a *answers) waiting() []flight { return a.flights[a.skipped:] }

// maxInFlight bounds the responses of a type, and maxCarried their subscriptions for each one that there is, that are remembered of a
// client that does not answer. Those that are forgotten count as accepted. A first answer to a wildcard is many responses, none of which may
// be forgotten: a client with many subscriptions of a type is owed answers to more, by one for each perResponse of them.
const (
	maxInFlight = 32
	maxCarried  = 3
	perResponse = 16
)

// remember keeps what a response has until it is answered.
func (c *session) remember(w *watch, nonce uint64, items []carried) {
	cache := &c.server.cache
	cache.mu.Lock()
	defer cache.mu.Unlock()
	w.flights = append(w.flights, flight{nonce, time.Now(), items})
	c.inFlight += len(items)
	bound := maxCarried * max(c.subscriptions(), 1000)
	for len(w.flights) > 1 && (len(w.flights) > maxInFlight+len(w.subs)/perResponse || c.inFlight > bound) {
		if w.skipped == 0 {
			w.accept(w.flights[0].items)
			w.lapse()
			w.flights[1].at = w.flights[0].at // since then the client has been silent
			w.skipped++
		}
		c.land(w, 0, 1)
	}
}

// land forgets flights, by their places.
func (c *session) land(w *watch, from, to int) {
	for _, f := range w.flights[from:to] {
		c.inFlight -= len(f.items)
	}
	w.skipped -= max(0, min(to, w.skipped)-from)
	if w.flights = slices.Delete(w.flights, from, to); len(w.flights) == 0 && cap(w.flights) > 1 {
		w.flights = nil // room for one is kept: mostly there is no more
	}
}

// request is what requests of both forms have in common.
type request interface {
	GetTypeUrl() string
	GetResponseNonce() string
	GetErrorDetail() *rpcstatus.Status
}

// hear finds the watch of a request's type, and takes the verdict on a response that the request may be.
func (c *session) hear(r request) (w *watch, first bool, err error) {
	if w, first, err = c.watch(r.GetTypeUrl()); err == nil {
		c.answer(w, parseNonce(r.GetResponseNonce()), r.GetErrorDetail())
	}
	return w, first, err
}

// answer takes the client's verdict on a response; failure is nil for an ack. A nonce that is not known gives none.
func (c *session) answer(w *watch, nonce uint64, failure *rpcstatus.Status) {
	i := slices.IndexFunc(w.flights, func(f flight) bool { return f.nonce == nonce })
	if i < 0 {
		return // of an earlier stream, or long forgotten
	}
	items, late := w.flights[i].items, i < w.skipped
	for ; w.skipped < i; w.skipped++ {
		w.accept(w.flights[w.skipped].items)
	}
	from := i
	if c.sotw {
		from = 0 // an answer to one before would be stale (xDS protocol)
	}
	c.land(w, from, i+1)
	for _, r := range w.refusals {
		r.brief = false
	}
	switch {
	case failure == nil:
		w.ackedAt = time.Now()
		w.acks++
		if !late {
			w.accept(items)
		}
	case late:
		// It was taken for accepted; what the client has said of later ones stands.
		items = slices.DeleteFunc(items, func(x carried) bool { return x.sub.is(refused) || x.sub.acked != x.version })
		if len(items) > 0 {
			c.refuse(w, items, failure.GetMessage())
		}
	default:
		c.refuse(w, items, failure.GetMessage())
	}
	w.lapse()
}

func (a *answers) accept(items []carried) {
	for _, x := range items {
		x.sub.acked = x.version
		a.release(x.sub)
	}
}

// release takes a subscription out of the refusal that it is in, and gives that. The caller calls lapse at the end.
func (a *answers) release(s *sub) *refusal {
	if !s.is(refused) {
		return nil
	}
	s.unset(refused)
	i := slices.IndexFunc(a.refusals, func(r *refusal) bool { return r.of[s] })
	delete(a.refusals[i].of, s)
	return a.refusals[i]
}

// offerRest has what else was in the refusals of some subscriptions that end sent again: without these the client may accept it.
func (a *answers) offerRest(gone map[*sub]bool) {
	now := time.Now()
	for _, r := range a.refusals {
		ends := false
		for s := range r.of {
			ends = ends || gone[s]
		}
		if !ends {
			continue
		}
		for s := range r.of {
			if !gone[s] {
				s.set(again)
				s.note(now)
			}
		}
	}
}

// lapse forgets refusals of which nothing is left.
func (a *answers) lapse() {
	if a.refusals == nil {
		return
	}
	a.refusals = slices.DeleteFunc(a.refusals, func(r *refusal) bool { return len(r.of) == 0 && !r.brief })
	if len(a.refusals) == 0 {
		a.refusals = nil
	}
}

// What is kept of refusals is bounded, and so is how often they are logged.
const (
	maxRefusals    = 8
	maxNackNames   = 20
	maxNackMessage = 2048
	warnEvery      = 10 * time.Second
)

func (c *session) refuse(w *watch, items []carried, message string) {
	now := time.Now()
	r := &refusal{message: printable.Text(message[:min(len(message), maxNackMessage)]), at: now, since: now, of: map[*sub]bool{}}
	for _, x := range items {
		if !x.sub.is(named | listed) {
			if len(r.gone) < maxNackNames {
				r.gone = append(r.gone, x.sub.entry.name)
			}
			continue
		}
		if before := w.release(x.sub); before != nil && before.since.Before(r.since) {
			r.since = before.since
		}
		x.sub.set(refused)
		r.of[x.sub] = true
	}
	r.brief = len(r.of) == 0
	w.keep(r)
	c.server.metrics.rejects.WithLabelValues(metricType(w.typeURL)).Inc()
	if now.Sub(c.lastWarn) > warnEvery {
		c.lastWarn = now
		c.server.options.Log.Warn("a proxy refused configuration and keeps the one before", "node", c.claim.id,
			"type", shortType(w.typeURL), "resources", r.nack().Resources, "error", r.message)
	}
}

// keep adds a refusal. Where there are too many, the two oldest become one, in the words of the later.
func (a *answers) keep(r *refusal) {
	a.lapse()
	if a.refusals = append(a.refusals, r); len(a.refusals) <= maxRefusals {
		return
	}
	first, second := a.refusals[0], a.refusals[1]
	first.message, first.at = second.message, second.at
	if second.since.Before(first.since) {
		first.since = second.since
	}
	maps.Copy(first.of, second.of)
	a.refusals = slices.Delete(a.refusals, 1, 2)
}

// nack is the refusal as it is told.
func (r *refusal) nack() Nack {
	names := r.gone
	if !r.brief {
		names = make([]string, 0, len(r.of))
		for s := range r.of {
			names = append(names, s.entry.name)
		}
	}
	slices.Sort(names)
	n := Nack{Resources: []string{}, More: max(0, len(names)-maxNackNames), Message: r.message, At: r.at, Since: r.since}
	for _, name := range names[:len(names)-n.More] {
		n.Resources = append(n.Resources, printable.Text(name))
	}
	return n
}
