package rpc

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// raw is a client that writes frames as it likes.
type raw struct {
	t      *testing.T
	conn   *tls.Conn
	framer *http2.Framer
}

func (r *rig) raw() *raw {
	r.t.Helper()
	c, err := tls.Dial("tcp", r.address, r.clientTLS(time.Hour))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		r.t.Fatal(err)
	}
	w := &raw{t: r.t, conn: c, framer: http2.NewFramer(c, c)}
	w.framer.AllowIllegalWrites = true
	w.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	return w
}

func (w *raw) greet() *raw {
	w.t.Helper()
	if _, err := io.WriteString(w.conn, preface); err != nil {
		w.t.Fatal(err)
	}
	if err := w.framer.WriteSettings(); err != nil {
		w.t.Fatal(err)
	}
	return w
}

// fields encodes fields, given as name, value, name, value.
func fields(pairs ...string) []byte {
	var b []byte
	for i := 0; i < len(pairs); i += 2 {
		b = appendField(b, pairs[i], pairs[i+1])
	}
	return b
}

var request = []string{":method", "POST", ":path", "/test.Echo/Both", ":scheme", "https", ":authority", "localhost", "content-type", "application/grpc", "te", "trailers"}

// with gives the request with one field of another value; "" leaves it out.
func with(name, value string) []byte {
	var out []string
	for i := 0; i < len(request); i += 2 {
		switch {
		case request[i] != name:
			out = append(out, request[i], request[i+1])
		case value != "":
			out = append(out, name, value)
		}
	}
	return fields(out...)
}

func (w *raw) headers(stream uint32, b []byte) {
	_ = w.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: b, EndHeaders: true})
}

// outcome reads until the stream or the connection ends, and says how.
func (w *raw) outcome() string {
	for {
		f, err := w.framer.ReadFrame()
		switch f := f.(type) {
		case nil:
			var e *net.OpError
			if errors.Is(err, io.EOF) || errors.As(err, &e) && !e.Timeout() {
				return "closed"
			}
			return fmt.Sprint(err)
		case *http2.GoAwayFrame:
			return "goaway " + f.ErrCode.String()
		case *http2.RSTStreamFrame:
			return "reset " + f.ErrCode.String()
		case *http2.MetaHeadersFrame:
			if f.StreamEnded() {
				return "status " + f.PseudoValue("status") + field(f, "grpc-status")
			}
		}
	}
}

func field(f *http2.MetaHeadersFrame, name string) string {
	for _, x := range f.RegularFields() {
		if x.Name == name {
			return " grpc " + x.Value
		}
	}
	return ""
}

// TestRequestsThatAreNone sends what no client of gRPC sends (RFC 9113, section 8; gRPC over HTTP/2).
func TestRequestsThatAreNone(t *testing.T) {
	r := newRig(t, Options{})
	for name, c := range map[string]struct {
		block []byte
		want  string
	}{
		"no path":               {with(":path", ""), "reset PROTOCOL_ERROR"},
		"no method":             {with(":method", ""), "reset PROTOCOL_ERROR"},
		"a path twice":          {append(fields(":path", "/x"), with("", "")...), "reset PROTOCOL_ERROR"},
		"an unknown pseudo":     {append(fields(":what", "x"), with("", "")...), "reset PROTOCOL_ERROR"},
		"a pseudo at the end":   {append(with(":path", ""), fields(":path", "/x")...), "reset PROTOCOL_ERROR"},
		"capital letters":       {append(with("", ""), fields("X-Y", "z")...), "reset PROTOCOL_ERROR"},
		"a line break":          {append(with("", ""), fields("x", "a\r\nb")...), "reset PROTOCOL_ERROR"},
		"connection":            {append(with("", ""), fields("connection", "close")...), "reset PROTOCOL_ERROR"},
		"transfer-encoding":     {append(with("", ""), fields("transfer-encoding", "chunked")...), "reset PROTOCOL_ERROR"},
		"te":                    {with("te", "gzip"), "reset PROTOCOL_ERROR"},
		"bad base64":            {append(with("", ""), fields("x-bin", "!")...), "reset PROTOCOL_ERROR"},
		"GET":                   {with(":method", "GET"), "status 405 grpc 13"},
		"JSON":                  {with("content-type", "application/json"), "status 415 grpc 13"},
		"gRPC with JSON":        {with("content-type", "application/grpc+json"), "status 415 grpc 13"},
		"a method nobody knows": {with(":path", "/a.B/C"), "status 200 grpc 12"},
		"compression":           {append(with("", ""), fields("grpc-encoding", "gzip")...), "status 200 grpc 12"},
		"a large head":          {append(with("", ""), fields("x", strings.Repeat("y", 15<<10), "z", strings.Repeat("y", 2<<10))...), "status 431 grpc 13"},
		"a bad time-out":        {append(with(":path", "/grpc.health.v1.Health/Check"), fields("grpc-timeout", "5x")...), "status 200 grpc 13"},
	} {
		w := r.raw().greet()
		if name == "a large head" {
			_ = w.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.block[:maxFrame]})
			_ = w.framer.WriteContinuation(1, true, c.block[maxFrame:])
		} else {
			w.headers(1, c.block)
		}
		if got := w.outcome(); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

