package http3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	quichttp "github.com/quic-go/quic-go/http3"

	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/slow"
)

// Stream is one request and its response. As with the other codecs one goroutine may read the body while another writes the
// response. Reset and Gone may be used from anywhere.
type Stream struct {
	w    http.ResponseWriter
	r    *http.Request
	ctl  *http.ResponseController
	req  message.Request
	body bodyState

	local, remote netip.AddrPort // of the connection

	discard  bool // the response has no content, whatever is written
	finished bool
	reset    atomic.Bool
	delivery
}

// delivery is how far the client lets what is written for it get on.
type delivery struct {
	writing atomic.Bool
	sent    atomic.Int64
	shed    atomic.Bool
	slow    slow.Reader // guarded by the server's mu

	mu     sync.Mutex
	tunnel *tunnel // that the stream has become; nil for none
}

// piece is how much is written at a time: what is left of it is not seen to get on.
const piece = slow.Bytes / 2

// deliver writes p by write.
func (d *delivery) deliver(p []byte, write func([]byte) (int, error)) (n int, err error) {
	d.writing.Store(true)
	defer d.writing.Store(false)
	for len(p) > 0 && err == nil {
		var m int
		m, err = write(p[:min(len(p), piece)])
		d.sent.Add(int64(m))
		p, n = p[m:], n+m
	}
	if err != nil && d.shed.Load() {
		return n, slow.ErrShed
	}
	return n, streamError(err)
}

// looked looks whether the client gets on, and reports whether it has been slow. The server's mu is held.
func (d *delivery) looked(now time.Time) bool {
	d.slow.Look(now, d.writing.Load(), d.sent.Load(), slow.Bytes)
	return d.slow.Slow(now)
}

// breakOff ends the stream, from any goroutine.
func (s *Stream) breakOff() {
	s.mu.Lock()
	t := s.tunnel
	s.mu.Unlock()
	if t != nil {
		t.abort()
		return
	}
	s.Reset()
}

// bodyState is where the reading of the request's body stands.
type bodyState struct {
	first    [1]byte
	has      bool // first is not yet read
	err      error
	trailers message.Header
}

// Error is a failure of the stream: its reset by the client, or that of its connection.
type Error struct {
	Code uint64 // of HTTP/3 (RFC 9114 section 8.1)
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("http/3 stream: %v", e.Err) }

func (e *Error) Unwrap() error { return e.Err }

func streamError(err error) error {
	var se *quic.StreamError
	if errors.As(err, &se) {
		return &Error{uint64(se.ErrorCode), err}
	}
	var he *quichttp.Error
	if errors.As(err, &he) {
		return &Error{uint64(he.ErrorCode), err}
	}
	return err
}

func newStream(w http.ResponseWriter, r *http.Request) (*Stream, error) {
	s := &Stream{w: w, r: r, ctl: http.NewResponseController(w)}
	q := &s.req
	q.Proto, q.Method, q.Scheme, q.Authority, q.KeepAlive = message.HTTP3, r.Method, "https", r.Host, true
	switch q.Path = r.RequestURI; {
	case askedProtocol(r) != "":
		q.Method, q.Upgrade = http.MethodGet, askedProtocol(r)
	case r.Method == http.MethodConnect:
		q.Path, q.Absolute = "", true
	case q.Path == "" || q.Path[0] != '/' && (q.Path != "*" || q.Method != http.MethodOptions):
		return nil, fmt.Errorf("path %q", q.Path)
	}
	if !message.ValidAuthority(q.Authority) || !message.TargetChars.All(q.Path) {
		return nil, fmt.Errorf("authority %q, path %q", q.Authority, q.Path) // the library looks less closely
	}
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		if name == "Host" {
			continue // it says what Authority says
		}
		for _, v := range r.Header[name] {
			q.Header.Add(name, v)
		}
	}
	for _, v := range r.Header["Expect"] {
		if !strings.EqualFold(v, "100-continue") {
			return nil, errExpectation
		}
		q.ExpectContinue = true
	}
	if r.Method == http.MethodConnect {
		return s, nil // what follows the head is no body
	}
	err := s.frame()
	if q.ExpectContinue && (q.Body == message.Body{} || q.Body == message.Body{Kind: message.Sized}) {
		q.ExpectContinue = false // nobody waits: the next recipient must not be told so (RFC 9110 section 10.1.1)
		q.Header.Del("Expect")
	}
	return s, err
}

