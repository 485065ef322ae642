package local

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weftmesh/weft/internal/control"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// openIn opens a real control plane with nothing but a unix socket.
func openIn(dir string) func() (*control.Control, error) {
	return func() (*control.Control, error) {
		return control.New(control.Options{StateDir: dir, Address: "-", HTTPAddress: "-", Socket: filepath.Join(dir, "s"), Log: quiet()})
	}
}

// serving opens a control plane in a directory of its own and runs it until the test ends.
func serving(t *testing.T) *control.Control {
	t.Helper()
	c, err := openIn(t.TempDir())()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return c
}

// running runs a plane until the test ends and gives what run returned.
func running(t *testing.T, p *plane) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.run(ctx) }()
	return func() error { cancel(); return <-ended }
}

func TestControlPlaneStopsAndStarts(t *testing.T) {
	starts := 0
	p := newPlane(openIn(t.TempDir()), func(context.Context, *control.Control) { starts++ }, quiet())
	stop := running(t, p)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := p.start(ctx); err != nil {
		t.Fatal(err)
	}
	first, state, _ := p.get()
	if state != "running" {
		t.Fatalf("state %q", state)
	}
	if err := p.stop(ctx); err != nil {
		t.Fatal(err)
	}
	if c, state, _ := p.get(); c != nil || state != "stopped" {
		t.Fatalf("after stop: %v, %q", c, state)
	}
	if err := p.start(ctx); err != nil {
		t.Fatal(err)
	}
	if c, _, _ := p.get(); c == first {
		t.Fatal("the same control plane runs again")
	}
	if err := stop(); err != nil || starts != 2 {
		t.Fatalf("%v after %d starts", err, starts)
	}
}

func TestFirstStartMustSucceed(t *testing.T) {
	cause := errors.New("address in use")
	p := newPlane(func() (*control.Control, error) { return nil, cause }, nil, quiet())
	if err := p.run(t.Context()); !errors.Is(err, cause) {
		t.Fatalf("got %v", err)
	}
}

func TestLaterFailuresAreRetried(t *testing.T) {
	dir := t.TempDir()
	good := openIn(dir)
	failures := 0
	p := newPlane(func() (*control.Control, error) {
		if _, err := os.Stat(filepath.Join(dir, "broken")); err == nil {
			failures++
			if failures == 2 { // it heals by itself
				os.Remove(filepath.Join(dir, "broken"))
			}
			return nil, errors.New("disk full")
		}
		return good()
	}, func(context.Context, *control.Control) {}, quiet())
	stop := running(t, p)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := p.start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "broken"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.stop(ctx), p.start(ctx), stop()); err != nil {
		t.Fatal(err)
	}
	if failures != 2 {
		t.Fatalf("%d failures", failures)
	}
}

func TestContainTurnsPanicsIntoErrors(t *testing.T) {
	if err := contain(func() error { panic("boom") }); err == nil {
		t.Fatal("the panic was lost")
	}
}