// TestViolations break the protocol; each ends the connection with its code (RFC 9113, section 5 and 6).
func TestViolations(t *testing.T) {
	r := newRig(t, Options{})
	good := with("", "")
	for name, c := range map[string]struct {
		do   func(*raw)
		want string
	}{
		"a frame too large":      {func(w *raw) { _ = w.framer.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, maxFrame+1)) }, "goaway FRAME_SIZE_ERROR"},
		"DATA on an idle stream": {func(w *raw) { _ = w.framer.WriteData(1, false, []byte("x")) }, "goaway PROTOCOL_ERROR"},
		"DATA on stream 0":       {func(w *raw) { _ = w.framer.WriteRawFrame(http2.FrameData, 0, 0, nil) }, "goaway PROTOCOL_ERROR"},
		"an even stream":         {func(w *raw) { w.headers(2, good) }, "goaway PROTOCOL_ERROR"},
		"a stream that went by":  {func(w *raw) { w.headers(5, good); w.headers(3, good) }, "goaway STREAM_CLOSED"},
		"HEADERS twice":          {func(w *raw) { w.headers(1, good); w.headers(1, good) }, "goaway STREAM_CLOSED"},
		"CONTINUATION alone":     {func(w *raw) { _ = w.framer.WriteContinuation(1, true, good) }, "goaway PROTOCOL_ERROR"},
		"an interrupted block": {func(w *raw) {
			_ = w.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: good})
			_ = w.framer.WritePing(false, [8]byte{})
		}, "goaway PROTOCOL_ERROR"},
		"a block without end":     {func(w *raw) { endless(w) }, "goaway ENHANCE_YOUR_CALM"},
		"bad HPACK":               {func(w *raw) { w.headers(1, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}) }, "goaway COMPRESSION_ERROR"},
		"PUSH_PROMISE":            {func(w *raw) { _ = w.framer.WriteRawFrame(http2.FramePushPromise, 0, 1, make([]byte, 4)) }, "goaway PROTOCOL_ERROR"},
		"half a PING":             {func(w *raw) { _ = w.framer.WriteRawFrame(http2.FramePing, 0, 0, make([]byte, 4)) }, "goaway FRAME_SIZE_ERROR"},
		"PING on a stream":        {func(w *raw) { _ = w.framer.WriteRawFrame(http2.FramePing, 0, 1, make([]byte, 8)) }, "goaway PROTOCOL_ERROR"},
		"half SETTINGS":           {func(w *raw) { _ = w.framer.WriteRawFrame(http2.FrameSettings, 0, 0, make([]byte, 5)) }, "goaway FRAME_SIZE_ERROR"},
		"SETTINGS on a stream":    {func(w *raw) { _ = w.framer.WriteRawFrame(http2.FrameSettings, 0, 1, nil) }, "goaway PROTOCOL_ERROR"},
		"an answer with SETTINGS": {func(w *raw) { _ = w.framer.WriteRawFrame(http2.FrameSettings, 1, 0, make([]byte, 6)) }, "goaway FRAME_SIZE_ERROR"},
		"a window too large": {func(w *raw) {
			_ = w.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31})
		}, "goaway FLOW_CONTROL_ERROR"},
		"a frame size too small": {func(w *raw) { _ = w.framer.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 100}) }, "goaway PROTOCOL_ERROR"},
		"a push of 2":            {func(w *raw) { _ = w.framer.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 2}) }, "goaway PROTOCOL_ERROR"},
		"WINDOW_UPDATE of 0":     {func(w *raw) { _ = w.framer.WriteRawFrame(http2.FrameWindowUpdate, 0, 0, make([]byte, 4)) }, "goaway PROTOCOL_ERROR"},
		"windows that overflow":  {func(w *raw) { _ = w.framer.WriteWindowUpdate(0, maxWindow) }, "goaway FLOW_CONTROL_ERROR"},
		"a stream's of 0": {func(w *raw) {
			w.headers(1, good)
			_ = w.framer.WriteRawFrame(http2.FrameWindowUpdate, 0, 1, make([]byte, 4))
		}, "reset PROTOCOL_ERROR"},
		"a stream's that overflows": {func(w *raw) { w.headers(1, good); _ = w.framer.WriteWindowUpdate(1, maxWindow) }, "reset FLOW_CONTROL_ERROR"},
		"WINDOW_UPDATE of an idle":  {func(w *raw) { _ = w.framer.WriteWindowUpdate(7, 1) }, "goaway PROTOCOL_ERROR"},
		"RST_STREAM of an idle":     {func(w *raw) { _ = w.framer.WriteRSTStream(7, 0) }, "goaway PROTOCOL_ERROR"},
		"half a PRIORITY":           {func(w *raw) { _ = w.framer.WriteRawFrame(http2.FramePriority, 0, 1, make([]byte, 4)) }, "goaway FRAME_SIZE_ERROR"},
		"padding of more than all": {func(w *raw) {
			w.headers(1, good)
			_ = w.framer.WriteRawFrame(http2.FrameData, flagPadded, 1, []byte{9, 1})
		}, "goaway PROTOCOL_ERROR"},
		"a stream on itself": {func(w *raw) {
			_ = w.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: good, EndHeaders: true, Priority: http2.PriorityParam{StreamDep: 1, Weight: 1}})
		}, "goaway PROTOCOL_ERROR"},
		"DATA after the end":     {func(w *raw) { held(w); _ = w.framer.WriteData(1, false, []byte("x")) }, "goaway STREAM_CLOSED"},
		"a compressed message":   {func(w *raw) { w.headers(1, good); _ = w.framer.WriteData(1, false, []byte{1, 0, 0, 0, 1, 7}) }, "status 200 grpc 13"},
		"half a message":         {func(w *raw) { w.headers(1, good); _ = w.framer.WriteData(1, true, []byte{0, 0, 0, 0, 9, 7}) }, "status 200 grpc 13"},
		"too many half messages": {func(w *raw) { halves(w) }, "goaway ENHANCE_YOUR_CALM"},
		"an unknown frame, and PING": {func(w *raw) {
			_ = w.framer.WriteRawFrame(99, 7, 3, []byte("x"))
			_ = w.framer.WriteRawFrame(http2.FramePing, 0, 0, nil)
		}, "goaway FRAME_SIZE_ERROR"},
	} {
		w := r.raw().greet()
		c.do(w)
		if got := w.outcome(); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
	close(r.release)
}

