package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/weftmesh/weft/internal/control/source"
)

// typed has Kubernetes' own kinds. Its server checks them itself; they are decoded leniently, for a newer server may know fields
// that we do not. It is never changed.
var typed = func() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, discoveryv1.AddToScheme, networkingv1.AddToScheme} {
		if err := add(s); err != nil {
			panic(err) // the types of our own build
		}
	}
	return s
}()

var codecs = serializer.NewCodecFactory(typed)

// follower keeps one kind's objects in the intake. It is the store of a reflector, whose one goroutine calls it.
type follower struct {
	source   *Source
	kind     *source.Kind
	resource schema.GroupVersionResource
	log      *slog.Logger
	lw       cache.ListerWatcher
	list     cache.ListWithContextFunc // beneath lw
	expect   runtime.Object
	back     chan<- wentBack

	task                  // the run's, as asked is
	asked   uint64        // the version that the server had when it was asked last; zero when it was not
	settled chan struct{} // closed when the start does not wait for the kind any more
	once    sync.Once
	away    bool          // the server has failed since the kind was listed; the reflector's goroutine owns it
	read    atomic.Uint64 // the version up to which the kind was read; zero before that. The reflector's goroutine sets it
}

func (s *Source) newFollower(k *source.Kind, gvr schema.GroupVersionResource) (*follower, error) {
	f := &follower{source: s, kind: k, resource: gvr, log: s.log.With("kind", k.Name, "group", k.Group), settled: make(chan struct{})}
	gvk := gvr.GroupVersion().WithKind(k.Name)
	if !typed.Recognizes(gvk) {
		u := &unstructured.Unstructured{}
		u.SetGroupVersionKind(gvk)
		f.expect, f.lw = u, f.heeded(s.listUntyped(gvr), s.dynamic)
		return f, nil
	}
	client, err := s.typedClient(gvr.GroupVersion())
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %s: %w", k.Name, err)
	}
	f.expect = k.New()
	f.lw = f.heeded(cache.NewFilteredListWatchFromClient(client, gvr.Resource, metav1.NamespaceAll,
		func(o *metav1.ListOptions) { o.FieldSelector = selectors[k.Name] }), client)
	return f, nil
}

// heeded notes what comes of each attempt to read the kind: the reflector keeps some to itself. It is read when it is watched.
func (f *follower) heeded(lw *cache.ListWatch, client any) cache.ListerWatcher {
	follow := lw.WatchFuncWithContext
	f.list = lw.ListWithContextFunc
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			if o.ResourceVersion == "0" {
				o.ResourceVersion = "" // what a server has at hand may be older than what was read before
			}
			all, err := f.list(ctx, o)
			if err != nil {
				f.heed(ctx, err)
			}
			return all, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			if f.away && o.SendInitialEvents == nil {
				return nil, f.anew(ctx)
			}
			attempt, broken := heedBroken(ctx)
			w, err := follow(attempt, o)
			f.away = failed(err)
			if err == nil && *broken && o.SendInitialEvents == nil {
				w.Stop()
				f.away = true
				return nil, f.anew(ctx)
			}
			if o.SendInitialEvents == nil || !apierrors.IsForbidden(err) { // then it is listed, which may be allowed
				f.heed(ctx, err)
			}
			return w, err
		},
	}, client)
}

// heed tells of a kind that cannot be read. One whose version is too old is listed anew, and one that is gone is found out by discovery.
func (f *follower) heed(ctx context.Context, err error) {
	switch {
	case err == nil:
		f.source.intake.Back(f.kind.RefName())
	case ctx.Err() != nil, apierrors.IsResourceExpired(err), apierrors.IsGone(err), apierrors.IsNotFound(err):
	case apierrors.IsForbidden(err):
		f.source.intake.Lost(f.kind.RefName(), fmt.Sprintf("%s; a role needs {apiGroups: [%s], resources: [%s], verbs: [list, watch]}",
			source.OutageReason(err), cmp.Or(f.kind.Group, `""`), f.resource.Resource))
		if informative[f.kind.Name] {
			f.settle()
		}
	default:
		f.source.intake.Lost(f.kind.RefName(), source.OutageReason(err))
	}
}

// informative has the kinds of which nothing is made that proxies get. Who may not read them is told so, and served. It is never changed.
var informative = map[string]bool{"Deployment": true, "ServiceAccount": true}

// settle has the start wait for the kind no longer: it was listed whole, is gone, or may be missing.
func (f *follower) settle() { f.once.Do(func() { close(f.settled) }) }

// selectors leave with the server what the mesh has no use for: the Secrets that are no certificates and fill most clusters. It is
// never changed.
var selectors = map[string]string{
	"Secret": "type!=kubernetes.io/service-account-token,type!=kubernetes.io/dockerconfigjson,type!=kubernetes.io/dockercfg," +
		"type!=kubernetes.io/basic-auth,type!=kubernetes.io/ssh-auth,type!=bootstrap.kubernetes.io/token,type!=helm.sh/release.v1",
}

