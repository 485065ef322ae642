package http2

import (
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/http2/block"
	"github.com/weftmesh/weft/internal/proxy/http2/head"
	"github.com/weftmesh/weft/internal/proxy/http2/hpack"
)

// core is what both sides of a connection share.
type core struct {
	// Set once.
	c      conn.Conn
	o      *Options
	server *ServerConn // one of the two
	client *ClientConn
	clock  *time.Timer // runs tick

	// Owned by the reading goroutine.
	in      *block.Block // unread bytes; nil while there are none
	bulk    bool         // the last read filled its buffer
	settled bool         // the peer's first SETTINGS have come
	dec     *hpack.Decoder
	scratch *head.Head
	part    partial
	noise   noise
	wakes   []chan struct{} // of streams for which this batch of frames had something
	starts  []*ServerStream // requests of this batch

	// waiting is set while the reader has a part of a frame or header block and waits for the rest.
	waiting atomic.Bool
	// batches counts the reads after which something was whole.
	batches atomic.Uint32

	mu sync.Mutex // guards what follows, and streams where they say so

	streams   map[uint32]*stream
	active    int    // streams that were begun and whose exchange has not ended
	counted   int    // those of them whose end the peer cannot know: see uncount
	last      uint32 // the highest stream that the peer began (server) or we did (client)
	closed    closedStreams
	resets    int // see Options.Resets
	paid      int // WINDOW_UPDATE and PING frames that what we sent accounts for
	err       error
	draining  bool   // no new streams, see the sides
	farewell  bool   // the final GOAWAY was sent
	finishing bool   // and our side of the transport was ended
	mute      bool   // a write has failed: no other may follow
	goAwayMax uint32 // the last stream that GOAWAY lets pass

	peer     settings
	sendWin  int64
	recvWin  int64
	unacked  int // consumed of recvWin and not given back
	stalled  []*stream
	enc      *hpack.Encoder
	out      output
	watchdog watchdog

	lower  []byte   // a name, while it is written
	digits [20]byte // a content-length
}

// settings are the peer's.
type settings struct {
	window   int64
	frame    int
	streams  int
	headList int
	connect  bool
}

// partial is a header block that has not come whole.
type partial struct {
	id     uint32
	flags  byte
	frames int
	buf    []byte
	self   bool // depends on itself
}

func (c *core) init(nc conn.Conn, o *Options) {
	if o == nil {
		o = &defaultOptions
	}
	c.c, c.o = nc, o
	c.dec = head.NewDecoder(o.TableBytes)
	c.enc = hpack.NewEncoder()
	c.scratch = head.New()
	c.streams = map[uint32]*stream{}
	c.peer = settings{window: defaultWindow, frame: minMaxFrame, streams: 1 << 30, headList: 1 << 30}
	c.sendWin, c.recvWin = defaultWindow, int64(max(o.ConnWindow, defaultWindow))
	c.goAwayMax = maxStreamID
	c.watchdog.idle = time.Now()
	c.announce()
}

// announce queues our SETTINGS and opens the connection's window.
func (c *core) announce() {
	c.room(200)
	b := c.out.buf
	if c.client != nil {
		b = append(b, clientPreface...)
	}
	at := len(b)
	b = appendFrame(b, 0, frameSettings, 0, 0)
	if c.client != nil {
		b = appendSetting(b, settingPush, 0)
	} else {
		b = appendSetting(b, settingStreams, c.o.MaxStreams)
		b = appendSetting(b, settingConnect, 1)
	}
	if c.o.TableBytes != 4096 {
		b = appendSetting(b, settingTable, c.o.TableBytes)
	}
	b = appendSetting(b, settingWindow, c.o.StreamWindow)
	b = appendSetting(b, settingHeadList, c.o.HeadBytes)
	b[at+2] = byte(len(b) - at - frameHeader)
	if n := c.o.ConnWindow - defaultWindow; n > 0 {
		b = appendWindow(b, 0, n)
	}
	c.out.buf = b
}

