package serve

import (
	"maps"
	"slices"
	"sync"
	"time"

	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weftmesh/weft/internal/control/generate"
)

// session is one stream. Its goroutine alone changes it, under mu where Clients reads.
type session struct {
	server    *Server // these are set once
	who       caller
	connected time.Time
	wake      chan struct{} // capacity 1: pending wake-ups merge
	sotw      bool

	mu      sync.Mutex // guards what follows against Clients
	claim   claim      // set by the first request
	watches map[string]*watch
	names   int // subscriptions over all types

	// owned by the stream's goroutine
	generator *generate.Generator
	state     *state
	nonces    uint64
}

// watch is what a stream subscribes to of one type.
type watch struct {
	typeURL  string
	wildcard bool
	names    map[string]bool
	// sent is the version that the client was last sent, or had when it connected; empty when it was told that there is none. What
	// is not in it was never answered.
	sent map[string]string
	// inFlight are the resources of responses that were not answered yet, by nonce, oldest first.
	inFlight []flight
	// force asks for a response even if nothing changed: the first one of a state-of-the-world client, or to a wildcard.
	force bool

	version string // of the last state-of-the-world response
	ackedAt time.Time
	acked   int
	nack    *Nack
}

type flight struct {
	nonce string
	names []string
}

// maxInFlight bounds what is remembered of a client that does not answer.
const maxInFlight = 32

func newSession(s *Server, who caller, sotw bool) *session {
	return &session{server: s, who: who, connected: time.Now(), wake: make(chan struct{}, 1), sotw: sotw, watches: map[string]*watch{}}
}

// poke wakes the stream; it never blocks.
func (c *session) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// maxTypes bounds the types of one stream, of which most would be unknown.
const maxTypes = 16

// watch finds or makes the watch of a type.
func (c *session) watch(typeURL string) (w *watch, first bool, err error) {
	if w = c.watches[typeURL]; w != nil {
		return w, false, nil
	}
	if len(c.watches) >= maxTypes {
		return nil, false, status.Errorf(codes.ResourceExhausted, "more than %d types on one stream", maxTypes)
	}
	w = &watch{typeURL: typeURL, names: map[string]bool{}, sent: map[string]string{}}
	c.watches[typeURL] = w
	return w, true, nil
}

// due gives the types to look at after a request for one: that one, or all when the request found a newer mesh, because types have
// their order. There are none before the first mesh; its Publish wakes the stream.
func (c *session) due(typeURL string) []string {
	before := c.state
	switch {
	case !c.refresh():
		return nil
	case c.state == before || before == nil || !slices.Contains(order, typeURL):
		return []string{typeURL}
	}
	return order
}

// subscribe adds a name. Asking again for a name that is subscribed asks for it to be sent again.
func (c *session) subscribe(w *watch, name string) error {
	if w.names[name] {
		delete(w.sent, name)
		return nil
	}
	if c.names >= c.server.options.MaxSubscriptions {
		return status.Errorf(codes.ResourceExhausted, "more than %d subscriptions on one stream", c.server.options.MaxSubscriptions)
	}
	if len(name) > maxName {
		return status.Errorf(codes.InvalidArgument, "resource name of %d bytes, more than %d", len(name), maxName)
	}
	w.names[name] = true
	c.names++
	return nil
}

// maxName bounds a resource name: a DNS name with what stands around it in cluster names.
const maxName = 512

func (c *session) unsubscribe(w *watch, name string) {
	if w.names[name] {
		delete(w.names, name)
		c.names--
	}
	if !w.wildcard {
		delete(w.sent, name)
	}
}

// refresh makes the newest mesh the one that the stream generates from; false when there is none yet.
func (c *session) refresh() bool {
	current := c.server.current.Load()
	if current == nil {
		return false
	}
	if current != c.state {
		c.state = current
		c.generator = current.index.For(c.claim.node(c.who, current.mesh))
	}
	return true
}

// change is what a watch has to be told.
type change struct {
	updated []update
	removed []string
}

type update struct {
	name string
	resource
}

// changes compares what the client has with what there is, and takes the result as sent.
func (c *session) changes(w *watch) change {
	wanted := w.names
	if w.wildcard {
		wanted = maps.Clone(w.names)
		for _, n := range c.generator.Names(w.typeURL) {
			wanted[n] = true
		}
	}
	var out change
	for _, n := range slices.Sorted(maps.Keys(wanted)) {
		r := c.state.resource(c.generator, w.typeURL, n)
		old, known := w.sent[n]
		switch {
		case r.version == "" && (!known || old != ""):
			out.removed = append(out.removed, n)
		case r.version != "" && r.version != old:
			out.updated = append(out.updated, update{n, r})
		}
		w.sent[n] = r.version
	}
	for _, n := range slices.Sorted(maps.Keys(w.sent)) {
		if !wanted[n] {
			if w.sent[n] != "" {
				out.removed = append(out.removed, n)
			}
			delete(w.sent, n)
		}
	}
	return out
}

// remember keeps the names of a response until it is answered.
func (w *watch) remember(nonce string, names []string) {
	if len(w.inFlight) == maxInFlight {
		w.inFlight = w.inFlight[1:]
	}
	w.inFlight = append(w.inFlight, flight{nonce, names})
}

// answer takes the client's verdict on a response; failure is nil for an ack, and the nonce empty where there is no verdict.
func (c *session) answer(w *watch, nonce string, failure *rpcstatus.Status) {
	i := slices.IndexFunc(w.inFlight, func(f flight) bool { return f.nonce == nonce })
	if i < 0 {
		return // of an earlier stream, or long forgotten
	}
	names := w.inFlight[i].names
	w.inFlight = slices.Delete(w.inFlight, i, i+1)
	if failure == nil {
		w.ackedAt = time.Now()
		w.acked++
		if w.nack != nil && (c.sotw || containsAny(names, w.nack.Resources)) {
			w.nack = nil
		}
		return
	}
	w.nack = &Nack{Type: shortType(w.typeURL), Resources: names, Message: failure.GetMessage(), At: time.Now()}
	c.server.metrics.rejects.Inc()
	c.server.options.Log.Warn("a proxy refused configuration and keeps the one before", "node", c.claim.id,
		"type", w.nack.Type, "resources", names, "error", w.nack.Message)
}

func containsAny(names, of []string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(of, n) })
}