// endless begins a header block that has no end.
func endless(w *raw) {
	_ = w.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: fields(":method", "POST")})
	for range 10 {
		_ = w.framer.WriteContinuation(1, false, make([]byte, 10<<10))
	}
}

// held calls a method that does not answer yet, and sends no more.
func held(w *raw) {
	w.headers(1, with(":path", "/grpc.health.v1.Health/Check"))
	_ = w.framer.WriteData(1, true, append([]byte{0, 0, 0, 0, 6, 10, 4}, "held"...))
}

// halves begins large messages on many streams.
func halves(w *raw) {
	for i := range uint32(100) {
		w.headers(2*i+1, with("", ""))
		if w.framer.WriteData(2*i+1, false, append([]byte{0, 0, 0x3f, 0xff, 0xff}, make([]byte, 16000)...)) != nil {
			return
		}
	}
	for range 40 {
		for i := range uint32(100) {
			if w.framer.WriteData(2*i+1, false, make([]byte, 16000)) != nil {
				return
			}
		}
	}
}

func TestPrefaceIsRequired(t *testing.T) {
	r := newRig(t, Options{})
	for _, first := range []string{"GET / HTTP/1.1\r\n\r\n", preface + "\x00\x00\x08\x06\x00\x00\x00\x00\x00weftweft"} {
		w := r.raw()
		_, _ = io.WriteString(w.conn, first)
		if got := w.outcome(); got != "goaway PROTOCOL_ERROR" {
			t.Errorf("%.10q: got %s", first, got)
		}
	}
}

