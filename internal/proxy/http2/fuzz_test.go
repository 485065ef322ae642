package http2

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"sync"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	xhpack "golang.org/x/net/http2/hpack"

	"github.com/weftmesh/weft/internal/proxy/message"
)

// tape is a Conn that plays what a peer sends and keeps what it is sent.
type tape struct {
	mu     sync.Mutex
	in     []byte
	step   int // bytes per Read; zero: all there are
	out    bytes.Buffer
	closed bool
}

func (p *tape) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.in) == 0 || p.closed {
		return 0, io.EOF
	}
	n := min(len(b), len(p.in))
	if p.step > 0 {
		n = min(n, p.step)
	}
	copy(b, p.in[:n])
	p.in = p.in[n:]
	return n, nil
}

func (p *tape) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, io.ErrClosedPipe
	}
	return p.out.Write(b)
}

func (p *tape) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return nil
}

func (p *tape) Wait() error                      { return nil }
func (p *tape) CloseWrite() error                { return nil }
func (p *tape) SetReadDeadline(time.Time) error  { return nil }
func (p *tape) SetWriteDeadline(time.Time) error { return nil }
func (p *tape) LocalAddr() netip.AddrPort        { return netip.AddrPort{} }
func (p *tape) RemoteAddr() netip.AddrPort       { return netip.AddrPort{} }

// frames writes a seed with x/net's framer.
func frames(f *testing.F, write func(*xhttp2.Framer, func(...string) []byte) error) []byte {
	f.Helper()
	var b bytes.Buffer
	var block bytes.Buffer
	enc := xhpack.NewEncoder(&block)
	head := func(pairs ...string) []byte {
		block.Reset()
		for i := 0; i < len(pairs); i += 2 {
			if err := enc.WriteField(xhpack.HeaderField{Name: pairs[i], Value: pairs[i+1]}); err != nil {
				f.Fatal(err)
			}
		}
		return bytes.Clone(block.Bytes())
	}
	if err := write(xhttp2.NewFramer(&b, nil), head); err != nil {
		f.Fatal(err)
	}
	return b.Bytes()
}

// checkOutput reads with x/net what we have written: whatever a peer sends, we answer by the rules.
func checkOutput(t *testing.T, out []byte) {
	t.Helper()
	fr := xhttp2.NewFramer(io.Discard, bytes.NewReader(out))
	fr.ReadMetaHeaders = xhpack.NewDecoder(65536, nil)
	for {
		if _, err := fr.ReadFrame(); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return // the connection may be closed within a frame
			}
			t.Fatalf("x/net cannot read what we wrote: %v\n%x", err, out)
		}
	}
}

// FuzzServer sends frames to a server: it ends, with its handlers, and has written frames.
func FuzzServer(f *testing.F) {
	get := []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"}
	f.Add(frames(f, func(fr *xhttp2.Framer, head func(...string) []byte) error {
		return errors.Join(fr.WriteSettings(), fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: head(get...), EndHeaders: true, EndStream: true}))
	}), false)
	f.Add(frames(f, func(fr *xhttp2.Framer, head func(...string) []byte) error {
		block := head(":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/x", "content-length", "5", "te", "trailers")
		return errors.Join(fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 10}), fr.WriteSettingsAck(),
			fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:5]}), fr.WriteContinuation(1, true, block[5:]),
			fr.WriteDataPadded(1, false, []byte("hel"), make([]byte, 9)), fr.WriteData(1, false, []byte("lo")),
			fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: head("t", "v"), EndHeaders: true, EndStream: true}),
			fr.WriteWindowUpdate(0, 100), fr.WriteWindowUpdate(1, 100), fr.WritePing(false, [8]byte{1}))
	}), true)
	f.Add(frames(f, func(fr *xhttp2.Framer, head func(...string) []byte) error {
		return errors.Join(fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingMaxFrameSize, Val: 20000}, xhttp2.Setting{ID: xhttp2.SettingHeaderTableSize, Val: 0}),
			fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 3, BlockFragment: head(get...), EndHeaders: true, PadLength: 3,
				Priority: xhttp2.PriorityParam{StreamDep: 1, Weight: 3}}),
			fr.WritePriority(5, xhttp2.PriorityParam{StreamDep: 3}), fr.WriteRSTStream(3, xhttp2.ErrCodeCancel),
			fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 5, EndHeaders: true, BlockFragment: head(":method", "CONNECT", ":protocol", "websocket",
				":scheme", "http", ":authority", "a", ":path", "/")}),
			fr.WriteRawFrame(0x42, 0xff, 7, []byte("unknown")), fr.WriteGoAway(5, xhttp2.ErrCodeNo, []byte("bye")))
	}), false)
	f.Fuzz(func(t *testing.T, in []byte, slow bool) {
		p := &tape{in: append([]byte(xhttp2.ClientPreface), in...)}
		if slow {
			p.step = 3
		}
		s := NewServerConn(p, "http", nil)
		s.Serve(echo) // whatever it returns, it does
		checkOutput(t, p.out.Bytes())
		if n := s.Streams(); n != 0 {
			t.Fatalf("%d streams are left", n)
		}
	})
}

