package control

import (
	"runtime/debug"
	"sync"
)

// startPercent is how much garbage there may be, against what is in use, while the first mesh is read and compiled. Nearly all that is
// allocated then stays, and by the default of 100 the collector would let a large mesh take up to twice the memory that it needs, which
// is what a container's limit has to be above. Later there is more garbage and less growth, and the default costs less CPU.
const startPercent = 30

// collectOften has garbage collected earlier until done is called. A lower setting, of GOGC or of another control plane in this
// process, stays; so does what somebody else sets meanwhile.
func collectOften() (done func()) {
	before := debug.SetGCPercent(startPercent)
	if before <= startPercent {
		debug.SetGCPercent(before) // less than ours, or off
		return func() {}
	}
	return sync.OnceFunc(func() {
		if now := debug.SetGCPercent(before); now != startPercent {
			debug.SetGCPercent(now)
		}
	})
}
