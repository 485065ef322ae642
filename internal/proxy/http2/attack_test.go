package http2

import (
	"bytes"
	"errors"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/weftmesh/weft/internal/proxy/message"
)

// wait keeps a request in flight until its client leaves.
func wait(s *ServerStream) { <-s.Gone() }

// refuseLarge answers what is to be refused, and all else with 200.
func refuseLarge(s *ServerStream) {
	status := 200
	if e := s.Refusal(); e != nil {
		status = e.Status
	}
	readAll(s)
	s.WriteResponse(&message.Response{Status: status})
	s.FinishBody(nil)
}

// TestFloods sends each kind of frame that costs more than it carries until the server has had enough.
func TestFloods(t *testing.T) {
	for _, c := range []struct {
		name   string
		handle func(*ServerStream)
		send   func(p *raw, i int) error
	}{
		{"rapid reset", wait, func(p *raw, i int) error {
			id := uint32(2*i + 1)
			p.headers(id, true, plainGet...)
			return p.fr.WriteRSTStream(id, xhttp2.ErrCodeCancel)
		}},
		{"made you reset by window 0", wait, func(p *raw, i int) error {
			id := uint32(2*i + 1)
			p.headers(id, true, plainGet...)
			return p.fr.WriteWindowUpdate(id, 0)
		}},
		{"made you reset by overflow", wait, func(p *raw, i int) error {
			id := uint32(2*i + 1)
			p.headers(id, true, plainGet...)
			return p.fr.WriteWindowUpdate(id, maxWindow)
		}},
		{"made you reset by DATA after the end", wait, func(p *raw, i int) error {
			id := uint32(2*i + 1)
			p.headers(id, true, plainGet...)
			return p.fr.WriteData(id, true, nil)
		}},
		{"malformed requests", wait, func(p *raw, i int) error {
			p.headers(uint32(2*i+1), true, ":method", "GET")
			return nil
		}},
		{"streams beyond the limit", wait, func(p *raw, i int) error {
			p.headers(uint32(2*i+1), true, plainGet...)
			return nil
		}},
		{"SETTINGS", wait, func(p *raw, i int) error { return p.fr.WriteSettings() }},
		{"SETTINGS answers", wait, func(p *raw, i int) error { return p.fr.WriteSettingsAck() }},
		{"PING", wait, func(p *raw, i int) error { return p.fr.WritePing(false, [8]byte{1}) }},
		{"PING answers", wait, func(p *raw, i int) error { return p.fr.WritePing(true, [8]byte{1}) }},
		{"PRIORITY", wait, func(p *raw, i int) error { return p.fr.WritePriority(1, xhttp2.PriorityParam{StreamDep: 3}) }},
		{"unknown frames", wait, func(p *raw, i int) error { return p.fr.WriteRawFrame(0x77, 0, 0, nil) }},
		{"WINDOW_UPDATE", wait, func(p *raw, i int) error { return p.fr.WriteWindowUpdate(0, 1) }},
		{"empty DATA", wait, func(p *raw, i int) error {
			if i == 0 {
				p.headers(1, false, plainGet...)
			}
			return p.fr.WriteData(1, false, nil)
		}},
		{"padding alone", wait, func(p *raw, i int) error {
			if i == 0 {
				p.headers(1, false, plainGet...)
			}
			return p.fr.WriteDataPadded(1, false, nil, make([]byte, 8))
		}},
		{"GOAWAY", wait, func(p *raw, i int) error { return p.fr.WriteGoAway(0, 0, nil) }},
		{"CONTINUATION without an end", wait, func(p *raw, i int) error {
			if i == 0 {
				return p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: p.fields(plainGet...)})
			}
			return p.fr.WriteContinuation(1, false, nil)
		}},
		{"CONTINUATION with fields", wait, func(p *raw, i int) error {
			if i == 0 {
				return p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: p.fields(plainGet...)})
			}
			return p.fr.WriteContinuation(1, false, bytes.Repeat([]byte{0x82}, 1000))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := rawClient(t, nil, c.handle)
			var got int
			over := make(chan struct{})
			go func() {
				got = p.goAway()
				close(over)
			}()
			deadline := time.Now().Add(2 * time.Minute)
			p.nc.SetWriteDeadline(deadline)
			sent := 0
			for ; !ended(over); sent++ {
				if err := flood(p, c.send, sent); err != nil {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("the server goes along with it")
				}
			}
			if <-over; got != int(EnhanceYourCalm) {
				t.Errorf("GOAWAY %v after %d", ErrCode(got), sent)
			}
			p.nc.Close()
			var ce *ConnError
			if err := <-p.done; !errors.As(err, &ce) || ce.Code != EnhanceYourCalm {
				t.Errorf("Serve: %v", err)
			}
		})
	}
}

