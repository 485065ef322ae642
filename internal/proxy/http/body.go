package http1

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync/atomic"

	"github.com/weftmesh/weft/internal/proxy/message"
)

// bodyReader is where the reading of one body stands.
type bodyReader struct {
	kind     message.BodyKind
	left     int64 // of the body (Sized) or of the current chunk
	chunks   bool  // a chunk was begun: its data is followed by CRLF
	cost     int64 // bytes of chunk lines not paid for by data
	err      error // io.EOF at the end; sticky
	trailers message.Header
	done     atomic.Bool // err is io.EOF; the writing half may ask
	broken   atomic.Bool // err is another one; likewise
}

func (in *input) beginBody(b message.Body) {
	r := &in.body
	r.kind, r.left, r.chunks, r.cost, r.err = b.Kind, b.Length, false, 0, nil
	r.trailers.Reset()
	if b.Kind == message.NoBody || b.Kind == message.Sized && b.Length == 0 {
		r.err = io.EOF
	}
	// An atomic store is dear, a load is not.
	if done := r.err == io.EOF; done != r.done.Load() {
		r.done.Store(done)
	}
	if r.broken.Load() {
		r.broken.Store(false)
	}
}

func (r *bodyReader) fail(err error) error {
	r.err = err
	if err == io.EOF {
		r.done.Store(true)
	} else {
		r.broken.Store(true)
	}
	return err
}

