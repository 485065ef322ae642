package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestEjectedIsExplained: `weft explain` asks the proxy that sends which endpoints it has ejected.
func TestEjectedIsExplained(t *testing.T) {
	t.Parallel()
	everyFlavour(t, func(t *testing.T, s settings) {
		s.bare = true
		begin, rest, _ := strings.Cut(webService, "        readinessProbe:\n")
		_, rest, _ = strings.Cut(rest, "---\n")
		s.manifests = map[string]string{"web.yaml": begin + "---\n" + rest, "rule.yaml": `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 10m, maxEjectionPercent: 50}
`}
		m := start(t, s)
		explain := func(want ...string) {
			t.Helper()
			text := m.must("explain", "--from", "istio-ingressgateway", m.browser().base+"/")
			for _, w := range want {
				if !strings.Contains(text, w) {
					t.Errorf("no %q in\n%s", w, text)
				}
			}
		}
		explain("3 of 3 endpoints ready")
		b := m.browser()
		_, err := b.get("/break") // one of the instances fails from now on, and has no probe that tells
		m.check(err)
		m.eventually(20*time.Second, "one fails", func() error {
			a, err := b.get("/ready")
			if err == nil && a.status != http.StatusServiceUnavailable {
				err = fmt.Errorf("status %d", a.status)
			}
			return err
		})
		explain("2 of 3 endpoints ready", "ejected: server errors in a row")
		for range 20 {
			a, err := b.get("/ready")
			if err == nil && a.status != http.StatusOK {
				err = fmt.Errorf("status %d", a.status)
			}
			m.check(err)
		}
	})
}