// ended reports whether c was closed, after giving others their turn.
func ended(c chan struct{}) bool {
	runtime.Gosched()
	select {
	case <-c:
		return true
	default:
		return false
	}
}

type stop struct{ testing.TB }

func (stop) Fatal(a ...any) { panic(errors.New("write failed")) }
func (stop) Helper()        {}

// flood turns a failed write into an error.
func flood(p *raw, send func(*raw, int) error, i int) (err error) {
	defer func(t testing.TB) {
		p.t = t
		if r := recover(); r != nil {
			err = r.(error)
		}
	}(p.t)
	p.t = stop{p.t}
	return send(p, i)
}

// TestCancelledNowAndThen: a client that gives up some of its requests is no attacker.
func TestCancelledNowAndThen(t *testing.T) {
	p := rawClient(t, &Options{BlockBytes: 1 << 10, HeadBytes: 1 << 10, Fields: 100, MaxStreams: 10, StreamWindow: 1 << 16,
		ConnWindow: 1 << 16, TableBytes: 4096, WriteBytes: 4096, Resets: 5, Noise: 1000}, refuseLarge)
	for i := range 200 {
		id := uint32(4*i + 1)
		p.headers(id, false, plainGet...)
		p.must(p.fr.WriteRSTStream(id, xhttp2.ErrCodeCancel))
		p.headers(id+2, true, plainGet...)
		if got := p.status(id + 2); got != "200" {
			t.Fatal(got)
		}
	}
}

// TestRoomForAnotherStream: an end that the client has seen makes room at once, whatever the handler still does; a reset does not, or
// resets would make the server carry any number of requests.
func TestRoomForAnotherStream(t *testing.T) {
	const most = 4
	leave, begun := make(chan struct{}), make(chan string, 2*most)
	defer close(leave)
	o := *DefaultOptions()
	o.MaxStreams = most
	p := rawClient(t, &o,
		func(s *ServerStream) {
			if s.Request().Path == "/answered" && (s.WriteResponse(&message.Response{Status: 200}) != nil || s.FinishBody(nil) != nil) {
				t.Error("no answer")
			}
			begun <- s.Request().Path
			<-leave
		})
	id := uint32(1)
	ask := func(path string) uint32 {
		defer func() { id += 2 }()
		p.headers(id, true, ":method", "GET", ":scheme", "http", ":authority", "a", ":path", path)
		return id
	}
	for range most {
		if code := p.rst(ask("/answered")); code != -1 {
			t.Fatalf("an answered stream was reset by %d", code)
		}
		<-begun
	}
	for range most {
		id := ask("/hangs")
		select {
		case <-begun:
		case <-time.After(2 * time.Minute):
			t.Fatal("a stream is not taken in place of one that was answered")
		}
		p.must(p.fr.WriteRSTStream(id, xhttp2.ErrCodeCancel))
	}
	if code := p.rst(ask("/answered")); code != int(RefusedStream) {
		t.Fatalf("%d beyond the streams that were reset", code)
	}
}

// TestHandlersAreBounded: those that still tidy up have a limit too.
func TestHandlersAreBounded(t *testing.T) {
	const most = 4
	leave := make(chan struct{})
	defer close(leave)
	o := *DefaultOptions()
	o.MaxStreams = most
	p := rawClient(t, &o,
		func(s *ServerStream) {
			s.WriteResponse(&message.Response{Status: 200})
			s.FinishBody(nil)
			<-leave
		})
	for i := range uint32(2*most + 1) {
		p.headers(2*i+1, true, plainGet...)
		want := -1
		if i == 2*most {
			want = int(RefusedStream)
		}
		if code := p.rst(2*i + 1); code != want {
			t.Fatalf("request %d: %d, want %d", i+1, code, want)
		}
	}
}

