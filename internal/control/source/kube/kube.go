// Package kube is the source that reads a Kubernetes API server: every kind that the mesh reads, followed by list and watch.
//
// Kubernetes' own kinds come as protobuf into their types; all others come as JSON and pass the same strict decoder as files, so
// that a field nobody would act on is refused by name. Kinds that the server does not know yet (their CRD is not installed) are
// waited for without holding up the rest, and taken when they appear. While the server is away, what was read stays in force.
//
// Of several control planes that use a cluster, one writes the objects' statuses: Lead says which, KeepStatuses does it.
//
// One Source is one cluster. Several in a source.Set are several clusters; Options.Cluster names them.
package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// Layer is that of objects from Kubernetes.
const Layer = source.LayerKubernetes

// Options of New. Config is required.
type Options struct {
	Config *rest.Config
	// Cluster is the cluster's name among several; it goes into the objects' Origin. Empty where there is one.
	Cluster string
	// Namespace is where control planes agree on a leader; "default" when empty.
	Namespace string
	// Check judges one decoded object (compile.Check); an error finding refuses it. Nil accepts everything.
	Check func(*source.Object) []model.Finding
	Log   *slog.Logger // slog.Default
}

// Source reads one cluster. Run is called once.
type Source struct {
	options   Options // these are set once
	log       *slog.Logger
	discovery *discovery.DiscoveryClient
	dynamic   dynamic.Interface
	metadata  metadata.Interface

	intake   source.Intake
	statuses statuses
}

