package serve

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/weftmesh/weft/internal/control/model"
)

// Client is the status of one client: a connected one, or one that left a short while ago although its workload is still there.
type Client struct {
	NodeID    string `json:"nodeID"`
	Identity  string `json:"identity"` // SPIFFE URI of its certificate
	Namespace string `json:"namespace"`
	Name      string `json:"name"` // pod or process
	Role      string `json:"role"`
	// Labels are those that count: of the workload that the mesh knows, or else those that a sidecar says it has.
	Labels    map[string]string `json:"labels,omitempty"`
	Address   string            `json:"address"`
	Connected time.Time         `json:"connected"`
	Delta     bool              `json:"delta"` // false for a state-of-the-world stream
	State     State             `json:"state"`
	// Since is when the state began, and Reason says more about it; for Synced they are empty.
	Since  time.Time    `json:"since,omitzero"`
	Reason string       `json:"reason,omitempty"`
	Types  []TypeStatus `json:"types,omitempty"`
	// Owed: something is to be sent to it, or it has not answered what was.
	Owed bool `json:"-"`
}

// State of a client.
type State string

// The states, from good to bad; a client's is the worst of its types'.
const (
	Synced  State = "synced"  // it has accepted the newest of all that it subscribes to
	Waiting State = "waiting" // something was sent that it has not answered yet
	Behind  State = "behind"  // something changed that it was not sent yet
	Slow    State = "slow"    // it does not read what it is being sent
	Refused State = "refused" // it refused something and keeps what it had before
	// Reconnecting: its streams end soon after they began, again and again. One that refuses something, or is slow, behind or silent for a
	// while all the same is shown as that, and the reason says both.
	Reconnecting State = "reconnecting"
	Gone         State = "gone" // it is not connected
)

// Synced reports whether the client has answered everything that it was sent, and refused nothing.
func (c Client) Synced() bool {
	return !slices.ContainsFunc(c.Types, func(t TypeStatus) bool { return t.Pending > 0 || len(t.Nacks) > 0 })
}

// TypeStatus is what a client subscribes to of one type, and what became of it.
type TypeStatus struct {
	Type          string    `json:"type"` // "cds", "eds", "lds", "rds", "dns"
	Wildcard      bool      `json:"wildcard,omitempty"`
	Subscriptions []string  `json:"subscriptions"`     // sorted
	Missing       []string  `json:"missing,omitempty"` // those that the mesh does not know
	Resources     int       `json:"resources"`         // accepted in their newest version
	Stale         int       `json:"stale,omitempty"`   // resources of which the client has not accepted the newest version
	StaleSince    time.Time `json:"staleSince,omitzero"`
	LastAck       time.Time `json:"lastAck,omitzero"`
	Acks          int       `json:"acks"`
	Pending       int       `json:"pending"` // responses that were not answered yet
	Nacks         []Nack    `json:"nacks,omitempty"`
}

// Nack is what a client refused with one answer. A resource stays in it until the client accepts a later response that has it, refuses
// it again, or is no longer subscribed to it.
type Nack struct {
	Resources []string  `json:"resources"`      // sorted
	More      int       `json:"more,omitempty"` // that are not listed
	Message   string    `json:"message"`
	At        time.Time `json:"at"`
	Since     time.Time `json:"since"` // of the first refusal of one of them without acceptance in between
}

// Clients gives the clients that have said who they are, by namespace, name and time of connection.
func (s *Server) Clients() []Client {
	s.cache.mu.Lock()
	streams := slices.Collect(maps.Keys(s.streams))
	now := time.Now()
	out := s.history.away(now, s.expected)
	s.cache.mu.Unlock()
	for _, c := range streams {
		if st, ok := c.status(now); ok {
			out = append(out, st)
		}
	}
	slices.SortFunc(out, func(a, b Client) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), a.Connected.Compare(b.Connected))
	})
	return out
}

// expected reports whether the mesh has the client's workload. The cache is locked.
func (s *Server) expected(c *Client) bool {
	return s.cache.index.Index != nil && s.cache.index.Mesh().Workloads.Get(c.Namespace+"/"+c.Name) != nil
}

// describe gives what does not change of a client.
func (c *session) describe() Client {
	return Client{NodeID: c.claim.id, Identity: c.who.ID.String(), Namespace: c.who.Namespace, Name: c.claim.name,
		Role: string(c.claim.role), Address: c.who.address, Connected: c.connected, Delta: !c.sotw}
}

func (c *session) status(now time.Time) (Client, bool) {
	c.server.cache.mu.Lock()
	defer c.server.cache.mu.Unlock()
	if c.claim.id == "" {
		return Client{}, false
	}
	out := c.describe()
	if c.node != nil {
		out.Labels = c.node.Labels
	}
	out.State, out.Since, out.Reason = c.state(now)
	out.Owed = c.owes()
	for _, w := range c.watches {
		out.Types = append(out.Types, w.status())
	}
	slices.SortFunc(out.Types, func(a, b TypeStatus) int { return strings.Compare(a.Type, b.Type) })
	return out, true
}

