// Package replica is a control plane that runs by itself, without workloads: alone, or as one of several that share their objects and
// are one authority to the proxies.
package replica

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/ca"
	"github.com/weftmesh/weft/internal/control"
	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/source/consul"
	"github.com/weftmesh/weft/internal/control/source/etcd"
	"github.com/weftmesh/weft/internal/control/source/kube"
)

// Options of Run. StateDir and RunDir are required.
type Options struct {
	Mesh, StateDir, RunDir string
	Paths                  []string // files and folders with objects
	// Kubeconfig is the file that leads to a Kubernetes API server, or InCluster; empty for none.
	Kubeconfig string
	// Consul is the URL of a Consul whose services are read; empty for none. ConsulToken is the ACL token for it.
	Consul, ConsulToken string
	ConsulTLS           *tls.Config // nil for the system's roots
	// Etcd are the endpoints of the etcd that keeps what is applied, and the authority; empty for a database of our own.
	Etcd       []string
	EtcdPrefix string
	EtcdTLS    *tls.Config

	Address     string // for proxies, "host:port"
	HTTPAddress string // metrics and debug pages; "-" for none
	Settings    model.Settings
	CertTTL     time.Duration
	Log         *slog.Logger
}

// InCluster stands for the service account of the pod that the process runs in.
const InCluster = "in-cluster"

// replica is one run.
type replica struct {
	Options
	started time.Time
	cluster *kube.Source // nil for none, as etcd is
	etcd    *etcd.Store
	opened  chan struct{} // closed when control is there
	control *control.Control
	silence atomic.Pointer[string] // why etcd is waited for; nil before that is known
	down    context.CancelFunc
}

// Run serves until the context ends or somebody asks for the end through the API.
func Run(ctx context.Context, o Options) error {
	ctx, down := context.WithCancel(ctx)
	defer down()
	r := &replica{Options: o, started: time.Now(), opened: make(chan struct{}), down: down}
	socket, err := api.Listen(o.Mesh, o.RunDir)
	if err != nil {
		return err
	}
	defer api.Leave(o.RunDir)
	defer socket.Close()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.serveAPI(ctx, socket) })
	g.Go(func() error {
		if err := r.open(ctx); err != nil {
			if ctx.Err() != nil { // it was not to be waited for any more
				return nil
			}
			return err
		}
		close(r.opened)
		return r.serve(ctx)
	})
	return errors.Join(g.Wait(), r.close())
}

// serve runs what was opened until the context ends.
func (r *replica) serve(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	changes := r.control.Changes(ctx)
	g.Go(func() error { return r.control.Run(ctx) })
	g.Go(func() error { r.tell(ctx, changes); return nil })
	if r.cluster != nil {
		g.Go(func() error { return r.keepStatuses(ctx) })
	}
	if r.etcd != nil {
		g.Go(func() error { return r.keepAuthority(ctx) })
		g.Go(func() error { return r.etcd.KeepStatuses(ctx, r.name(), r.control.Changes, r.told) })
	}
	return g.Wait()
}

// open joins the sources and the authority.
func (r *replica) open(ctx context.Context) (err error) {
	check := compile.CheckFor(r.Settings)
	o := control.Options{StateDir: r.StateDir, Paths: r.Paths, Settings: r.Settings, Address: r.Address, HTTPAddress: r.HTTPAddress, Log: r.Log}
	if r.Kubeconfig != "" {
		path := r.Kubeconfig
		if path == InCluster {
			path = ""
		}
		config, namespace, err := kube.LoadConfig(path)
		if err != nil {
			return err
		}
		r.cluster, err = kube.New(kube.Options{Config: config, Namespace: namespace, Check: check, Log: r.Log})
		if err != nil {
			return err
		}
		o.Sources, o.Replicated = append(o.Sources, source.Source(r.cluster)), true
	}
	if r.Consul != "" {
		catalog, err := consul.New(consul.Options{Address: r.Consul, Token: r.ConsulToken, TLS: r.ConsulTLS, Check: check, Log: r.Log})
		if err != nil {
			return err
		}
		o.Sources = append(o.Sources, source.Source(catalog))
	}
	if len(r.Etcd) > 0 {
		r.etcd, err = etcd.Open(etcd.Options{Endpoints: r.Etcd, Prefix: r.EtcdPrefix, TLS: r.EtcdTLS, Check: check, Log: r.Log})
		if err != nil {
			return err
		}
		o.Applied, o.Replicated = r.etcd, true
	}
	if o.Authority, o.Tokens, err = r.openAuthority(ctx); err != nil {
		return err
	}
	r.control, err = control.New(o)
	if err != nil {
		return errors.Join(err, o.Authority.Close())
	}
	return nil
}

