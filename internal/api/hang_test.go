package api

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// socketOf has connections to a new socket served.
func socketOf(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c) // ends with its client
		}
	}()
	return socket
}

// TestHangs: a mesh that gives no sign of life is given up, having been said once to be waited for, and of a change that it may still be made.
func TestHangs(t *testing.T) {
	c := NewClient(socketOf(t, func(c net.Conn) { _, _ = bufio.NewReader(c).ReadString(0) }))
	defer c.Close()
	var said atomic.Int32
	c.Patience = Patience{Silence: time.Millisecond, Sign: time.Second, Waiting: func() { said.Add(1) }}
	_, err := c.Status(t.Context())
	if u := (*UnavailableError)(nil); !errors.As(err, &u) || !strings.Contains(u.Message, "does not answer") || strings.Contains(u.Hint, "may still be done") {
		t.Errorf("got %v", err)
	}
	_, err = c.Apply(t.Context(), ChangeRequest{})
	if !strings.Contains(Hint(err), "may still be done") {
		t.Errorf("got %v: %s", err, Hint(err))
	}
	if n := said.Load(); n != 2 {
		t.Errorf("it is said %d times for two requests", n)
	}
}

// TestTakesLong: whatever takes long is waited for, as long as the mesh gives signs of life.
func TestTakesLong(t *testing.T) {
	var signs atomic.Int32
	seen := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pingPath, func(http.ResponseWriter, *http.Request) {
		if signs.Add(1) == 3 {
			close(seen)
		}
	})
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		<-seen
		answer(w)(Status{Mesh: "m"}, nil)
	})
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: mux}
	go server.Serve(l) // ends with Close
	defer server.Close()
	c := NewClient(l.Addr().String())
	defer c.Close()
	c.Patience = Patience{Silence: time.Millisecond, Sign: time.Minute, Waiting: func() { t.Error("it is said to be waited for") }}
	if s, err := c.Status(t.Context()); err != nil || s.Mesh != "m" {
		t.Errorf("got %v, %v", s, err)
	}
}

// TestEndsUnanswered: of a change whose answer never came it is said that it may have been made.
func TestEndsUnanswered(t *testing.T) {
	c := NewClient(socketOf(t, func(c net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(c))
		c.Close()
	}))
	defer c.Close()
	for want, err := range map[string]error{
		"may have been done": func() error { _, err := c.Apply(t.Context(), ChangeRequest{}); return err }(),
		"weft status":        func() error { _, err := c.Objects(t.Context(), Selection{}); return err }(),
	} {
		if err == nil || !strings.Contains(err.Error(), "ended before it answered") || !strings.Contains(Hint(err), want) {
			t.Errorf("got %v: %s", err, Hint(err))
		}
	}
}
