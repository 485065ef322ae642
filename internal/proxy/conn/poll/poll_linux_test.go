package poll

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, n int) *Set {
	t.Helper()
	s, err := Open(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func listen(t testing.TB, s *Set) *Listener {
	t.Helper()
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.Listen(raw.(*net.TCPListener))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func (l *Listener) at() netip.AddrPort { return l.addr.(*net.TCPAddr).AddrPort() }

func pair(t testing.TB, s *Set) (a, b *Conn) {
	t.Helper()
	l := listen(t, s)
	defer l.Close()
	a, err := s.Dial(t.Context(), l.at(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = l.AcceptConn(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// TestDescriptorsAreReused opens and closes connections on many goroutines, so that descriptors change hands all the time, and
// closes half of them while a call is pending. Each carries a name of its own: a byte, an event or a deadline that reaches another
// connection shows.
func TestDescriptorsAreReused(t *testing.T) {
	s := open(t, 2)
	l := listen(t, s)
	var echoes sync.WaitGroup
	defer echoes.Wait()
	defer l.Close()
	go func() { // ends with the listener
		for {
			c, err := l.AcceptConn()
			if err != nil {
				return
			}
			echoes.Go(func() { echo(c) })
		}
	}()
	rounds := 400
	if testing.Short() {
		rounds = 50
	}
	var callers sync.WaitGroup
	for g := range 16 {
		callers.Go(func() {
			for i := range rounds {
				if err := call(s, l.at(), uint64(g)<<32|uint64(i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	callers.Wait()
}

func echo(c *Conn) {
	defer c.Close()
	var b [64]byte
	for {
		n, err := c.Read(b[:])
		if err != nil {
			return
		}
		if _, err := c.Write(b[:n]); err != nil {
			return
		}
	}
}

func call(s *Set, to netip.AddrPort, name uint64) error {
	c, err := s.Dial(context.Background(), to, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	sent := binaryName(name)
	for range 3 {
		c.SetReadDeadline(time.Now().Add(2 * time.Minute))
		if _, err := c.Write(sent); err != nil {
			return err
		}
		var got [16]byte
		if _, err := io.ReadFull(c, got[:len(sent)]); err != nil {
			return err
		}
		if !bytes.Equal(got[:len(sent)], sent) {
			return errors.New("the answer is another connection's")
		}
	}
	if name&1 == 0 {
		return nil
	}
	closing := make(chan struct{})
	go func() { // ends at once
		defer close(closing)
		c.Close()
	}()
	_, err = c.Read(make([]byte, 1))
	<-closing
	if !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func binaryName(n uint64) []byte {
	b := make([]byte, 8)
	for i := range b {
		b[i] = byte(n >> (8 * i))
	}
	return b
}

// TestDeadlinesFromElsewhere moves a reader's deadline from other goroutines while bytes trickle in: each read fails if and only if
// its deadline was in the past for good.
func TestDeadlinesFromElsewhere(t *testing.T) {
	a, b := pair(t, open(t, 2))
	var stop atomic.Bool
	var movers sync.WaitGroup
	for range 2 {
		movers.Go(func() {
			for !stop.Load() {
				a.SetReadDeadline(time.Now().Add(time.Duration(rand.IntN(2000)) * time.Microsecond))
				a.SetReadDeadline(time.Time{})
			}
		})
	}
	go func() { // ends with the bytes
		for range 2000 {
			b.Write([]byte("x"))
		}
		b.CloseWrite()
	}()
	n, p := 0, make([]byte, 7)
	for {
		m, err := a.Read(p)
		n += m
		if err == io.EOF {
			break
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	movers.Wait()
	if n != 2000 {
		t.Errorf("%d bytes arrived", n)
	}
	a.SetReadDeadline(time.Unix(1, 0))
	if _, err := a.Read(p); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after a deadline in the past: %v", err)
	}
}

// TestDeadlineHeap: deadlines fire in the order of their times whatever the order in which they were set, moved and lifted.
func TestDeadlineHeap(t *testing.T) {
	s := open(t, 1)
	const n = 50
	var fired sync.WaitGroup
	start := time.Now()
	for i := range n {
		a, _ := pair(t, s)
		d := time.Duration(i*7%n) * time.Millisecond
		a.SetReadDeadline(start.Add(time.Hour))
		if i%3 == 0 {
			a.SetReadDeadline(time.Time{})
		}
		a.SetReadDeadline(start.Add(d))
		fired.Go(func() {
			if err := a.Wait(); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("wait: %v", err)
			}
			if took := time.Since(start); took < d {
				t.Errorf("a deadline of %v fired after %v", d, took)
			}
		})
	}
	fired.Wait()
	for i := range *s.table.Load() {
		if c := (*s.table.Load())[i].Load(); c != nil {
			c.Close()
		}
	}
	for _, p := range s.pollers {
		if k := len(p.deadlines.sides); k != 0 {
			t.Errorf("%d sides of closed connections are left in the heap", k)
		}
	}
}

// TestWaitDoesNotLie: what the poller heard before the last read must not end a Wait.
func TestWaitDoesNotLie(t *testing.T) {
	a, b := pair(t, open(t, 1))
	b.Write([]byte("x"))
	if err := a.Wait(); err != nil {
		t.Fatal(err)
	}
	old := a.poller.cycle.Load()
	if n, err := a.Read(make([]byte, 8)); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	a.news(syscall.EPOLLIN, old) // collected before the read and told after it
	a.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
	if err := a.Wait(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("wait: %v", err)
	}
}

func TestSetCloseWakesEverybody(t *testing.T) {
	s, err := Open(2)
	if err != nil {
		t.Fatal(err)
	}
	a, b := pair(t, s)
	var calls sync.WaitGroup
	for _, c := range []*Conn{a, b} {
		calls.Go(func() {
			// Whoever is closed second may hear of the first before.
			if err := c.Wait(); err != nil && !errors.Is(err, net.ErrClosed) {
				t.Errorf("wait: %v", err)
			}
		})
	}
	if n := s.Count(); n < 2 {
		t.Errorf("%d connections are watched", n)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	calls.Wait()
	if n := s.Count(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
	if _, err := s.Dial(t.Context(), netip.MustParseAddrPort("127.0.0.1:1"), nil); err == nil {
		t.Error("a closed set dials")
	}
}

func TestDialErrors(t *testing.T) {
	s := open(t, 1)
	l := listen(t, s)
	l.Close()
	if _, err := s.Dial(t.Context(), l.at(), nil); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("nobody listens: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Dial(ctx, l.at(), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("context ended: %v", err)
	}
	bad := errors.New("no")
	if _, err := s.Dial(t.Context(), l.at(), func(uintptr) error { return bad }); !errors.Is(err, bad) {
		t.Errorf("control failed: %v", err)
	}
}

// TestDialDeadline dials a port whose queue is full, where the kernel answers nothing.
func TestDialDeadline(t *testing.T) {
	s := open(t, 1)
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	for {
		c, err := s.Dial(ctx, addrPort(sa), nil)
		if err == nil {
			defer c.Close()
			continue
		}
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("dial: %v", err)
		}
		return
	}
}

// TestListenerIsHandedOn hands a listening socket on: what connects while nobody accepts is served by the heir.
func TestListenerIsHandedOn(t *testing.T) {
	s := open(t, 1)
	old := listen(t, s)
	raw, err := old.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := duplicate(raw)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	old.Close()
	a, err := s.Dial(t.Context(), old.at(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	nl, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	heir, err := s.Listen(nl.(*net.TCPListener))
	if err != nil {
		t.Fatal(err)
	}
	defer heir.Close()
	b, err := heir.AcceptConn()
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
}

func TestSplice(t *testing.T) {
	s := open(t, 2)
	from, in := pair(t, s)
	out, to := pair(t, s)
	stream := make([]byte, 8<<20)
	for i := range stream {
		stream[i] = byte(i * i >> 7)
	}
	go func() { // ends with the stream
		from.Write(stream)
		from.CloseWrite()
	}()
	var moved atomic.Int64
	ended := make(chan error, 1)
	go func() {
		readErr, writeErr := out.Splice(in, 1<<40, func(n int64) { moved.Add(n) })
		out.CloseWrite()
		if readErr == io.EOF {
			readErr = nil
		}
		ended <- errors.Join(readErr, writeErr)
	}()
	got, err := io.ReadAll(to)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, stream) || moved.Load() != int64(len(stream)) {
		t.Errorf("%d bytes arrived, %d were counted", len(got), moved.Load())
	}
}

func TestSpliceNamesTheSide(t *testing.T) {
	s := open(t, 1)
	_, in := pair(t, s)
	out, _ := pair(t, s)
	in.SetReadDeadline(time.Now().Add(time.Millisecond))
	if readErr, writeErr := out.Splice(in, 1<<20, func(int64) {}); !errors.Is(readErr, os.ErrDeadlineExceeded) || writeErr != nil {
		t.Errorf("reader's deadline: %v, %v", readErr, writeErr)
	}
	in.SetReadDeadline(time.Time{})
	out.Close()
	if readErr, writeErr := out.Splice(in, 1<<20, func(int64) {}); readErr != nil || !errors.Is(writeErr, net.ErrClosed) {
		t.Errorf("writer closed: %v, %v", readErr, writeErr)
	}
}

// TestSharedListenerIsForgotten: a poller hears nothing more of a socket that another holder of it listens on.
func TestSharedListenerIsForgotten(t *testing.T) {
	s := open(t, 1)
	old := listen(t, s)
	raw, err := old.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := duplicate(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	at := old.at()
	old.Close()
	for s.pollers[0].cycle.Load() == 0 { // the poller has not begun
		runtime.Gosched()
	}
	before := s.pollers[0].cycle.Load()
	c, err := net.Dial("tcp", at.String()) // not by the set, whose poller would hear of that
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	taken, _, err := syscall.Accept4(fd, syscall.SOCK_CLOEXEC)
	for err == syscall.EAGAIN || err == syscall.EINTR {
		taken, _, err = syscall.Accept4(fd, syscall.SOCK_CLOEXEC)
	}
	if err != nil {
		t.Fatal(err)
	}
	syscall.Close(taken)
	// What the poller would have heard is there by now: it asks again for a connection of its own, and finds that alone.
	events := [8]syscall.EpollEvent{}
	n, err := syscall.EpollWait(s.pollers[0].epoll, events[:], 0)
	if n > 0 || err != nil && err != syscall.EINTR {
		t.Errorf("%d events, %v", n, err)
	}
	if after := s.pollers[0].cycle.Load(); after != before {
		t.Errorf("the poller was woken %d times", after-before)
	}
}