var errExpectation = errors.New("unknown expectation")

// frame finds out whether the request has a body. Without a declared length only a read can tell; it is made for methods whose
// requests have none as a rule, and whose clients therefore end the stream with the head.
func (s *Stream) frame() error {
	_, declared := s.r.Header["Content-Length"]
	switch {
	case declared && s.r.ContentLength == 0:
		s.req.Body = message.Body{Kind: message.Sized}
		return nil
	case declared:
		s.req.Body = message.Body{Kind: message.Sized, Length: s.r.ContentLength}
		return nil
	}
	s.req.Body.Kind = message.Chunked
	switch s.r.Method {
	case http.MethodGet, http.MethodHead, http.MethodDelete, http.MethodOptions, http.MethodTrace:
	default:
		return nil
	}
	n, err := io.ReadFull(s.r.Body, s.body.first[:])
	switch {
	case n == 1:
		s.body.has = true
	case err == io.EOF:
		s.req.Body.Kind, s.body.err = message.NoBody, io.EOF
		s.readTrailers()
	default:
		return streamError(err)
	}
	return nil
}

// HeadSize gives the size of the head, as RFC 9114 section 4.2.2 counts, and its number of fields.
func (s *Stream) HeadSize() (bytes, fields int) {
	q := &s.req
	const overhead, pseudo = 32, len(":method:scheme:authority:path")
	bytes = 4*overhead + pseudo + len(q.Method) + len(q.Scheme) + len(q.Authority) + len(q.Path)
	for i := range q.Header.Len() {
		f := q.Header.At(i)
		bytes += len(f.Name) + len(f.Value) + overhead
	}
	return bytes, q.Header.Len()
}

// Request is the head of the request. Its strings live as long as anyone keeps them.
func (s *Stream) Request() *message.Request { return &s.req }

// ReadBody reads at least one byte of the body or fails: io.EOF at its end, *Error when the client gave it up.
func (s *Stream) ReadBody(p []byte) (int, error) {
	b := &s.body
	switch {
	case len(p) == 0:
		return 0, nil
	case b.has:
		b.has, p[0] = false, b.first[0]
		return 1, nil
	case b.err != nil:
		return 0, b.err
	}
	n, err := s.r.Body.Read(p)
	if err == io.EOF {
		s.readTrailers()
	}
	if err != nil {
		b.err = streamError(err)
		if n > 0 && err != io.EOF {
			return n, nil // the error comes with the next call
		}
	}
	return n, b.err
}

func (s *Stream) readTrailers() {
	for _, name := range slices.Sorted(maps.Keys(s.r.Trailer)) {
		for _, v := range s.r.Trailer[name] {
			s.body.trailers.Add(name, v)
		}
	}
}

// BodyBuffered gives the bytes that are known to lie in memory.
func (s *Stream) BodyBuffered() int {
	if s.body.has {
		return 1
	}
	return 0
}

// BodyDone reports whether the body was read to its end.
func (s *Stream) BodyDone() bool { return s.body.err == io.EOF }

// Trailers are complete after ReadBody has given io.EOF.
func (s *Stream) Trailers() *message.Header { return &s.body.trailers }

// WriteInformational sends a 1xx at once.
func (s *Stream) WriteInformational(status int, h *message.Header) error {
	clear(s.w.Header())
	s.fields(h, "")
	s.w.WriteHeader(status)
	clear(s.w.Header())
	return s.broken()
}

