package control

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/weftmesh/weft/internal/control/source"
)

// TestApplyEndsWithTheControlPlane applies to a control plane whose publishing has ended, as when it stops meanwhile: the caller must
// not wait for ever.
func TestApplyEndsWithTheControlPlane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := New(Options{StateDir: t.TempDir(), Address: "-", HTTPAddress: "-"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		c.follower = c.sources.Follow(ctx)
		go func() { ran <- c.sources.Run(ctx) }() // without follow nothing is ever published
		<-c.sources.Ready()
		objects, findings := source.Decode(source.LayerApplied, "a.yaml", []byte(`{apiVersion: v1, kind: ServiceAccount, metadata: {name: a}}`))
		if len(objects) != 1 {
			t.Fatal(findings)
		}
		applied := make(chan error, 1)
		go func() {
			_, _, err := c.Apply(t.Context(), objects)
			applied <- err
		}()
		synctest.Wait()
		select {
		case err := <-applied:
			t.Fatalf("apply did not wait: %v", err)
		default:
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-applied; !errors.Is(err, ErrEnded) {
			t.Errorf("apply: %v", err)
		}
		if _, _, err := c.Apply(t.Context(), objects); !errors.Is(err, ErrEnded) {
			t.Errorf("apply once it has ended: %v", err)
		}
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
}
