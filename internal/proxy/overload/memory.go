package overload

import (
	"bytes"
	"math"
	"os"
	"path"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
)

// Used gives the bytes that the process has of the machine's memory: the resident set where the system tells it, else what the
// runtime has taken and not given back.
func Used() int64 {
	raw, err := os.ReadFile("/proc/self/statm")
	if fields := bytes.Fields(raw); err == nil && len(fields) > 1 {
		if pages, err := strconv.ParseInt(string(fields[1]), 10, 64); err == nil {
			return pages * int64(os.Getpagesize())
		}
	}
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64() - s[1].Value.Uint64())
}

// Relieve collects garbage and gives what is free back to the system.
func Relieve() { debug.FreeOSMemory() }

// MemoryLimit finds what the process may use: configured, if it is more than 0, else the least of GOMEMLIMIT and the limits of its
// cgroups; 0 when there is none. Where it is not GOMEMLIMIT that decides, the runtime is told to collect harder from goal of it on.
func MemoryLimit(configured int64) int64 {
	soft := debug.SetMemoryLimit(-1)
	limit := configured
	if limit <= 0 {
		limit = cgroupLimit("/sys/fs/cgroup", "/proc/self/cgroup")
	}
	if soft != math.MaxInt64 { // the user's own
		if limit <= 0 || soft < limit && configured <= 0 {
			return soft
		}
		return limit
	}
	if limit > 0 {
		debug.SetMemoryLimit(limit / 100 * goal)
	}
	return limit
}

// goal is the percentage of the limit at which the garbage collector aims: below the first stage, so that garbage alone sheds no load.
const goal = 75

// cgroupLimit gives the least memory.max of the process's cgroup (version 2) and of those above it; 0 for none.
func cgroupLimit(root, self string) int64 {
	raw, err := os.ReadFile(self)
	if err != nil {
		return 0
	}
	own := "/"
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "0::"); ok {
			own = path.Clean("/" + strings.TrimSpace(rest))
		}
	}
	least := int64(0)
	for dir := own; ; dir = path.Dir(dir) {
		if raw, err := os.ReadFile(path.Join(root, dir, "memory.max")); err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64); err == nil && (least == 0 || n < least) {
				least = n
			}
		}
		if dir == "/" {
			return least
		}
	}
}
