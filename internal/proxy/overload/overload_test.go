package overload

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestStagesComeAndGoWithAMargin(t *testing.T) {
	var used atomic.Int64
	g := New(Limits{Memory: 1_000_000}, used.Load, func() {})
	for _, c := range []struct {
		used int64
		want Stage
	}{{0, Normal}, {849_000, Normal}, {850_000, Shrink}, {919_000, Shrink}, {920_000, Refuse}, {970_000, Stop}, {2_000_000, Stop}, {941_000, Stop},
		{939_000, Refuse}, {891_000, Refuse}, {889_000, Shrink}, {821_000, Shrink}, {819_000, Normal}, {849_000, Normal}} {
		used.Store(c.used)
		if got := g.look(); got != c.want {
			t.Errorf("with %d in use: %s, want %s", c.used, got, c.want)
		}
	}
}

func TestWatchShedsAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var used, reliefs atomic.Int64
		g := New(Limits{Memory: 1_000_000_000}, used.Load, func() { reliefs.Add(1) })
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { g.Run(ctx, slog.New(slog.DiscardHandler)) })
		gate := g.Gate()
		used.Store(930_000_000)
		time.Sleep(2 * lookEvery)
		if g.EnterRequest() || !gate.Enter() || gate.Closed() {
			t.Error("requests should be refused, and connections taken")
		}
		used.Store(980_000_000)
		time.Sleep(2 * lookEvery)
		if gate.Enter() || !gate.Closed() {
			t.Error("connections should be turned away")
		}
		time.Sleep(reliefEvery)
		if n := reliefs.Load(); n < 5 {
			t.Errorf("relieved %d times", n)
		}
		used.Store(100_000_000)
		time.Sleep(2 * lookEvery)
		if !g.EnterRequest() || !gate.Enter() {
			t.Error("it does not recover")
		}
		if f := g.Facts(); f.Refused != 1 || f.TurnedAway != 1 || f.Connections != 2 || f.Requests != 1 || f.Memory != 100_000_000 {
			t.Errorf("%+v", f)
		}
		cancel()
		wg.Wait()
	})
}

func TestLimits(t *testing.T) {
	g := New(Limits{Connections: 3, ListenerConnections: 2, Requests: 1}, nil, nil)
	a, b := g.Gate(), g.Gate()
	got := []bool{a.Enter(), a.Enter(), a.Enter(), b.Enter(), b.Enter()}
	if !slices.Equal(got, []bool{true, true, false, true, false}) {
		t.Error("connections are counted wrongly")
	}
	a.Leave()
	if !b.Enter() || a.Enter() {
		t.Error("a place that became free is not taken, or taken twice")
	}
	if !g.EnterRequest() || g.EnterRequest() {
		t.Error("requests are counted wrongly")
	}
	if g.LeaveRequest(); !g.EnterRequest() {
		t.Error("a request that ended still counts")
	}
}

func TestCgroupLimitIsTheLeastOnTheWayUp(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a/b/memory.max", "max\n")
	write("a/memory.max", "268435456\n")
	write("self", "1:name=systemd:/x\n0::/a/b\n")
	if n := cgroupLimit(root, filepath.Join(root, "self")); n != 268435456 {
		t.Errorf("%d", n)
	}
	write("self", "0::/c\n")
	if n := cgroupLimit(root, filepath.Join(root, "self")); n != 0 {
		t.Errorf("without a limit: %d", n)
	}
	write("memory/a/b/memory.limit_in_bytes", "9223372036854771712\n")
	write("self", "9:name=systemd:/\n4:cpu,memory:/a/b\n0::/\n")
	if n := cgroupLimit(root, filepath.Join(root, "self")); n != 0 {
		t.Errorf("version 1, without a limit: %d", n)
	}
	write("memory/a/memory.limit_in_bytes", "157286400\n")
	if n := cgroupLimit(root, filepath.Join(root, "self")); n != 157286400 {
		t.Errorf("version 1: %d", n)
	}
	if n := cgroupLimit(root, filepath.Join(root, "missing")); n != 0 {
		t.Errorf("without a file: %d", n)
	}
	if Used() <= 0 {
		t.Error("a process without memory")
	}
}

