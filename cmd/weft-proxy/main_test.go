package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/ca"
	"github.com/weftmesh/weft/internal/wire"
)

func TestWrongCalls(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--version"}, 0, "weft-proxy "},
		{nil, 2, "--bootstrap"},
		{[]string{"--nonsense"}, 2, "nonsense"},
		{[]string{"--bootstrap", "/nonexistent"}, 1, "/nonexistent"},
	} {
		var out bytes.Buffer
		if code := run(t.Context(), c.args, &out, &out); code != c.code || !strings.Contains(out.String(), c.says) {
			t.Errorf("%v: %d, %q", c.args, code, out.String())
		}
	}
}

// TestEndsWithoutControlPlane starts a proxy whose control plane is not there: it is alive, not ready, and ends when told to.
func TestEndsWithoutControlPlane(t *testing.T) {
	a, err := ca.Open(t.TempDir(), ca.Options{TrustDomain: "cluster.local", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	dir, err := os.MkdirTemp("", "weft") // the paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	b := wire.Bootstrap{Node: wire.Node{Role: wire.Sidecar, Name: "a-1", Namespace: "default", ServiceAccount: "a", Workload: "a"},
		Control: "unix://" + filepath.Join(dir, "none"), TrustDomain: "cluster.local", Roots: string(a.RootsPEM()), Token: "t",
		Outbound: "127.0.0.1:0", AdminSocket: filepath.Join(dir, "admin"), DrainSeconds: 1}
	raw, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "bootstrap.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out bytes.Buffer
	code := make(chan int, 1)
	go func() { code <- run(ctx, []string{"--bootstrap", file}, &out, &out) }()
	c := unixClient(filepath.Join(dir, "admin"))
	defer c.CloseIdleConnections()
	for {
		res, err := c.Get("http://proxy/ready")
		if err != nil {
			select {
			case n := <-code:
				t.Fatalf("ended with %d: %s", n, out.String())
			default:
				continue
			}
		}
		res.Body.Close()
		if res.StatusCode != http.StatusServiceUnavailable {
			t.Fatalf("ready: %d", res.StatusCode)
		}
		break
	}
	cancel()
	if n := <-code; n != 0 {
		t.Fatalf("ended with %d: %s", n, out.String())
	}
}