// TestBytewise sends everything byte by byte.
func TestBytewise(t *testing.T) {
	r := newRig(t, Options{})
	w := r.raw()
	var b bytes.Buffer
	b.WriteString(preface)
	f := http2.NewFramer(&b, nil)
	_ = f.WriteSettings()
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: with("", ""), EndHeaders: true, PadLength: 7})
	_ = f.WriteDataPadded(1, false, []byte{0, 0, 0, 0, 5, 'h', 'e'}, make([]byte, 9))
	_ = f.WriteData(1, false, []byte{'l', 'l', 'o'})
	for _, x := range b.Bytes() {
		if _, err := w.conn.Write([]byte{x}); err != nil {
			t.Fatal(err)
		}
	}
	for {
		f, err := w.framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if d, ok := f.(*http2.DataFrame); ok {
			if got := string(d.Data()); got != "\x00\x00\x00\x00\x05hello" {
				t.Errorf("got %q", got)
			}
			return
		}
	}
}

// TestFloodIsReadSlowly opens and resets streams for as long as it is let.
func TestFloodIsReadSlowly(t *testing.T) {
	r := newRig(t, Options{})
	w := r.raw().greet()
	go io.Copy(io.Discard, w.conn) //nolint:errcheck // until the connection ends
	start := time.Now()
	if err := w.conn.SetWriteDeadline(start.Add(2 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; w.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*n + 1), BlockFragment: with("", ""), EndHeaders: true}) == nil; n++ {
		if w.framer.WriteRSTStream(uint32(2*n+1), http2.ErrCodeCancel) != nil {
			break
		}
	}
	r.mu.Lock()
	opened := len(r.echoes)
	r.mu.Unlock()
	// A burst, and what the time is worth, which may be much longer on a busy machine.
	took := time.Since(start)
	if limit := 2 * (paceBurst + int((took+2*time.Second).Seconds()*paceRate)) / (2 + 2*costMessage); opened > limit {
		t.Errorf("%d streams were opened in %v, more than %d", opened, took, limit)
	}
	s := r.open(r.context(), r.dial(time.Hour))
	send(t, s, []byte("hello"))
	recv(t, s)
}

// TestSilentConnections: one that answers pings stays, one that does not is closed.
func TestSilentConnections(t *testing.T) {
	r := newRig(t, Options{Keepalive: 200 * time.Millisecond, KeepaliveTimeout: 10 * time.Second}) // answers may be late on a busy machine
	lively, dead := r.raw().greet(), r.raw().greet()
	closed := make(chan string, 1)
	go func() { closed <- dead.outcome() }() // ends with the connection
	for after := 0; after < 2; {
		f, err := lively.framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		p, ok := f.(*http2.PingFrame)
		if !ok || p.IsAck() {
			continue
		}
		if err := lively.framer.WritePing(true, p.Data); err != nil {
			t.Fatal(err)
		}
		if after > 0 {
			after++
			continue
		}
		select {
		case got := <-closed:
			if after++; got != "closed" {
				t.Errorf("got %s", got)
			}
		default:
		}
	}
}

// TestHandshakeThatIsNone: who does not speak TLS, or not HTTP/2, is turned away.
func TestHandshakeThatIsNone(t *testing.T) {
	r := newRig(t, Options{HandshakeTimeout: 200 * time.Millisecond})
	c, err := net.Dial("tcp", r.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Errorf("a silent connection: %v", err)
	}
	r = newRig(t, Options{})
	config := r.clientTLS(time.Hour)
	config.NextProtos = nil
	u, err := tls.Dial("tcp", r.address, config)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if err := u.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, u); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("without HTTP/2: %v", err)
	}
}
