package serve

import (
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weftmesh/weft/internal/control/rpc"
)

// form is one of the two forms of the protocol.
type form interface {
	// read takes a request in.
	read(c *session, message []byte) error
	// plan makes responses of what the client has to be told, in the order of sending.
	plan(updates []*update) []response
	// send sends the next message of a response, reports whether that was all, and whether it went out at once.
	send(c *session, w *rpc.Stream, r *response) (all, sent bool)
}

// response is what is to be sent in one message, or in several when it is large.
type response struct {
	watch   *watch
	values  []*sub // with bodies
	bodies  []*value
	removed []*sub
	names   []string // of removed, in the delta form
	force   bool     // send it even if it is empty
}

// introduceWithin is how long a stream may be open without having said who it is.
const introduceWithin = 30 * time.Second

// stream is one discovery stream as the transport sees it. Its methods but Closed are called one at a time.
type stream struct {
	session *session // set once
	form    form
	wire    *rpc.Stream
	silent  *time.Timer // until the client has said who it is
	late    atomic.Bool // it has not in time

	todo    []response // what was taken of the session and is not sent yet
	moved   time.Time  // when the mesh came that todo is of; zero when it answers requests
	blocked bool       // a message waits for the client
}

// open begins a stream.
func (s *Server) open(wire *rpc.Stream, f form, sotw bool) (rpc.Handler, error) {
	who, err := s.authenticate(wire.Peer())
	if err != nil {
		return nil, err
	}
	t := &stream{form: f, wire: wire}
	t.session = newSession(s, who, sotw, wire.Wake, wire.Cut)
	t.silent = time.AfterFunc(introduceWithin, func() { t.late.Store(true); wire.Wake() })
	s.add(t.session)
	return t, nil
}

// Receive implements rpc.Handler.
func (t *stream) Receive(message []byte) error {
	known := t.session.claim.id != ""
	if err := t.form.read(t.session, message); err != nil {
		return err
	}
	if !known {
		t.silent.Stop()
		t.wire.SendHead() // a client that resumes with all it wants is sent nothing: the head tells it that it has been taken
	}
	return nil
}

// Next implements rpc.Handler: it sends one response.
func (t *stream) Next() (more bool, err error) {
	c := t.session
	switch {
	case time.Now().After(c.who.expires):
		return false, status.Error(codes.Unauthenticated, "the client certificate has expired: connect again with the renewed one")
	case c.claim.id == "" && t.late.Load():
		return false, status.Errorf(codes.DeadlineExceeded, "no request within %v", introduceWithin)
	case c.claim.id == "":
		return false, nil // it is told when it has said who it is
	}
	if len(t.todo) == 0 {
		t.done()
		taken := c.take()
		if taken.denied != nil {
			return false, taken.denied
		}
		t.todo, t.moved = t.form.plan(taken.updates), taken.moved
		if len(t.todo) == 0 {
			return taken.more, nil
		}
	}
	t.send()
	return true, nil
}

// send sends a message of what is to be done.
func (t *stream) send() {
	all, sent := t.form.send(t.session, t.wire, &t.todo[0])
	if all {
		if t.todo = t.todo[1:]; len(t.todo) == 0 {
			t.todo = nil
		}
	}
	if !sent {
		t.blocked = true
		t.session.mark(time.Now())
	}
}

// done is when all that was taken before has been sent.
func (t *stream) done() {
	if t.blocked {
		t.blocked = false
		t.session.mark(time.Time{})
	}
	if !t.moved.IsZero() {
		t.session.server.metrics.convergence.Observe(time.Since(t.moved).Seconds())
		t.moved = time.Time{}
	}
}

// Closed implements rpc.Handler.
func (t *stream) Closed(reason error) {
	t.silent.Stop()
	t.session.server.remove(t.session, reason)
}