// TestUnreadAnswers: a client that does not read cannot make the server keep answers for it.
func TestUnreadAnswers(t *testing.T) {
	o := *DefaultOptions()
	o.Noise, o.WriteBytes = 1<<30, 8<<10
	p := rawClient(t, &o, wait)
	p.nc.SetWriteDeadline(time.Now().Add(2 * time.Minute))
	ping := appendPing(nil, 0, 7)
	for range 1 << 20 {
		if _, err := p.nc.Write(ping); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("the server stopped reading instead of ending the connection")
			}
			break
		}
	}
	p.nc.Close()
	if err := <-p.done; err == nil {
		t.Error("no error")
	}
}

// TestLargeHeads: what is too large is answered by 431, and the compression state is kept.
func TestLargeHeads(t *testing.T) {
	var why []string
	p := rawClient(t, nil, func(s *ServerStream) {
		if e := s.Refusal(); e != nil {
			why = append(why, e.Reason) // one stream at a time
		}
		refuseLarge(s)
	})
	bomb := with(plainGet, "x-bomb", strings.Repeat("b", 3000))
	p.headers(1, true, bomb...)
	if got := p.status(1); got != "200" {
		t.Fatal(got)
	}
	for range 40 {
		bomb = with(bomb, "x-bomb", strings.Repeat("b", 3000))
	}
	p.headers(3, true, bomb...) // a few bytes on the wire
	if got := p.status(3); got != "431" {
		t.Error(got)
	}
	many := plainGet
	for range 101 {
		many = with(many, "x", "y")
	}
	p.headers(5, false, many...) // 431 although a body was to come
	p.must(p.fr.WriteData(5, true, []byte("body")))
	if got := p.status(5); got != "431" {
		t.Error(got)
	}
	p.headers(7, true, with(plainGet, "x-new", "is decoded by the table of before")...)
	if got := p.status(7); got != "200" {
		t.Error(got)
	}
	if !slices.Equal(why, []string{"head is too large", "too many fields"}) {
		t.Errorf("refused for %q", why)
	}
}

