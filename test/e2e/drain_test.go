package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/api"
)

// admin makes a request of a proxy's admin interface.
func (m *mesh) admin(method string, p api.Pod, path string) {
	m.Helper()
	bootstraps, err := filepath.Glob(filepath.Join(m.runDir, "r", "*", "*", "bootstrap.json"))
	m.check(err)
	socket := ""
	for _, path := range bootstraps {
		if raw, err := os.ReadFile(path); err == nil && strings.Contains(string(raw), `"name":"`+p.Name+`"`) {
			socket = filepath.Join(filepath.Dir(path), "admin.sock")
		}
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
	req, err := http.NewRequestWithContext(m.Context(), method, "http://admin"+path, nil)
	m.check(err)
	resp, err := client.Do(req)
	m.check(err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		m.Fatalf("%s %s: %s", method, path, resp.Status)
	}
}

// TestDrainedByHand drains a sidecar and the gateway by their admin interfaces: the mesh notices within a second or so, says so, takes
// over neither, and comes back by a restart.
func TestDrainedByHand(t *testing.T) {
	t.Parallel()
	for _, isolation := range []string{"netns", "ports"} {
		t.Run(isolation, func(t *testing.T) {
			t.Parallel()
			m := start(t, settings{account: self(), isolation: isolation, bare: true, manifests: map[string]string{"web.yaml": webService}})
			m.sidecarDrains()
			m.gatewayDrains()
		})
	}
}

func (m *mesh) sidecarDrains() {
	m.Helper()
	pods := m.readyPods("web")
	m.admin(http.MethodPost, pods[0], "/drain_listeners?inboundonly")
	const says = "drains, as it was told to; weft restart -n default web replaces it"
	m.eventually(3*time.Second, "the drained instance is not ready", func() error {
		if ps := m.must("ps"); !strings.Contains(ps, "2/3") || !strings.Contains(ps, says) {
			return errors.New(ps)
		}
		return nil
	})
	m.eventually(3*time.Second, "the others alone get requests", func() error {
		if seen := m.browser().replies(12); len(seen) != 2 || seen[pods[0].Name] > 0 {
			return fmt.Errorf("%v", seen)
		}
		return nil
	})
	if r := m.weft("proxy", "upgrade", "web"); r.code == 0 || !strings.Contains(r.stderr, "its proxy "+says) {
		m.Errorf("upgrade: %s", r)
	}
	m.must("restart", "web")
	m.eventually(20*time.Second, "all three are ready again", func() error { return m.ready("web") })
}

func (m *mesh) gatewayDrains() {
	m.Helper()
	const gateway = "istio-ingressgateway"
	pods := m.readyPods(gateway)
	m.admin(http.MethodPost, pods[0], "/drain_listeners")
	upgrade := func() result { m.Helper(); return m.weft("proxy", "upgrade", "istio-system/"+gateway) }
	const says = "its proxy drains, as it was told to; weft restart -n istio-system " + gateway + " replaces it"
	if r := upgrade(); r.code == 0 || !strings.Contains(r.stderr, says) { // whether or not the mesh has noticed
		m.Errorf("upgrade: %s", r)
	}
	m.eventually(3*time.Second, "the gateway is not ready", func() error {
		if w, _ := m.workload(gateway); w.Ready != 0 || w.State != "NotReady" {
			return fmt.Errorf("%+v", w)
		}
		return nil
	})
	m.must("restart", "-n", "istio-system", gateway)
	m.eventually(20*time.Second, "the gateway is ready again", func() error { return m.ready(gateway) })
	m.browser().replies(3)
	if r := upgrade(); r.code != 0 {
		m.Errorf("upgrade after the restart: %s", r)
	}
}
