// Package etcdtest gives tests a real etcd.
package etcdtest

import (
	"context"
	"net"
	"os/exec"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Server is an etcd of one member.
type Server struct {
	Endpoint string // "host:port"
	Client   *clientv3.Client

	args []string
	cmd  *exec.Cmd
}

// Start gives an empty etcd that ends with the test. Where the program is not installed, the test is skipped and says so.
func Start(t *testing.T) *Server {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		t.Skip("etcd is not installed (Debian: etcd-server)")
	}
	s := &Server{Endpoint: freeAddress(t)}
	peer := freeAddress(t)
	s.args = []string{
		"--name=test", "--data-dir=" + t.TempDir(), "--unsafe-no-fsync", "--log-level=error", "--listen-client-urls=http://" + s.Endpoint,
		"--advertise-client-urls=http://" + s.Endpoint, "--listen-peer-urls=http://" + peer, "--initial-advertise-peer-urls=http://" + peer,
		"--initial-cluster=test=http://" + peer,
	}
	var err error
	if s.Client, err = clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint}, Logger: zap.NewNop()}); err != nil {
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
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
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

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
