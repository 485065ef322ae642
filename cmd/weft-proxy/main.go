// Command weft-proxy is the data plane: the sidecar of one workload, or a gateway. It is told who it is and where its control
// plane is by a bootstrap file, and everything else by the control plane.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/weftmesh/weft/internal/agent"
	"github.com/weftmesh/weft/internal/proxy"
	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/overload"
	"github.com/weftmesh/weft/internal/proxy/supervise"
	"github.com/weftmesh/weft/internal/proxy/takeover"
	"github.com/weftmesh/weft/internal/version"
	"github.com/weftmesh/weft/internal/wire"
)

// Exit codes.
const (
	exitDrained    = 0 // told to end, or a successor has taken over
	exitFailed     = 1
	exitWrongCall  = 2
	exitNotTakenUp = 3 // --takeover: the running proxy refused, or carries on
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run gives the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("weft-proxy", flag.ContinueOnError)
	flags.SetOutput(stderr)
	path := flags.String("bootstrap", "", "the `file` that says who this proxy is and where its control plane is (required)")
	backend := flags.String("io", os.Getenv("WEFT_IO"), "the I/O `back end`: poll, pollers of our own (Linux), or net, Go's; default the best there is, or $WEFT_IO")
	printVersion := flags.Bool("version", false, "print the version and exit")
	verbose := flags.Bool("verbose", false, "log details")
	take := flags.Bool("takeover", false, "take the listeners over from the process of this proxy that runs, which then drains and ends")
	supervised := flags.Bool("supervise", false, "run the proxy as a child, and on SIGHUP let the program then on disk take over from it")
	dir := flags.String("agent", "", "proxy nothing, but keep in this `folder` what a gRPC program or an Envoy needs of the mesh")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return exitDrained
		}
		return exitWrongCall
	}
	if *printVersion {
		fmt.Fprintln(stdout, "weft-proxy", version.String())
		return exitDrained
	}
	if *path == "" || flags.NArg() > 0 || *take && *supervised || *dir != "" && (*take || *supervised) {
		fmt.Fprintln(stderr, "weft-proxy: --bootstrap FILE is required, and nothing else but one of --takeover, --supervise and --agent")
		return exitWrongCall
	}
	level := new(slog.LevelVar)
	if *verbose {
		level.Set(slog.LevelDebug)
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	if *dir != "" {
		return exitCode(runAgent(ctx, *path, *dir, log), stderr)
	}
	if *supervised {
		return superviseSelf(ctx, *path, *backend, *verbose, log, stdout, stderr)
	}
	signal.Ignore(syscall.SIGHUP) // it is for the parent; by default it would end the proxy
	return exitCode(serve(ctx, *path, *backend, *take, log, level), stderr)
}

func exitCode(err error, stderr io.Writer) int {
	if err == nil {
		return exitDrained
	}
	fmt.Fprintln(stderr, "weft-proxy:", err)
	var refused *refusedError
	if errors.As(err, &refused) {
		return exitNotTakenUp
	}
	return exitFailed
}

func runAgent(ctx context.Context, path, dir string, log *slog.Logger) error {
	b, err := wire.ReadBootstrap(path)
	if err != nil {
		return err
	}
	a, err := agent.New(agent.Options{Bootstrap: b, Dir: dir, Log: log})
	if err != nil {
		return err
	}
	log.Info("agent starts", "node", b.Node.ID(), "control", b.Control, "dir", dir)
	return a.Run(ctx)
}

func superviseSelf(ctx context.Context, bootstrap, backend string, verbose bool, log *slog.Logger, stdout, stderr io.Writer) int {
	self, err := os.Executable()
	if err != nil {
		log.Error("where is this program?", "error", err)
		return exitFailed
	}
	command := []string{self, "--bootstrap", bootstrap, "--io", backend}
	if verbose {
		command = append(command, "--verbose")
	}
	upgrades := make(chan os.Signal, 1)
	signal.Notify(upgrades, syscall.SIGHUP)
	defer signal.Stop(upgrades)
	return supervise.Run(ctx, supervise.Options{Command: command, Successor: "--takeover", Upgrades: upgrades, Stdout: stdout, Stderr: stderr, Log: log})
}

// refusedError says that the process before carries on.
type refusedError struct{ error }

func (e *refusedError) Unwrap() error { return e.error }

// askTime bounds the asking for the listeners.
const askTime = 10 * time.Second

func serve(ctx context.Context, path, backend string, take bool, log *slog.Logger, level *slog.LevelVar) (err error) {
	b, err := wire.ReadBootstrap(path)
	if err != nil {
		return err
	}
	engine, err := conn.Open(backend)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, engine.Close()) }()
	o := proxy.Options{Bootstrap: b, Log: log, Level: level, Version: version.String(), Engine: engine, Tidy: true}
	if b.MemoryBytes >= 0 {
		o.MemoryLimit = overload.MemoryLimit(b.MemoryBytes)
	}
	if take {
		if b.UpgradeSocket == "" {
			return fmt.Errorf("bootstrap %s names no upgradeSocket", path)
		}
		asking, cancel := context.WithTimeout(ctx, askTime)
		o.Taken, err = takeover.Take(asking, b.UpgradeSocket, takeover.Process{PID: os.Getpid(), Release: version.String()})
		cancel()
		if err != nil {
			return &refusedError{err}
		}
		defer o.Taken.Close()
	}
	p, err := proxy.New(o)
	if err != nil {
		return err
	}
	log.Info("proxy starts", "node", b.Node.ID(), "control", b.Control, "takeover", take, "io", engine.Name())
	if err = p.Run(ctx); errors.Is(err, takeover.ErrCarriesOn) {
		return &refusedError{err}
	}
	if err == nil {
		log.Info("proxy ends")
	}
	return err
}
