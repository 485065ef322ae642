package rig

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"testing"
	"time"
)

// Level is how much of what can leak there is in this process.
type Level struct {
	Goroutines, Descriptors int
}

// Measure takes the level as it is now.
func Measure(t testing.TB) Level {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skipf("descriptors cannot be counted here: %v", err)
	}
	return Level{runtime.NumGoroutine(), len(entries) - 1} // the folder itself was open
}

func (l Level) String() string {
	return fmt.Sprintf("%d goroutines, %d descriptors", l.Goroutines, l.Descriptors)
}

// Back waits until the level is at most what it was, after the backends have let go of their connections: then whatever proxies
// keep for later requests ends too.
func (l Level) Back(t testing.TB, backends ...*Backend) {
	t.Helper()
	for _, b := range backends {
		b.Reset()
	}
	var now Level
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if now = Measure(t); now.Goroutines <= l.Goroutines && now.Descriptors <= l.Descriptors {
			return
		}
	}
	var stacks bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&stacks, 1); err != nil {
		t.Error(err)
	}
	t.Fatalf("leak: %v, before %v\n%s", now, l, stacks.String())
}

// Heap is what lives on the heap after a collection, in bytes.
func Heap() uint64 {
	runtime.GC()
	runtime.GC() // pools are emptied by the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
