package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/weftmesh/weft/internal/api"
)

// onTerminal runs a command line on a terminal that is so many columns wide and gives what stands there.
func onTerminal(t *testing.T, columns int, replies map[string]any, args ...string) string {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer keyboard.Close()
	number, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Skip(err)
	}
	screen, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	if err := unix.IoctlSetWinsize(int(screen.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: uint16(columns)}); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NO_COLOR", "1")
	seen := make(chan string)
	go func() { // ends when the screen is closed
		var b bytes.Buffer
		_, _ = io.Copy(&b, keyboard) // an error is how a terminal ends
		seen <- b.String()
	}()
	var errOut bytes.Buffer
	if code, _ := weftTo(t, replies, "", screen, &errOut, args...); code != 0 {
		t.Errorf("%v: code %d: %s", args, code, errOut.String())
	}
	screen.Close()
	return strings.ReplaceAll(<-seen, "\r\n", "\n")
}

// TestTablesFitTheTerminal: no line wraps; what is cut or left out is what matters least, and it is said; elsewhere all is there.
func TestTablesFitTheTerminal(t *testing.T) {
	now := time.Now()
	st := api.Status{Control: "running", Workloads: []api.Workload{{Namespace: "default", Name: "productpage-v1", Desired: 1, State: "CrashLoopBackOff", Restarts: 7,
		Reason: "productpage exited with status 1 a moment after its start: " + strings.Repeat("why ", 30),
		Pods:   []api.Pod{{Name: "productpage-v1-6c5b8f7d9-abcde", IP: "10.66.0.12", State: "Running", Started: now, Processes: []api.Process{{Name: "istio-proxy", PID: 12345, Running: true, Version: "0.1.0", LastExit: "signal: killed"}}}}}},
		Proxies: []api.Proxy{{Node: "sidecar~10.66.0.12~productpage-v1-6c5b8f7d9-abcde.default~x", Identity: "spiffe://cluster.local/ns/default/sa/bookinfo-productpage",
			Connected: now, State: "refused", Since: now, Reason: "rds: " + strings.Repeat("no ", 60)}}}
	graph := api.Graph{Window: time.Minute, Covered: time.Minute, Edges: []api.Edge{{Source: "productpage-v1", Destination: "reviews-v1", Protocol: "http", MutualTLS: true, Rate: 1, P50: 1, P95: 2, P99: 3}}}
	objects := []api.Object{{Ref: api.Ref{Kind: "AuthorizationPolicy", Namespace: "istio-system", Name: "allow-only-productpage"}, Source: "bookinfo/authorization-policies.yaml:12", Created: now}}
	replies := map[string]any{"GET /v1/status": st, "GET /v1/graph": graph, "GET /v1/objects": objects}
	for _, c := range []struct{ args, kept, leftOut string }{
		{"ps", "NAMESPACE WORKLOAD READY STATE REASON", "AGE, RESTARTS"},
		{"ps --wide", "INSTANCE PROCESS UP STATE", "PROXY, AGE, PID, ADDRESS, RESTARTS"},
		{"status", "PROXY STATE SINCE REASON", "IDENTITY, CONNECTED, NAMES, ENDPOINTS, CLUSTERS, ROUTES, LISTENERS"},
		{"graph", "FROM TO SECURITY RATE ERRORS P95", "P50, P99, PROTOCOL"},
		{"get", "KIND NAMESPACE NAME STATE", "AGE, FROM"},
	} {
		args := strings.Fields(c.args)
		_, piped, _, _ := weft(t, replies, "", args...)
		if wide := onTerminal(t, 400, replies, args...); wide != piped {
			t.Errorf("%s: a wide terminal has something else than a pipe:\n%s%s", c.args, wide, piped)
		}
		narrow := onTerminal(t, 80, replies, args...)
		for line := range strings.Lines(narrow) {
			if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > 80 && !strings.HasPrefix(line, "not shown") {
				t.Errorf("%s: it wraps: %s", c.args, line)
			}
		}
		head := strings.Join(strings.Fields(narrow), " ")
		if !strings.Contains(head, c.kept+" ") || !strings.Contains(narrow, "not shown, since the terminal is narrow: "+c.leftOut+"\n") {
			t.Errorf("%s: want %s without %s\n%s", c.args, c.kept, c.leftOut, narrow)
		}
		if tiny := onTerminal(t, 10, replies, args...); !strings.Contains(tiny, strings.Fields(c.kept)[0]) {
			t.Errorf("%s: nothing is left:\n%s", c.args, tiny)
		}
	}
}
