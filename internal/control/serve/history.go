package serve

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/status"

	"github.com/weftmesh/weft/internal/control/model"
)

// history is what is remembered of clients beyond their streams, by node id. The cache's mu guards it.
type history struct {
	left    map[string]*Client // those that left, a short while ago
	dropped omission
	habits  map[string]*habit // those that came back
	large   recent[oversize]
	denied  recent[denial] // by namespace/name that was claimed
}

// recent is what was noted under keys a short while ago. Where there are as many as are remembered, no other key is taken.
type recent[V any] struct{ byKey map[string]noted[V] }

type noted[V any] struct {
	value V
	at    time.Time
}

// note replaces what is remembered under a key, and gives that; taken is false where there is no room for another key.
func (r *recent[V]) note(key string, v V, now time.Time) (was V, known, taken bool) {
	maps.DeleteFunc(r.byKey, func(_ string, n noted[V]) bool { return now.Sub(n.at) > rememberLeft })
	old, known := r.byKey[key]
	if !known && len(r.byKey) >= maxLeft {
		return old.value, false, false
	}
	if r.byKey == nil {
		r.byKey = map[string]noted[V]{}
	}
	r.byKey[key] = noted[V]{v, now}
	return old.value, known, true
}

func (r *recent[V]) forget(key string) { delete(r.byKey, key) }

// all gives what is remembered, in no order.
func (r *recent[V]) all(now time.Time) iter.Seq[V] {
	return func(yield func(V) bool) {
		for _, n := range r.byKey {
			if now.Sub(n.at) <= rememberLeft && !yield(n.value) {
				return
			}
		}
	}
}

// omission counts those that left and are not remembered, since there are too many.
type omission struct {
	count int
	last  time.Time
}

// denial is a client that claims another one's name.
type denial struct{ namespace, name, message string }

// habit is how often a client comes back.
type habit struct {
	returns []time.Time // in the last returnSpan before the last one, the oldest first
	since   time.Time   // of the first return that was followed by another one within that time
	reason  string      // for which it left last
}

// oversize is a resource, or a list of all of a type, that a client may not take.
type oversize struct {
	client   Client
	resource string
	bytes    int
}

// A client that came back manyReturns times within returnSpan cannot keep its stream.
const (
	returnSpan  = time.Minute
	manyReturns = 3
	maxReturns  = 60 // counted
)

// Bounds of what is remembered.
const (
	rememberLeft = 10 * time.Minute
	maxLeft      = 500
	maxLeftOfOne = 100 // of them with one identity
)

// leaves notes that the last stream of a client ended. Those that left first make room; expected says of which this is worth counting.
func (h *history) leaves(c *session, reason error, now time.Time, expected func(*Client) bool) {
	if h.left == nil {
		h.left = map[string]*Client{}
	}
	maps.DeleteFunc(h.left, func(_ string, c *Client) bool { return now.Sub(c.Since) > rememberLeft })
	out := c.describe()
	if h.left[out.NodeID] == nil {
		h.makeRoom(out.Identity, now, expected)
	}
	out.State, out.Since, out.Reason = Gone, now, "it closed its stream"
	if reason != nil {
		out.Reason = status.Convert(reason).Message()
	}
	h.left[out.NodeID] = &out
}

// makeRoom forgets who left first, of one identity or of all, where there are as many as are remembered.
func (h *history) makeRoom(identity string, now time.Time, expected func(*Client) bool) {
	var first, firstOfOne *Client
	same := 0
	for _, c := range h.left {
		if first == nil || c.Since.Before(first.Since) {
			first = c
		}
		if c.Identity != identity {
			continue
		}
		if same++; firstOfOne == nil || c.Since.Before(firstOfOne.Since) {
			firstOfOne = c
		}
	}
	switch {
	case same >= maxLeftOfOne:
		first = firstOfOne
	case len(h.left) < maxLeft:
		return
	}
	delete(h.left, first.NodeID)
	if !expected(first) {
		return
	}
	if now.Sub(h.dropped.last) > rememberLeft {
		h.dropped.count = 0
	}
	h.dropped.count++
	h.dropped.last = now
}

