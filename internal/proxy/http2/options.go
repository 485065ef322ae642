package http2

import (
	"time"

	"github.com/weftmesh/weft/internal/proxy/http2/head"
)

// Options bound what a peer can make a connection hold or do. They are read only once given to a connection.
type Options struct {
	// HeadBytes bounds a head as SETTINGS_MAX_HEADER_LIST_SIZE counts (names, values and 32 for each field), Fields its field lines;
	// beyond either, a request is answered by 431 and a response refused. BlockBytes bounds a header block as it is on the wire:
	// beyond it the connection ends, because a block that is not decoded breaks the compression state.
	HeadBytes, Fields, BlockBytes int
	// MaxStreams bounds the streams at a time: those that a client may open here, or that we open.
	MaxStreams int
	// StreamWindow and ConnWindow bound the bytes of bodies that wait to be read, of a stream and of all.
	StreamWindow, ConnWindow int
	// TableBytes is the size of the table for decoding heads.
	TableBytes int
	// WriteBytes bounds the frames that wait to be written.
	WriteBytes int

	// IdleTimeout ends a server's connection that had no stream for so long; zero: never.
	IdleTimeout time.Duration
	// KeepAlive is how long a connection may be silent before it is asked by a PING; zero: it never is. PingTimeout is how long the
	// answer to any PING may take.
	KeepAlive, PingTimeout time.Duration
	// WriteStall is how long a write to the transport, or a stream's wait for the peer's window, may take. The transport's end is the
	// connection's, the window's the stream's.
	WriteStall time.Duration
	// HeadTime is how long a peer may take over the preface, a frame or a header block.
	HeadTime time.Duration

	// Resets bounds streams that ended by a reset which the peer made or caused, beyond those that ended well. Noise bounds, per
	// second, the frames that carry nothing: PING, SETTINGS, PRIORITY, empty DATA and the like.
	Resets, Noise int
}

// Refusal gives why a head of so many bytes and fields is too much, or nil. It is for requests of HTTP/3, too.
func (o *Options) Refusal(bytes, fields int) *Error { return o.limits().Refusal(bytes, fields) }

func (o *Options) limits() head.Limits { return head.Limits{Bytes: o.HeadBytes, Fields: o.Fields} }

// DefaultOptions are those of a connection that was given none.
func DefaultOptions() *Options { return &defaultOptions }

var defaultOptions = Options{
	HeadBytes: 60 << 10, Fields: 100, BlockBytes: 128 << 10,
	MaxStreams: 256, StreamWindow: 1 << 20, ConnWindow: 8 << 20, TableBytes: 4096, WriteBytes: 128 << 10,
	IdleTimeout: time.Hour, PingTimeout: 20 * time.Second, WriteStall: time.Minute, HeadTime: 30 * time.Second,
	Resets: 500, Noise: 2000,
}

// period is how often a connection looks at its clocks.
func (o *Options) period() time.Duration {
	p := 20 * time.Second
	for _, d := range []time.Duration{o.IdleTimeout, o.KeepAlive, o.PingTimeout, o.WriteStall, o.HeadTime} {
		if d > 0 {
			p = min(p, d)
		}
	}
	return max(p/4, 5*time.Millisecond)
}
