package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func send(t *testing.T, s grpc.ClientStream, m []byte) {
	t.Helper()
	if err := s.SendMsg(&m); err != nil {
		t.Fatal(err)
	}
}

func recv(t *testing.T, s grpc.ClientStream) []byte {
	t.Helper()
	var m []byte
	if err := s.RecvMsg(&m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestUnary(t *testing.T) {
	r := newRig(t, Options{})
	c := healthpb.NewHealthClient(r.dial(time.Hour))
	ctx := metadata.AppendToOutgoingContext(r.context(), "authorization", "Bearer x", "raw-bin", "\x00\xff")
	for service, want := range map[string]codes.Code{"": codes.OK, "who": codes.OK, "unknown": codes.NotFound, "panic": codes.Internal} {
		if _, err := c.Check(ctx, &healthpb.HealthCheckRequest{Service: service}); status.Code(err) != want {
			t.Errorf("%q: got %v, want %v", service, err, want)
		}
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := c.Check(short, &healthpb.HealthCheckRequest{Service: "slow"}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
	if _, err := c.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.UseCompressor(gzip.Name)); status.Code(err) != codes.Unimplemented {
		t.Errorf("a compressed request: got %v", err)
	}
	if _, err := c.List(ctx, &healthpb.HealthListRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("got %v", err)
	}
	if err := r.dial(time.Hour).Invoke(ctx, "/nobody.Knows/This", &healthpb.HealthCheckRequest{}, &healthpb.HealthCheckResponse{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("got %v", err)
	}
}

func TestManyUnaryCallsAtOnce(t *testing.T) {
	r := newRig(t, Options{})
	c := healthpb.NewHealthClient(r.dial(time.Hour))
	ctx := r.context()
	var all sync.WaitGroup
	for range 300 { // more than there may be streams
		all.Go(func() {
			if _, err := c.Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func TestStream(t *testing.T) {
	r := newRig(t, Options{})
	s := r.open(r.context(), r.dial(time.Hour))
	for _, n := range []int{0, 1, 5, 4091, maxFrame - 5, maxFrame - 4, maxFrame, 65530, 65536, 1 << 20, 4 << 20} {
		m := make([]byte, n)
		for i := range m {
			m[i] = byte(rand.IntN(256))
		}
		send(t, s, m)
		if got := recv(t, s); !bytes.Equal(got, m) {
			t.Fatalf("a message of %d bytes came back with %d", n, len(got))
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := s.RecvMsg(new([]byte)); !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
	if err := r.ended(); err != nil {
		t.Errorf("the handler is told %v", err)
	}
}

func TestStreamEndsWithAStatus(t *testing.T) {
	r := newRig(t, Options{MaxMessage: 1000})
	c := r.dial(time.Hour)
	for message, want := range map[string]string{"fail": "as you wish: 100 % é", strings.Repeat("x", 2000): "a message of 2000 bytes, more than 1000"} {
		s := r.open(r.context(), c)
		send(t, s, []byte(message))
		err := s.RecvMsg(new([]byte))
		if status.Convert(err).Message() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		if r.ended() == nil {
			t.Error("the handler is not told why")
		}
	}
	anonymous := r.open(r.context(), r.dial(0))
	if err := anonymous.RecvMsg(new([]byte)); status.Code(err) != codes.Unauthenticated {
		t.Errorf("got %v", err)
	}
}

func TestManyMessagesFromOneTurn(t *testing.T) {
	r := newRig(t, Options{})
	c := r.dial(time.Hour)
	for range 3 {
		s := r.open(r.context(), c)
		send(t, s, []byte("many"))
		for range 1000 {
			recv(t, s)
		}
	}
}

// TestWakeFromElsewhere has many goroutines make streams say something, while the clients speak too.
func TestWakeFromElsewhere(t *testing.T) {
	const streams, messages = 20, 200
	r := newRig(t, Options{})
	ctx := r.context()
	conns := []*grpc.ClientConn{r.dial(time.Hour), r.dial(time.Hour), r.dial(time.Hour)}
	var open []grpc.ClientStream
	for i := range streams {
		s := r.open(ctx, conns[i%len(conns)])
		send(t, s, []byte("hello"))
		recv(t, s)
		open = append(open, s)
	}
	r.mu.Lock()
	echoes := r.echoes
	r.mu.Unlock()
	var all sync.WaitGroup
	for _, e := range echoes {
		for range 4 {
			all.Go(func() {
				for range messages / 4 {
					e.say([]byte("from elsewhere"))
					e.stream.Wake()
				}
			})
		}
	}
	for _, s := range open {
		all.Go(func() {
			for range messages {
				m := []byte("from the client")
				if err := s.SendMsg(&m); err != nil {
					t.Error(err)
					return
				}
			}
		})
		all.Go(func() {
			for range 2 * messages {
				if err := s.RecvMsg(new([]byte)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

// TestClientThatDoesNotRead is sent no more than it has room for, and delays nobody.
func TestClientThatDoesNotRead(t *testing.T) {
	r := newRig(t, Options{})
	deaf := r.open(r.context(), r.dial(time.Hour))
	send(t, deaf, []byte("hello"))
	recv(t, deaf)
	r.mu.Lock()
	e := r.echoes[0]
	r.mu.Unlock()
	for range 1000 {
		e.say(make([]byte, 100<<10))
	}
	e.stream.Wake()
	s := r.open(r.context(), r.dial(time.Hour))
	for range 50 {
		send(t, s, []byte("hello"))
		recv(t, s)
	}
	e.mu.Lock()
	waiting := len(e.pending)
	e.mu.Unlock()
	if waiting < 900 {
		t.Errorf("%d messages of 1000 have left for a client that does not read", 1000-waiting)
	}
	for range 1000 {
		if n := len(recv(t, deaf)); n != 100<<10 {
			t.Fatalf("a message of %d bytes", n)
		}
	}
}

// TestDeafToAWideWindow: of a message that the client's window has room for, and the kernel none, hardly more is kept than the message.
func TestDeafToAWideWindow(t *testing.T) {
	const streams, size = 10, 32 << 20 // more than the kernel takes
	r := newRig(t, Options{})
	message := make([]byte, size)
	before := inUse()
	for i := range streams {
		w := r.raw()
		if _, err := io.WriteString(w.conn, preface); err != nil {
			t.Fatal(err)
		}
		_ = w.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: maxWindow})
		_ = w.framer.WriteWindowUpdate(0, maxWindow-defaultWindow)
		w.headers(1, with("", ""))
		await(t, func() bool { return r.echo(i) != nil })
		e := r.echo(i)
		e.say(message)
		e.stream.Wake()
		await(t, e.empty)
	}
	r.open(r.context(), r.dial(time.Hour)) // which has its turn behind theirs
	await(t, func() bool { return r.echo(streams) != nil })
	if grown := inUse() - before; grown > streams*(512<<10) {
		t.Errorf("%d bytes are kept for %d connections", grown, streams)
	}

	// They need not read to be ended, and to be told of it they need not have room for the reason.
	for i := range streams {
		r.echo(i).stream.Cut(status.Error(codes.ResourceExhausted, "too slow"))
	}
	for range streams {
		if err := r.ended(); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("a stream ended with %v", err)
		}
	}
}

func TestCutTellsTheReason(t *testing.T) {
	r := newRig(t, Options{})
	s := r.open(r.context(), r.dial(time.Hour))
	send(t, s, []byte("hello"))
	recv(t, s)
	r.echo(0).stream.Cut(status.Error(codes.ResourceExhausted, "another one has come"))
	var m []byte
	if err := s.RecvMsg(&m); status.Convert(err).Message() != "another one has come" {
		t.Errorf("got %v", err)
	}
}

// inUse is what is allocated and reachable.
func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// await waits until something is so of which no event tells.
func await(t *testing.T, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("it does not come to pass")
		}
	}
}

// echo is the one that was opened as the nth; nil before.
func (r *rig) echo(n int) *echo {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n >= len(r.echoes) {
		return nil
	}
	return r.echoes[n]
}

func (e *echo) empty() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.pending) == 0
}

func TestPanicEndsTheConnectionAlone(t *testing.T) {
	r := newRig(t, Options{})
	other := r.open(r.context(), r.dial(time.Hour))
	send(t, other, []byte("hello"))
	recv(t, other)
	s := r.open(r.context(), r.dial(time.Hour))
	send(t, s, []byte("panic"))
	if err := s.RecvMsg(new([]byte)); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
	if r.ended() == nil {
		t.Error("the handler is not told why")
	}
	send(t, other, []byte("hello"))
	recv(t, other)
}

func TestCancelIsHeard(t *testing.T) {
	r := newRig(t, Options{})
	ctx, cancel := context.WithCancel(r.context())
	s := r.open(ctx, r.dial(time.Hour))
	send(t, s, []byte("hello"))
	recv(t, s)
	cancel()
	if err := r.ended(); status.Code(err) != codes.Canceled {
		t.Errorf("the handler is told %v", err)
	}
}

func TestConnectionEndsWithTheCertificate(t *testing.T) {
	r := newRig(t, Options{Keepalive: time.Second})
	for life := 2 * time.Second; ; life *= 2 { // longer where the machine is too slow for a stream within it
		var got []byte
		s, err := r.stream(r.context(), r.dial(life))
		if err == nil {
			hello := []byte("hello")
			err = errors.Join(s.SendMsg(&hello), s.RecvMsg(&got))
		}
		if string(got) != "hello" {
			if life > patience {
				t.Fatal(err)
			}
			continue
		}
		if err := s.RecvMsg(new([]byte)); status.Code(err) != codes.Unavailable {
			t.Errorf("got %v", err)
		}
		return
	}
}

func TestStopEndsEverything(t *testing.T) {
	r := newRig(t, Options{})
	c := r.dial(time.Hour)
	s := r.open(r.context(), c)
	send(t, s, []byte("hello"))
	recv(t, s)
	ctx := r.context()
	go func() {
		_, _ = healthpb.NewHealthClient(c).Check(ctx, &healthpb.HealthCheckRequest{Service: "slow"})
	}() // it ends with the connection
	r.stop()
	if err := r.ended(); status.Code(err) != codes.Unavailable {
		t.Errorf("the handler is told %v", err)
	}
}

func TestRegisteringStreamsIsRefused(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a service with streams was registered")
		}
	}()
	New(Options{TLS: newRig(t, Options{}).clientTLS(0)}).RegisterService(&healthpb.Health_ServiceDesc, nil)
}
