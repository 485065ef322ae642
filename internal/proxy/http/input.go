package http1

import (
	"bytes"
	"io"

	"github.com/weftmesh/weft/internal/proxy/conn"
)

// input is the reading half of a connection. The bytes before pin belong to the strings of the current exchange; unread
// bytes are blk.b[r:w].
type input struct {
	c   conn.Conn
	lim *Limits

	blk       *block   // nil while idle
	pinned    []*block // earlier blocks of this exchange that strings point into
	pin, r, w int

	body bodyReader
}

// minRoom is the least room to read into before another block is taken.
const minRoom = 512

func (in *input) buffered() int { return in.w - in.r }

// fill reads more bytes behind those unread. It fails with the connection's error, io.EOF included.
func (in *input) fill() error {
	in.makeRoom()
	n, err := in.c.Read(in.blk.b[in.w:])
	if n > 0 {
		in.w += n
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

func (in *input) makeRoom() {
	if in.blk == nil {
		in.blk = getBlock(smallBlock)
		in.pin, in.r, in.w = 0, 0, 0
		return
	}
	if in.r == in.w {
		in.r, in.w = in.pin, in.pin
	}
	if len(in.blk.b)-in.w >= minRoom {
		return
	}
	unread := in.blk.b[in.r:in.w]
	if in.r > in.pin && len(in.blk.b)-in.pin-len(unread) >= minRoom {
		in.r, in.w = in.pin, in.pin+copy(in.blk.b[in.pin:], unread)
		return
	}
	next := getBlock(len(unread) + smallBlock)
	n := copy(next.b, unread)
	in.dropBlock()
	in.blk, in.pin, in.r, in.w = next, 0, 0, n
}

// dropBlock keeps the block if strings point into it.
func (in *input) dropBlock() {
	if in.pin > 0 {
		in.pinned = append(in.pinned, in.blk)
	} else {
		putBlock(in.blk)
	}
}

// release ends the life of all strings. Unread bytes stay; without any, no buffer is held.
func (in *input) release() {
	for i, k := range in.pinned {
		putBlock(k)
		in.pinned[i] = nil
	}
	in.pinned = in.pinned[:0]
	if in.blk == nil {
		return
	}
	n := copy(in.blk.b, in.blk.b[in.r:in.w])
	in.pin, in.r, in.w = 0, 0, n
	if n == 0 {
		putBlock(in.blk)
		in.blk = nil
	}
}

// take gives a copy of the unread bytes and releases all.
func (in *input) take() []byte {
	var rest []byte
	if in.buffered() > 0 {
		rest = bytes.Clone(in.blk.b[in.r:in.w])
	}
	in.discard()
	return rest
}

// discard drops the unread bytes and releases all.
func (in *input) discard() {
	in.r = in.w
	in.release()
}

var endOfHead = []byte("\r\n\r\n")

// readHead reads up to the empty line that ends a head, and pins what it returns (empty line included). firstLine bounds the
// first line, and check, if there is one, refuses it where the rest of the head is not there yet. An end of stream before the first
// byte is io.EOF, later io.ErrUnexpectedEOF.
func (in *input) readHead(firstLine int, check func(line []byte) error) ([]byte, error) {
	checked := 0
	for {
		if n := in.buffered(); n > 0 {
			b := in.blk.b[in.r:in.w]
			if i := bytes.Index(b[max(0, checked-3):], endOfHead); i >= 0 {
				return in.cutHead(max(0, checked-3)+i+len(endOfHead), firstLine)
			}
			if err := checkPartial(b, checked, firstLine, in.lim.HeadBytes); err != nil {
				return nil, err
			}
			if k := bytes.IndexByte(b, '\n'); k >= checked && check != nil {
				if err := check(b[:k-1]); err != nil { // checkPartial has seen the CR
					return nil, err
				}
			}
			checked = n
		}
		if err := in.fill(); err != nil {
			if err == io.EOF && in.buffered() > 0 {
				return nil, io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

func (in *input) cutHead(n, firstLine int) ([]byte, error) {
	head := in.blk.b[in.r : in.r+n]
	if n > in.lim.HeadBytes {
		if bytes.IndexByte(head, '\n') > firstLine {
			return nil, errTargetLong
		}
		return nil, errHeadLong
	}
	in.r += n
	in.pin = in.r
	return head, nil
}

// checkPartial refuses early what no further byte can mend, so that a peer which waits for an answer to it gets one.
func checkPartial(b []byte, checked, firstLine, limit int) error {
	for i := checked; i < len(b); i++ {
		k := bytes.IndexByte(b[i:], '\n')
		if k < 0 {
			break
		}
		if i += k; i == 0 || b[i-1] != '\r' {
			return errBareLF
		}
	}
	if k := bytes.IndexByte(b, '\n'); k > firstLine+1 || k < 0 && len(b) > firstLine+1 {
		return errTargetLong
	}
	if len(b) >= limit {
		return errHeadLong
	}
	return nil
}

// skipEmptyLine passes over one empty line before a request line (RFC 9112 section 2.2) and returns with a byte buffered. An
// end of stream after nothing or an empty line is io.EOF.
func (in *input) skipEmptyLine() error {
	if err := in.need(1); err != nil || in.blk.b[in.r] != '\r' {
		return err
	}
	if err := in.need(2); err != nil {
		return unexpected(err)
	}
	if in.blk.b[in.r+1] == '\n' {
		in.r += 2
	}
	return in.need(1)
}

// need returns with n bytes buffered.
func (in *input) need(n int) error {
	for in.buffered() < n {
		if err := in.fill(); err != nil {
			return err
		}
	}
	return nil
}