func TestDescriptorsBoundConnections(t *testing.T) {
	for table, want := range map[int64]int64{4: 1, 64: 24, 128: 48, 1024: 480, 1 << 20: 1<<19 - 32} {
		if got := bearable(table); got != want {
			t.Errorf("a table of %d bears %d connections, want %d", table, got, want)
		}
	}
	g := New(Limits{Bearable: 2}, nil, nil)
	a, b := g.Gate(), g.Gate()
	a.Enter()
	if a.Full() || b.Full() || g.Stage() != Normal {
		t.Error("full with room for one more")
	}
	b.Enter()
	if !a.Full() || g.Stage() != Shrink || !g.EnterRequest() {
		t.Error("connections should wait, the others make room, and requests be served")
	}
	g.Release()
	if a.Full() || b.Full() {
		t.Error("connections wait for a listener that is being closed")
	}
	a.Leave()
	if g.Stage() != Normal {
		t.Error("it does not recover")
	}
}

// TestAnswersAreShed: they are looked at from the first stage on and ended from the second, each time with relief.
func TestAnswersAreShed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var used, reliefs, looks, cuts atomic.Int64
		g := New(Limits{Memory: 1_000_000}, used.Load, func() { reliefs.Add(1) })
		g.Shed = func(cut bool) int {
			looks.Add(1)
			if !cut {
				return 0
			}
			cuts.Add(1)
			return 3
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { g.Run(ctx, slog.New(slog.DiscardHandler)) })
		for _, c := range []struct{ used, looks, cuts, reliefs int64 }{{0, 0, 0, 0}, {860_000, 2, 0, 1}, {930_000, 4, 2, 3}} {
			used.Store(c.used)
			time.Sleep(2 * shedEvery)
			synctest.Wait()
			if looks.Load() != c.looks || cuts.Load() != c.cuts || reliefs.Load() != c.reliefs {
				t.Errorf("with %d in use: %d looks, %d cuts, %d reliefs", c.used, looks.Load(), cuts.Load(), reliefs.Load())
			}
		}
		if n := g.Facts().Shed; n != 6 {
			t.Errorf("%d answers ended", n)
		}
		cancel()
		wg.Wait()
	})
}

// TestWhoHasJustComeCounts: until memory was looked at since, what they may need is kept for them.
func TestWhoHasJustComeCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var used atomic.Int64
		g := New(Limits{Memory: 100 << 20}, used.Load, func() {})
		used.Store(50 << 20)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { g.Run(ctx, slog.New(slog.DiscardHandler)) })
		time.Sleep(2 * lookEvery)
		gate, quic := g.Gate(), g.QUICGate()
		n := 0
		for !quic.Refuses() && quic.Enter() {
			n++
		}
		if want := 47 << 20 / (perConnection + perQUIC); n < want || n > want+1 || g.Facts().TurnedAway != 1 {
			t.Errorf("%d connections of QUIC at once, want %d", n, want)
		}
		for range n {
			quic.Leave()
		}
		n = 0
		for !gate.Full() && gate.Enter() {
			n++
		}
		if want := 47 << 20 / perConnection; n < want || n > want+1 {
			t.Errorf("%d connections at once, want %d", n, want)
		}
		if g.EnterRequest() {
			t.Error("a request is served for which no memory may be left")
		}
		time.Sleep(3 * settling)
		if gate.Full() || !g.EnterRequest() || g.Stage() != Normal {
			t.Error("they need less, and others wait")
		}
		g.LeaveRequest()
		for range 100_000 { // who leaves needs nothing
			if !gate.Enter() || !g.EnterRequest() || gate.Full() {
				t.Fatal("refused")
			}
			g.LeaveRequest()
			gate.Leave()
		}
		cancel()
		wg.Wait()
	})
}
