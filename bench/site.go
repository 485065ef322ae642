package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/weftmesh/weft/bench/load"
	"github.com/weftmesh/weft/internal/loopback"
)

// site is what all contestants of a run share.
type site struct {
	// Set once.
	dir               string // scratch
	proxyCPU, loadCPU int
	backend           string // "ip:port"
	second            string // the same server, for HTTP/2 without TLS
	pki               *pki
	mesh              *mesh

	// Owned by the goroutine that starts contestants.
	started int    // programs so far
	weft    string // the file of weft-proxy
	running []*process
}

// The paths that the backend answers, and the sizes of the bodies.
const (
	smallPath, smallSize = "/", 1 << 10
	bulkPath, bulkSize   = "/bulk", 1 << 20
)

// headers are the seven that every request has.
var headers = []string{
	"Host: plain",
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
	"Accept-Language: en-US,en;q=0.5",
	"Accept-Encoding: gzip, deflate",
	"Referer: http://plain/products",
	"Cookie: session=0c9f4b7d5c1e4a6f8d2b; theme=dark",
}

// openSite prepares a scratch folder with the programs, starts the backend and the control plane.
func openSite(ctx context.Context, proxyCPU, loadCPU int) (*site, error) {
	dir, err := os.MkdirTemp("", "weft-bench-")
	if err != nil {
		return nil, err
	}
	s := &site{dir: dir, proxyCPU: proxyCPU, loadCPU: loadCPU, weft: filepath.Join(dir, "weft-proxy")}
	err = s.open(ctx)
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *site) open(ctx context.Context) (err error) {
	if err := os.Chmod(s.dir, 0o755); err != nil { // nginx's worker may be another user
		return err
	}
	for _, program := range []string{"./cmd/weft-proxy", "./bench/reverseproxy"} {
		// As the Makefile builds what is shipped.
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", s.dir+"/", program)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := build.CombinedOutput()
		if err != nil {
			return fmt.Errorf("go build %s: %w: %s", program, err, out)
		}
	}
	if s.pki, err = newPKI(s.dir); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.dir, "bulk"), []byte(strings.Repeat("weft", bulkSize/4)), 0o644); err != nil {
		return err
	}
	if s.backend, err = freeAddress(); err != nil {
		return err
	}
	if s.second, err = freeAddress(); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.dir, "answer"), grpcMessage(smallSize), 0o644); err != nil {
		return err
	}
	p, err := s.startNginx(ctx, s.loadCPU, "backend", s.backend, backendServer(s))
	if err != nil {
		return err
	}
	s.running = append(s.running, p)
	s.mesh, err = startMesh(ctx, s.dir, s.backend, s.second)
	return err
}

// close ends what open started.
func (s *site) close() error {
	var errs []error
	if s.mesh != nil {
		errs = append(errs, s.mesh.stop())
	}
	for _, p := range s.running {
		errs = append(errs, p.stop())
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// ports are held until the run ends.
var ports loopback.Ports

func freeAddress() (string, error) {
	port, err := ports.Take()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))), err
}

// write writes a file of the scratch folder and gives its path.
func (s *site) write(name, text string) (string, error) {
	s.started++
	path := filepath.Join(s.dir, fmt.Sprintf("%d-%s", s.started, name))
	return path, os.WriteFile(path, []byte(text), 0o644)
}

// target is the plaintext door of a deployment, or of the backend.
func target(address, path string) load.Target {
	return load.Target{Address: address, Path: path, Headers: headers}
}
