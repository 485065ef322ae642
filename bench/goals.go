package main

import (
	"fmt"
	"slices"
)

// goal is what weft-proxy is to reach.
type goal struct {
	what     string
	scenario string
	value    string
	// against is the contestant that the value is divided by; empty for a value on its own.
	against string
	max     float64
	min     float64 // used when max is zero
	unit    string  // of a value on its own
}

// goals are in the order of the report.
var goals = []goal{
	{what: "HTTP/1.1 saturated, CPU per request", scenario: "http1", value: cpuEach, against: haproxyWeb, max: 0.85},
	{what: "HTTP/1.1 at 4,000 requests/s, CPU per request", scenario: "rate", value: cpuEach, against: haproxyWeb, max: 0.85},
	{what: "mutual-TLS pair, small bodies, CPU per request", scenario: "pair", value: cpuEach, against: haproxyWeb, max: 0.75},
	{what: "mutual-TLS pair, 1 MiB bodies, throughput per core", scenario: "bulk", value: perCore, against: haproxyWeb, min: 1.3},
	{what: "HTTP/2, CPU per request", scenario: "http2", value: cpuEach, against: haproxyWeb, max: 1},
	{what: "gRPC, CPU per call", scenario: "grpc", value: cpuEach, against: haproxyWeb, max: 1},
	{what: "p99 added by a mutual-TLS pair at 1,000 requests/s", scenario: "added", value: addedP99, max: 500, unit: "µs"},
	{what: "the same, below two HAProxies'", scenario: "added", value: addedP99, against: haproxyWeb, max: 1},
	{what: "full mutual handshakes, CPU each", scenario: "handshake", value: cpuEach, against: nginxWeb, max: 0.8},
	{what: "TCP relay, CPU per request", scenario: "relay", value: cpuEach, against: haproxyTCP, max: 1.05},
	{what: "memory of an idle sidecar", scenario: "memory", value: idleMiB, max: 20, unit: "MiB"},
	{what: "memory per idle plaintext connection", scenario: "memory", value: plainKiB, max: 8, unit: "KiB"},
	{what: "memory per idle TLS connection", scenario: "memory", value: tlsKiB, max: 24, unit: "KiB"},
	{what: "memory in a mesh of 1,000 services of which 5 are used", scenario: "mesh", value: growth, max: 1, unit: "MiB more"},
}

// elsewhere are the goals for the proxy that other means check.
var elsewhere = []string{
	"route match (10,000 routes within 1 µs): the Go benchmark in internal/proxy/route",
}

// limit is the goal in words.
func (g goal) limit() string {
	sign, n := "<=", g.max
	if g.max == 0 {
		sign, n = ">=", g.min
	}
	if g.against != "" {
		return fmt.Sprintf("%s %.2fx %s", sign, n, g.against)
	}
	return fmt.Sprintf("%s %g %s", sign, n, g.unit)
}

// reached gives what a contestant reached, and the verdict; false when it was not measured.
func (g goal) reached(o *outcome, name string) (text, verdict string, ok bool) {
	var v float64
	var quiet bool
	if g.against == "" {
		v, ok = o.median(name, g.value)
		_, quiet = o.counted(name, g.value)
		text = fmt.Sprintf("%.1f %s", v, g.unit)
	} else {
		v, quiet, ok = o.compare(name, g.against, g.value)
		text = fmt.Sprintf("%.2fx", v)
	}
	switch {
	case !ok:
		return "", "", false
	case !quiet:
		return text, "undecided: disturbed", true
	case g.max != 0 && v <= g.max || g.max == 0 && v >= g.min:
		return text, "met", true
	}
	return text, "not met", true
}

// goalTable compares what was reached with the goals. Those of scenarios that were not played have "-".
func goalTable(played []*outcome) table {
	t := table{title: "Goals", head: []string{"goal", "limit", "contestant", "reached", "verdict"}, left: 3}
	for _, g := range goals {
		i := slices.IndexFunc(played, func(o *outcome) bool { return o.key == g.scenario })
		found := false
		for _, name := range []string{weftOut, weftIn} {
			if i < 0 {
				break
			}
			if text, verdict, ok := g.reached(played[i], name); ok {
				t.rows = append(t.rows, []string{g.what, g.limit(), name, text, verdict})
				found = true
			}
		}
		if !found {
			t.rows = append(t.rows, []string{g.what, g.limit(), "-", "-", "not measured"})
		}
	}
	t.notes = elsewhere
	return t
}