// deny notes that a client claims a name that is another one's.
func (h *history) deny(who caller, c claim, err error, now time.Time) {
	h.denied.note(who.Namespace+"/"+c.name, denial{who.Namespace, c.name, status.Convert(err).Message()}, now)
}

// comes notes that a client is there, perhaps again.
func (h *history) comes(nodeID string, now time.Time) {
	was := h.left[nodeID]
	if was == nil {
		return
	}
	delete(h.left, nodeID)
	if h.habits == nil {
		h.habits = map[string]*habit{}
	}
	maps.DeleteFunc(h.habits, func(_ string, b *habit) bool { return now.Sub(b.returns[len(b.returns)-1]) > returnSpan })
	b := h.habits[nodeID]
	if b == nil && len(h.habits) >= maxLeft {
		return
	}
	if b == nil {
		b = &habit{since: now}
		h.habits[nodeID] = b
	}
	b.returns = append(b.lately(now), now)
	b.returns = b.returns[max(0, len(b.returns)-maxReturns):]
	b.reason = was.Reason
}

// lately gives the returns that are not long ago.
func (b *habit) lately(now time.Time) []time.Time {
	i, _ := slices.BinarySearchFunc(b.returns, now.Add(-returnSpan), time.Time.Compare)
	return b.returns[i:]
}

// restlessness is that a client comes back all the time.
type restlessness struct {
	since  time.Time
	times  int    // in the last minute
	reason string // for which it left last
}

func (r restlessness) String() string {
	return fmt.Sprintf("it has connected again %d times in the last minute", r.times)
}

// whole says besides why it left last.
func (r restlessness) whole() string { return r.String() + "; last it left because: " + r.reason }

// restless reports whether a client comes back all the time.
func (h *history) restless(nodeID string, now time.Time) (r restlessness, is bool) {
	b := h.habits[nodeID]
	if b == nil {
		return restlessness{}, false
	}
	n := len(b.lately(now))
	return restlessness{b.since, n, b.reason}, n >= manyReturns
}

// away gives those that left and are expected back.
func (h *history) away(now time.Time, expected func(*Client) bool) []Client {
	var out []Client
	for _, c := range h.left {
		if now.Sub(c.Since) > rememberLeft || !expected(c) {
			continue
		}
		c := *c
		if r, is := h.restless(c.NodeID, now); is {
			c.State, c.Since, c.Reason = Reconnecting, r.since, r.whole()
		}
		out = append(out, c)
	}
	return out
}

// maxForeign is the largest message that gRPC clients take unless they are told otherwise. Ours take more.
const maxForeign = 4 << 20

// weigh notes what is larger than a client of gRPC's library takes, and reports whether that is new.
func (h *history) weigh(c *session, resource string, bytes int, now time.Time) (fresh bool) {
	was, known, taken := h.large.note(c.claim.id, oversize{c.describe(), resource, bytes}, now)
	return taken && (!known || was.resource != resource)
}

// findings about who was turned away, who is not remembered, and what is too large.
func (h *history) findings(now time.Time) (out []model.Finding) {
	for d := range h.denied.all(now) {
		out = append(out, model.Finding{Severity: model.Warning, Code: "ProxyDenied", Object: model.Ref{Kind: "Proxy", Namespace: d.namespace, Name: d.name},
			Message: d.message, Hint: "give the proxy a certificate of that account, or the Pod or WorkloadEntry the account of the proxy"})
	}
	if n := h.dropped.count; n > 0 && now.Sub(h.dropped.last) <= rememberLeft {
		out = append(out, model.Finding{Severity: model.Info, Code: "ProxiesLeftOut",
			Message: fmt.Sprintf("%d more proxies have left than are remembered, which is %d, and %d of one identity: those that left first are not shown", n, maxLeft, maxLeftOfOne)})
	}
	for o := range h.large.all(now) {
		out = append(out, model.Finding{
			Severity: model.Warning, Code: "LargeResource", Field: o.resource,
			Object:  model.Ref{Kind: "Proxy", Namespace: o.client.Namespace, Name: o.client.Name},
			Message: fmt.Sprintf("it was sent %d bytes, and gRPC's library takes %d unless it is told otherwise: it may refuse them and connect again and again", o.bytes, maxForeign),
			Hint:    "let its program take more (grpc.MaxCallRecvMsgSize), or make the object smaller",
		})
	}
	return out
}