// TestMalformedRequests: each is reset by PROTOCOL_ERROR without reaching the handler, and the connection goes on.
func TestMalformedRequests(t *testing.T) {
	p := rawClient(t, nil, refuseLarge)
	id := uint32(1)
	for name, kv := range map[string][]string{
		"empty name":                  with(plainGet, "", "x"),
		"upper case":                  with(plainGet, "X-Upper", "x"),
		"space in a name":             with(plainGet, "x y", "x"),
		"colon in a name":             with(plainGet, "x:y", "x"),
		"line break in a value":       with(plainGet, "x", "a\r\nb: c"),
		"NUL in a value":              with(plainGet, "x", "a\x00"),
		"space around a value":        with(plainGet, "x", " a"),
		"connection":                  with(plainGet, "connection", "close"),
		"transfer-encoding":           with(plainGet, "transfer-encoding", "chunked"),
		"upgrade":                     with(plainGet, "upgrade", "websocket"),
		"keep-alive":                  with(plainGet, "keep-alive", "1"),
		"proxy-connection":            with(plainGet, "proxy-connection", "close"),
		"te":                          with(plainGet, "te", "gzip"),
		"no :method":                  plainGet[2:],
		"no :scheme":                  {":method", "GET", ":authority", "a", ":path", "/"},
		"no :path":                    plainGet[:6],
		"no authority":                {":method", "GET", ":scheme", "http", ":path", "/"},
		"empty :path":                 {":method", "GET", ":scheme", "http", ":authority", "a", ":path", ""},
		"relative :path":              {":method", "GET", ":scheme", "http", ":authority", "a", ":path", "a"},
		"* for GET":                   {":method", "GET", ":scheme", "http", ":authority", "a", ":path", "*"},
		"space in :path":              {":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/a b"},
		"fragment":                    {":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/#a"},
		"space in :method":            {":method", "G T", ":scheme", "http", ":authority", "a", ":path", "/"},
		"userinfo":                    {":method", "GET", ":scheme", "http", ":authority", "u@a", ":path", "/"},
		":path twice":                 with(plainGet, ":path", "/"),
		":status":                     with(plainGet, ":status", "200"),
		"unknown pseudo-header":       with(plainGet, ":x", "y"),
		"pseudo-header late":          {":method", "GET", ":scheme", "http", ":authority", "a", "x", "y", ":path", "/"},
		"host differs":                with(plainGet, "host", "b"),
		"host twice":                  with(plainGet, "host", "a", "host", "a"),
		"length without content":      with(plainGet, "content-length", "5"),
		"two lengths":                 with(plainGet, "content-length", "0", "content-length", "1"),
		"two equal lengths":           with(plainGet, "content-length", "0", "content-length", "0"),
		"empty :scheme":               {":method", "GET", ":scheme", "", ":authority", "a", ":path", "/"},
		"odd :scheme":                 {":method", "GET", ":scheme", "ftp", ":authority", "a", ":path", "/"},
		":scheme with a path":         {":method", "GET", ":scheme", "http://b/", ":authority", "a", ":path", "/"},
		"odd length":                  with(plainGet, "content-length", "+0"),
		"CONNECT with a path":         {":method", "CONNECT", ":authority", "a:1", ":path", "/"},
		"CONNECT to nowhere":          {":method", "CONNECT"},
		":protocol without CONNECT":   with(plainGet, ":protocol", "websocket"),
		":protocol without :path":     {":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "a"},
		":authority that is no host":  {":method", "GET", ":scheme", "http", ":authority", "a/b", ":path", "/"},
		":authority with a long port": {":method", "GET", ":scheme", "http", ":authority", "a:65536", ":path", "/"},
	} {
		p.headers(id, true, kv...)
		if got := p.rst(id); got != int(ProtocolError) {
			t.Errorf("%s: %v", name, ErrCode(got))
		}
		id += 2
	}
	p.headers(id, true, plainGet...)
	if got := p.status(id); got != "200" {
		t.Error(got)
	}
}

// TestUnknownExpectation: RFC 9110 section 10.1.1.
func TestUnknownExpectation(t *testing.T) {
	p := rawClient(t, nil, refuseLarge)
	for i, c := range []struct{ expect, status string }{{"200-ok", "417"}, {"100-continue, x", "417"}, {"100-Continue", "200"}} {
		id := uint32(2*i + 1)
		p.headers(id, true, with(plainGet, "expect", c.expect)...)
		if got := p.status(id); got != c.status {
			t.Errorf("%s: %s, want %s", c.expect, got, c.status)
		}
	}
}

// TestContentLength: content must be as long as was said.
func TestContentLength(t *testing.T) {
	p := rawClient(t, nil, refuseLarge)
	for i, c := range []struct {
		data    []string
		trailer bool
		code    int
	}{
		{[]string{"1234", "5"}, false, -1}, {[]string{"12345"}, true, -1}, {[]string{"123456"}, false, 1}, {[]string{"1234"}, false, 1},
		{[]string{"1234"}, true, 1},
	} {
		id := uint32(2*i + 1)
		p.headers(id, false, with(plainGet, "content-length", "5")...)
		for j, d := range c.data {
			p.must(p.fr.WriteData(id, j == len(c.data)-1 && !c.trailer, []byte(d)))
		}
		if c.trailer {
			p.headers(id, true, "x", "y")
		}
		if got := p.rst(id); got != c.code {
			t.Errorf("%v, trailers %v: %v", c.data, c.trailer, ErrCode(got))
		}
	}
}

// TestConnectionErrors: misuse of streams and of the framing ends the connection with the right code.
func TestConnectionErrors(t *testing.T) {
	for _, c := range []struct {
		name string
		code ErrCode
		send func(p *raw)
	}{
		{"even stream", ProtocolError, func(p *raw) { p.headers(2, true, plainGet...) }},
		{"stream 0", ProtocolError, func(p *raw) { p.headers(0, true, plainGet...) }},
		{"falling stream", ProtocolError, func(p *raw) { p.headers(5, true, plainGet...); p.headers(3, true, plainGet...) }},
		{"DATA on an idle stream", ProtocolError, func(p *raw) { p.fr.WriteData(1, true, nil) }},
		{"window of an idle stream", ProtocolError, func(p *raw) { p.fr.WriteWindowUpdate(1, 1) }},
		{"PUSH_PROMISE", ProtocolError, func(p *raw) { p.fr.WritePushPromise(xhttp2.PushPromiseParam{StreamID: 1, PromiseID: 2}) }},
		{"window overflow", FlowControlError, func(p *raw) { p.fr.WriteWindowUpdate(0, maxWindow) }},
		{"initial window", FlowControlError, func(p *raw) { p.fr.WriteSettings(xhttp2.Setting{ID: 4, Val: 1 << 31}) }},
		{"frame size", FrameSizeError, func(p *raw) { p.fr.WriteRawFrame(0, 0, 1, make([]byte, minMaxFrame+1)) }},
		{"padding", ProtocolError, func(p *raw) { p.fr.WriteRawFrame(0, flagPadded, 1, []byte{9, 0}) }},
		{"broken block", CompressionError, func(p *raw) {
			p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff}, EndHeaders: true})
		}},
		{"interrupted block", ProtocolError, func(p *raw) {
			p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: p.fields(plainGet...)})
			p.fr.WritePing(false, [8]byte{})
		}},
		{"table too large", CompressionError, func(p *raw) {
			p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x3f, 0xe2, 0x1f}, EndHeaders: true})
		}},
	} {
		p := rawClient(t, nil, refuseLarge)
		c.send(p)
		if got := p.goAway(); got != int(c.code) {
			t.Errorf("%s: %v, want %v", c.name, ErrCode(got), c.code)
		}
		p.nc.Close()
		<-p.done
	}
}