// FuzzClient sends frames to a client that has two requests under way: both end, and it has written frames.
func FuzzClient(f *testing.F) {
	f.Add(frames(f, func(fr *xhttp2.Framer, head func(...string) []byte) error {
		return errors.Join(fr.WriteSettings(), fr.WriteSettingsAck(),
			fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: head(":status", "200", "content-length", "5"), EndHeaders: true}),
			fr.WriteData(1, true, []byte("hello")),
			fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 3, BlockFragment: head(":status", "103", "link", "x"), EndHeaders: true}),
			fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 3, BlockFragment: head(":status", "404"), EndHeaders: true, EndStream: true}))
	}))
	f.Add(frames(f, func(fr *xhttp2.Framer, head func(...string) []byte) error {
		return errors.Join(fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 1}), fr.WritePing(false, [8]byte{1}),
			fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: head(":status", "200"), EndHeaders: true}),
			fr.WriteData(1, false, []byte("x")),
			fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: head("grpc-status", "0"), EndHeaders: true, EndStream: true}),
			fr.WriteRSTStream(3, xhttp2.ErrCodeRefusedStream), fr.WritePushPromise(xhttp2.PushPromiseParam{StreamID: 1, PromiseID: 2,
				BlockFragment: head(":method", "GET"), EndHeaders: true}), fr.WriteGoAway(1, xhttp2.ErrCodeEnhanceYourCalm, nil))
	}))
	f.Fuzz(func(t *testing.T, in []byte) {
		p := &tape{in: in}
		c := NewClientConn(p, nil)
		var streams sync.WaitGroup
		for range 2 {
			st, err := c.Open()
			if err != nil {
				t.Fatal(err)
			}
			streams.Go(func() { // ends with the connection
				ask(st)
			})
		}
		c.Run()
		streams.Wait()
		checkOutput(t, bytes.TrimPrefix(p.out.Bytes(), []byte(xhttp2.ClientPreface)))
		if n := c.Streams(); n != 0 {
			t.Fatalf("%d streams are left", n)
		}
	})
}

// ask makes a request and reads the answer as far as there is one.
func ask(st *ClientStream) {
	defer st.EndExchange()
	r := message.Request{Method: "POST", Scheme: "http", Authority: "a", Path: "/", Body: message.Body{Kind: message.Chunked}}
	if st.WriteRequest(&r) != nil || st.WriteBody([]byte("hello")) != nil || st.FinishBody(nil) != nil {
		return
	}
	var res message.Response
	for {
		if st.ReadResponse(&res) != nil {
			return
		}
		if res.Status >= 200 || res.Status == 101 {
			break
		}
	}
	readAll(st)
}
