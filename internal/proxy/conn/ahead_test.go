package conn

import (
	"bytes"
	"io"
	"testing"
)

// pieces is a Conn that delivers its pieces one by one.
type pieces struct {
	Conn
	rest  [][]byte
	reads int
}

func (p *pieces) Wait() error { return nil }

func (p *pieces) Read(b []byte) (int, error) {
	p.reads++
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.rest[0])
	if p.rest[0] = p.rest[0][n:]; len(p.rest[0]) == 0 {
		p.rest = p.rest[1:]
	}
	return n, nil
}

// TestReadingAhead reads a stream that arrives in pieces through an adapter: unchanged, without a buffer held when there is
// nothing in it, and without touching the transport where it must not.
func TestReadingAhead(t *testing.T) {
	stream := make([]byte, 1<<20)
	for i := range stream {
		stream[i] = byte(i * i >> 5)
	}
	for _, piece := range []int{1000, 16000, 40000, 100000, len(stream)} {
		for _, ask := range []int{5, 517, 9000, 17000, 40000} {
			src := cut(stream, piece)
			a := &netAdapter{c: src}
			var got []byte
			p := make([]byte, ask)
			for {
				n, err := a.Read(p)
				if got = append(got, p[:n]...); err != nil {
					break
				}
				if a.ahead.empty() != (a.ahead.buf == nil) {
					t.Fatal("an empty buffer is held, or a full one was dropped")
				}
				got = append(got, readOnlyHere(t, a, src, p)...)
			}
			if !bytes.Equal(got, stream) {
				t.Fatalf("pieces of %d, reads of %d: the stream changed", piece, ask)
			}
			if piece == len(stream) && ask == 17000 && src.reads > 12 {
				t.Errorf("%d reads of a long stream", src.reads)
			}
		}
	}
}

func cut(stream []byte, piece int) *pieces {
	var src pieces
	for rest := stream; len(rest) > 0; {
		n := min(piece, len(rest))
		src.rest = append(src.rest, rest[:n])
		rest = rest[n:]
	}
	return &src
}

// readOnlyHere reads once in the mode that must not wait.
func readOnlyHere(t *testing.T, a *netAdapter, src *pieces, p []byte) []byte {
	t.Helper()
	before, empty := src.reads, a.ahead.empty()
	a.ahead.only = true
	n, err := a.Read(p)
	a.ahead.only = false
	if src.reads != before || empty != (err == errNotHere) || empty && n != 0 {
		t.Fatalf("read %d, %v with %d reads of the transport", n, err, src.reads-before)
	}
	return p[:n]
}
