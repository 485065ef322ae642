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

// Client is the status of one connected client.
type Client struct {
	NodeID    string       `json:"nodeID"`
	Identity  string       `json:"identity"` // SPIFFE URI of its certificate
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"` // pod or process
	Role      string       `json:"role"`
	Address   string       `json:"address"`
	Connected time.Time    `json:"connected"`
	Delta     bool         `json:"delta"` // false for a state-of-the-world stream
	Types     []TypeStatus `json:"types"`
}

// Synced reports whether the client has answered everything that it was sent, and refused nothing.
func (c Client) Synced() bool {
	return !slices.ContainsFunc(c.Types, func(t TypeStatus) bool { return t.Pending > 0 || t.Nack != nil })
}

// TypeStatus is what a client subscribes to of one type, and what became of it.
type TypeStatus struct {
	Type          string    `json:"type"` // "cds", "eds", "lds", "rds", "dns"
	Wildcard      bool      `json:"wildcard,omitempty"`
	Subscriptions []string  `json:"subscriptions"`     // sorted
	Missing       []string  `json:"missing,omitempty"` // those that the mesh does not know
	LastAck       time.Time `json:"lastAck,omitzero"`
	Acks          int       `json:"acks"`
	Pending       int       `json:"pending"` // responses that were not answered yet
	Nack          *Nack     `json:"nack,omitempty"`
}

// Nack is a response that a client refused. It stays until the client accepts a later one for one of the resources.
type Nack struct {
	Type      string    `json:"type"`
	Resources []string  `json:"resources"` // all that were in the response
	Message   string    `json:"message"`
	At        time.Time `json:"at"`
}

// Clients gives the connected clients that have said who they are, by namespace, name and time of connection.
func (s *Server) Clients() []Client {
	s.mu.Lock()
	streams := slices.Collect(maps.Keys(s.streams))
	s.mu.Unlock()
	var out []Client
	for _, c := range streams {
		if st, ok := c.status(); ok {
			out = append(out, st)
		}
	}
	slices.SortFunc(out, func(a, b Client) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), a.Connected.Compare(b.Connected))
	})
	return out
}

func (c *session) status() (Client, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.claim.id == "" {
		return Client{}, false
	}
	out := Client{NodeID: c.claim.id, Identity: c.who.ID.String(), Namespace: c.who.Namespace, Name: c.claim.name,
		Role: string(c.claim.role), Address: c.who.address, Connected: c.connected, Delta: !c.sotw}
	for _, t := range slices.Sorted(maps.Keys(c.watches)) {
		w := c.watches[t]
		st := TypeStatus{Type: shortType(t), Wildcard: w.wildcard, Subscriptions: slices.Sorted(maps.Keys(w.names)),
			LastAck: w.ackedAt, Acks: w.acked, Pending: len(w.inFlight), Nack: w.nack}
		for n, v := range w.sent {
			if v == "" {
				st.Missing = append(st.Missing, n)
			}
		}
		slices.Sort(st.Missing)
		out.Types = append(out.Types, st)
	}
	return out, true
}

// Findings says which clients refused what; each stays until the client accepts something newer or leaves.
func (s *Server) Findings() []model.Finding {
	var out []model.Finding
	for _, c := range s.Clients() {
		for _, t := range c.Types {
			if t.Nack == nil {
				continue
			}
			out = append(out, model.Finding{
				Severity: model.Error,
				Code:     "ProxyRefused",
				Object:   model.Ref{Kind: "Proxy", Namespace: c.Namespace, Name: c.Name},
				Field:    t.Type,
				Message:  fmt.Sprintf("refused %s and keeps the configuration before: %s", strings.Join(t.Nack.Resources, ", "), t.Nack.Message),
				Hint:     "proxy and control plane may be of different versions; `weft status` shows all proxies",
			})
		}
	}
	return out
}