func (s *Source) typedClient(gv schema.GroupVersion) (*rest.RESTClient, error) {
	c := rest.CopyConfig(s.options.Config)
	if c.APIPath = "/apis"; gv.Group == "" {
		c.APIPath = "/api"
	}
	c.GroupVersion, c.NegotiatedSerializer = &gv, codecs.WithoutConversion()
	c.ContentType, c.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	return rest.RESTClientFor(c)
}

func (s *Source) listUntyped(gvr schema.GroupVersionResource) *cache.ListWatch {
	client := s.dynamic.Resource(gvr)
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return client.List(ctx, o) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return client.Watch(ctx, o)
		},
	}
}

// The pauses between attempts to reach the server grow from the first to the last.
const (
	firstPause = 200 * time.Millisecond
	lastPause  = 10 * time.Second
)

// reflector makes one that knows of no version yet: it asks for what is there, and not for what is not older than it has seen.
func (f *follower) reflector(ctx context.Context) *cache.Reflector {
	return cache.NewReflectorWithOptions(f.lw, f.expect, f, cache.ReflectorOptions{Logger: logger(ctx), Name: f.kind.Name,
		Backoff: &wait.Backoff{Duration: firstPause, Factor: 2, Jitter: 0.5, Cap: lastPause, Steps: 8}})
}

// run follows the kind until the context ends. A watch that breaks is taken up where it was; one that is too old, or whose server was
// away, is listed anew.
func (f *follower) run(ctx context.Context) {
	pause := firstPause
	for {
		began := time.Now()
		err := f.reflector(ctx).ListAndWatchWithContext(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errAnew) {
			f.away = false
			continue
		}
		if time.Since(began) > lastPause {
			pause = firstPause
		}
		if err != nil {
			f.log.Warn("a kind cannot be read from Kubernetes; "+f.source.intake.Meanwhile(), "error", err, "again in", pause)
		}
		if !sleep(ctx, pause/2+rand.N(pause/2)) {
			return
		}
		pause = min(2*pause, lastPause)
	}
}

// has reports whether the key is of the follower's kind.
func (f *follower) has(k source.Key) bool { return k.Group == f.kind.Group && k.Kind == f.kind.Name }

// Add implements cache.ReflectorStore, as the methods below do.
func (f *follower) Add(o any) error {
	if a, ok := f.arrival(o); ok {
		f.source.intake.Update([]source.Arrival{a}, nil)
	}
	return nil
}

// Update takes a changed object.
func (f *follower) Update(o any) error { return f.Add(o) }

// Delete takes a deletion.
func (f *follower) Delete(o any) error {
	if tomb, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = tomb.Obj
	}
	m, err := meta.Accessor(o)
	if err != nil {
		return err
	}
	k := f.key(m)
	f.source.statuses.forget(k)
	f.source.intake.Update(nil, []source.Key{k})
	return nil
}

// Replace takes all objects of the kind.
func (f *follower) Replace(list []any, version string) error {
	f.away = false
	all := make([]source.Arrival, 0, len(list))
	there := make(map[source.Key]bool, len(list))
	for _, o := range list {
		if a, ok := f.arrival(o); ok {
			all = append(all, a)
			there[a.Key] = true
		}
	}
	f.source.statuses.drop(func(k source.Key) bool { return f.has(k) && !there[k] })
	f.source.intake.Replace(f.has, all)
	f.reached(version)
	f.settle()
	return nil
}

// Resync has nothing to do: the intake forgets nothing.
func (f *follower) Resync() error { return nil }

// UpdateResourceVersion takes what the kind has been read up to.
func (f *follower) UpdateResourceVersion(version string) { f.reached(version) }

// Transformer has the reflector trim what it holds while it lists.
func (f *follower) Transformer() cache.TransformFunc {
	return func(o any) (any, error) { trim(o); return o, nil }
}

func (f *follower) key(m metav1.Object) source.Key {
	return source.Key{Group: f.kind.Group, Kind: f.kind.Name, Namespace: m.GetNamespace(), Name: m.GetName()}
}

// arrival decodes an object; false for one that the mesh has no use for.
func (f *follower) arrival(o any) (source.Arrival, bool) {
	trim(o)
	if u, ok := o.(*unstructured.Unstructured); ok {
		return f.untyped(u), true
	}
	k, ok := o.(source.Kube)
	if !ok || !wanted(k) {
		return source.Arrival{}, false
	}
	a := source.Arrival{Key: f.key(k), Object: &source.Object{Kube: source.Compact(k), Kind: f.kind, Origin: f.source.origin(), Born: k.GetCreationTimestamp().Time}}
	if i, ok := k.(*networkingv1.Ingress); ok {
		f.source.statuses.keep(a.Key, kept{resource: f.resource, version: i.GetResourceVersion(), status: i.Status})
	}
	if check := f.source.options.Check; check != nil {
		if findings := check(a.Object); source.HasErrors(findings) {
			a.Object, a.Findings = nil, findings
		}
	}
	return a, true
}

// place is how findings about the cluster itself call it.
func (s *Source) place() string {
	if s.options.Cluster == "" {
		return Layer
	}
	return Layer + ":" + s.options.Cluster
}

func (s *Source) origin() source.Origin { return source.Origin{Layer: Layer, File: s.options.Cluster} }
