package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// bare hides the descriptors of connections, as a network in memory has none.
type bare struct{ net.Listener }

func (b bare) Accept() (net.Conn, error) {
	c, err := b.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return struct{ net.Conn }{c}, nil
}

func newBareRig(t *testing.T) *rig {
	return newRigOn(t, Options{}, func(l net.Listener) net.Listener { return bare{l} })
}

// TestWithoutDescriptors: what is larger than what a pump keeps arrives whole in both directions, and ends are noticed on both sides.
func TestWithoutDescriptors(t *testing.T) {
	r := newBareRig(t)
	s := r.open(r.context(), r.dial(time.Hour))
	for _, n := range []int{0, 1, pumped - 5, pumped, 10 * pumped, 4 << 20} {
		m := bytes.Repeat([]byte{byte(n)}, n)
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
	ctx, cancel := context.WithCancel(r.context())
	r.open(ctx, r.dial(time.Hour))
	cancel()
	r.ended()
	open := r.open(r.context(), r.dial(time.Hour))
	send(t, open, []byte("x"))
	recv(t, open)
	r.stop() // with a stream open
	if err := open.RecvMsg(new([]byte)); err == nil {
		t.Error("the client is not told that the server has ended")
	}
}

// TestPumpOfAPeerThatReadsNothing: what is to go is kept up to a bound, and closing does not wait for the peer for long.
func TestPumpOfAPeerThatReadsNothing(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	p := newPump(ours)
	ended := make(chan struct{})
	go func() { defer close(ended); p.run(func() {}) }() // ends with close
	sent := 0
	for {
		n, err := p.send(make([]byte, pumped))
		if err != nil {
			break
		}
		if sent += n; sent > 3*pumped {
			t.Fatal("it keeps more than it should")
		}
	}
	p.close()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("it waits for a peer that reads nothing")
	}
}
