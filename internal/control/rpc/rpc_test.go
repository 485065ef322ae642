package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

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
	c := r.dial(1500 * time.Millisecond)
	s := r.open(r.context(), c)
	send(t, s, []byte("hello"))
	recv(t, s)
	if err := s.RecvMsg(new([]byte)); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
}

func TestStopEndsEverything(t *testing.T) {
	r := newRig(t, Options{})
	c := r.dial(time.Hour)
	s := r.open(r.context(), c)
	send(t, s, []byte("hello"))
	recv(t, s)
	go func() {
		_, _ = healthpb.NewHealthClient(c).Check(r.context(), &healthpb.HealthCheckRequest{Service: "slow"})
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
