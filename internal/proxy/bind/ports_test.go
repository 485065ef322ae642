package bind

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/listen"
)

// fixed is a configuration that stays.
type fixed []*conf.Listener

func (f fixed) Snapshot() *conf.Snapshot { return &conf.Snapshot{Gateways: f} }
func (f fixed) Changed() <-chan struct{} { return nil }

// levels keeps how grave the lines of a log are.
type levels struct {
	slog.Handler
	seen []slog.Level
}

func (l *levels) Enabled(context.Context, slog.Level) bool { return true }
func (l *levels) Handle(_ context.Context, r slog.Record) error {
	l.seen = append(l.seen, r.Level)
	return nil
}

// TestPortIsTaken: a port of HTTP/3 that another process has is an error when it stays so, and the process before this one is gone; any
// other port is one at once.
func TestPortIsTaken(t *testing.T) {
	inUse := &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}
	for _, c := range []struct {
		name     string
		quic     bool
		err      error
		preceded bool
		want     []slog.Level
	}{
		{"HTTP/3", true, inUse, false, []slog.Level{slog.LevelInfo, slog.LevelError}},
		{"HTTP/3 of a predecessor that is there", true, inUse, true, []slog.Level{slog.LevelInfo}},
		{"HTTP/3 that is not permitted", true, syscall.EACCES, true, []slog.Level{slog.LevelError}},
		{"TCP", false, inUse, true, []slog.Level{slog.LevelError}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &levels{}
				sockets := NewSockets(Network{
					ListenGateway:       func(context.Context, string) (net.Listener, error) { return nil, c.err },
					ListenGatewayPacket: func(context.Context, string) (net.PacketConn, error) { return nil, c.err },
				}, nil)
				failed := map[string]string{}
				p := &Ports{Owner: OfGateway, Sockets: sockets, Log: slog.New(log), Preceded: func() bool { return c.preceded },
					Config: fixed{{Name: "edge", Address: netip.MustParseAddrPort("0.0.0.0:443"), QUIC: c.quic}},
					QUIC:   func(string) PacketServer { return nil },
					Bound:  func(_ int, why map[string]string) { failed = why }}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				p.Run(ctx)
				if !slices.Equal(log.seen, c.want) {
					t.Errorf("logged at %v, want %v", log.seen, c.want)
				}
				if want := plainListen(c.err); failed["edge"] != want || errors.Is(c.err, syscall.EACCES) == (want == "address already in use") {
					t.Errorf("why it is not open: %v", failed)
				}
			})
		})
	}
}

// TestFollowOpensAtOnce: whoever has Follow return finds the ports as the configuration says.
func TestFollowOpensAtOnce(t *testing.T) {
	open := 0
	sockets := NewSockets(Network{ListenGateway: func(ctx context.Context, address string) (net.Listener, error) {
		open++
		var lc net.ListenConfig
		return lc.Listen(ctx, "tcp", address)
	}}, nil)
	p := &Ports{Owner: OfGateway, Sockets: sockets, Log: slog.New(slog.DiscardHandler), Bound: func(int, map[string]string) {},
		Handle: func(_ string, a listen.Accepted) { a.Conn.Close() },
		Config: fixed{{Name: "edge", Address: netip.MustParseAddrPort("127.0.0.1:0")}}}
	t.Cleanup(func() { p.Stop(false); p.Cut() })
	p.Follow(t.Context())
	c, err := net.Dial("tcp", p.Open()["edge"])
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	p.Follow(t.Context())
	if open != 1 {
		t.Errorf("opened %d times", open)
	}
}

// TestPortsInside: a gateway's port is opened in its own network too, where it is open also while the other cannot be, and goes with it.
func TestPortsInside(t *testing.T) {
	taken := true
	opens := func(address string) (net.Listener, error) {
		var lc net.ListenConfig
		return lc.Listen(t.Context(), "tcp", address)
	}
	sockets := NewSockets(Network{
		ListenGateway: func(_ context.Context, address string) (net.Listener, error) {
			if taken {
				return nil, syscall.EADDRINUSE
			}
			return opens(address)
		},
		ListenInside: func(context.Context, string) (net.Listener, error) { return opens("127.0.0.2:0") },
	}, nil)
	var open int
	var failed map[string]string
	config := &changing{}
	config.set(&conf.Listener{Name: "edge", Address: netip.MustParseAddrPort("127.0.0.1:0")})
	p := &Ports{Owner: OfGateway, Sockets: sockets, Log: slog.New(slog.DiscardHandler), Config: config,
		Bound:  func(n int, why map[string]string) { open, failed = n, why },
		Handle: func(_ string, a listen.Accepted) { a.Conn.Close() }}
	t.Cleanup(func() { p.Stop(false); p.Cut() })
	at := func() (list []string) {
		all, err := sockets.Open()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			list = append(list, s.Network)
		}
		return list
	}

	p.reconcile(t.Context())
	inside := p.Open()["edge"]
	if open != 1 || failed["edge"] == "" || !slices.Equal(at(), []string{Inside}) {
		t.Errorf("%d open, %v failed, sockets %v", open, failed, at())
	}
	taken = false
	p.reconcile(t.Context())
	outside := p.Open()["edge"]
	if open != 1 || len(failed) != 0 || !slices.Equal(at(), []string{Inside, Gateway}) || outside == inside {
		t.Errorf("%d open, %v failed, sockets %v, at %s and %s", open, failed, at(), outside, inside)
	}
	for _, address := range []string{inside, outside} {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	config.set()
	p.reconcile(t.Context())
	if open != 0 || len(at()) != 0 {
		t.Errorf("%d open, sockets %v", open, at())
	}
	for _, address := range []string{inside, outside} {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			t.Errorf("%s is open still", address)
		}
	}
}

// changing is a configuration that is set.
type changing struct{ listeners []*conf.Listener }

func (c *changing) set(l ...*conf.Listener)  { c.listeners = l }
func (c *changing) Snapshot() *conf.Snapshot { return &conf.Snapshot{Gateways: c.listeners} }
func (c *changing) Changed() <-chan struct{} { return nil }
