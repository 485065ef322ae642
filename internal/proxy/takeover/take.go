package takeover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/weftmesh/weft/internal/proxy/bind"
)

// ErrNobody is in Take's error when no proxy runs that could be taken over.
var ErrNobody = errors.New("no proxy runs there that could be taken over")

// ErrCarriesOn is in Ready's error when the predecessor serves on.
var ErrCarriesOn = errors.New("the running proxy carries on")

// Taken is what a process got from its predecessor. Its methods may be called from any goroutine.
type Taken struct {
	Predecessor Process
	Sockets     []bind.Inherited

	conn *net.UnixConn
	left atomic.Int64
	done chan struct{} // closed when the predecessor has ended
	once sync.Once
}

// Take asks the proxy at the unix socket for its sockets. ctx bounds the asking. The predecessor goes on serving, and what is on disk
// is its until Ready; Close without Ready leaves everything to it.
func Take(ctx context.Context, path string, self Process) (*Taken, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unixpacket", path)
	if err != nil {
		return nil, fmt.Errorf("takeover: %w: %w", ErrNobody, err)
	}
	t := &Taken{conn: nc.(*net.UnixConn), done: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
	defer stop()
	if err := t.ask(self); err != nil {
		t.Close()
		return nil, errors.Join(err, context.Cause(ctx))
	}
	return t, nil
}

func (t *Taken) ask(self Process) error {
	if err := send(t.conn, packet{Verb: "take", Version: version, Process: &self}); err != nil {
		return fmt.Errorf("takeover: %w", err)
	}
	for {
		p, file, err := receive(t.conn)
		switch {
		case err != nil:
			return fmt.Errorf("takeover: the running proxy ended the conversation: %w", err)
		case p.Verb == "err":
			return fmt.Errorf("takeover: the running proxy refuses: %s", p.Text)
		case p.Verb == "socket" && file != nil:
			t.Sockets = append(t.Sockets, bind.Inherited{Network: p.Network, Address: p.Address, File: file})
		case p.Verb == "handed" && p.Process != nil && p.Count == len(t.Sockets):
			t.Predecessor = *p.Process
			return nil
		default:
			return fmt.Errorf("takeover: the running proxy says %q, with %d sockets so far", p.Verb, len(t.Sockets))
		}
	}
}

// Ready says that this process serves, and returns when the predecessor has stopped accepting, or has ended by itself. With an error
// the predecessor carries on, and this process must end.
func (t *Taken) Ready(ctx context.Context) error {
	stop := context.AfterFunc(ctx, t.Close)
	defer stop()
	_ = send(t.conn, packet{Verb: "ready"}) // a predecessor that has hung up has said why, or has ended: that is what is read next
	p, _, err := receive(t.conn)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("takeover: %w", context.Cause(ctx))
	case err == nil && p.Verb == "err":
		return fmt.Errorf("takeover: %w: %s", ErrCarriesOn, p.Text)
	case err == nil && p.Verb != "yielded":
		return fmt.Errorf("takeover: %w, and says %q", ErrCarriesOn, p.Verb)
	}
	// An end of the conversation is the predecessor's end: it says so when it carries on.
	go t.follow() // ends with the predecessor, or Close
	return nil
}

// follow hears how many connections the predecessor has.
func (t *Taken) follow() {
	defer close(t.done)
	defer t.left.Store(0)
	for {
		p, _, err := receive(t.conn)
		if err != nil {
			return
		}
		if p.Verb == "open" {
			t.left.Store(int64(p.Count))
		}
	}
}

// Left says how many connections the predecessor still has, and whether it is there.
func (t *Taken) Left() (connections int, draining bool) {
	select {
	case <-t.done:
		return 0, false
	default:
		return int(t.left.Load()), true
	}
}

// Close ends the conversation. Before Ready, it leaves everything to the predecessor; sockets that are still in Sockets are the
// caller's to close.
func (t *Taken) Close() { t.once.Do(func() { _ = t.conn.Close() }) }
