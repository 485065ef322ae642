package plane

import (
	"context"
	"runtime"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// FollowConcurrency lets the process use as many cores at a time as the configuration says, until ctx ends. Where it says nothing the
// process has what it started with.
func FollowConcurrency(ctx context.Context, config interface {
	Snapshot() *conf.Snapshot
	Changed() <-chan struct{}
},
) {
	started, now := runtime.GOMAXPROCS(0), 0
	for {
		changed := config.Changed()
		if want := config.Snapshot().Concurrency; want != now {
			now = want
			runtime.GOMAXPROCS(cores(want, started))
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// cores gives the cores for a wish: 0 is none, less than 0 all of the machine.
func cores(wish, started int) int {
	switch {
	case wish == 0:
		return started
	case wish < 0:
		return runtime.NumCPU()
	}
	return min(wish, runtime.NumCPU())
}
