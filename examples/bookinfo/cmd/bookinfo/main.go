// Command bookinfo runs one service of the Bookinfo sample: productpage, details, reviews or ratings.
//
// It serves until SIGTERM or SIGINT, then finishes the requests it has, for 5 s at most. Settings come from the environment, with
// the names that Istio's sample uses; the flags -port and -version go before them. Access records go to standard output.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/weftmesh/weft/examples/bookinfo/app"
)

// maxDrain bounds how long live requests may go on after the signal to stop.
const maxDrain = 5 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "bookinfo:", err)
		os.Exit(1)
	}
}

// errUsage is returned once the mistake and the usage are on stderr.
var errUsage = errors.New("usage")

const usage = `usage: bookinfo SERVICE [-port N] [-version V]

SERVICE is productpage, details, reviews or ratings.

environment:
  PORT                   port to listen on (9080)
  SERVICE_VERSION        version to run as (v1): of reviews v1 has no stars, v2 black ones, v3 red ones
  STAR_COLOR             colour of reviews' stars, if not that of its version
  DETAILS_HOSTNAME, REVIEWS_HOSTNAME, RATINGS_HOSTNAME
                         hosts of the other services (details, reviews, ratings)
  DETAILS_SERVICE_PORT, REVIEWS_SERVICE_PORT, RATINGS_SERVICE_PORT
                         their ports (9080)
  SERVICES_DOMAIN        appended to the hosts
  DETAILS_SERVICE_HOST, REVIEWS_SERVICE_HOST, RATINGS_SERVICE_HOST
                         taken in place of the hosts above if a loopback address: services that share a machine
  HOSTNAME, CLUSTER_NAME names that reviews gives for itself
  HTTP_PROXY, NO_PROXY   as usual
  LOG_LEVEL              debug also records calls of /health (info)
`

// run serves until ctx ends. Once it returns nothing of it is left.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	set, err := readSettings(args, getenv, stderr)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stdout, &slog.HandlerOptions{Level: set.level}))
	transport := app.NewTransport()
	defer transport.CloseIdleConnections()
	set.app.Logger, set.app.Transport = log, transport
	handler, err := app.New(set.service, set.app)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("", set.port))
	if err != nil {
		return err
	}
	log.Info("serving", "service", set.service, "version", set.app.Version, "address", listener.Addr().String())
	if err := serve(ctx, listener, handler); err != nil {
		return err
	}
	log.Info("stopped", "service", set.service)
	return nil
}

// serve answers on listener until ctx ends, then drains. It closes listener.
func serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }() // ends with Shutdown, Close or a broken listener
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), maxDrain)
	defer cancel()
	err := server.Shutdown(drain)
	<-failed
	if errors.Is(err, context.DeadlineExceeded) {
		return server.Close() // what is still going on had its time
	}
	return err
}

// settings is what the command line and the environment say.
type settings struct {
	service, port string
	level         slog.Level
	app           app.Config
}

func readSettings(args []string, getenv func(string) string, stderr io.Writer) (settings, error) {
	env := func(name, otherwise string) string { return cmp.Or(getenv(name), otherwise) }
	flags := flag.NewFlagSet("bookinfo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage) }
	port := flags.String("port", env("PORT", "9080"), "")
	version := flags.String("version", env("SERVICE_VERSION", "v1"), "")
	service, err := parseArgs(flags, args, stderr)
	if err != nil {
		return settings{}, err
	}
	if _, err := strconv.ParseUint(*port, 10, 16); err != nil {
		return settings{}, fmt.Errorf("port %q: want a number from 0 to 65535", *port)
	}
	set := settings{service: service, port: *port}
	if err := set.level.UnmarshalText([]byte(env("LOG_LEVEL", "info"))); err != nil {
		return settings{}, fmt.Errorf("LOG_LEVEL: %w", err)
	}
	set.app = app.Config{
		Version:     *version,
		PodName:     podName(getenv),
		ClusterName: getenv("CLUSTER_NAME"),
		StarColor:   getenv("STAR_COLOR"),
		Details:     address(getenv, "details"),
		Reviews:     address(getenv, "reviews"),
		Ratings:     address(getenv, "ratings"),
	}
	return set, nil
}

// address returns the base URL of another service. A cluster gives each service a SERVICE_HOST as well, but the name is what
// routing by host goes by, so the address counts only where it is loopback: there the names need not resolve.
func address(getenv func(string) string, service string) string {
	prefix := strings.ToUpper(service)
	port := cmp.Or(getenv(prefix+"_SERVICE_PORT"), "9080")
	if ip, err := netip.ParseAddr(getenv(prefix + "_SERVICE_HOST")); err == nil && ip.IsLoopback() {
		return "http://" + net.JoinHostPort(ip.String(), port)
	}
	host := cmp.Or(getenv(prefix+"_HOSTNAME"), service)
	if domain := getenv("SERVICES_DOMAIN"); domain != "" {
		host += "." + domain
	}
	return "http://" + net.JoinHostPort(host, port)
}

// parseArgs takes the service first and flags after it, or flags first.
func parseArgs(flags *flag.FlagSet, args []string, stderr io.Writer) (service string, err error) {
	if err := flags.Parse(args); err != nil {
		return "", usageError(err)
	}
	service = flags.Arg(0)
	if flags.NArg() > 0 {
		if err := flags.Parse(flags.Args()[1:]); err != nil {
			return "", usageError(err)
		}
	}
	if service == "" || flags.NArg() > 0 {
		fmt.Fprint(stderr, usage)
		return "", errUsage
	}
	return service, nil
}

// usageError keeps flag.ErrHelp and turns every other mistake, which flag has printed, into errUsage.
func usageError(err error) error {
	if errors.Is(err, flag.ErrHelp) {
		return err
	}
	return errUsage
}

// podName is what Kubernetes puts in HOSTNAME, or the machine's name.
func podName(getenv func(string) string) string {
	if name := getenv("HOSTNAME"); name != "" {
		return name
	}
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}
