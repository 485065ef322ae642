// Package spare is the memory for buffers that make long streams cheaper and that can be done without: a share of what the process may
// use, so that clients that let such a buffer wait leave the rest to others, and none where memory is short. It is the process's, as the
// pools are from which the buffers come.
package spare

import "sync/atomic"

var (
	limit atomic.Int64 // bytes; 0 for none
	taken atomic.Int64
	short atomic.Bool
)

// Limit bounds what may be taken; 0 does not. What is taken stays.
func Limit(bytes int64) { limit.Store(bytes) }

// Short has nothing more taken while it is true, whatever the limit.
func Short(is bool) {
	if short.Load() != is { // readers of a value that does not change share it
		short.Store(is)
	}
}

// IsShort reports whether who has a large buffer is to go on with a small one.
func IsShort() bool { return short.Load() }

// Take takes n bytes, if there are so many; then Give gives them back.
func Take(n int) bool {
	if short.Load() {
		return false
	}
	sum := taken.Add(int64(n))
	if most := limit.Load(); most > 0 && sum > most {
		taken.Add(-int64(n))
		return false
	}
	return true
}

// Give ends what Take began.
func Give(n int) { taken.Add(-int64(n)) }

// Taken is what is taken now, in bytes.
func Taken() int64 { return taken.Load() }
