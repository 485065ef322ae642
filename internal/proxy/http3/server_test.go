package http3

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/quic-go/quic-go"
	quichttp "github.com/quic-go/quic-go/http3"
	"go.uber.org/goleak"

	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/slow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"shop.example"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// patience bounds waits for what should come soon.
const patience = 2 * time.Minute

// rig is a server on loopback and a real client of it.
type rig struct {
	server *Server
	client *http.Client
	url    string
}

func start(t *testing.T, o Options) *rig {
	t.Helper()
	cert := certificate(t)
	if o.TLS == nil {
		o.TLS = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}}, nil
		}
	}
	s := New(o)
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(pc) }()
	roots := x509.NewCertPool()
	roots.AddCert(cert.Leaf)
	transport := &quichttp.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "shop.example"}, DisableCompression: true,
		QUICConfig: &quic.Config{MaxIncomingStreams: -1, HandshakeIdleTimeout: patience, MaxIdleTimeout: patience}}
	t.Cleanup(func() {
		transport.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		pc.Close()
	})
	return &rig{server: s, client: &http.Client{Transport: transport}, url: "https://" + pc.LocalAddr().String()}
}

func (r *rig) do(t *testing.T, method, path string, body io.Reader, header ...string) (*http.Response, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, r.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	res, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(raw)
}

func respond(t *testing.T, s *Stream, status int, body string, trailers *message.Header, fields ...string) {
	t.Helper()
	res := message.Response{Status: status, Body: message.Body{Kind: message.Sized, Length: int64(len(body))}}
	if trailers != nil {
		res.Body = message.Body{Kind: message.Chunked}
	}
	for i := 0; i < len(fields); i += 2 {
		res.Header.Add(fields[i], fields[i+1])
	}
	if err := errors.Join(s.WriteResponse(&res), s.WriteBody([]byte(body)), s.FinishBody(trailers)); err != nil {
		t.Error(err)
	}
}

func readAll(t *testing.T, s *Stream) string {
	var all []byte
	var buf [1000]byte
	for {
		n, err := s.ReadBody(buf[:])
		all = append(all, buf[:n]...)
		if err == io.EOF {
			return string(all)
		}
		if err != nil {
			t.Error(err)
			return string(all)
		}
	}
}

func TestHead(t *testing.T) {
	heads := make(chan message.Request, 1)
	r := start(t, Options{Handle: func(_ any, s *Stream) {
		heads <- *s.Request()
		respond(t, s, 200, "hello", nil, "Content-Length", "99", "Connection", "close", "X-Two", "a", "x-two", "b", "Content-Type", "text/x")
	}})
	res, body := r.do(t, "GET", "/a/b?c=d", nil, "X-B", "1", "X-A", "2", "X-B", "3", "Cookie", "a=1; b=2")
	h := <-heads
	if h.Proto != message.HTTP3 || h.Method != "GET" || h.Scheme != "https" || h.Path != "/a/b?c=d" || "https://"+h.Authority != r.url || h.Body.Kind != message.NoBody {
		t.Errorf("head %+v", h)
	}
	var got []string
	for i := range h.Header.Len() {
		f := h.Header.At(i)
		got = append(got, f.Name+": "+f.Value)
	}
	for _, want := range []string{"X-A: 2", "X-B: 1", "X-B: 3", "Cookie: a=1; b=2"} {
		if !slices.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
	if body != "hello" || res.ContentLength != 5 || res.Header.Get("Connection") != "" || !slices.Equal(res.Header["X-Two"], []string{"a", "b"}) {
		t.Errorf("%q %d %v", body, res.ContentLength, res.Header)
	}
	if got := res.Header["Content-Type"]; !slices.Equal(got, []string{"text/x"}) {
		t.Errorf("content type %q", got)
	}
}

func TestNoContentTypeIsInvented(t *testing.T) {
	r := start(t, Options{Handle: func(_ any, s *Stream) { respond(t, s, 200, "<html>", nil) }})
	if res, _ := r.do(t, "GET", "/", nil); res.Header["Content-Type"] != nil {
		t.Errorf("content type %q", res.Header["Content-Type"])
	}
}

func TestBodiesAndTrailers(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 64<<10)
	for _, c := range []struct {
		name string
		body io.Reader
		want string
		kind message.BodyKind
	}{
		{"sized", strings.NewReader(big), big, message.Sized},
		{"unsized", io.MultiReader(strings.NewReader(big)), big, message.Chunked},
		{"empty", strings.NewReader(""), "", message.Sized},
	} {
		t.Run(c.name, func(t *testing.T) {
			kind := make(chan message.BodyKind, 1)
			r := start(t, Options{Handle: func(_ any, s *Stream) {
				kind <- s.Request().Body.Kind
				got := readAll(t, s)
				if !s.BodyDone() {
					t.Error("the body is not done at its end")
				}
				var trailers message.Header
				trailers.Add("Grpc-Status", "0")
				respond(t, s, 200, got, &trailers)
			}})
			res, body := r.do(t, "POST", "/", c.body)
			if body != c.want {
				t.Errorf("%d bytes came back of %d", len(body), len(c.want))
			}
			if k := <-kind; k != c.kind {
				t.Errorf("body kind %v, want %v", k, c.kind)
			}
			if got := res.Trailer.Get("Grpc-Status"); got != "0" {
				t.Errorf("trailer %q of %v", got, res.Trailer)
			}
		})
	}
}

