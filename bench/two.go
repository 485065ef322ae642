package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/weftmesh/weft/bench/load"
)

// The load of HTTP/2.
const (
	twoConnections = 8
	twoStreams     = 32
	callPath       = "/weft.Bench/Unary"
)

// grpcMessage is a message of that size as gRPC frames it: not compressed, its length, its bytes.
func grpcMessage(size int) []byte {
	m := make([]byte, 5+size)
	binary.BigEndian.PutUint32(m[1:], uint32(size))
	return m
}

// saturateTwo loads a deployment with as much as it takes over HTTP/2.
func saturateTwo(path string) func(context.Context, *site, *deployment, time.Duration) (measured, error) {
	return func(ctx context.Context, s *site, d *deployment, duration time.Duration) (measured, error) {
		return s.under(d, func() (load.Result, error) { return s.h2load(ctx, target(d.entry, path), duration) })
	}
}

// h2load saturates an address over HTTP/2 without TLS. It inherits our core.
func (s *site) h2load(ctx context.Context, to load.Target, d time.Duration) (load.Result, error) {
	if !inPath("h2load") {
		return load.Result{}, errors.New("h2load is missing")
	}
	argv := []string{"-t1", "-n1", "-c1"} // one request, where no time is given
	if d > 0 {
		seconds := strconv.Itoa(max(1, int((d+time.Second-1)/time.Second)))
		argv = []string{"-t1", "-c" + strconv.Itoa(twoConnections), "-m" + strconv.Itoa(twoStreams), "-D" + seconds}
	}
	argv = append(argv, "--connection-inactivity-timeout=10s")
	for _, h := range to.Headers {
		if !strings.HasPrefix(h, "Host:") { // it is :authority here, and our listener's own
			argv = append(argv, "-H", h)
		}
	}
	if to.Path == callPath {
		body := filepath.Join(s.dir, "call")
		if err := os.WriteFile(body, grpcMessage(smallSize), 0o644); err != nil {
			return load.Result{}, err
		}
		argv = append(argv, "-d", body, "-H", "content-type: application/grpc", "-H", "te: trailers")
	}
	out, err := exec.CommandContext(ctx, "h2load", append(argv, "http://"+to.Address+to.Path)...).CombinedOutput()
	if err != nil {
		return load.Result{}, fmt.Errorf("h2load: %w: %s", err, out)
	}
	return parseH2load(string(out))
}

var (
	h2Requests = regexp.MustCompile(`(?m)^requests: \d+ total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout`)
	h2Finished = regexp.MustCompile(`(?m)^finished in ([0-9.]+(?:us|ms|s|m)),`)
	h2Traffic  = regexp.MustCompile(`(?m)\((\d+)\) data$`)
)

// parseH2load reads its summary. Calls that were cut off when time was up are in no count of it.
func parseH2load(out string) (load.Result, error) {
	counts, took, bytes := h2Requests.FindStringSubmatch(out), h2Finished.FindStringSubmatch(out), h2Traffic.FindStringSubmatch(out)
	if counts == nil || took == nil || bytes == nil {
		return load.Result{}, fmt.Errorf("h2load printed no summary: %s", out)
	}
	d, err := time.ParseDuration(took[1])
	if err != nil {
		return load.Result{}, fmt.Errorf("h2load's summary: %w", err)
	}
	var n [5]int64
	for i, text := range append(counts[1:5:5], bytes[1]) {
		if n[i], err = strconv.ParseInt(text, 10, 64); err != nil {
			return load.Result{}, fmt.Errorf("h2load's summary: %w", err)
		}
	}
	return load.Result{Requests: int(n[0]), Errors: int(n[1] + n[2] + n[3]), Bytes: n[4], Duration: d}, nil
}
