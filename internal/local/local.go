// Package local is a whole mesh on one machine: it joins the control plane, the local runtime, the metrics of all proxies and the
// API in one process, the one that `weft up` starts.
package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/ca"
	"github.com/weftmesh/weft/internal/collect"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/runtime"
)

// Options configure a mesh.
type Options struct {
	Mesh     string
	Paths    []string // files and folders with objects
	StateDir string
	RunDir   string // for sockets; short

	ProxyBinary    string
	CommandDirs    []string
	Images         map[string][]string
	Isolation      string
	PublishAddress string
	Publish        map[uint16]uint16

	XDSAddress     string         // "host:port"; empty for the unix socket alone
	MetricsAddress string         // "host:port"; empty for none
	Settings       model.Settings // with a trust domain
	CertTTL        time.Duration

	Log *slog.Logger
}

// Mesh is a running mesh.
type Mesh struct {
	opt     Options
	log     *slog.Logger
	started time.Time

	authority *ca.Authority
	tokens    *ca.Tokens
	runtime   *runtime.Runtime
	plane     *plane
	collector *collect.Collector
	down      context.CancelFunc
	telling   sync.Mutex  // orders what the control plane is told
	fed       atomic.Bool // the runtime has been told once what to run
}

// Up runs a mesh until the context ends, somebody asks for its end through the API, or it fails.
func Up(ctx context.Context, o Options) error {
	ctx, down := context.WithCancel(ctx)
	defer down()
	m := &Mesh{opt: o, log: o.Log, started: time.Now(), down: down}
	listener, err := api.Listen(o.Mesh, o.RunDir)
	if err != nil {
		return err
	}
	defer api.Leave(o.RunDir)
	defer listener.Close()
	if err := m.open(); err != nil {
		return err
	}
	defer m.authority.Close()
	return m.run(ctx, listener)
}

// open makes or loads what lives longer than one control plane: keys and the runtime.
func (m *Mesh) open() (err error) {
	caDir := filepath.Join(m.opt.StateDir, "ca")
	if m.authority, err = ca.Open(caDir, ca.Options{TrustDomain: m.opt.Settings.TrustDomain, LeafTTL: m.opt.CertTTL, Log: m.log}); err != nil {
		return err
	}
	if m.tokens, err = ca.OpenTokens(caDir, ca.TokenOptions{TrustDomain: m.opt.Settings.TrustDomain}); err != nil {
		return errors.Join(err, m.authority.Close())
	}
	m.runtime, err = runtime.New(runtime.Options{
		StateDir: filepath.Join(m.opt.StateDir, "runtime"), RunDir: filepath.Join(m.opt.RunDir, "r"),
		ProxyBinary: m.opt.ProxyBinary, Isolation: runtime.Isolation(m.opt.Isolation),
		PublishAddress: m.opt.PublishAddress, Publish: m.opt.Publish,
		Control: "unix://" + m.xdsSocket(), TrustDomain: m.opt.Settings.TrustDomain,
		Roots:       func() (string, error) { return string(m.authority.RootsPEM()), nil },
		Token:       func(p identity.Peer) (string, error) { return m.tokens.Mint(p) },
		CommandDirs: m.opt.CommandDirs, Images: m.opt.Images, Log: m.log,
		AccessLog: m.opt.Settings.AccessLog, RegistryOnly: m.opt.Settings.RegistryOnly,
		Hidden: []string{m.opt.StateDir, m.opt.RunDir, filepath.Dir(api.StateDir(m.opt.Mesh)), filepath.Dir(api.RunDir(m.opt.Mesh))}, // of other meshes too
	})
	if err != nil {
		return errors.Join(err, m.authority.Close())
	}
	m.collector = collect.New(m.targets, scrapeInterval, m.log)
	m.plane = newPlane(m.openControl, m.feedRuntime, m.log)
	return nil
}

func (m *Mesh) xdsSocket() string { return filepath.Join(m.opt.RunDir, "xds.sock") }

// run runs the parts until one fails or the context ends, then stops the workloads while the control plane still serves.
func (m *Mesh) run(ctx context.Context, l net.Listener) error {
	// The parts end in this order: runtime first, so that draining proxies still hear of endpoints; then everything else.
	rest, stopRest := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRest()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer stopRest()
		return m.runtime.Run(ctx)
	})
	g.Go(func() error { return m.plane.run(rest) })
	g.Go(func() error { return m.collector.Run(rest) })
	g.Go(func() error { m.feedControl(rest); return nil })
	g.Go(func() error { return serveHTTP(rest, l, api.Handler(m.backend())) })
	return g.Wait()
}

// serveHTTP serves until the context ends; live streams are cut.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	defer context.AfterFunc(ctx, func() { srv.Close() })()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("api: %w", err)
	}
	return nil
}

// scrapeInterval is how often metrics are read while nobody looks; whoever asks for the graph gets a fresh reading.
const scrapeInterval = 5 * time.Second

// targets are the proxies whose metrics are collected.
func (m *Mesh) targets() []collect.Target {
	var ts []collect.Target
	for _, w := range m.runtime.Workloads() {
		for _, p := range w.Pods {
			if p.AdminSocket != "" {
				ts = append(ts, collect.Target{Pod: p.Name, Namespace: w.Namespace, Socket: p.AdminSocket})
			}
		}
	}
	return ts
}

// NewLogger gives the log of a mesh: readable lines at the level that was asked for.
func NewLogger(w io.Writer, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: want debug, info, warn or error", level)
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l})), nil
}
