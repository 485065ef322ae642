package conformance

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// peers are the programs of package peers, built once.
var peers struct {
	once sync.Once
	dir  string
	err  error
}

var peerPackages = []string{"./websocket", "github.com/summerwind/h2spec/cmd/h2spec", "google.golang.org/grpc/interop/client",
	"google.golang.org/grpc/interop/server"}

// peer gives the path of a program of package peers. Without the modules that it needs the test is skipped.
func peer(t *testing.T, name string) string {
	t.Helper()
	peers.once.Do(buildPeers)
	var missing *missingModules
	switch {
	case errors.As(peers.err, &missing):
		t.Skipf("the modules of test/conformance/peers cannot be downloaded: %s", missing.text)
	case peers.err != nil:
		t.Fatal(peers.err)
	}
	return filepath.Join(peers.dir, name)
}

type missingModules struct{ text string }

func (m *missingModules) Error() string { return m.text }

func buildPeers() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	inPeers := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = "peers"
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		return cmd.CombinedOutput()
	}
	if out, err := inPeers("mod", "download"); err != nil {
		peers.err = &missingModules{err.Error() + ": " + string(out)}
		return
	}
	if peers.dir, peers.err = os.MkdirTemp("", "weft-peers"); peers.err != nil {
		return
	}
	if out, err := inPeers(append([]string{"build", "-trimpath", "-o", peers.dir + "/"}, peerPackages...)...); err != nil {
		peers.err = errors.New(string(out))
	}
}

// server runs a program that prints its address first, until the test ends.
func server(t *testing.T, program string, args ...string) netip.AddrPort {
	t.Helper()
	cmd := exec.Command(program, args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", program, err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%s: %v", program, err)
	}
	a, err := netip.ParseAddrPort(strings.TrimSpace(line))
	if err != nil {
		t.Fatalf("%s: %v", program, err)
	}
	return a
}

// run runs a program that has to succeed, and gives what it printed.
func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := try(t, program, args...)
	if err != nil {
		t.Error(err)
	}
	return out
}

// try gives what the program has printed; where it failed, the error has it as well.
func try(t *testing.T, program string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", filepath.Base(program), strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return string(out), err
}
