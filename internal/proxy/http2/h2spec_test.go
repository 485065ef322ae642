package http2

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/message"
)

const h2spec = "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible"

// TestH2spec runs the conformance suite against a small server: generic, http2 and hpack sections, strict ones included.
func TestH2spec(t *testing.T) {
	if testing.Short() {
		t.Skip("the conformance suite takes seconds")
	}
	program := buildH2spec(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go serveAll(l, nil, hello)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	var out []byte
	for range 3 { // it waits for two seconds in each case, which a slow machine may take
		out, err = exec.Command(program, "--strict", "-h", "127.0.0.1", "-p", port, "-o", "2").CombinedOutput()
		if err == nil && bytes.Contains(out, []byte(" 0 failed")) {
			break
		}
	}
	at := bytes.LastIndex(out, []byte("Failures:"))
	if err != nil || !bytes.Contains(out, []byte(" 0 failed")) {
		t.Fatalf("%v\n%s", err, out[max(0, at):])
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	t.Log(lines[len(lines)-1])
}

func buildH2spec(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "install", h2spec)
	cmd.Dir = bin // outside of our module
	cmd.Env = append(os.Environ(), "GOBIN="+bin, "GOFLAGS=", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("h2spec cannot be built from the module proxy: %v\n%s", err, out)
	}
	return filepath.Join(bin, "h2spec")
}

// serveAll serves the connections of l until it is closed.
func serveAll(l net.Listener, o *Options, handle func(*ServerStream)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go NewServerConn(conn.FromNet(c), "http", o).Serve(handle) // ends with the connection
	}
}

func hello(s *ServerStream) {
	readAll(s)
	s.WriteResponse(&message.Response{Status: 200, Body: message.Body{Kind: message.Sized, Length: 5}})
	s.WriteBody([]byte("hello"))
	s.FinishBody(nil)
}
