package rpc

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// TestStrangersMakeRoom: connections without a certificate end the oldest of their kind, silent or not, and nobody else's.
func TestStrangersMakeRoom(t *testing.T) {
	const most = 4
	r := newRig(t, Options{MaxStrangers: most, HandshakeTimeout: time.Hour})
	member := r.raw().greet()
	member.headers(1, fields(request...))
	if _, err := member.framer.ReadFrame(); err != nil { // from here on the server knows who it is
		t.Fatal(err)
	}
	var all []net.Conn
	for i := range 5 * most {
		c, err := net.Dial("tcp", r.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			secured := tls.Client(c, r.clientTLS(0))
			if err := secured.Handshake(); err != nil {
				t.Fatal(err)
			}
			c = secured
		}
		all = append(all, c)
	}
	for i, c := range all[:4*most] {
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("stranger %d is still there", i)
		}
	}
	newest := all[len(all)-1]
	if err := newest.SetDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := newest.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the newest must stay: %v", err)
	}
	if err := member.framer.WritePing(false, [8]byte{1}); err != nil {
		t.Fatal(err)
	}
	for {
		f, err := member.framer.ReadFrame()
		if err != nil {
			t.Fatalf("who has a certificate must stay: %v", err)
		}
		if p, ok := f.(*http2.PingFrame); ok && p.IsAck() {
			return
		}
	}
}

// TestManyOfOneCertificate: connections with one certificate end the oldest with that, and nobody else's; nothing is kept of those that have ended.
func TestManyOfOneCertificate(t *testing.T) {
	const most = 8
	r := newRig(t, Options{MaxOfOne: most})
	member := r.raw().greet()
	member.headers(1, fields(request...))
	if _, err := member.framer.ReadFrame(); err != nil {
		t.Fatal(err)
	}
	config := r.clientTLS(time.Hour)
	open := func() net.Conn {
		c, err := tls.Dial("tcp", r.address, config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		// The client's handshake is over before the server's is: this one's place comes before the next one's only if that is awaited.
		if _, err := io.WriteString(c, preface); err != nil {
			t.Fatal(err)
		}
		if _, err := http2.NewFramer(nil, c).ReadFrame(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	oldest := open()
	all := []net.Conn{}
	for range most {
		all = append(all, open())
	}
	if _, err := io.Copy(io.Discard, oldest); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the oldest is still there")
	}
	if err := member.framer.WritePing(false, [8]byte{1}); err != nil {
		t.Fatal(err)
	}
	for acked := false; !acked; {
		f, err := member.framer.ReadFrame()
		if err != nil {
			t.Fatalf("who has another certificate must stay: %v", err)
		}
		p, ok := f.(*http2.PingFrame)
		acked = ok && p.IsAck()
	}
	for _, c := range all {
		c.Close()
	}
	holders := &r.server.holders
	known := func() int {
		holders.mu.Lock()
		defer holders.mu.Unlock()
		return len(holders.by)
	}
	for start := time.Now(); known() > 1; runtime.Gosched() {
		if time.Since(start) > patience {
			t.Fatal("a certificate is kept without connections")
		}
	}
}
