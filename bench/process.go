package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/weftmesh/weft/bench/machine"
)

// process is a program that we run in the background.
type process struct {
	name  string
	log   string // the file that has its output
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has
	pids  []int         // itself and its workers, set by await
}

// start runs a program on a core. It ends with stop, and with us.
func (s *site) start(cpu int, name string, argv ...string) (*process, error) {
	s.started++
	p := &process{name: name, log: filepath.Join(s.dir, fmt.Sprintf("%s-%d.log", filepath.Base(argv[0]), s.started)), ended: make(chan struct{})}
	out, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir = out, out, s.dir
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := machine.OnCore(cpu, p.cmd.Start); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	go func() { // ends with the process
		p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// await waits until a program accepts connections at an address.
func (p *process) await(ctx context.Context, address string) error {
	return p.until(ctx, func() error {
		nc, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return err
		}
		return nc.Close()
	})
}

// startTime bounds the start of any program.
const startTime = 20 * time.Second

// until tries ready until it succeeds.
func (p *process) until(ctx context.Context, ready func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		err := ready()
		if err == nil {
			p.pids = machine.Family(p.cmd.Process.Pid)
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s has ended: %s", p.name, p.lastWords())
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%s does not serve: %w; %s", p.name, err, p.lastWords()), p.stop())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// lastWords is the end of what a program has written.
func (p *process) lastWords() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-500):])
}

// stop ends a program and waits for it.
func (p *process) stop() error {
	const grace = 5 * time.Second
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(grace):
	}
	err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.ended
	return err
}

// cpu is what the program and its workers have used since their start.
func (p *process) cpu() (sum time.Duration, err error) {
	for _, pid := range p.pids {
		t, err := machine.CPUTime(pid)
		if err != nil {
			return 0, fmt.Errorf("%s: %w; %s", p.name, err, p.lastWords())
		}
		sum += t
	}
	return sum, nil
}

// memory is the resident memory of the program and its workers, in bytes.
func (p *process) memory() (sum int64, err error) {
	for _, pid := range p.pids {
		n, err := machine.Resident(pid)
		if err != nil {
			return 0, fmt.Errorf("%s: %w; %s", p.name, err, p.lastWords())
		}
		sum += n
	}
	return sum, nil
}

// idleTime is how long a proxy is left alone before its memory is looked at: what it gives back when it has nothing to do is not what
// idleness costs.
const idleTime = 12 * time.Second

// settled is memory after a while without work.
func (p *process) settled(ctx context.Context) (int64, error) {
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(idleTime):
		return p.memory()
	}
}
