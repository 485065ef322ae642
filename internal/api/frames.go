package api

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// The exec stream: frames of one byte kind, four bytes length (big endian), payload.
const (
	execProtocol = "weft-exec"
	execHeader   = "Weft-Exec"

	frameStdin    = 0 // to the server; an empty one ends the input
	frameStdout   = 1
	frameStderr   = 2
	frameExit     = 3 // decimal exit code; the last frame
	frameError    = 4 // why the command could not be run; the last frame
	maxFrame      = 64 << 10
	frameHeadSize = 5
)

type frameWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (f *frameWriter) write(kind byte, p []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for first := true; first || len(p) > 0; first = false {
		n := min(len(p), maxFrame)
		buf := make([]byte, frameHeadSize+n)
		buf[0] = kind
		binary.BigEndian.PutUint32(buf[1:], uint32(n))
		copy(buf[frameHeadSize:], p[:n])
		if _, err := f.w.Write(buf); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// stream gives a writer whose bytes travel as frames of that kind.
func (f *frameWriter) stream(kind byte) io.Writer { return frameStream{f, kind} }

type frameStream struct {
	f    *frameWriter
	kind byte
}

func (s frameStream) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil // an empty frame would mean the end
	}
	if err := s.f.write(s.kind, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func readFrame(r io.Reader) (kind byte, payload []byte, err error) {
	var head [frameHeadSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxFrame {
		return 0, nil, fmt.Errorf("exec: frame of %d bytes", n)
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(r, payload)
	return head[0], payload, err
}

// newFrameInput turns the client's frames into a reader. gone is called when the connection ends before the input does, that is,
// when the client has left. The goroutine ends with the connection.
func newFrameInput(r io.Reader, gone func()) io.Reader {
	pr, pw := io.Pipe()
	go func() {
		defer gone()
		for {
			kind, p, err := readFrame(r)
			if err != nil {
				pw.CloseWithError(io.EOF)
				return
			}
			if kind != frameStdin {
				continue
			}
			if len(p) == 0 {
				pw.Close()
				continue // stay, to notice that the client leaves
			}
			if _, err := pw.Write(p); err != nil {
				continue // the command has closed its input
			}
		}
	}()
	return pr
}