func TestRequestTrailers(t *testing.T) {
	got := make(chan string, 1)
	r := start(t, Options{Handle: func(_ any, s *Stream) {
		readAll(t, s)
		v, _ := s.Trailers().Get("X-Sum")
		got <- v
		respond(t, s, 204, "", nil)
	}})
	req, err := http.NewRequest("POST", r.url, io.MultiReader(strings.NewReader("abc")))
	if err != nil {
		t.Fatal(err)
	}
	req.Trailer = http.Header{"X-Sum": {"6"}}
	res, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if v := <-got; v != "6" || res.StatusCode != 204 {
		t.Errorf("trailer %q, status %d", v, res.StatusCode)
	}
}

func TestGetWithBody(t *testing.T) {
	r := start(t, Options{Handle: func(_ any, s *Stream) { respond(t, s, 200, readAll(t, s), nil) }})
	if _, body := r.do(t, "GET", "/", io.MultiReader(strings.NewReader("odd but legal"))); body != "odd but legal" {
		t.Errorf("%q", body)
	}
}

func TestHeadMethodHasNoContent(t *testing.T) {
	r := start(t, Options{Handle: func(_ any, s *Stream) { respond(t, s, 200, "not sent", nil) }})
	res, body := r.do(t, "HEAD", "/", nil)
	if body != "" || res.ContentLength != 8 {
		t.Errorf("%q, length %d", body, res.ContentLength)
	}
}

func TestInformational(t *testing.T) {
	r := start(t, Options{Handle: func(_ any, s *Stream) {
		var h message.Header
		h.Add("Link", "</a.css>")
		if err := s.WriteInformational(103, &h); err != nil {
			t.Error(err)
		}
		respond(t, s, 200, "", nil)
	}})
	hints := make(chan string, 1)
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		if code == 103 {
			hints <- h.Get("Link")
		}
		return nil
	}})
	req, err := http.NewRequestWithContext(ctx, "GET", r.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if got := <-hints; got != "</a.css>" || res.Header.Get("Link") != "" {
		t.Errorf("hint %q, then %q", got, res.Header.Get("Link"))
	}
}

func TestBrokenOff(t *testing.T) {
	r := start(t, Options{Handle: func(_ any, s *Stream) {
		res := message.Response{Status: 200, Body: message.Body{Kind: message.Chunked}}
		if err := errors.Join(s.WriteResponse(&res), s.WriteBody(bytes.Repeat([]byte("x"), 10000)), s.Flush()); err != nil {
			t.Error(err)
		}
		s.Reset()
	}})
	res, err := r.client.Get(r.url)
	if err == nil { // the reset may have overtaken the head
		defer res.Body.Close()
		_, err = io.ReadAll(res.Body)
	}
	if err == nil {
		t.Error("a response that was broken off looks whole")
	}
}

