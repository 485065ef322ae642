package takeover

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weftmesh/weft/internal/proxy/bind"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// old is a process with one listener.
type old struct {
	l      net.Listener
	gone   []bind.Socket // are closed once it has told of them
	refuse error

	mu     sync.Mutex
	events []string
}

func (o *old) note(event string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.events = append(o.events, event)
}

func (o *old) told() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.events, " ")
}

func (o *old) Begin() ([]bind.Socket, error) {
	o.note("begin")
	return append(o.gone, bind.Socket{Network: "tcp", Address: "configured", Conn: o.l.(syscall.Conn)}), o.refuse
}
func (o *old) Abort()    { o.note("abort") }
func (o *old) Yield()    { o.note("yield"); o.l.Close() }
func (o *old) Open() int { return 7 }

// give starts an old process and gives the path where it is asked.
func give(t *testing.T, o *old, patience time.Duration) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "weft") // the paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if o.l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "upgrade")
	at, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	g := &Giver{Self: Process{PID: 1, Release: "old", Epoch: 4}, Predecessor: o, Log: slog.New(slog.DiscardHandler), Patience: patience}
	go func() { done <- g.Serve(ctx, at) }() // ends with the test
	t.Cleanup(func() {
		at.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		o.l.Close()
	})
	return path
}

func take(t *testing.T, path string) (*Taken, error) {
	t.Helper()
	got, err := Take(t.Context(), path, Process{PID: 2, Release: "new"})
	if err == nil {
		t.Cleanup(func() {
			got.Close()
			for _, s := range got.Sockets {
				s.File.Close()
			}
		})
	}
	return got, err
}

func TestTheSocketsChangeHands(t *testing.T) {
	o := &old{}
	got, err := take(t, give(t, o, 0))
	if err != nil {
		t.Fatal(err)
	}
	if got.Predecessor != (Process{1, "old", 4}) || len(got.Sockets) != 1 || got.Sockets[0].Address != "configured" {
		t.Fatalf("%+v", got)
	}
	waiting, err := net.Dial("tcp", o.l.Addr().String()) // in the queue while nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	if err := got.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if told := o.told(); told != "begin yield" {
		t.Fatalf("the old process heard %q", told)
	}
	l, err := net.FileListener(got.Sockets[0].File)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	if n, err := waiting.Read(make([]byte, 1)); n != 1 {
		t.Fatal(err)
	}
	if _, draining := got.Left(); !draining {
		t.Error("the old process has ended")
	}
}

// TestClosedMeanwhile: a socket that is closed while sockets are handed over, as the way to a process that ends just then, is left out.
func TestClosedMeanwhile(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	o := &old{gone: []bind.Socket{{Network: "tcp", Address: "gone", Conn: l.(syscall.Conn)}}}
	got, err := take(t, give(t, o, 0))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Sockets) != 1 || got.Sockets[0].Address != "configured" {
		t.Fatalf("%+v", got)
	}
	if err := got.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestTheOldProcessCarriesOn(t *testing.T) {
	o := &old{}
	path := give(t, o, 5*time.Second) // the second one has to come before
	late, err := take(t, path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := take(t, path); err == nil || !strings.Contains(err.Error(), "under way already, by process 2 (new)") {
		t.Errorf("a second one at the same time: %v", err)
	}
	for o.told() != "begin abort" { // after its patience
		select {
		case <-t.Context().Done():
			t.Fatal("the old process waits for ever")
		case <-time.After(time.Millisecond):
		}
	}
	if err := late.Ready(t.Context()); !errors.Is(err, ErrCarriesOn) {
		t.Errorf("ready too late: %v", err)
	}
	gone, err := take(t, path)
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	for o.told() != "begin abort begin abort" {
		select {
		case <-t.Context().Done():
			t.Fatal("the old process does not notice")
		case <-time.After(time.Millisecond):
		}
	}
}

func TestRefusals(t *testing.T) {
	o := &old{refuse: errors.New("it is draining")}
	if _, err := take(t, give(t, o, 0)); err == nil || !strings.Contains(err.Error(), "it is draining") {
		t.Errorf("%v", err)
	}
	if _, err := take(t, filepath.Join(t.TempDir(), "nobody")); !errors.Is(err, ErrNobody) {
		t.Errorf("%v", err)
	}
}
