package agent

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// link hands the frames of HTTP/2 (RFC 9113, section 4.1) between a client and the control plane, and pings the control plane for the
// client, who may not do so for minutes: gRPC's library does after five. The client does not see these pings.
type link struct {
	// Set once.
	client, up     net.Conn
	after, timeout time.Duration
	began          time.Time

	heard   atomic.Int64 // when something came from the control plane last, since began
	handing atomic.Bool  // it waits for the client to take it

	mu    sync.Mutex
	out   *bufio.Writer // guarded by mu: to the control plane
	ready bool          // guarded by mu: the client has begun, and is not within a header block
}

func newLink(client, up net.Conn, after, timeout time.Duration) *link {
	return &link{client: client, up: up, after: after, timeout: timeout, began: time.Now(), out: bufio.NewWriter(up)}
}

// errSilent ends a link.
var errSilent = errors.New("the control plane does not answer a ping")

// Frames have a head of 9 bytes: the length of the rest in 3, type, flags, and the stream.
const (
	headSize  = 9
	typeAt    = 3
	flagsAt   = 4
	pingBytes = "weft/agt" // what a ping carries comes back with its answer
)

// frame reads a whole one into b, which it grows where need be.
func frame(r *bufio.Reader, b []byte) ([]byte, error) {
	head, err := r.Peek(headSize)
	if err != nil {
		return nil, err
	}
	size := headSize + (int(head[0])<<16 | int(head[1])<<8 | int(head[2]))
	if cap(b) < size {
		b = make([]byte, size)
	}
	b = b[:size]
	_, err = io.ReadFull(r, b)
	return b, err
}

// send hands what the client sends to the control plane.
func (l *link) send(context.Context) error {
	r, b := bufio.NewReader(l.client), make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	if string(b) != http2.ClientPreface {
		return errors.New("the client does not speak HTTP/2")
	}
	for err := l.write(b, false); ; err = l.write(b, r.Buffered() == 0) {
		if err != nil {
			return err
		}
		if b, err = frame(r, b); err != nil {
			return err
		}
	}
}

// write sends one frame, or the preface.
func (l *link) write(b []byte, flush bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.out.Write(b); err != nil {
		return err
	}
	switch kind, flags := http2.FrameType(b[typeAt]), http2.Flags(b[flagsAt]); {
	case kind == http2.FrameHeaders, kind == http2.FrameContinuation:
		l.ready = flags.Has(http2.FlagHeadersEndHeaders)
	case kind == http2.FrameSettings:
		l.ready = true // the first frame is one
	}
	if !flush {
		return nil
	}
	return l.out.Flush()
}

// receive hands what the control plane sends to the client, but the answers to our pings.
func (l *link) receive(context.Context) error {
	r, w := bufio.NewReader(hearing{l}), bufio.NewWriter(l.client)
	var b []byte
	for {
		var err error
		if b, err = frame(r, b); err != nil {
			return err
		}
		if answersUs(b) && r.Buffered() > 0 {
			continue
		}
		l.handing.Store(true)
		if !answersUs(b) {
			_, err = w.Write(b)
		}
		if err == nil && r.Buffered() == 0 {
			err = w.Flush()
		}
		if l.handing.Store(false); err != nil {
			return err
		}
	}
}

func answersUs(frame []byte) bool {
	return http2.FrameType(frame[typeAt]) == http2.FramePing && http2.Flags(frame[flagsAt]).Has(http2.FlagPingAck) &&
		string(frame[headSize:]) == pingBytes
}

// hearing notes when something comes from the control plane.
type hearing struct{ *link }

func (h hearing) Read(b []byte) (int, error) {
	n, err := h.up.Read(b)
	h.heard.Store(int64(time.Since(h.began)))
	return n, err
}

// watch ends with errSilent when the control plane has answered nothing for too long.
func (l *link) watch(ctx context.Context) error {
	timer := time.NewTimer(l.after)
	defer timer.Stop()
	for pinged := false; ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		silent := time.Since(l.began) - time.Duration(l.heard.Load())
		switch {
		case l.handing.Load():
			pinged = false
			timer.Reset(l.after)
		case silent < l.after:
			pinged = false
			timer.Reset(l.after - silent)
		case pinged:
			return errSilent
		default:
			var err error
			if pinged, err = l.ping(); err != nil {
				return err
			}
			timer.Reset(l.timeout)
		}
	}
}

// ping asks for a sign of life, if the client's frames allow it at this moment.
func (l *link) ping() (sent bool, err error) {
	// A write that the control plane does not take is a sign, too, and holds mu.
	if err := l.up.SetWriteDeadline(time.Now().Add(l.timeout)); err != nil {
		return false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ready {
		return false, l.up.SetWriteDeadline(time.Time{})
	}
	if _, err := l.out.Write(pingFrame); err != nil {
		return false, errors.Join(errSilent, err)
	}
	if err := l.out.Flush(); err != nil {
		return false, errors.Join(errSilent, err)
	}
	return true, l.up.SetWriteDeadline(time.Time{})
}

var pingFrame = func() []byte {
	var b bytes.Buffer
	_ = http2.NewFramer(&b, nil).WritePing(false, [8]byte([]byte(pingBytes))) // a buffer takes everything
	return b.Bytes()
}()