func TestUnfinishedIsBrokenOff(t *testing.T) {
	r := start(t, Options{Handle: func(_ any, s *Stream) {
		res := message.Response{Status: 200, Body: message.Body{Kind: message.Chunked}}
		if err := errors.Join(s.WriteResponse(&res), s.Flush()); err != nil {
			t.Error(err)
		}
	}})
	res, err := r.client.Get(r.url)
	if err == nil {
		defer res.Body.Close()
		_, err = io.ReadAll(res.Body)
	}
	if err == nil {
		t.Error("a response without its end looks whole")
	}
}

func TestClientLeaves(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan struct{})
	r := start(t, Options{Handle: func(_ any, s *Stream) {
		cancel()
		<-s.Gone()
		close(left)
	}})
	req, err := http.NewRequestWithContext(ctx, "GET", r.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res, err := r.client.Do(req); err == nil {
		res.Body.Close()
		t.Error("a cancelled request was answered")
	}
	<-left
}

func TestConnection(t *testing.T) {
	var seen *Conn
	left := make(chan any, 1)
	r := start(t, Options{
		Enter:  func(c *Conn) (any, error) { seen = c; return "it", nil },
		Leave:  func(v any) { left <- v },
		Handle: func(v any, s *Stream) { respond(t, s, 200, v.(string), nil) },
	})
	if _, body := r.do(t, "GET", "/", nil); body != "it" {
		t.Errorf("%q", body)
	}
	if seen.ServerName != "shop.example" || !seen.Remote.Addr().IsLoopback() || "https://"+seen.Local.String() != r.url {
		t.Errorf("%+v", seen)
	}
	seen.Close()
	if v := <-left; v != "it" {
		t.Errorf("left %v", v)
	}
}

