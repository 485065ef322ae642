package rpc

import (
	"bytes"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"testing"

	"golang.org/x/net/http2"
)

// FuzzFrames gives a connection arbitrary bytes after the preface, in two pieces. Whatever they are, the bounds hold.
func FuzzFrames(f *testing.F) {
	var b bytes.Buffer
	w := http2.NewFramer(&b, nil)
	_ = w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
	_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: with("", ""), EndHeaders: true})
	_ = w.WriteData(1, false, []byte("\x00\x00\x00\x00\x05hello"))
	_ = w.WriteWindowUpdate(1, 100)
	_ = w.WritePing(false, [8]byte{1})
	_ = w.WriteRSTStream(1, http2.ErrCodeCancel)
	f.Add(b.Bytes(), 17)
	b.Reset()
	_ = w.WriteSettings()
	_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: with(":path", "/x")[:10], EndStream: true})
	_ = w.WriteContinuation(1, true, with(":path", "/x")[10:])
	_ = w.WriteGoAway(0, http2.ErrCodeNo, nil)
	f.Add(b.Bytes(), 3)
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		s := New(Options{TLS: &tls.Config{}, Log: slog.New(slog.DiscardHandler), MaxMessage: 1 << 10})
		open := 0
		s.HandleStream("/test.Echo/Both", func(st *Stream) (Handler, error) {
			open++
			return &counted{stream: st, open: &open}, nil
		})
		near, far := net.Pipe()
		go io.Copy(io.Discard, far) //nolint:errcheck // until the pipe ends
		c := newConn(s, newSocket(near), tls.Server(near, &tls.Config{}))
		s.conns[c] = struct{}{}
		c.state.Store(queued) // so that waking does nothing
		lend := &workspace{in: make([]byte, readSize)}
		c.space = lend
		cut = max(0, min(cut, len(data)))
		var err error
		for _, piece := range [][]byte{[]byte(preface), data[:cut], data[cut:]} {
			if err = c.take(piece); err != nil {
				break
			}
			for _, st := range c.streams {
				st.active = true
			}
			lend.out = lend.out[:0]
		}
		if len(c.streams) > s.options.MaxStreams || c.unfinished() > 2*s.options.MaxMessage+maxFrame || len(c.rest) > headSize+maxFrame {
			t.Errorf("%d streams, %d bytes of messages, %d bytes of a frame", len(c.streams), c.unfinished(), len(c.rest))
		}
		lend.out = nil
		c.end(io.EOF)
		far.Close()
		if open != 0 {
			t.Errorf("%d streams were not told of their end", open)
		}
		if err == nil && c.unfinished() != 0 {
			t.Errorf("%d bytes of messages count although no stream is left", c.unfinished())
		}
	})
}

// counted is a stream that knows whether it has ended.
type counted struct {
	stream *Stream
	open   *int
}

func (c *counted) Receive(m []byte) error { return nil }
func (c *counted) Next() (bool, error)    { return false, nil }
func (c *counted) Closed(error)           { *c.open-- }
