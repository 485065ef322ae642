package cli

import (
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/api"
)

func TestGatewaysAreNamedByWhatTheySpeak(t *testing.T) {
	st := api.Status{Gateways: []api.Published{{Port: 80, Address: "127.0.0.1:8080", Scheme: "http"}, {Port: 443, Address: "127.0.0.1:8443", Scheme: "https"},
		{Port: 5432, Address: "127.0.0.1:5432", Scheme: "tcp"}, {Port: 53, Address: "127.0.0.1:5353", Scheme: "udp"}}}
	code, out, errOut, _ := weft(t, map[string]any{"GET /v1/status": st}, "", "status")
	if code != 0 {
		t.Fatal(errOut)
	}
	for _, want := range []string{" http://127.0.0.1:8080 (port 80)", " https://127.0.0.1:8443 (port 443)", " 127.0.0.1:5432 (port 5432)", " udp://127.0.0.1:5353 (port 53)"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestControlSaysWhatWasDone(t *testing.T) {
	code, out, errOut, _ := weft(t, map[string]any{"POST /v1/control": struct{}{}}, "", "control", "restart")
	if code != 0 || out != "control plane restarted\n" {
		t.Errorf("%d %q %s", code, out, errOut)
	}
}
