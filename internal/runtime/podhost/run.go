package podhost

import (
	"context"
	"io"
	"os"
	"syscall"
)

// Run starts a process, joins it to the streams (nil ones are /dev/null) and waits for its end; the context's end kills it.
func (c *Client) Run(ctx context.Context, p Process, in io.Reader, out, errOut io.Writer) (Exit, error) {
	streams, err := newStreams(in, out, errOut)
	if err != nil {
		return Exit{}, err
	}
	r, err := c.Start(ctx, p, streams.files)
	streams.started()
	if err != nil {
		streams.wait()
		return Exit{}, err
	}
	stop := context.AfterFunc(ctx, func() {
		r.Signal(syscall.SIGKILL) // fails only when it ended already
		<-r.Done()
		streams.cut()
	})
	<-r.Done()
	streams.wait()
	stop()
	if ctx.Err() != nil {
		return r.Exit(), context.Cause(ctx)
	}
	return r.Exit(), nil
}

// streams joins readers and writers to the files that a process has. A stream that is a file is passed as it is.
type streams struct {
	files   [3]*os.File
	ours    []*os.File   // the process's ends, closed once it has them
	in      *os.File     // our end of its input
	out     []chan error // one for each copy of output
	readers []*os.File   // their pipes
}

func newStreams(in io.Reader, out, errOut io.Writer) (*streams, error) {
	s := &streams{}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	s.ours = append(s.ours, null)
	s.files = [3]*os.File{null, null, null}
	if f, ok := in.(*os.File); ok {
		s.files[0] = f
	} else if in != nil {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		s.files[0], s.ours, s.in = r, append(s.ours, r), w
		go func() { // ends when the process's input is closed and the reader gives once more, or ends
			io.Copy(w, in)
			w.Close()
		}()
	}
	for i, dst := range []io.Writer{out, errOut} {
		if f, ok := dst.(*os.File); ok {
			s.files[i+1] = f
			continue
		}
		if dst == nil {
			continue
		}
		if i == 1 && dst == out {
			s.files[2] = s.files[1]
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		s.files[i+1], s.ours = w, append(s.ours, w)
		done := make(chan error, 1)
		s.out, s.readers = append(s.out, done), append(s.readers, r)
		go func() { // ends when no process holds the pipe
			_, err := io.Copy(dst, r)
			r.Close()
			done <- err
		}()
	}
	return s, nil
}

func (s *streams) started() {
	for _, f := range s.ours {
		f.Close()
	}
}

// cut ends the copies of output although a process that left the group still holds a pipe.
func (s *streams) cut() {
	for _, r := range s.readers {
		r.Close()
	}
}

func (s *streams) wait() {
	for _, c := range s.out {
		<-c
	}
	if s.in != nil {
		s.in.Close()
	}
}