// run reads until the connection ends, and leaves nothing of it behind but the streams that are in use.
func (c *core) run() error {
	c.mu.Lock()
	c.clock = time.AfterFunc(c.o.period(), c.tick)
	c.flush(false)
	c.mu.Unlock()
	err := c.read()
	c.clock.Stop()
	return c.end(err)
}

func (c *core) read() error {
	if c.server != nil {
		if err := c.readPreface(); err != nil {
			return err
		}
	}
	for {
		if !c.settled && c.foreign() {
			return connError(ProtocolError, "not HTTP/2")
		}
		for got := false; ; got = true {
			n, err := c.frame()
			if err != nil {
				c.handOut()
				return err
			}
			if n == 0 {
				if got && c.part.id == 0 {
					c.batches.Add(1)
				}
				break
			}
		}
		c.handOut()
		if err := c.fill(); err != nil {
			return err
		}
	}
}

func (c *core) readPreface() error {
	for n := 0; n < len(clientPreface); {
		if err := c.fill(); err != nil {
			return err
		}
		got := c.in.B[c.in.R:c.in.W]
		if n = min(len(got), len(clientPreface)); string(got[:n]) != clientPreface[:n] {
			return connError(ProtocolError, "not the preface of HTTP/2")
		}
	}
	c.in.R += len(clientPreface)
	return nil
}

// foreign reports whether what a server has sent first is no frame: SETTINGS are shorter than 64 KiB, so that they begin with a zero.
// It is kept then, as far as it tells what the server speaks.
func (c *core) foreign() bool {
	if c.client == nil || c.in == nil || c.in.R == c.in.W || c.in.B[c.in.R] == 0 {
		return false
	}
	c.client.foreign = string(c.in.B[c.in.R:min(c.in.W, c.in.R+mostForeign)])
	return true
}

// mostForeign is how much of it is kept.
const mostForeign = 24

const (
	readSize = 60 << 10
	bulkSize = 130 << 10
)

