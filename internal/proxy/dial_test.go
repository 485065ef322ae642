package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// way is a fake network: it answers after a time, or when the context ends.
func way(after time.Duration, err error) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		select {
		case <-time.After(after):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		c, other := net.Pipe()
		other.Close()
		return c, nil
	}
}

func TestDialTriesTheHostsNetwork(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	unreachable := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ENETUNREACH)}
	for name, c := range map[string]struct {
		direct, outside func(context.Context, string, string) (net.Conn, error)
		address         string
		took            time.Duration
		err             error
	}{
		"direct":              {way(0, nil), nil, "10.0.0.1:80", 0, nil},
		"direct and slow":     {way(time.Second, nil), way(time.Hour, nil), "10.0.0.1:80", time.Second, nil},
		"refused":             {way(0, refused), way(0, nil), "10.0.0.1:80", 0, syscall.ECONNREFUSED},
		"no route":            {way(0, unreachable), way(0, nil), "192.0.2.1:80", 0, nil},
		"route to nowhere":    {way(time.Hour, nil), way(0, nil), "192.0.2.1:80", outsideAfter, nil},
		"name":                {way(time.Hour, nil), way(0, nil), "example.org:80", 0, nil},
		"refused on both":     {way(time.Second, refused), way(0, refused), "192.0.2.1:80", time.Second, syscall.ECONNREFUSED},
		"no route, refused":   {way(0, unreachable), way(0, refused), "192.0.2.1:80", 0, syscall.ECONNREFUSED},
		"time runs out":       {way(time.Hour, nil), way(time.Hour, nil), "192.0.2.1:80", 10 * time.Second, context.DeadlineExceeded},
		"no host's network":   {way(0, unreachable), nil, "192.0.2.1:80", 0, syscall.ENETUNREACH},
		"outside not allowed": {way(time.Hour, nil), way(0, os.ErrPermission), "192.0.2.1:80", 10 * time.Second, os.ErrPermission},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &Proxy{opt: Options{Dial: c.direct, DialOutside: c.outside}}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				start := time.Now()
				conn, err := p.dial(ctx, c.address)
				if !errors.Is(err, c.err) || (conn == nil) != (c.err != nil) || time.Since(start) != c.took {
					t.Fatalf("%v, %v after %v", conn, err, time.Since(start))
				}
				if conn != nil {
					conn.Close()
				}
			})
		})
	}
}

func TestDialRemembersTheHostsNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &Proxy{opt: Options{Dial: way(time.Hour, nil), DialOutside: way(0, nil)}}
		for i, want := range []time.Duration{outsideAfter, 0, 0} {
			start := time.Now()
			c, err := p.dial(t.Context(), "192.0.2.1:80")
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			if took := time.Since(start); took != want {
				t.Fatalf("connection %d after %v, want %v", i, took, want)
			}
		}
		p.opt.Dial, p.opt.DialOutside = way(0, nil), way(time.Hour, nil) // moved into the mesh
		for range 2 {
			c, err := p.dial(t.Context(), "192.0.2.1:80")
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
		if p.ways.leadsOutside(netip.MustParseAddr("192.0.2.1")) {
			t.Fatal("does not forget")
		}
	})
}
