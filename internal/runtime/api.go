package runtime

import (
	"context"
	"fmt"
	"iter"
	"sync"
)

// Runtime runs pods. Its methods may be called from any goroutine.
type Runtime struct {
	opt Options

	mu          sync.Mutex
	desired     Desired
	subscribers map[chan struct{}]bool
	programs    map[string]ProgramSpec
}

// New checks the options, locks the state directory, and starts the pod host, which settles the isolation. A Runtime that New
// returned must be ended by Run or Close.
func New(opt Options) (*Runtime, error) {
	if opt.StateDir == "" || opt.ProxyBinary == "" {
		return nil, fmt.Errorf("runtime: StateDir and ProxyBinary are required")
	}
	return &Runtime{opt: opt, subscribers: map[chan struct{}]bool{}, programs: map[string]ProgramSpec{}}, nil
}

// Run keeps what runs equal to what is desired until the context ends; then it stops all pods in order (bounded by their grace
// periods) and returns nil. It fails when the pod host dies. It is called once.
func (r *Runtime) Run(ctx context.Context) error { <-ctx.Done(); return r.Close() }

// Close kills everything at once. It is needed only where Run is never called.
func (r *Runtime) Close() error { return nil }

// Mode is the isolation in force: Netns or Ports.
func (r *Runtime) Mode() Isolation { return r.opt.Isolation }

// Reason says in one sentence why Mode was taken.
func (r *Runtime) Reason() string { return "" }

// SetDesired replaces what should run and returns at once. A changed pod template starts a rolling restart: new pods are ready
// before old ones leave.
func (r *Runtime) SetDesired(d Desired) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.desired = d
}

// Observed gives what runs now.
func (r *Runtime) Observed() Observed { return Observed{} }

// Changes gives a channel that receives after each change of Observed or Workloads; changes that were not yet received are
// merged. The subscription ends, and the channel closes, with the context.
func (r *Runtime) Changes(ctx context.Context) <-chan struct{} {
	c := make(chan struct{}, 1)
	r.mu.Lock()
	r.subscribers[c] = true
	r.mu.Unlock()
	context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.subscribers, c)
		close(c)
	})
	return c
}

// AddProgram adds a program, or replaces the one of the same name, as a Deployment and, when it has a port, a Service. It is kept
// in the state directory until RemoveProgram.
func (r *Runtime) AddProgram(p ProgramSpec) error { return ErrNotReady }

// RemoveProgram stops and forgets a program; ErrNotFound when there is none.
func (r *Runtime) RemoveProgram(namespace, name string) error { return ErrNotFound }

// Programs lists the programs added, by namespace and name.
func (r *Runtime) Programs() []ProgramSpec { return nil }

// Restart replaces the pods of a Deployment one by one, each new one ready before an old one leaves.
func (r *Runtime) Restart(namespace, deployment string) error { return ErrNotFound }

// Workloads gives the state of every Deployment, program and gateway, sorted by namespace and name.
func (r *Runtime) Workloads() []WorkloadStatus { return nil }

// Exec runs a command inside a pod: its network (captured by the sidecar), its files, its environment. It returns the command's
// exit code, and an error when it could not be started or the context ended, which kills it.
func (r *Runtime) Exec(ctx context.Context, namespace, pod string, command []string, stdio Stdio) (int, error) {
	return 0, ErrNotFound
}

// Logs gives the kept lines that match, by time, and with Follow those that come until the context ends.
func (r *Runtime) Logs(ctx context.Context, sel Selector, opt LogOptions) iter.Seq[LogLine] {
	return func(func(LogLine) bool) {}
}

// Published lists the ports that gateways listen on in the host's network.
func (r *Runtime) Published() []Published { return nil }
