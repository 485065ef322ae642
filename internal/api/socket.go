package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// DefaultMesh is the mesh's name where none is given.
const DefaultMesh = "default"

// CheckMesh says what is wrong with a mesh's name: it names folders, so it is a DNS label (RFC 1123).
func CheckMesh(name string) error {
	if !meshName.MatchString(name) {
		return &InvalidError{Message: fmt.Sprintf("mesh name %q: want lower-case letters, digits and hyphens, at most 30, such as %q", name, "dev-2"),
			Hint: "give it with --mesh or WEFT_MESH"}
	}
	return nil
}

var meshName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,28}[a-z0-9])?$`)

// RunDir is the folder of a mesh's sockets: /run/weft/NAME for root, else under $XDG_RUNTIME_DIR or the temporary folder. It is
// short, because the path of a unix socket is limited to about 100 bytes.
func RunDir(mesh string) string {
	if os.Geteuid() == 0 {
		return filepath.Join("/run/weft", mesh)
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return filepath.Join(dir, "weft", mesh)
		}
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("weft-%d", os.Geteuid()), mesh)
}

// SocketPath is where a mesh's API listens.
func SocketPath(mesh string) string { return filepath.Join(RunDir(mesh), "api.sock") }

// Listen makes the socket of a mesh's API in its run directory. Only one process can have it. Whoever closes the listener calls
// Leave afterwards.
func Listen(mesh, runDir string) (net.Listener, error) {
	if err := os.MkdirAll(runDir, 0o700); err != nil {
		return nil, fmt.Errorf("run directory: %w", err)
	}
	if info, err := os.Stat(runDir); err != nil || info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("run directory %s: others may enter it (mode %v); it must be 0700", runDir, info.Mode().Perm())
	}
	taken := &InvalidError{Message: fmt.Sprintf("a mesh or control plane called %q runs here already", mesh),
		Hint: "stop it with weft down, or give this one another name with --mesh"}
	socket := filepath.Join(runDir, "api.sock")
	if conn, err := net.Dial("unix", socket); err == nil {
		conn.Close()
		return nil, taken
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", socket)
	switch {
	case errors.Is(err, syscall.EADDRINUSE): // another one was quicker
		return nil, taken
	case err != nil:
		return nil, fmt.Errorf("api: %w", err)
	}
	return l, os.Chmod(socket, 0o600)
}

// Leave removes a run directory, and those above it that are Weft's, as far as they are empty.
func Leave(runDir string) {
	for dir := runDir; filepath.Base(filepath.Dir(dir)) != "/" && os.Remove(dir) == nil; {
		if dir = filepath.Dir(dir); !strings.HasPrefix(filepath.Base(dir), "weft") {
			return
		}
	}
}

// StateDir is where a mesh keeps its key, objects and logs: /var/lib/weft/NAME for root, else $XDG_STATE_HOME/weft/NAME or
// ~/.local/state/weft/NAME; without a home, beside the sockets.
func StateDir(mesh string) string {
	if os.Geteuid() == 0 {
		return filepath.Join("/var/lib/weft", mesh)
	}
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "weft", mesh)
	}
	if home, err := os.UserHomeDir(); err == nil {
		if info, err := os.Stat(home); err == nil && info.IsDir() {
			return filepath.Join(home, ".local", "state", "weft", mesh)
		}
	}
	return filepath.Join(RunDir(mesh), "state")
}

// Running names the meshes of this user whose API answers.
func Running() (names []string) {
	sockets, _ := filepath.Glob(SocketPath("*")) // an error is that of the pattern, which is sound
	for _, socket := range sockets {
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			names = append(names, filepath.Base(filepath.Dir(socket)))
		}
	}
	return names
}
