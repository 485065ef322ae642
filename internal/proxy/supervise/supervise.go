// Package supervise is the parent of a proxy where nothing else can be it: a service manager or a container engine that knows one
// process, which must stay the same while programs replace each other. It starts the proxy, starts a successor when told to, passes
// the end on, and leaves the rest to them: which of two processes serves is settled between them (package takeover).
package supervise

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
)

// Options of Run. All are required.
type Options struct {
	// Command starts the proxy; with the argument Successor added it takes over from the running one.
	Command   []string
	Successor string
	// Upgrades asks for a successor. The program is looked for on disk at that moment.
	Upgrades       <-chan os.Signal
	Stdout, Stderr io.Writer
	Log            *slog.Logger
}

// child is a started process. ended receives when it has ended.
type child struct {
	cmd *exec.Cmd
	err error
}

// Run starts the proxy and returns the exit code of the process that served last, once none runs any more. When ctx ends, every process
// is told to (SIGTERM).
func Run(ctx context.Context, o Options) int {
	ended := make(chan *child)
	running := map[*child]bool{}
	start := func(args []string) error {
		c := &child{cmd: exec.Command(args[0], args[1:]...)}
		c.cmd.Stdout, c.cmd.Stderr = o.Stdout, o.Stderr
		if err := c.cmd.Start(); err != nil {
			return err
		}
		running[c] = true
		o.Log.Info("process started", "pid", c.cmd.Process.Pid)
		go func() { // ends with the process
			c.err = c.cmd.Wait()
			ended <- c
		}()
		return nil
	}
	if err := start(o.Command); err != nil {
		o.Log.Error("the proxy does not start", "error", err)
		return 1
	}
	stop := ctx.Done()
	for {
		select {
		case <-stop:
			stop = nil
			for c := range running {
				_ = c.cmd.Process.Signal(syscall.SIGTERM) // one that has ended is heard of below
			}
		case <-o.Upgrades:
			if stop == nil {
				continue
			}
			if err := start(append(o.Command[:len(o.Command):len(o.Command)], o.Successor)); err != nil {
				o.Log.Error("the successor does not start; the running proxy carries on", "error", err)
			}
		case c := <-ended:
			delete(running, c)
			code := exitCode(c.err)
			o.Log.Info("process ended", "pid", c.cmd.Process.Pid, "code", code)
			if len(running) == 0 {
				return code
			}
		}
	}
}

// exitCode is the shell's: 128 and the signal's number for one that a signal ended.
func exitCode(err error) int {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		if err != nil {
			return 1
		}
		return 0
	}
	if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		return 128 + int(s.Signal())
	}
	return exit.ExitCode()
}