// WriteResponse writes the final head. It need not leave before Flush or FinishBody.
func (s *Stream) WriteResponse(r *message.Response) error {
	status := r.Status
	if status == http.StatusSwitchingProtocols && askedProtocol(s.r) != "" {
		status = http.StatusOK // so says RFC 9220, by way of RFC 8441 section 5
	}
	if status < 200 || status > 999 {
		return fmt.Errorf("http/3: status %d cannot be sent", r.Status)
	}
	h := s.w.Header()
	s.fields(&r.Header, "")
	if r.Body.Kind == message.Sized && r.Status != http.StatusNoContent && r.Status != http.StatusNotModified {
		h.Set("Content-Length", strconv.FormatInt(r.Body.Length, 10))
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // else the library guesses one
	}
	s.discard = s.r.Method == http.MethodHead || r.Status == http.StatusNoContent || r.Status == http.StatusNotModified
	s.w.WriteHeader(status)
	return s.broken()
}

// fields copies header fields, without those that speak of an HTTP/1 connection (RFC 9114 section 4.2). The library writes them when
// it likes, as late as after Handle has returned, when the exchange's strings are dead: so they are cloned.
func (s *Stream) fields(from *message.Header, prefix string) {
	h := s.w.Header()
	for i := range from.Len() {
		f := from.At(i)
		switch name := http.CanonicalHeaderKey(f.Name); name {
		case "Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade", "Content-Length", "Trailer":
			if name == "Content-Length" && prefix == "" && s.r.Method == http.MethodHead {
				h.Set(name, strings.Clone(f.Value))
			}
		default:
			name = prefix + strings.Clone(name) // Clone: a name in canonical form is the field's own
			h[name] = append(h[name], strings.Clone(f.Value))
		}
	}
}

// broken reports what ended the stream meanwhile.
func (s *Stream) broken() error {
	if err := s.r.Context().Err(); err != nil {
		return streamError(err)
	}
	return nil
}

// WriteBody sends p; small bodies are held back until Flush or FinishBody.
func (s *Stream) WriteBody(p []byte) error {
	if s.discard || len(p) == 0 {
		return nil
	}
	_, err := s.deliver(p, s.w.Write)
	return err
}

// Flush sends what was held back.
func (s *Stream) Flush() error {
	if s.finished {
		return nil
	}
	s.writing.Store(true)
	defer s.writing.Store(false)
	return streamError(s.ctl.Flush())
}

// FinishBody ends the response. The end itself leaves when Handle returns.
func (s *Stream) FinishBody(trailers *message.Header) error {
	if trailers != nil {
		s.fields(trailers, http.TrailerPrefix)
	}
	s.finished = true
	return s.broken()
}

// CloseAfter is of no use here: a connection is drained as a whole, by Drain.
func (s *Stream) CloseAfter() {}

// Reset breaks the stream off, now or, when the response is under way, as soon as Handle returns.
func (s *Stream) Reset() {
	s.reset.Store(true)
	s.ctl.SetReadDeadline(time.Unix(1, 0))
	s.ctl.SetWriteDeadline(time.Unix(1, 0))
}

// Gone is closed when the client has given the request up, or its connection has ended.
func (s *Stream) Gone() <-chan struct{} { return s.r.Context().Done() }

// OnGone calls f, on a goroutine of its own, once the stream is gone; stop takes that back, and is false if it is too late.
func (s *Stream) OnGone(f func()) (stop func() bool) { return context.AfterFunc(s.r.Context(), f) }

// SetReadDeadline and SetWriteDeadline bound reading the body and writing the response; the zero time means no bound.
func (s *Stream) SetReadDeadline(t time.Time) error { return s.ctl.SetReadDeadline(t) }

// SetWriteDeadline is said with SetReadDeadline.
func (s *Stream) SetWriteDeadline(t time.Time) error { return s.ctl.SetWriteDeadline(t) }

// EndExchange ends the life of the stream; it never carries another request.
func (s *Stream) EndExchange() bool { return false }

// end breaks off what was not finished: the client must not take a part for the whole.
func (s *Stream) end() {
	if s.reset.Load() || !s.finished {
		panic(http.ErrAbortHandler)
	}
}
