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

	"github.com/weftmesh/weft/internal/proxy"
	"github.com/weftmesh/weft/internal/version"
	"github.com/weftmesh/weft/internal/wire"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run gives the exit code: 0 after draining, 1 for a failure, 2 for a wrong call.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("weft-proxy", flag.ContinueOnError)
	flags.SetOutput(stderr)
	path := flags.String("bootstrap", "", "the `file` that says who this proxy is and where its control plane is (required)")
	printVersion := flags.Bool("version", false, "print the version and exit")
	verbose := flags.Bool("verbose", false, "log details")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if *printVersion {
		fmt.Fprintln(stdout, "weft-proxy", version.String())
		return 0
	}
	if *path == "" || flags.NArg() > 0 {
		fmt.Fprintln(stderr, "weft-proxy: --bootstrap FILE is required, and nothing else")
		return 2
	}
	if err := serve(ctx, *path, *verbose, stderr); err != nil {
		fmt.Fprintln(stderr, "weft-proxy:", err)
		return 1
	}
	return 0
}

func serve(ctx context.Context, path string, verbose bool, stderr io.Writer) error {
	b, err := wire.ReadBootstrap(path)
	if err != nil {
		return err
	}
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	p, err := proxy.New(proxy.Options{Bootstrap: b, Log: log, Version: version.String()})
	if err != nil {
		return err
	}
	log.Info("proxy starts", "node", b.Node.ID(), "control", b.Control)
	err = p.Run(ctx)
	if err == nil {
		log.Info("proxy ends")
	}
	return err
}