func TestRefusedConnection(t *testing.T) {
	r := start(t, Options{
		Enter:  func(*Conn) (any, error) { return nil, errors.New("no") },
		Handle: func(any, *Stream) { t.Error("a refused connection's request was handled") },
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", r.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res, err := r.client.Do(req); err == nil {
		res.Body.Close()
		t.Errorf("answered %d", res.StatusCode)
	}
}

func TestDrain(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	r := start(t, Options{Handle: func(_ any, s *Stream) {
		close(entered)
		<-leave
		respond(t, s, 200, "finished", nil)
	}})
	answer := make(chan string, 1)
	go func() {
		res, err := r.client.Get(r.url)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer res.Body.Close()
		raw, _ := io.ReadAll(res.Body)
		answer <- string(raw)
	}()
	<-entered
	drained := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() { drained <- r.server.Drain(ctx) }()
	close(leave)
	if got := <-answer; got != "finished" {
		t.Error(got)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

// TestDrainDoesNotWaitForIdleClients: the client of rig keeps its connection.
func TestDrainDoesNotWaitForIdleClients(t *testing.T) {
	r := start(t, Options{Handle: func(_ any, s *Stream) { respond(t, s, 200, "", nil) }})
	r.do(t, "GET", "/", nil)
	if n := r.server.Open(); n != 1 {
		t.Fatalf("%d connections are open", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := r.server.Drain(ctx); err != nil {
		t.Error(err)
	}
}

// TestStringsDieWithHandle overwrites what the response's strings point to, as the owner of an exchange does for the next one.
func TestStringsDieWithHandle(t *testing.T) {
	r := start(t, Options{Handle: func(_ any, s *Stream) {
		memory := []byte("X-Name: value")
		text := unsafe.String(unsafe.SliceData(memory), len(memory))
		respond(t, s, 200, "short", nil, text[:6], text[8:])
		copy(memory, "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	}})
	for _, method := range []string{"GET", "HEAD", "POST"} {
		if res, _ := r.do(t, method, "/", nil); res.Header.Get("X-Name") != "value" {
			t.Errorf("%s: %q", method, res.Header)
		}
	}
}

// TestDrainAsksCalmClients: while a client goes on without a pause nothing of it is rejected; once it pauses it is asked to leave, and its
// next request finds that out without having been sent.
func TestDrainAsksCalmClients(t *testing.T) {
	r := start(t, Options{Handle: func(_ any, s *Stream) { respond(t, s, 200, "", nil) }})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	qc := r.dialRaw(t)
	get := frame(nil, headersFrame, fields(":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/g"))
	if got := qc.ask(get); got != "200" {
		t.Fatal(got)
	}
	control, err := qc.conn.AcceptUniStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	said := make(chan []byte, 1)
	go func() {
		got, _ := io.ReadAll(control) // until the connection ends
		said <- got
	}()
	drained := make(chan error, 1)
	go func() { drained <- r.server.Drain(ctx) }()
	for begin, last := time.Now(), time.Now(); time.Since(begin) < 3*calmTime; last = time.Now() {
		if got := qc.ask(get); time.Since(last) >= calmTime {
			break // the machine did not let it go on
		} else if got != "200" {
			t.Fatalf("%s while it drains", got)
		}
	}
	if got := <-said; !bytes.Contains(got, []byte{goAwayFrame}) {
		t.Errorf("the control stream: %x", got)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

// TestClosingAsksClientsOnly: while the server is only to have its clients leave, those that come are served, and asked in their turn.
func TestClosingAsksClientsOnly(t *testing.T) {
	var closing atomic.Bool
	r := start(t, Options{Closing: closing.Load, Handle: func(_ any, s *Stream) { respond(t, s, 200, "", nil) }})
	get := frame(nil, headersFrame, fields(":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/g"))
	stays := r.dialRaw(t)
	if got := stays.ask(get); got != "200" {
		t.Fatal(got)
	}
	closing.Store(true)
	for range 2 {
		c := r.dialRaw(t)
		if got := c.ask(get); got != "200" {
			t.Fatal(got)
		}
		select {
		case <-c.conn.Context().Done():
		case <-time.After(patience):
			t.Fatal("a client was not asked to leave")
		}
	}
	<-stays.conn.Context().Done()
	closing.Store(false)
	again := r.dialRaw(t)
	for range 3 {
		if got := again.ask(get); got != "200" {
			t.Fatal(got)
		}
		time.Sleep(watchEvery)
	}
}

// TestEndCutsWithAnError: answers that are cut off by the end of the server, or of its time for draining, do not look whole.
func TestEndCutsWithAnError(t *testing.T) {
	t.Run("closed", func(t *testing.T) { endCuts(t, func(s *Server) { s.Close() }) })
	t.Run("drained", func(t *testing.T) {
		endCuts(t, func(s *Server) {
			ctx, cancel := context.WithCancel(t.Context())
			drained := make(chan struct{})
			go func() { defer close(drained); s.Drain(ctx) }() // ends by cancel
			for limit, asked := time.Now().Add(patience), false; !asked && time.Now().Before(limit); time.Sleep(time.Millisecond) {
				s.mu.Lock()
				for c := range s.clients {
					asked = c.asked
				}
				s.mu.Unlock()
			}
			cancel()
			<-drained
		})
	})
}

// TestEndIsToldAgain: a client that the end of the connection did not reach hears of it when it sends something, and the socket is in use
// for closingTime until then, which a busy machine may take from a client: one of several has to hear.
func TestEndIsToldAgain(t *testing.T) {
	for range 20 {
		told := toldAgain(t)
		if told == nil {
			continue
		}
		var closed *quic.ApplicationError
		if !errors.As(told, &closed) || quichttp.ErrCode(closed.ErrorCode) != quichttp.ErrCodeInternalError {
			t.Errorf("the client was told %v", told)
		}
		return
	}
	t.Error("each time, the socket was left before the client heard of the end")
}

// toldAgain gives what a client hears that was deaf when the server ended; nil when the server's socket was left before.
func toldAgain(t *testing.T) error {
	entered := make(chan struct{})
	r := start(t, Options{Handle: func(_ any, s *Stream) { close(entered); <-s.Gone() }})
	d, c := r.dialDeaf(t)
	s, err := c.OpenStreamSync(t.Context())
	if err == nil {
		_, err = s.Write(frame(frame(nil, headersFrame, fields(":method", "POST", ":scheme", "https", ":authority", "a", ":path", "/")), dataFrame, []byte("begun")))
	}
	if err != nil {
		t.Fatal(err)
	}
	<-entered
	d.is.Store(true)
	drained := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { defer close(drained); r.server.Drain(ctx) }() // ends by cancel
	cancel()
	limit := time.Now().Add(patience)
	for d.lost.Load() == 0 || r.server.Open() > 0 {
		if time.Sleep(time.Millisecond); time.Now().After(limit) {
			t.Fatalf("%d packets were lost, %d connections are open", d.lost.Load(), r.server.Open())
		}
	}
	d.is.Store(false)
	for c.Context().Err() == nil { // each packet of it is a question whether the connection is still there
		if _, err := s.Write([]byte("x")); err != nil {
			break
		}
		select {
		case <-drained:
			return nil
		case <-time.After(time.Millisecond):
		}
	}
	<-drained
	return context.Cause(c.Context())
}

func endCuts(t *testing.T, end func(*Server)) {
	begun, ended := make(chan struct{}), make(chan struct{})
	r := start(t, Options{DrainTime: 100 * time.Millisecond, Handle: func(_ any, s *Stream) {
		defer close(ended)
		res := message.Response{Status: 200, Body: message.Body{Kind: message.Chunked}}
		if err := errors.Join(s.WriteResponse(&res), s.WriteBody(bytes.Repeat([]byte("x"), 10000)), s.Flush()); err != nil {
			t.Error(err)
		}
		close(begun)
		<-s.Gone()
	}})
	c := r.dialRaw(t)
	s, err := c.conn.OpenStreamSync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.SetDeadline(time.Now().Add(patience))
	if _, err := s.Write(frame(nil, headersFrame, fields(":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/"))); err != nil {
		t.Fatal(err)
	}
	s.Close()
	<-begun
	if _, err := io.ReadFull(s, make([]byte, 10000)); err != nil {
		t.Fatal(err)
	}
	end(r.server)
	_, err = io.ReadAll(s)
	var closed *quic.ApplicationError
	var reset *quic.StreamError
	switch {
	case errors.As(err, &reset) && quichttp.ErrCode(reset.ErrorCode) != quichttp.ErrCodeNoError:
	case errors.As(err, &closed) && quichttp.ErrCode(closed.ErrorCode) != quichttp.ErrCodeNoError:
	default:
		t.Errorf("the answer was cut off by %v", err)
	}
	<-ended
}

// TestSlowReadersAreShed: a client that takes nothing of its answer, and one that takes nothing of a tunnel, are cut off; one for which
// nothing waits is left alone.
func TestSlowReadersAreShed(t *testing.T) {
	ended := make(chan error, 2)
	var at atomic.Pointer[Conn]
	r := start(t, Options{
		Enter: func(c *Conn) (any, error) { at.Store(c); return nil, nil },
		Handle: func(_ any, s *Stream) {
			b := make([]byte, 100_000)
			res := message.Response{Status: 200, Body: message.Body{Kind: message.Chunked}}
			write := s.WriteBody
			if s.Request().Path == "/tunnel" {
				res.Status = 101
			}
			if err := s.WriteResponse(&res); err != nil {
				t.Error(err)
			}
			if res.Status == 101 {
				tunnel, err := s.Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer tunnel.Close()
				write = func(p []byte) error { _, err := tunnel.Write(p); return err }
			}
			if s.Request().Path == "/waits" {
				if err := s.Flush(); err != nil {
					t.Error(err)
				}
				<-s.Gone()
				return
			}
			err := error(nil)
			for err == nil {
				err = write(b)
			}
			ended <- err
		}})
	c := r.dialRaw(t)
	// The one that waits comes first: the other two, of which nothing is read, take up what the connection may send.
	for _, path := range []string{"/waits", "/answer", "/tunnel"} {
		s, err := c.conn.OpenStreamSync(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		pairs := []string{":method", "GET", ":scheme", "https", ":authority", "a", ":path", path}
		if path == "/tunnel" {
			pairs = append(pairs, ":protocol", "websocket")
			pairs[1] = "CONNECT"
		}
		if _, err := s.Write(frame(nil, headersFrame, fields(pairs...))); err != nil {
			t.Fatal(err)
		}
		if path != "/tunnel" {
			s.Close()
		}
		if _, err := s.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	// Time is told, not passed: whoever gets on meanwhile is not slow by the next look.
	now, n := time.Now(), 0
	for limit := now.Add(patience); n < 2 && time.Now().Before(limit); time.Sleep(10 * time.Millisecond) {
		n = at.Load().Slow(now)
		now = now.Add(slow.Time)
	}
	if n != 2 {
		t.Fatalf("%d are slow", n)
	}
	if n := at.Load().Shed(now); n != 2 {
		t.Errorf("%d were cut off", n)
	}
	for range 2 {
		if err := <-ended; !errors.Is(err, slow.ErrShed) {
			t.Errorf("ended by %v", err)
		}
	}
}

// TestHeadSize: it counts as the client's does, and heads that are too large come to be refused.
func TestHeadSize(t *testing.T) {
	var bytes, fields int
	r := start(t, Options{Handle: func(_ any, s *Stream) {
		bytes, fields = s.HeadSize()
		respond(t, s, 431, "too much", nil)
	}})
	res, body := r.do(t, "GET", "/", nil, "X-Large", strings.Repeat("x", 100_000))
	if res.StatusCode != 431 || body != "too much" || bytes < 100_000 || bytes > 101_000 || fields < 1 || fields > 5 {
		t.Errorf("%d %q: %d bytes, %d fields", res.StatusCode, body, bytes, fields)
	}
}

// deaf is a client's socket that at some time hears nothing any more, or nothing for a while.
type deaf struct {
	net.PacketConn
	is   atomic.Bool
	lost atomic.Int32
}

func (d *deaf) ReadFrom(p []byte) (n int, from net.Addr, err error) {
	for {
		if n, from, err = d.PacketConn.ReadFrom(p); err != nil || !d.is.Load() {
			return n, from, err
		}
		d.lost.Add(1)
	}
}

// dialDeaf connects by such a socket.
func (r *rig) dialDeaf(t *testing.T) (*deaf, *quic.Conn) {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	socket := &deaf{PacketConn: pc}
	transport := &quic.Transport{Conn: socket}
	t.Cleanup(func() { transport.Close(); pc.Close() })
	to, err := net.ResolveUDPAddr("udp", strings.TrimPrefix(r.url, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := transport.Dial(t.Context(), to, tlsFor(r.client.Transport.(*quichttp.Transport).TLSClientConfig.RootCAs), nil)
	if err != nil {
		t.Fatal(err)
	}
	return socket, c
}

// TestMuteClientsAreShed: what a client does not acknowledge is kept until its connection ends.
func TestMuteClientsAreShed(t *testing.T) {
	ended := make(chan error, 1)
	var at atomic.Pointer[Conn]
	r := start(t, Options{
		Enter: func(c *Conn) (any, error) { at.Store(c); return nil, nil },
		Handle: func(_ any, s *Stream) {
			res := message.Response{Status: 200, Body: message.Body{Kind: message.Chunked}}
			err := s.WriteResponse(&res)
			for b := make([]byte, 1000); err == nil; {
				err = s.WriteBody(b)
			}
			ended <- err
		}})
	socket, c := r.dialDeaf(t)
	s, err := c.OpenStreamSync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(frame(nil, headersFrame, fields(":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/"))); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := s.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, s) // it reads on, and ends with the connection
	socket.is.Store(true)
	now, mute := time.Now(), false
	for limit := now.Add(patience); !mute && time.Now().Before(limit); time.Sleep(10 * time.Millisecond) {
		at.Load().Slow(now)
		now = now.Add(slow.Time)
		r.server.mu.Lock()
		mute = at.Load().of.mute.reader.Slow(now)
		r.server.mu.Unlock()
	}
	if n := at.Load().Shed(now); !mute || n != 1 {
		t.Errorf("mute %v, %d were cut off", mute, n)
	}
	if err := <-ended; !errors.Is(err, slow.ErrShed) {
		t.Errorf("ended by %v", err)
	}
	for limit := time.Now().Add(patience); r.server.Open() > 0 && time.Now().Before(limit); time.Sleep(time.Millisecond) {
	}
	if n := r.server.Open(); n != 0 {
		t.Errorf("%d connections are open", n)
	}
}
