package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// debian has the package of each program that we need.
var debian = []struct{ program, pkg string }{{"nginx", "nginx-light"}, {"haproxy", "haproxy"}, {"wrk", "wrk"}, {"h2load", "nghttp2-client"}}

func inPath(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// install installs what is missing where it may, and says in one line each what it did or what is left out.
func install(ctx context.Context) (notes []string, err error) {
	// Debian keeps servers where ordinary users' PATH does not look.
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/usr/local/sbin"); err != nil {
		return nil, err
	}
	var missing []string
	for _, d := range debian {
		if !inPath(d.program) {
			missing = append(missing, d.pkg)
		}
	}
	if len(missing) > 0 {
		notes = append(notes, aptGet(ctx, missing))
	}
	for _, program := range []string{"nginx", "wrk"} {
		if !inPath(program) {
			return notes, fmt.Errorf("%s is missing, without which nothing can be measured (apt-get install %s)", program, strings.Join(missing, " "))
		}
	}
	if !inPath("haproxy") {
		notes = append(notes, "haproxy is missing (apt-get install haproxy): left out, and with it the goals that are ratios to it")
	}
	if !inPath("h2load") {
		notes = append(notes, "h2load is missing (apt-get install nghttp2-client): HTTP/2 and gRPC are not measured")
	}
	if !inPath("envoy") {
		notes = append(notes, "envoy is not in PATH: left out")
	}
	return notes, nil
}

func aptGet(ctx context.Context, packages []string) string {
	names := strings.Join(packages, " ")
	if os.Geteuid() != 0 {
		return "missing, and only root can install it: apt-get install " + names
	}
	for _, argv := range [][]string{{"update", "-qq"}, append([]string{"install", "-y", "-qq", "--no-install-recommends"}, packages...)} {
		cmd := exec.CommandContext(ctx, "apt-get", argv...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Sprintf("apt-get %s: %v: %s", argv[0], err, lastLine(out))
		}
	}
	return "installed with apt-get: " + names
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// versions of the contestants, as they say themselves.
func versions(ctx context.Context) []string {
	var all []string
	for _, v := range [][]string{{"nginx", "-v"}, {"haproxy", "-v"}, {"envoy", "--version"}, {"go", "version"}} {
		if out, err := exec.CommandContext(ctx, v[0], v[1:]...).CombinedOutput(); err == nil {
			first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
			all = append(all, first)
		}
	}
	if out, err := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty").Output(); err == nil {
		all = append(all, "weft "+strings.TrimSpace(string(out)))
	}
	return []string{strings.Join(all, "; ")}
}