// ReadBody reads into p what there is of the body: at least one byte, or io.EOF at its end, io.ErrUnexpectedEOF when the
// connection ended earlier, *Error when its framing is broken, the connection's error otherwise. It may give the last bytes
// and io.EOF in one call.
func (in *input) ReadBody(p []byte) (int, error) {
	r := &in.body
	if r.err != nil {
		return 0, r.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	switch r.kind {
	case message.Sized:
		return in.readSized(p)
	case message.Chunked:
		return in.readChunked(p)
	}
	n, err := in.readSome(p)
	if err != nil {
		return n, r.fail(err)
	}
	return n, nil
}

// TakeBody gives what lies in memory of a Sized body, as if it were read, without copying it: it is valid until the next call. It
// is empty for other bodies, and where nothing is there.
func (in *input) TakeBody() []byte {
	r := &in.body
	if r.kind != message.Sized || r.err != nil {
		return nil
	}
	n := int(min(int64(in.buffered()), r.left))
	if n == 0 {
		return nil
	}
	p := in.blk.b[in.r : in.r+n]
	in.r += n
	if r.left -= int64(n); r.left == 0 {
		r.fail(io.EOF)
	}
	return p
}

// ResumeBody has a Sized body read on that a read deadline has interrupted.
func (in *input) ResumeBody() {
	if r := &in.body; r.kind == message.Sized && errors.Is(r.err, os.ErrDeadlineExceeded) {
		r.err = nil
		r.broken.Store(false)
	}
}

// BodyBuffered gives how many bytes of the body lie in memory: while it is positive, ReadBody does not block.
func (in *input) BodyBuffered() int {
	if in.body.err != nil {
		return 0
	}
	switch n := in.buffered(); in.body.kind {
	case message.Sized, message.Chunked:
		return int(min(int64(n), in.body.left))
	default:
		return n
	}
}

// BodyDone reports whether the body was read to its end.
func (in *input) BodyDone() bool { return in.body.err == io.EOF }

// Trailers gives the trailer fields once ReadBody has given io.EOF. They live as long as the head's strings.
func (in *input) Trailers() *message.Header { return &in.body.trailers }

// readSome gives buffered bytes, or reads into p past the buffer.
func (in *input) readSome(p []byte) (int, error) {
	if in.buffered() > 0 {
		n := copy(p, in.blk.b[in.r:in.w])
		in.r += n
		return n, nil
	}
	n, err := in.c.Read(p)
	if n > 0 {
		return n, nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return 0, err
}

func (in *input) readSized(p []byte) (int, error) {
	r := &in.body
	if int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := in.readSome(p)
	if err != nil {
		return 0, r.fail(unexpected(err))
	}
	if r.left -= int64(n); r.left == 0 {
		return n, r.fail(io.EOF)
	}
	return n, nil
}

// readChunked gives the data of one chunk at most. Small chunks come through the buffer, where the next chunk line arrives
// with them; large ones are read into p.
func (in *input) readChunked(p []byte) (int, error) {
	r := &in.body
	if r.left == 0 {
		if err := in.nextChunk(); err != nil {
			return 0, r.fail(err)
		}
	}
	direct := r.left >= min(smallBlock, int64(len(p)))
	if int64(len(p)) > r.left {
		p = p[:r.left]
	}
	if in.buffered() == 0 && !direct {
		if err := in.fill(); err != nil {
			return 0, r.fail(unexpected(err))
		}
	}
	n, err := in.readSome(p)
	if err != nil {
		return 0, r.fail(unexpected(err))
	}
	if r.left -= int64(n); r.left == 0 && in.endBuffered() {
		// The end is at hand: saying so now lets a whole small body leave in one write.
		if err := in.nextChunk(); err != nil {
			return n, r.fail(err)
		}
	}
	return n, nil
}

var lastChunk = []byte("\r\n0\r\n\r\n")

func (in *input) endBuffered() bool {
	return in.blk != nil && bytes.HasPrefix(in.blk.b[in.r:in.w], lastChunk)
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// nextChunk reads up to the next chunk's data, or gives io.EOF after the last chunk and the trailers.
func (in *input) nextChunk() error {
	r := &in.body
	if r.chunks {
		line, err := in.readLine(2, errChunkEnd)
		if err != nil {
			return err
		}
		if len(line) != 0 {
			return errChunkEnd
		}
	}
	line, err := in.readLine(in.lim.TrailerBytes, errChunkCost)
	if err != nil {
		return err
	}
	size, err := parseChunkLine(line)
	if err != nil {
		return err
	}
	// A chunk of a byte with a line of a kilobyte is an attack on us, not a way to send a byte.
	if r.cost = max(0, r.cost+int64(len(line))-16-min(2*size, 1<<30)); r.cost > int64(in.lim.TrailerBytes) {
		return errChunkCost
	}
	if r.left, r.chunks = size, true; size > 0 {
		return nil
	}
	if err := in.readTrailers(); err != nil {
		return unexpected(err)
	}
	return io.EOF
}

// readLine gives a line without its CRLF, valid until the next read. A line longer than limit is tooLong.
func (in *input) readLine(limit int, tooLong error) ([]byte, error) {
	for {
		if in.buffered() > 0 {
			b := in.blk.b[in.r:in.w]
			if i := bytes.IndexByte(b, '\n'); i >= 0 {
				if i == 0 || b[i-1] != '\r' {
					return nil, errBareLF
				}
				in.r += i + 1
				return b[:i-1], nil
			}
			if len(b) >= limit {
				return nil, tooLong
			}
		}
		if err := in.fill(); err != nil {
			return nil, unexpected(err)
		}
	}
}

// parseChunkLine takes chunk-size [ chunk-ext ] (RFC 9112 section 7.1). At most 16 digits, so that no leading zeros and no
// overflow can make two readers disagree. Extensions are dropped, as a recipient may; their syntax is checked, because readers
// that do not agree on where one ends do not agree on where the data begins.
func parseChunkLine(line []byte) (int64, error) {
	var size uint64
	i := 0
	for ; i < len(line); i++ {
		d, ok := hexDigit(line[i])
		if !ok {
			break
		}
		if i == 16 {
			return 0, errChunkSize
		}
		size = size<<4 | uint64(d)
	}
	if i == 0 || size > 1<<62 {
		return 0, errChunkSize
	}
	if !validExtensions(line[i:]) {
		return 0, errChunkSize
	}
	return int64(size), nil
}

// validExtensions takes *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] ) (RFC 9112 section 7.1.1).
func validExtensions(ext []byte) bool {
	if !message.ValidValue(ext) {
		return false
	}
	for len(ext) > 0 {
		var ok bool
		if ext, ok = cutSign(ext, ';'); !ok {
			return false
		}
		if ext, ok = cutToken(ext); !ok {
			return false
		}
		value, ok := cutSign(ext, '=')
		if !ok {
			continue
		}
		if len(value) > 0 && value[0] == '"' {
			ext, ok = cutQuoted(value)
		} else {
			ext, ok = cutToken(value)
		}
		if !ok {
			return false
		}
	}
	return true
}

// cutSign takes a sign with the white space around it off b.
func cutSign(b []byte, sign byte) (rest []byte, ok bool) {
	b = bytes.TrimLeft(b, " \t")
	if len(b) == 0 || b[0] != sign {
		return nil, false
	}
	return bytes.TrimLeft(b[1:], " \t"), true
}

func cutToken(b []byte) (rest []byte, ok bool) {
	i := 0
	for i < len(b) && message.TokenChars[b[i]] {
		i++
	}
	return b[i:], i > 0
}

// cutQuoted takes a quoted-string (RFC 9110 section 5.6.4) off b, which starts with its quote.
func cutQuoted(b []byte) (rest []byte, ok bool) {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '"':
			return b[i+1:], true
		case '\\':
			i++
		}
	}
	return nil, false
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c-'0' <= 9:
		return c - '0', true
	case c|0x20-'a' <= 5:
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}

// readTrailers reads the trailer section with the empty line that ends the message.
func (in *input) readTrailers() error {
	if err := in.need(1); err != nil {
		return err
	}
	switch first := in.blk.b[in.r]; {
	case first == '\r':
		return in.endTrailers()
	case first == '\n':
		return errBareLF
	case !message.TokenChars[first]:
		return errFieldName // no further byte can mend it
	}
	section, err := in.readHead(in.lim.TrailerBytes, nil)
	if err == errTargetLong || err == nil && len(section) > in.lim.TrailerBytes {
		return errTrailersLong
	}
	if err != nil {
		return err
	}
	var f framing
	return parseFields(section, &in.body.trailers, &f, in.lim.Fields, false)
}

// endTrailers takes the empty line that ends a message.
func (in *input) endTrailers() error {
	if err := in.need(2); err != nil {
		return err
	}
	if in.blk.b[in.r+1] != '\n' {
		return errChunkEnd
	}
	in.r += 2
	return nil
}
