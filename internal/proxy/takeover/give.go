package takeover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/weftmesh/weft/internal/proxy/bind"
)

// Predecessor is a proxy that can be taken over. Begin comes first, then either Abort or Yield.
type Predecessor interface {
	// Begin gives the open sockets and leaves them, and what is on disk, as they are from now on. An error is for the successor.
	Begin() ([]bind.Socket, error)
	// Abort goes on as before Begin.
	Abort()
	// Yield stops accepting, and begins to drain.
	Yield()
	// Open is the number of connections that are left.
	Open() int
}

// Giver waits for successors of a proxy.
type Giver struct {
	// Set once, before Serve.
	Self        Process
	Predecessor Predecessor
	Log         *slog.Logger
	// Patience bounds how long a successor may take to become ready; 0 is DefaultPatience.
	Patience time.Duration

	mu        sync.Mutex
	successor *Process // that is being prepared, or has taken over
	yielded   bool
}

// DefaultPatience is enough for a proxy whose control plane is slow.
const DefaultPatience = time.Minute

// tell is how often the successor hears how many connections are left.
const tell = time.Second

// Serve answers at l until it is closed or a successor has taken over; it returns when every conversation has ended, which they do
// with ctx.
func (g *Giver) Serve(ctx context.Context, l *net.UnixListener) error {
	var talks sync.WaitGroup
	defer talks.Wait()
	for {
		c, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("takeover: %w", err)
		}
		talks.Go(func() { // ends with ctx, or its connection
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { _ = c.Close() })
			defer stop()
			if err := g.talk(ctx, c); err != nil {
				g.Log.Warn("upgrade failed; this process carries on", "error", err)
			}
		})
	}
}

// talk is one conversation.
func (g *Giver) talk(ctx context.Context, c *net.UnixConn) error {
	if ours, err := sameUser(c); err != nil || !ours {
		return errors.Join(err, errors.New("somebody else's process asks for our sockets"))
	}
	_ = c.SetReadDeadline(time.Now().Add(tell)) // it has to say what it wants; a socket that is closed says so itself
	p, file, err := receive(c)
	if file != nil {
		_ = file.Close()
	}
	if err != nil {
		return err
	}
	if p.Verb != "take" || p.Process == nil {
		return refuse(c, fmt.Errorf("takeover: %q is not a question", p.Verb))
	}
	if p.Version != version {
		return refuse(c, fmt.Errorf("takeover: process %d (%s) speaks version %d of the conversation, this one (%s) version %d", p.Process.PID, p.Process.Release, p.Version, g.Self.Release, version))
	}
	if err := g.admit(p.Process); err != nil {
		return refuse(c, err)
	}
	g.Log.Info("upgrade begins", "successor", p.Process.PID, "version", p.Process.Release)
	if err := g.prepare(c); err != nil {
		g.dismiss()
		return fmt.Errorf("successor %d: %w", p.Process.PID, err)
	}
	g.mu.Lock()
	g.yielded = true
	g.mu.Unlock()
	g.Predecessor.Yield()
	g.Log.Info("upgrade done; this process drains", "successor", p.Process.PID, "open", g.Predecessor.Open())
	if send(c, packet{Verb: "yielded"}) == nil {
		g.report(ctx, c)
	}
	return nil
}

func refuse(c *net.UnixConn, why error) error {
	return errors.Join(why, send(c, packet{Verb: "err", Text: why.Error()}))
}

// admit lets one successor in at a time.
func (g *Giver) admit(p *Process) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.successor != nil {
		return fmt.Errorf("an upgrade is under way already, by process %d (%s)", g.successor.PID, g.successor.Release)
	}
	g.successor = p
	return nil
}

func (g *Giver) dismiss() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.successor = nil
}

// prepare hands the sockets over and waits until the successor is ready. After an error the proxy is as it was before.
func (g *Giver) prepare(c *net.UnixConn) error {
	sockets, err := g.Predecessor.Begin()
	if err != nil {
		return refuse(c, err)
	}
	if err := g.hand(c, sockets); err != nil {
		g.Predecessor.Abort()
		return err
	}
	patience := g.Patience
	if patience == 0 {
		patience = DefaultPatience
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	p, file, err := receive(c)
	if file != nil {
		_ = file.Close()
	}
	var timeout net.Error
	switch {
	case err == nil && p.Verb == "ready":
		return nil
	case errors.As(err, &timeout) && timeout.Timeout():
		err = refuse(c, fmt.Errorf("it was not ready within %v", patience))
	case err == nil && p.Verb == "err":
		err = errors.New(p.Text)
	case err == nil:
		err = refuse(c, fmt.Errorf("it said %q before it was ready", p.Verb))
	default:
		err = errors.New("it ended before it was ready")
	}
	g.Predecessor.Abort()
	return err
}

// hand sends sockets, without those that have been closed since: the configuration has no use for them any more, or the process behind one has
// ended.
func (g *Giver) hand(c *net.UnixConn, sockets []bind.Socket) error {
	handed := 0
	for _, s := range sockets {
		raw, err := s.Conn.SyscallConn()
		if err != nil {
			return fmt.Errorf("socket %s %s: %w", s.Network, s.Address, err)
		}
		var sent error
		// Not by way of os.File: that would take the sockets out of non-blocking mode, for both processes.
		err = raw.Control(func(fd uintptr) {
			sent = send(c, packet{Verb: "socket", Network: s.Network, Address: s.Address}, int(fd))
		})
		if errors.Is(err, net.ErrClosed) {
			continue
		}
		if err := errors.Join(err, sent); err != nil {
			return fmt.Errorf("socket %s %s: %w", s.Network, s.Address, err)
		}
		handed++
	}
	return send(c, packet{Verb: "handed", Count: handed, Process: &g.Self})
}

// report tells the successor what is left, until ctx ends or nobody listens.
func (g *Giver) report(ctx context.Context, c *net.UnixConn) {
	tick := time.NewTicker(tell)
	defer tick.Stop()
	for {
		if send(c, packet{Verb: "open", Count: g.Predecessor.Open()}) != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
