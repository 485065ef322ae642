// Command control measures the control plane: a simulated mesh of thousands of services, and thousands of real delta streams, each on
// a mutual TLS connection of its own with a certificate of its own. It is `make bench-control`; docs/bench-control.md says how to read
// its table.
//
// The control plane runs alone in a child process on one core. The clients share the other core, in the driver's process.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/weftmesh/weft/bench/machine"
)

// options are the flags.
type options struct {
	size       size
	clients    int
	uses       int
	interested int
	changes    int
	rate       int
	storm      time.Duration
	planeCPU   int
	loadCPU    int
	publish    string
	note       string
	profile    string
	plane      string // set in the child: the state directory
}

func main() {
	var o options
	flag.IntVar(&o.size.services, "services", 10_000, "services of the mesh")
	flag.IntVar(&o.size.endpoints, "endpoints", 10, "endpoints of each service; each is a pod")
	flag.IntVar(&o.clients, "clients", 10_000, "connected proxies")
	flag.IntVar(&o.uses, "uses", 20, "services that each proxy uses")
	flag.IntVar(&o.interested, "interested", 2_000, "proxies that use the service that changes")
	flag.IntVar(&o.changes, "changes", 20, "single changes of each kind that are measured")
	flag.IntVar(&o.rate, "rate", 1_000, "endpoint changes per second in the storm")
	flag.DurationVar(&o.storm, "storm", 30*time.Second, "duration of the storm")
	flag.IntVar(&o.planeCPU, "plane-cpu", runtime.NumCPU()-1, "core of the control plane")
	flag.IntVar(&o.loadCPU, "load-cpu", 0, "core of the clients")
	flag.StringVar(&o.publish, "publish", "", "Markdown `FILE` whose tables are to be replaced")
	flag.StringVar(&o.note, "note", "", "what readers should know of this run")
	flag.StringVar(&o.profile, "profile", "", "`FOLDER` for CPU and heap profiles of the control plane")
	flag.StringVar(&o.plane, "plane", "", "for the child process: run as the control plane on this state `DIR`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := o.drive
	if o.plane != "" {
		run = o.servePlane
	}
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench-control:", err)
		os.Exit(1)
	}
}

// check refuses sizes that cannot be measured.
func (o *options) check() error {
	switch {
	case o.planeCPU == o.loadCPU:
		return errors.New("the control plane needs a core of its own: at least two are required")
	case o.size.services < 4*o.uses || o.size.services > 1<<16 || o.size.endpoints < 1 || o.size.endpoints > 200:
		return errors.New("at least four times as many services as each proxy uses, at most 65,536, each with 1 to 200 endpoints")
	case o.clients > o.size.services*o.size.endpoints || o.interested > o.clients || o.interested < 10 || o.uses < 4 || o.changes < 1:
		return errors.New("proxies are pods of the mesh, at least 10 of them interested, each using 4 services or more")
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if need := uint64(o.clients + 200); limit.Max < need {
		return fmt.Errorf("%d proxies need %d open files, and this machine allows %d: choose -clients %d or fewer", o.clients, need, limit.Max, limit.Max-200)
	}
	return nil
}

// drive starts the control plane, connects the clients and measures.
func (o *options) drive(ctx context.Context) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	if err := machine.PinSelf(o.loadCPU); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "weft-bench-control-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	facts := machine.Facts()
	progress("making %d certificates", o.clients)
	certificates, err := certify(dir, o)
	if err != nil {
		return err
	}
	p, err := startPlane(ctx, dir, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	r := &results{options: o, machine: facts}
	m := &measurement{options: o, plane: p, results: r, certificates: certificates}
	if err := m.run(ctx); err != nil {
		return err
	}
	return r.report(os.Stdout)
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
