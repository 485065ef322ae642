package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/weftmesh/weft/bench/load"
)

// wrkReport makes wrk print its sums in one line.
const wrkReport = `done = function(summary, latency)
  local e = summary.errors
  io.write(string.format("weft %d %d %d %d %d %d\n", summary.requests, summary.bytes, summary.duration,
    e.connect + e.read + e.write + e.timeout + e.status, latency:percentile(50), latency:percentile(99)))
end
`

// wrk saturates an address over keep-alive connections; d is rounded up to seconds. It inherits our core.
func (s *site) wrk(ctx context.Context, to load.Target, connections int, d time.Duration) (load.Result, error) {
	script, err := s.write("report.lua", wrkReport)
	if err != nil {
		return load.Result{}, err
	}
	seconds := max(1, int((d+time.Second-1)/time.Second))
	argv := []string{"-t1", "-c" + strconv.Itoa(connections), "-d" + strconv.Itoa(seconds) + "s", "-s", script, "--timeout", "10s"}
	for _, h := range to.Headers {
		argv = append(argv, "-H", h)
	}
	cmd := exec.CommandContext(ctx, "wrk", append(argv, "http://"+to.Address+to.Path)...)
	cmd.Dir = filepath.Dir(script)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return load.Result{}, fmt.Errorf("wrk: %w: %s", err, out)
	}
	return parseWrk(string(out))
}

// parseWrk reads the line of wrkReport; durations are in microseconds.
func parseWrk(out string) (load.Result, error) {
	_, line, ok := strings.Cut(out, "weft ")
	if !ok {
		return load.Result{}, fmt.Errorf("wrk printed no summary: %s", out)
	}
	var requests, failed int
	var size, took, p50, p99 int64
	if _, err := fmt.Sscan(line, &requests, &size, &took, &failed, &p50, &p99); err != nil {
		return load.Result{}, fmt.Errorf("wrk's summary %q: %w", line, err)
	}
	us := func(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
	// wrk counts answers of any status as requests.
	return load.Result{Requests: requests - failed, Errors: failed, Bytes: size, Duration: us(took), P50: us(p50), P99: us(p99)}, nil
}
