package dial

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

	"github.com/weftmesh/weft/internal/wire"
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
		direct, outside Func
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
				p := &Dialer{direct: c.direct, outside: c.outside}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				start := time.Now()
				conn, err := p.Dial(ctx, c.address)
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

func TestDialKeepsTheMeshsAddressesInside(t *testing.T) {
	unreachable := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}
	refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	nets, err := networksOf(&wire.Bootstrap{PodNetwork: "10.77.0.0/16", ServiceNetwork: "10.78.0.0/16", HostAlias: "10.77.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	late := &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}
	const nothing = " is an address of the mesh, and nothing listens on port "
	for name, c := range map[string]struct {
		direct  Func
		address string
		took    time.Duration
		err     string // empty for a connection
		outside int    // attempts in the host's network
	}{
		"service":                       {way(0, nil), "10.78.1.1:9999", 0, "10.78.1.1" + nothing + "9999 there", 0},
		"service, mapped":               {way(0, nil), "[::ffff:10.78.1.1]:80", 0, "10.78.1.1" + nothing + "80 there", 0},
		"pod":                           {way(0, nil), "10.77.0.9:80", 0, "", 0},
		"pod that answers late":         {way(time.Second, nil), "10.77.0.9:80", time.Second, "", 0},
		"pod that refuses":              {way(0, refused), "10.77.0.9:80", 0, refused.Error(), 0},
		"no pod":                        {way(0, unreachable), "10.77.99.99:80", 0, "10.77.99.99 is an address of the mesh, and no workload has it", 0},
		"no pod, and nobody says so":    {way(time.Hour, nil), "10.77.99.99:80", podTime, "10.77.99.99" + nothing + "80 there", 0},
		"no pod, by the dialer's clock": {way(podTime-time.Millisecond, late), "10.77.99.99:80", podTime - time.Millisecond, "10.77.99.99" + nothing + "80 there", 0},
		"the host":                      {way(0, unreachable), "10.77.0.1:80", 0, "", 1},
		"the host, by a lost route":     {way(time.Hour, nil), "10.77.0.1:80", outsideAfter, "", 1},
		"not the mesh's, and outside":   {way(0, unreachable), "10.79.0.1:80", 0, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				outside := 0
				p := &Dialer{nets: nets, direct: c.direct, outside: func(ctx context.Context, n, a string) (net.Conn, error) {
					outside++
					return way(0, nil)(ctx, n, a)
				}}
				start := time.Now()
				conn, err := p.DialUnknown(t.Context(), c.address)
				if (conn == nil) != (c.err != "") || err != nil && err.Error() != c.err || outside != c.outside || time.Since(start) != c.took {
					t.Fatalf("%v, %v after %v, %d outside", conn, err, time.Since(start), outside)
				}
				if conn != nil {
					conn.Close()
				}
			})
		})
	}
}

// TestNobodyIsLookedForOnce: the attempts of one request do not each wait for the system to tell that no pod has the address, and one that
// comes later looks again.
func TestNobodyIsLookedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		there := false
		unreachable := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}
		p, err := New(&wire.Bootstrap{PodNetwork: "10.77.0.0/16"}, func(ctx context.Context, n, a string) (net.Conn, error) {
			if there {
				return way(0, nil)(ctx, n, a)
			}
			return way(3*time.Second, unreachable)(ctx, n, a)
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []time.Duration{3 * time.Second, 0, 0} {
			start := time.Now()
			if _, err := p.Dial(t.Context(), "10.77.0.200:80"); err == nil || err.Error() != "10.77.0.200 is an address of the mesh, and no workload has it" {
				t.Errorf("attempt %d: %v", i, err)
			}
			if took := time.Since(start); took != want {
				t.Errorf("attempt %d took %v, want %v", i, took, want)
			}
			time.Sleep(100 * time.Millisecond)
		}
		there = true
		time.Sleep(missingTime)
		c, err := p.Dial(t.Context(), "10.77.0.200:80")
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	})
}

func TestDialRemembersTheHostsNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &Dialer{direct: way(time.Hour, nil), outside: way(0, nil)}
		for i, want := range []time.Duration{outsideAfter, 0, 0} {
			start := time.Now()
			c, err := p.Dial(t.Context(), "192.0.2.1:80")
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			if took := time.Since(start); took != want {
				t.Fatalf("connection %d after %v, want %v", i, took, want)
			}
		}
		p.direct, p.outside = way(0, nil), way(time.Hour, nil) // moved into the mesh
		for range 2 {
			c, err := p.Dial(t.Context(), "192.0.2.1:80")
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
