package e2e

import (
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/api"
)

// TestUpgradeOfAllProxies replaces every sidecar and the gateway under traffic, three times, in both isolations.
func TestUpgradeOfAllProxies(t *testing.T) {
	for _, isolation := range []string{"auto", "ports"} {
		t.Run(isolation, func(t *testing.T) {
			t.Parallel()
			m := start(t, settings{account: self(), isolation: isolation})
			load := m.traffic(4)
			before := proxyPIDs(m.status())
			for range 3 {
				out := m.must("proxy", "upgrade")
				if n := strings.Count(out, " -> "); n != len(before) {
					t.Fatalf("%d proxies were upgraded, want %d:\n%s", n, len(before), out)
				}
			}
			after := proxyPIDs(m.status())
			for pod, pid := range before {
				if after[pod] == 0 || after[pod] == pid {
					t.Errorf("%s: process %d before, %d after", pod, pid, after[pod])
				}
			}
			load.end("three upgrades of all proxies")
		})
	}
}

// proxyPIDs gives the process of each instance's proxy.
func proxyPIDs(st api.Status) map[string]int {
	pids := map[string]int{}
	for _, w := range st.Workloads {
		for _, p := range w.Pods {
			for _, proc := range p.Processes {
				if proc.Name == "istio-proxy" {
					pids[p.Name] = proc.PID
				}
			}
		}
	}
	return pids
}
