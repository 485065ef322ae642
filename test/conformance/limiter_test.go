package conformance

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/filter/globallimit"
)

const limiterConfig = `domain: shop
descriptors:
- key: user
  rate_limit: {unit: day, requests_per_unit: 2}
- key: do
  value: login
  descriptors:
  - key: remote_address
    rate_limit: {unit: day, requests_per_unit: 1}
- key: watched
  shadow_mode: true
  rate_limit: {unit: day, requests_per_unit: 1}
`

// limiter builds and runs Envoy's rate-limit service, and gives its socket.
func limiter(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	dir := t.TempDir()
	program := filepath.Join(dir, "limiter")
	inModule := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir, cmd.Env = "limiter", append(os.Environ(), "CGO_ENABLED=0")
		return cmd.CombinedOutput()
	}
	if out, err := inModule("mod", "download"); err != nil {
		t.Skipf("the modules of test/conformance/limiter cannot be downloaded: %v: %s", err, out)
	}
	if out, err := inModule("build", "-trimpath", "-o", program, "."); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	config := filepath.Join(dir, "limits", "config")
	if err := errors.Join(os.MkdirAll(config, 0o755), os.WriteFile(filepath.Join(config, "shop.yaml"), []byte(limiterConfig), 0o644)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, dir)
	cmd.Stderr = os.Stderr
	in, inErr := cmd.StdinPipe()
	out, outErr := cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("limiter: %v", err)
		}
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("limiter: %v", err)
	}
	return filepath.Join(dir, "socket")
}

// TestRateLimitService asks Envoy's own rate-limit service as the proxy does.
func TestRateLimitService(t *testing.T) {
	socket := limiter(t)
	c, err := globallimit.New(func(ctx context.Context) (net.Conn, error) { return (&net.Dialer{}).DialContext(ctx, "unix", socket) })
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	user := func(name string) []conf.LimitEntry { return []conf.LimitEntry{{Key: "user", Value: name}} }
	login := func(address string) []conf.LimitEntry {
		return []conf.LimitEntry{{Key: "do", Value: "login"}, {Key: "remote_address", Value: address}}
	}
	for i, q := range []struct {
		domain       string
		descriptions [][]conf.LimitEntry
		want         string // over, limit, left
	}{
		{"shop", [][]conf.LimitEntry{user("amy")}, "false 2 1"},
		{"shop", [][]conf.LimitEntry{user("amy")}, "false 2 0"},
		{"shop", [][]conf.LimitEntry{user("amy")}, "true 2 0"},
		{"shop", [][]conf.LimitEntry{user("bob")}, "false 2 1"},
		{"shop", [][]conf.LimitEntry{user("cid"), login("10.0.0.1")}, "false 1 0"},
		{"shop", [][]conf.LimitEntry{user("dee"), login("10.0.0.1")}, "true 1 0"},
		{"shop", [][]conf.LimitEntry{login("10.0.0.2")}, "false 1 0"},
		{"shop", [][]conf.LimitEntry{{{Key: "watched", Value: "x"}}}, "false 1 0"},
		{"shop", [][]conf.LimitEntry{{{Key: "watched", Value: "x"}}}, "false 1 0"},
		{"shop", [][]conf.LimitEntry{{{Key: "unknown", Value: "x"}}}, "false 0 0"},
		{"elsewhere", [][]conf.LimitEntry{user("amy")}, "false 0 0"},
	} {
		a, err := c.Ask(ctx, q.domain, q.descriptions)
		if got := fmt.Sprint(a.Over, a.Limit, a.Left); err != nil || got != q.want {
			t.Errorf("question %d: %s, want %s; %v", i, got, q.want, err)
		}
		if a.Limit != 0 && (a.Reset <= 0 || a.Reset > 24*time.Hour) {
			t.Errorf("question %d: it begins anew in %s", i, a.Reset)
		}
	}
	if _, err := c.Ask(ctx, "", [][]conf.LimitEntry{user("amy")}); err == nil {
		t.Error("a question without a domain was answered")
	}
}