// TestConnectionWindow: more than the connection's window is refused, though no stream's is exceeded.
func TestConnectionWindow(t *testing.T) {
	o := *DefaultOptions()
	o.ConnWindow = defaultWindow
	p := rawClient(t, &o, wait)
	code := make(chan int)
	go func() { code <- p.goAway() }()
	for i := range 6 {
		p.headers(uint32(2*i+1), false, plainGet...)
		if p.fr.WriteData(uint32(2*i+1), false, make([]byte, 16000)) != nil {
			break
		}
	}
	if got := <-code; got != int(FlowControlError) {
		t.Error(ErrCode(got))
	}
}

// TestSlowReaders: a client that keeps its window shut holds a handler no longer than the stream's deadline, or the connection's
// patience.
func TestSlowReaders(t *testing.T) {
	for _, own := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			o := *DefaultOptions()
			o.WriteStall = time.Minute
			failed := make(chan error, 1)
			p := rawClient(t, &o, func(s *ServerStream) {
				if own {
					s.SetWriteDeadline(time.Now().Add(5 * time.Second))
				}
				s.WriteResponse(&message.Response{Status: 200, Body: message.Body{Kind: message.Chunked}})
				failed <- s.WriteBody(make([]byte, 1<<20))
			}, xhttp2.Setting{ID: settingWindow, Val: 1})
			start := time.Now()
			p.headers(1, true, plainGet...)
			go io.Copy(io.Discard, p.nc)
			err, took := <-failed, time.Since(start)
			var se *StreamError
			if own && (!errors.Is(err, os.ErrDeadlineExceeded) || took != 5*time.Second) {
				t.Errorf("%v after %v", err, took)
			}
			if !own && (!errors.As(err, &se) || se.Code != Cancel || took > 2*time.Minute) {
				t.Errorf("%v after %v", err, took)
			}
			p.nc.Close()
			<-p.done
		})
	}
}

// TestDeadTransports: a peer that stops reading or sending within a frame is given up.
func TestDeadTransports(t *testing.T) {
	for name, act := range map[string]func(p *raw){
		"does not read": func(p *raw) { p.headers(1, true, plainGet...) },
		"sends half a frame": func(p *raw) {
			go io.Copy(io.Discard, p.nc)
			p.write([]byte{0, 0, 9})
		},
		"sends half a header block": func(p *raw) {
			go io.Copy(io.Discard, p.nc)
			p.must(p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: p.fields(plainGet...)}))
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := rawClient(t, nil, func(s *ServerStream) {
				s.WriteResponse(&message.Response{Status: 200, Body: message.Body{Kind: message.Chunked}})
				for s.WriteBody(make([]byte, 1<<16)) == nil {
				}
			}, xhttp2.Setting{ID: settingWindow, Val: 1 << 30})
			p.must(p.fr.WriteWindowUpdate(0, 1<<30))
			act(p)
			start := time.Now()
			if err := <-p.done; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) > 2*time.Minute {
				t.Errorf("%s: %v after %v", name, err, time.Since(start))
			}
			p.nc.Close()
		})
	}
}
