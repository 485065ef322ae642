// Package etcdtest gives tests a real etcd.
package etcdtest

import (
	"context"
	"crypto/tls"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/weftmesh/weft/internal/loopback/loopbacktest"
)

// Server is an etcd of one member.
type Server struct {
	Endpoint string // "host:port"
	Client   *clientv3.Client
	TLS      *tls.Config // for clients; nil for plaintext

	args []string
	dir  string // its data
	cmd  *exec.Cmd
}

// Start gives an empty etcd that ends with the test. Where the program is not installed, the test is skipped and says so.
func Start(t *testing.T) *Server {
	t.Helper()
	return start(t, nil)
}

// StartSecure is Start with TLS, to which clients have to show a certificate.
func StartSecure(t *testing.T) *Server {
	t.Helper()
	dir := t.TempDir()
	config := pki(t, dir)
	return start(t, config, "--cert-file="+dir+"/cert.pem", "--key-file="+dir+"/key.pem", "--trusted-ca-file="+dir+"/ca.pem", "--client-cert-auth")
}

func start(t *testing.T, secure *tls.Config, args ...string) *Server {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		t.Skip("etcd is not installed (Debian: etcd-server)")
	}
	s := &Server{Endpoint: loopbacktest.Address(t), TLS: secure}
	peer, url := loopbacktest.Address(t), "http://"+s.Endpoint
	if secure != nil {
		url = "https://" + s.Endpoint
	}
	s.dir = t.TempDir()
	s.args = append(args,
		"--name=test", "--data-dir="+s.dir, "--unsafe-no-fsync", "--log-level=error", "--listen-client-urls="+url,
		"--advertise-client-urls="+url, "--listen-peer-urls=http://"+peer, "--initial-advertise-peer-urls=http://"+peer,
		"--initial-cluster=test=http://"+peer)
	var err error
	if s.Client, err = clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint}, TLS: secure, Logger: zap.NewNop()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Client.Close() })
	s.Up(t)
	return s
}

// Up starts the server and waits until it answers.
func (s *Server) Up(t *testing.T) {
	t.Helper()
	cmd := exec.Command("etcd", s.args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.cmd = cmd
	t.Cleanup(func() { s.kill(cmd) })
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for {
		try, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := s.Client.Get(try, "ready")
		cancel()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("etcd does not become ready: %v", err)
		}
	}
}

// Down kills the server; what it holds stays.
func (s *Server) Down(*testing.T) { s.kill(s.cmd) }

func (s *Server) kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill() // it may have ended
	_, _ = cmd.Process.Wait()
}

// Backup gives a copy of what the server holds, which is down.
func (s *Server) Backup(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(s.dir)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Restore has the server, which is down, hold what a Backup did, or nothing for "".
func (s *Server) Restore(t *testing.T, backup string) {
	t.Helper()
	if err := os.RemoveAll(s.dir); err != nil {
		t.Fatal(err)
	}
	if backup == "" {
		return
	}
	if err := os.CopyFS(s.dir, os.DirFS(backup)); err != nil {
		t.Fatal(err)
	}
}

// Pause has the server stand still, and Resume go on: its connections stay open, and nothing is answered.
func (s *Server) Pause(t *testing.T) { s.signal(t, syscall.SIGSTOP) }

// Resume ends Pause.
func (s *Server) Resume(t *testing.T) { s.signal(t, syscall.SIGCONT) }

func (s *Server) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}
