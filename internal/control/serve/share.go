package serve

import (
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// holding is what the streams of one certificate, which is an instance's own, hold together. The cache's mu guards it.
type holding struct {
	streams int
	spare   int        // what they keep without having asked for it by name
	wild    []*session // those with a wildcard, oldest first
}

// fullShares is how many streams of one certificate may each subscribe to as much as one: a proxy and its successors have a few, gRPC's
// library one for each name that a program dials, of which each has a few names. It is also how many of one node may have a wildcard,
// and how many of one certificate may whatever is in their lists.
const fullShares = 4

// share is how many names a stream may subscribe to. One that opens streams without end gets less for each, and hardly more for all.
// The cache is locked.
func (s *Server) share(c *session) int {
	return s.options.MaxSubscriptions * fullShares / max(fullShares, c.holding.streams)
}

// hold files a stream under its certificate. The cache is locked.
func (s *Server) hold(c *session) {
	h := s.byCertificate[c.who.certificate]
	if h == nil {
		h = &holding{}
		s.byCertificate[c.who.certificate] = h
	}
	h.streams++
	c.holding = h
}

// release takes a stream that has ended out of its certificate's. The cache is locked.
func (s *Server) release(c *session) {
	c.holding.give(c)
	if c.holding.streams--; c.holding.streams == 0 {
		delete(s.byCertificate, c.who.certificate)
	}
}

// give has what a stream keeps, or will not keep for long, count no more.
func (h *holding) give(c *session) {
	h.spare -= c.spare
	c.spare = 0
	if c.wild {
		h.tame(c)
	}
}

func (h *holding) tame(c *session) {
	c.wild = false
	h.wild = slices.DeleteFunc(h.wild, func(other *session) bool { return other == c })
}

// errSuperseded ends the oldest stream of a node that has a wildcard, when there are more than it has use for: a client comes back before
// the server knows that it was gone.
var errSuperseded = status.Errorf(codes.ResourceExhausted, "the node has opened more than %d streams with a wildcard: the newer ones go on", fullShares)

// account counts what the stream keeps, and refuses what is too much. asked says that it is a request that may have made it more. The cache
// is locked.
func (c *session) account(asked bool) error {
	if c.denied != nil {
		return nil // it keeps nothing for long
	}
	h, had, listed, wild := c.holding, c.spare, 0, false
	c.spare = c.subscriptions() - c.names
	for _, w := range c.watches {
		if w.list != nil {
			wild = true
			listed += len(w.list.entry.names)
		}
	}
	h.spare += c.spare - had
	switch {
	case wild && !c.wild:
		c.wild = true
		h.wild = append(h.wild, c)
		h.supersede(c)
	case !wild && c.wild:
		h.tame(c)
	}
	most := fullShares * c.server.options.MaxSubscriptions
	switch {
	case c.spare <= had:
		return nil
	case asked && c.spare-listed > most/2:
		return status.Errorf(codes.ResourceExhausted, "more than %d resources of a stream before, or names taken back, that the client was not told of yet", most/2)
	case h.spare > most && len(h.wild) > fullShares:
		return status.Errorf(codes.ResourceExhausted, "the wildcards of %d streams of one certificate list more than %d resources", len(h.wild), most)
	}
	return nil
}

// supersede ends the oldest stream with a wildcard of the node of a new one, if there are too many.
func (h *holding) supersede(by *session) {
	var oldest *session
	n := 0
	for _, c := range h.wild {
		if c.claim.id != by.claim.id {
			continue
		}
		if n++; oldest == nil {
			oldest = c
		}
	}
	if n <= fullShares {
		return
	}
	h.give(oldest)
	oldest.denied = errSuperseded
	oldest.cut(errSuperseded)
}