// fill reads more bytes behind those that are no whole frame yet. Without any it waits holding no buffer.
func (c *core) fill() error {
	k := c.in
	if k != nil && k.R == k.W {
		block.Put(k)
		c.in, k = nil, nil
	}
	c.waiting.Store(k != nil || c.part.id != 0 || !c.settled)
	if k == nil {
		if c.scratch.Held() { // a head that nobody got
			c.scratch.Release()
		}
		if err := c.c.Wait(); err != nil {
			return err
		}
		size := readSize
		if c.bulk {
			size = bulkSize
		}
		k = block.Get(size)
		c.in = k
	} else if k.R > 0 {
		k.W = copy(k.B, k.B[k.R:k.W])
		k.R = 0
	}
	n, err := c.c.Read(k.B[k.W:])
	c.bulk = n == len(k.B)-k.W
	k.W += n
	if n > 0 {
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// handOut starts the requests, wakes the streams and sends the frames that a batch led to.
func (c *core) handOut() {
	begun := len(c.starts) > 0
	for i, st := range c.starts {
		c.starts[i] = nil
		c.server.start(st)
	}
	c.starts = c.starts[:0]
	for i, wake := range c.wakes {
		c.wakes[i] = nil
		signal(wake)
	}
	begun = begun || len(c.wakes) > 0
	c.wakes = c.wakes[:0]
	c.mu.Lock()
	if c.finishing {
		c.server.bear()
	}
	c.flush(begun)
	c.mu.Unlock()
}

// frame handles the next frame and gives its length, or 0 if it has not come whole.
func (c *core) frame() (int, error) {
	if c.in == nil || c.in.W-c.in.R < frameHeader {
		return 0, nil
	}
	b := c.in.B[c.in.R:c.in.W]
	length := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	if length > minMaxFrame {
		return 0, connError(FrameSizeError, "frame is larger than announced")
	}
	if len(b) < frameHeader+length {
		return 0, nil
	}
	c.in.R += frameHeader + length
	kind, flags, id := b[3], b[4], binary.BigEndian.Uint32(b[5:])&maxStreamID
	return frameHeader + length, c.dispatch(kind, flags, id, b[frameHeader:frameHeader+length:frameHeader+length])
}

func (c *core) dispatch(kind, flags byte, id uint32, p []byte) error {
	if c.part.id != 0 && (kind != frameContinuation || id != c.part.id) {
		return connError(ProtocolError, "header block is interrupted")
	}
	if !c.settled && (kind != frameSettings || flags&flagAck != 0) {
		return connError(ProtocolError, "no SETTINGS first")
	}
	switch kind {
	case frameData:
		return c.onData(id, flags, p)
	case frameHeaders:
		return c.onHeaders(id, flags, p)
	case frameContinuation:
		return c.onContinuation(id, flags, p)
	case frameRST:
		return c.onRST(id, p)
	case frameWindow:
		return c.onWindow(id, p)
	case frameSettings:
		return c.onSettings(id, flags, p)
	case framePing:
		return c.onPing(id, flags, p)
	case framePriority:
		return c.onPriority(id, p)
	case frameGoAway:
		return c.onGoAway(id, p)
	case framePush:
		return connError(ProtocolError, "PUSH_PROMISE is not enabled")
	}
	return c.noisy(1) // section 4.1: unknown types are ignored
}

// end tells the peer and the streams why the connection ends, and closes it.
func (c *core) end(err error) error {
	var broken *ConnError
	if !errors.As(err, &broken) {
		broken = &ConnError{Err: err}
	}
	c.mu.Lock()
	if c.err != nil { // Close, or a write that failed, came first
		err = c.err
	}
	if c.client != nil && !c.settled {
		c.client.unsettled = err
	}
	told := broken.Err == nil && !broken.Remote && (c.client == nil || c.client.foreign == "")
	if told {
		c.room(20)
		c.out.buf = appendGoAway(c.out.buf, c.lastPeer(), broken.Code)
		c.write()
	}
	idle := c.active == 0
	c.abandon(broken)
	if c.client != nil {
		c.client.dropFree()
	} else {
		c.server.dropFree()
	}
	c.mu.Unlock()
	if told && c.c.CloseWrite() == nil {
		c.linger()
	}
	if c.in != nil {
		block.Put(c.in)
		c.in = nil
	}
	c.c.Close()
	c.scratch.Release()
	if c.done(err, idle) {
		return nil
	}
	return err
}

// done reports whether err is the proper end of a connection.
func (c *core) done(err error, idle bool) bool {
	return c.finishing || err == errClosed || err == io.EOF && idle
}

var (
	errClosed = errors.New("http2: connection was closed")
	errShed   = errors.New("http2: connection was closed because memory is short and the peer does not read")
)

// abandon makes every stream fail. mu is held.
func (c *core) abandon(why *ConnError) {
	if c.err == nil {
		c.err = why
	}
	for _, st := range c.streams {
		st.fail(c.streamEnd(st, why))
	}
	if !c.out.writing {
		c.out.drop()
	}
	c.wakeStalled(false)
	if c.client != nil {
		c.client.reopen()
	}
}

func (c *core) streamEnd(st *stream, why *ConnError) error {
	if !st.unsent() {
		return why
	}
	e := *why
	e.untouched = true
	return &e
}

// linger reads on for a moment, so that the peer can take the GOAWAY: closing with unread input would reset the connection and
// destroy it (RFC 9112 section 9.6 says the same of HTTP/1.1).
func (c *core) linger() {
	c.c.SetReadDeadline(time.Now().Add(time.Second))
	k := block.Get(16 << 10)
	defer block.Put(k)
	for total := 0; total < 1<<20; {
		n, err := c.c.Read(k.B)
		if total += n; err != nil {
			return
		}
	}
}

// close ends the connection at once.
func (c *core) close(why error) {
	c.mu.Lock()
	c.abandonOnce(why)
	c.mu.Unlock()
	c.c.Close()
}

func (c *core) abandonOnce(why error) {
	if c.err == nil {
		c.err = why
		c.abandon(&ConnError{Err: why})
	}
}

// lastPeer is what a GOAWAY of ours names. mu is held.
func (c *core) lastPeer() uint32 {
	if c.client != nil {
		return 0
	}
	return min(c.last, c.goAwayMax)
}