// podNamespace is where a pod finds the namespace that it runs in.
const podNamespace = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// LoadConfig reads a kubeconfig file, and the namespace of its context; an empty path means the service account of the pod that this
// process runs in, and its namespace.
func LoadConfig(path string) (c *rest.Config, namespace string, err error) {
	if path == "" {
		if c, err = rest.InClusterConfig(); err != nil {
			return nil, "", fmt.Errorf("kubernetes: no kubeconfig is given, and this is not a pod: %w", err)
		}
		text, err := os.ReadFile(podNamespace)
		if err != nil {
			return nil, "", fmt.Errorf("kubernetes: the pod's namespace: %w", err)
		}
		return c, strings.TrimSpace(string(text)), nil
	}
	file := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(&clientcmd.ClientConfigLoadingRules{ExplicitPath: path}, &clientcmd.ConfigOverrides{})
	if c, err = file.ClientConfig(); err == nil {
		namespace, _, err = file.Namespace()
	}
	if err != nil {
		return nil, "", fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	return c, namespace, nil
}

// New prepares a source; it does not touch the network.
func New(o Options) (*Source, error) {
	if o.Config == nil {
		return nil, errors.New("kubernetes: a configuration is required")
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Namespace == "" {
		o.Namespace = source.DefaultNamespace
	}
	c := rest.CopyConfig(o.Config)
	// The server shares its capacity out by itself (API priority and fairness); the client's own limit would only slow the start.
	c.QPS, c.WarningHandler = -1, rest.NoWarnings{}
	c.Wrap(func(rt http.RoundTripper) http.RoundTripper { return attempts{rt} })
	o.Config = c
	s := &Source{options: o, log: o.Log.With("cluster", o.Cluster), statuses: statuses{known: map[source.Key]kept{}, moved: make(chan struct{}, 1)}}
	var errs [3]error
	s.discovery, errs[0] = discovery.NewDiscoveryClientForConfig(c)
	s.dynamic, errs[1] = dynamic.NewForConfig(c)
	s.metadata, errs[2] = metadata.NewForConfig(c)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	return s, nil
}

// Layer implements source.Source.
func (s *Source) Layer() string { return Layer }

// Run implements source.Source. It first publishes when the server has told its kinds and each of those was listed whole.
func (s *Source) Run(ctx context.Context, publish func(source.Change)) error {
	ctx, cancel := context.WithCancel(quietly(ctx, s.log))
	r := &run{Source: s, followers: map[*source.Kind]*follower{}, crds: make(chan struct{}, 1), back: make(chan wentBack, 1)}
	s.intake.Begin(s.place(), publish)
	defer func() {
		s.intake.Close() // first, so that nothing is published any more
		cancel()
		r.tasks.Wait()
	}()
	r.definitions = r.begin(ctx, r.watchDefinitions)
	if first, ok := r.discoverFirst(ctx); ok {
		r.begin(ctx, func(ctx context.Context) { s.openAfter(ctx, first) })
		r.keepLooking(ctx)
	}
	return nil
}

// openAfter publishes what was read once nothing of the kinds that were there at first is waited for.
func (s *Source) openAfter(ctx context.Context, first []*follower) {
	for _, f := range first {
		select {
		case <-f.settled:
		case <-ctx.Done():
			return
		}
	}
	s.log.Info("everything in Kubernetes was read", "kinds", len(first))
	s.intake.Open()
}

// quietly has the client library log for debugging alone: what matters of it is told by us.
func quietly(ctx context.Context, log *slog.Logger) context.Context {
	return logr.NewContext(ctx, logr.FromSlogHandler(debugging{log.Handler()}).V(-int(slog.LevelDebug)))
}

// debugging lowers what is logged to the level for debugging.
type debugging struct{ to slog.Handler }

// Enabled implements slog.Handler, as the methods below do.
func (d debugging) Enabled(ctx context.Context, l slog.Level) bool {
	return d.to.Enabled(ctx, min(l, slog.LevelDebug))
}

// Handle passes a record on. Of errors, the library does not ask before whether they are wanted.
func (d debugging) Handle(ctx context.Context, r slog.Record) error {
	if r.Level = min(r.Level, slog.LevelDebug); !d.to.Enabled(ctx, r.Level) {
		return nil
	}
	return d.to.Handle(ctx, r)
}

// WithAttrs keeps the level.
func (d debugging) WithAttrs(as []slog.Attr) slog.Handler { return debugging{d.to.WithAttrs(as)} }

// WithGroup keeps the level.
func (d debugging) WithGroup(name string) slog.Handler { return debugging{d.to.WithGroup(name)} }

// run is the state of one Run; its one goroutine owns it, save for what says otherwise.
type run struct {
	*Source
	followers   map[*source.Kind]*follower
	definitions task
	tasks       sync.WaitGroup
	crds        chan struct{} // has room for one: a definition has changed
	back        chan wentBack // has room for one
}

// task is a goroutine of a run that can be ended before the run is.
type task struct {
	stop  context.CancelFunc
	ended chan struct{}
}

// begin starts a task, which ends with its stop or the context.
func (r *run) begin(ctx context.Context, do func(context.Context)) task {
	ctx, stop := context.WithCancel(ctx)
	t := task{stop, make(chan struct{})}
	r.tasks.Go(func() {
		defer close(t.ended)
		defer stop()
		do(ctx)
	})
	return t
}

// The pauses between looks at what the server knows: short after a definition has changed, since it is served a moment later.
const (
	firstLook = 100 * time.Millisecond
	lastLook  = 10 * time.Second
)

// kinds are what is read of the server first, as findings call them.
const kinds = "the list of its kinds"

// discoverFirst starts the followers of all kinds that there are, as soon as the server answers.
func (r *run) discoverFirst(ctx context.Context) ([]*follower, bool) {
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		err := r.discover(ctx)
		if err == nil {
			r.intake.Back(kinds)
			break
		}
		if ctx.Err() != nil {
			return nil, false
		}
		r.intake.Lost(kinds, source.OutageReason(err))
		r.log.Warn("Kubernetes does not answer; trying again", "error", err, "in", pause)
		if !sleep(ctx, pause) {
			return nil, false
		}
	}
	all := make([]*follower, 0, len(r.followers))
	for _, f := range r.followers {
		all = append(all, f)
	}
	return all, true
}

// keepLooking takes up kinds that appear, drops those that go, and finds out when the server has gone back, until the context ends.
func (r *run) keepLooking(ctx context.Context) {
	pause := firstLook
	t := time.NewTimer(pause)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.crds:
			pause = firstLook
		case b := <-r.back:
			r.startAnew(ctx, b)
		case <-t.C:
			r.look(ctx)
			pause = min(2*pause, lastLook)
		}
		t.Reset(pause)
	}
}

// version is what is asked of the server all the time, as findings call it.
const version = "its version"

// look finds out whether the server answers, whether it has gone back, and which kinds it has.
func (r *run) look(ctx context.Context) {
	err := r.lookBack(ctx)
	if err == nil {
		if err = r.discover(ctx); !failed(err) {
			r.intake.Back(version)
		}
	}
	if err == nil || ctx.Err() != nil {
		return
	}
	r.log.Debug("what Kubernetes serves could not be read", "error", err)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		r.intake.Lost(version, "Kubernetes does not answer")
	case failed(err):
		r.intake.Lost(version, source.OutageReason(err))
	}
}

// sleep waits. False when the context ends.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// logger gives the one that quietly has put into the context.
func logger(ctx context.Context) *logr.Logger {
	l := logr.FromContextOrDiscard(ctx)
	return &l
}
