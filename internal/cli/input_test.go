package cli

import (
	"bytes"
	"context"
	"io"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// started is standard input that never says anything; it tells when it is read.
type started struct {
	read    chan struct{}
	forever chan struct{}
}

func (s *started) Read([]byte) (int, error) {
	close(s.read)
	<-s.forever
	return 0, io.EOF
}

// TestInterruptedWhileItReads: a command that waits for standard input, or at a pipe, ends when it is interrupted.
func TestInterruptedWhileItReads(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe_test.yaml")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Skip(err)
	}
	for _, args := range [][]string{
		{"apply", "-f", "-"}, {"delete", "-f", "-"}, {"analyze", "-"}, {"diff", "-f", "-"}, {"test", "-"},
		{"apply", "-f", pipe}, {"test", pipe},
	} {
		t.Run(strings.Join(args[:len(args)-1], " ")+" "+filepath.Base(args[len(args)-1]), func(t *testing.T) {
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			in := &started{make(chan struct{}), make(chan struct{})}
			defer close(in.forever)
			var out bytes.Buffer
			code := make(chan int, 1)
			go func() { code <- Main(ctx, args, Programs{}, in, &out, &out) }() // ends with interrupt
			if args[len(args)-1] == "-" {
				select {
				case <-in.read:
				case c := <-code:
					t.Fatalf("it does not read: code %d, %s", c, out.String())
				}
			}
			interrupt()
			select {
			case c := <-code:
				if c != 130 || out.Len() > 0 {
					t.Errorf("code %d, %q", c, out.String())
				}
			case <-time.After(3 * time.Minute):
				t.Error("it waits on")
			}
		})
	}
}

// TestTestsFromStandardInput: in both forms, with what they name beside them in the current folder.
func TestTestsFromStandardInput(t *testing.T) {
	const tests = "tests:\n- name: right\n  from: productpage\n  request: http://reviews:9080/\n  expect: {to: reviews}\n"
	for name, text := range map[string]string{
		"file":    "objects: [bookinfo.yaml]\n" + tests,
		"archive": "-- tests.yaml --\nobjects: [bookinfo.yaml]\n" + tests,
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(bookinfo)
			if code, out, errOut := files(t, text, "test", "-v", "-"); code != 0 || !strings.Contains(out, "ok    right") {
				t.Errorf("code %d\n%s%s", code, out, errOut)
			}
		})
	}
}

// TestInputIsBounded: what never ends is refused when it has become too much, and what is no file in a folder is not waited for.
func TestInputIsBounded(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe.yaml")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Skip(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"analyze", "/dev/zero"}, "FileTooLarge"},
		{[]string{"analyze", "-"}, "FileTooLarge"},
		{[]string{"analyze", dir}, pipe + ": not a regular file"},
		{[]string{"analyze", "-R", dir}, pipe + ": not a regular file"},
	} {
		var out bytes.Buffer
		if code := Main(t.Context(), c.args, Programs{}, endless{}, &out, &out); code != 1 || !strings.Contains(out.String(), c.want) {
			t.Errorf("%v: code %d, %s", c.args, code, out.String())
		}
	}
}

// endless is comments for ever.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '#'
	}
	return len(p), nil
}