func (r *replica) close() error {
	if r.etcd == nil {
		return nil
	}
	return r.etcd.Close()
}

// openAuthority opens the one in the state directory, having made it the one that all replicas share.
func (r *replica) openAuthority(ctx context.Context) (*ca.Authority, *ca.Tokens, error) {
	dir := r.authorityDir()
	if r.etcd != nil {
		r.Log.Info("the authority is read from etcd", "endpoints", r.Etcd)
		if err := r.share(ctx, dir); err != nil {
			return nil, nil, err
		}
	}
	return openCA(dir, r.Settings.TrustDomain, r.CertTTL, r.Log)
}

// sharePause is between attempts to reach etcd, each of which takes as long as a request may.
const sharePause = time.Second

// share waits for etcd: whatever starts with it need not come after it.
func (r *replica) share(ctx context.Context, dir string) error {
	waits := func(reason string) {
		r.silence.Store(&reason)
		r.Log.Info("etcd is waited for", "reason", reason)
	}
	for {
		err := share(ctx, r.etcd, dir, r.Settings.TrustDomain, waits)
		if !errors.Is(err, etcd.ErrSilent) || ctx.Err() != nil {
			return err
		}
		reason := err.Error()
		r.silence.Store(&reason)
		r.Log.Warn("etcd does not answer; nothing is served before it does", "error", reason)
		select {
		case <-time.After(sharePause):
		case <-ctx.Done():
		}
	}
}

// waitsFor says what a start waits for, since when and why.
func (r *replica) waitsFor() string {
	if len(r.Etcd) == 0 {
		return "its authority"
	}
	reason := "no answer from " + strings.Join(r.Etcd, ", ") + " yet"
	if last := r.silence.Load(); last != nil {
		reason = *last
	}
	return fmt.Sprintf("etcd since %s: %s", r.started.UTC().Format(time.RFC3339), reason)
}

func openCA(dir, domain string, ttl time.Duration, log *slog.Logger) (*ca.Authority, *ca.Tokens, error) {
	authority, err := ca.Open(dir, ca.Options{TrustDomain: domain, LeafTTL: ttl, Log: log})
	if err != nil {
		return nil, nil, err
	}
	tokens, err := ca.OpenTokens(dir, ca.TokenOptions{TrustDomain: domain})
	if err != nil {
		return nil, nil, errors.Join(err, authority.Close())
	}
	return authority, tokens, nil
}

// handler serves the API, before everything is there already.
func (r *replica) handler() http.Handler {
	starting, whole := api.Starting(r, r.waitsFor), api.Handler(r.backend())
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		select {
		case <-r.opened:
			whole.ServeHTTP(w, req)
		default:
			starting.ServeHTTP(w, req)
		}
	})
}

func (r *replica) serveAPI(ctx context.Context, l net.Listener) error {
	server := &http.Server{Handler: r.handler(), ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx }, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	answered := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(answered)
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTime)
		defer cancel()
		_ = server.Shutdown(last) // whoever asked for the end is answered
		_ = server.Close()
	})
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		stop()
		return fmt.Errorf("api: %w", err)
	}
	<-answered
	return nil
}

// answerTime bounds how long requests are waited for at the end.
const answerTime = time.Second
