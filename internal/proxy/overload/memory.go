package overload

import (
	"bytes"
	"math"
	"os"
	"path"
	"runtime/debug"
	"runtime/metrics"
	"slices"
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
// cgroups, of which the kernel's buffers take their part; 0 when there is none. The runtime is told to collect harder from goal of it on.
// It is called once: GOMEMLIMIT is changed by that.
func MemoryLimit(configured int64) int64 {
	soft := debug.SetMemoryLimit(-1)
	limit := configured
	if limit <= 0 {
		limit = cgroupLimit("/sys/fs/cgroup", "/proc/self/cgroup") / 100 * ours
		if soft != math.MaxInt64 && (limit <= 0 || soft < limit) {
			limit = soft
		}
	}
	if aim := limit / 100 * goal; aim > 0 && aim < soft {
		debug.SetMemoryLimit(aim)
	}
	return limit
}

// goal is the percentage of the limit at which the garbage collector aims: below the first stage, so that garbage alone sheds no load.
const goal = 75

// ours is the percentage of a cgroup's limit that counts: what the kernel holds in sockets for clients that do not read is counted to the
// cgroup, too, and not seen in the process.
const ours = 90

// unlimited is less than what version 1 of cgroups says where there is no limit: the largest multiple of a page.
const unlimited = 1 << 62

// cgroupLimit gives the least limit of the process's cgroups, of either version, and of those above them; 0 for none.
func cgroupLimit(root, self string) int64 {
	raw, err := os.ReadFile(self)
	if err != nil {
		return 0
	}
	least := int64(math.MaxInt64)
	for line := range strings.Lines(string(raw)) { // number:controllers:path, see cgroups(7)
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) < 3 {
			continue
		}
		own := path.Clean("/" + parts[2])
		switch {
		case parts[0] == "0":
			least = min(least, leastOf(root, own, "memory.max"), leastOf(path.Join(root, "unified"), own, "memory.max"))
		case slices.Contains(strings.Split(parts[1], ","), "memory"):
			least = min(least, leastOf(path.Join(root, "memory"), own, "memory.limit_in_bytes"))
		}
	}
	if least >= unlimited {
		return 0
	}
	return least
}

// leastOf gives the least number in the files of that name from dir upwards.
func leastOf(root, dir, name string) int64 {
	least := int64(math.MaxInt64)
	for ; ; dir = path.Dir(dir) {
		if raw, err := os.ReadFile(path.Join(root, dir, name)); err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64); err == nil {
				least = min(least, n)
			}
		}
		if dir == "/" {
			return least
		}
	}
}