// slowAfter is when a send under way means that the client does not read.
const slowAfter = time.Second

// state sums a stream up. The cache is locked.
func (c *session) state(now time.Time) (s State, since time.Time, reason string) {
	s = Synced
	worse := func(to State, at time.Time, why string) {
		if states[to] > states[s] || to == s && at.Before(since) {
			s, since, reason = to, at, why
		}
	}
	if len(c.changed) > 0 {
		worse(Behind, c.behind, "what changed was not sent yet")
	}
	if c.held.entries > 0 {
		worse(Behind, c.held.since, "what changed is large, and still being made")
	}
	if !c.sending.IsZero() && now.Sub(c.sending) > slowAfter {
		worse(Slow, c.sending, "it does not read what it is sent")
	}
	for _, w := range c.watches {
		if waiting := w.waiting(); len(waiting) > 0 {
			worse(Waiting, waiting[0].at, fmt.Sprintf("%s was sent and not answered", shortType(w.typeURL)))
		}
		for _, r := range w.refusals {
			worse(Refused, r.since, fmt.Sprintf("%s: %s", shortType(w.typeURL), r.message))
		}
	}
	if r, is := c.server.history.restless(c.claim.id, now); is {
		// What lasts counts more; that it is being sent things is how each of its streams begins.
		if now.Sub(since) <= slowAfter && states[s] < states[Slow] || s == Synced {
			return Reconnecting, r.since, r.whole()
		}
		reason = r.String() + "; " + reason
	}
	return s, since, reason
}

var states = map[State]int{Synced: 0, Waiting: 1, Behind: 2, Slow: 3, Refused: 4}

func (w *watch) status() TypeStatus {
	waiting := w.waiting()
	st := TypeStatus{Type: shortType(w.typeURL), Wildcard: w.list != nil, Subscriptions: []string{},
		LastAck: w.ackedAt, Acks: w.acks, Pending: len(waiting)}
	for _, s := range w.subs {
		newest := s.entry.value.versionOf()
		if s.is(named) {
			st.Subscriptions = append(st.Subscriptions, s.entry.name)
		}
		switch {
		case s.entry.pending:
			st.Stale++
		case newest == 0 && !w.tellsRemoval():
		case s.acked != newest || s.is(refused) || s.sent != newest:
			st.Stale++
		case newest != 0:
			st.Resources++
		}
		if s.is(answered) && s.sent == 0 {
			st.Missing = append(st.Missing, s.entry.name)
		}
	}
	if st.Stale > 0 {
		st.StaleSince = w.session.behind
		if w.session.held.entries > 0 {
			st.StaleSince = w.session.held.since
		}
		if len(waiting) > 0 {
			st.StaleSince = waiting[0].at
		}
		if len(w.refusals) > 0 {
			st.StaleSince = slices.MinFunc(w.refusals, func(a, b *refusal) int { return a.since.Compare(b.since) }).since
		}
	}
	for _, r := range w.refusals {
		st.Nacks = append(st.Nacks, r.nack())
	}
	return st
}

// Findings says which clients refused what, which stays as long as its Nack and until the client leaves; which were sent more than
// they may take; and which gateways nobody knows.
func (s *Server) Findings() []model.Finding {
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	out := s.history.findings(time.Now())
	for c := range s.streams {
		if c.unplaced != "" {
			out = append(out, unplaced(c))
		}
		for _, w := range c.watches {
			for _, r := range w.refusals {
				out = append(out, r.finding(w))
			}
		}
	}
	slices.SortFunc(out, func(a, b model.Finding) int {
		return cmp.Or(strings.Compare(a.Object.String(), b.Object.String()), strings.Compare(a.Field, b.Field), strings.Compare(a.Message, b.Message))
	})
	return out
}

func (r *refusal) finding(w *watch) model.Finding {
	n := r.nack()
	resources := strings.Join(n.Resources, ", ")
	switch {
	case n.More > 0:
		resources += fmt.Sprintf(" and %d more", n.More)
	case resources == "":
		resources = "an empty response"
	}
	return model.Finding{
		Severity: model.Error,
		Code:     "ProxyRefused",
		Object:   model.Ref{Kind: "Proxy", Namespace: w.session.who.Namespace, Name: w.session.claim.name},
		Field:    shortType(w.typeURL),
		Message:  fmt.Sprintf("refused %s and keeps the configuration before: %s", resources, n.Message),
		Hint:     "proxy and control plane may be of different versions; `weft status` shows all proxies",
	}
}

func unplaced(c *session) model.Finding {
	return model.Finding{
		Severity: model.Warning,
		Code:     "GatewayUnknown",
		Object:   model.Ref{Kind: "Proxy", Namespace: c.who.Namespace, Name: c.claim.name},
		Message:  c.unplaced,
		Hint: fmt.Sprintf("apply a WorkloadEntry %s in namespace %s with serviceAccount %s, its address, and the labels that Gateways select: those of its bootstrap file are not believed, since they decide about keys",
			c.claim.name, c.who.Namespace, c.who.ServiceAccount),
	}
}
