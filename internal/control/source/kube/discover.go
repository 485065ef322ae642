package kube

import (
	"context"
	"errors"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/tools/cache"

	"github.com/weftmesh/weft/internal/control/source"
)

// discoverTime bounds the answers on which kinds there are.
const discoverTime = 15 * time.Second

// discover starts followers for the kinds that the server has and that have none, and stops those of kinds that are gone. Groups
// whose server does not answer stay as they are.
func (r *run) discover(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, discoverTime)
	defer cancel()
	_, lists, err := r.discovery.ServerGroupsAndResourcesWithContext(asking)
	var failed *discovery.ErrGroupDiscoveryFailed
	if err != nil && !errors.As(err, &failed) {
		return err
	}
	resources := map[schema.GroupVersionKind]string{}
	for _, l := range lists {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			continue
		}
		for i := range l.APIResources {
			if a := &l.APIResources[i]; slices.Contains(a.Verbs, "watch") && slices.Contains(a.Verbs, "list") {
				resources[gv.WithKind(a.Kind)] = a.Name
			}
		}
	}
	for _, k := range source.Kinds() {
		gvr, served := choose(k, resources)
		f := r.followers[k]
		switch {
		case served && f == nil:
			if err := r.follow(ctx, k, gvr); err != nil {
				return err
			}
		case !served && f != nil && !unknown(k, failed):
			r.unfollow(f)
		}
	}
	return nil
}

// choose takes the version of a kind that we prefer among those served.
func choose(k *source.Kind, resources map[schema.GroupVersionKind]string) (schema.GroupVersionResource, bool) {
	for _, v := range k.Versions {
		gvk := schema.GroupVersionKind{Group: k.Group, Version: v, Kind: k.Name}
		if plural, ok := resources[gvk]; ok {
			return gvk.GroupVersion().WithResource(plural), true
		}
	}
	return schema.GroupVersionResource{}, false
}

// unknown reports whether the server could not say if it has the kind.
func unknown(k *source.Kind, failed *discovery.ErrGroupDiscoveryFailed) bool {
	if failed == nil {
		return false
	}
	for gv := range failed.Groups {
		if gv.Group == k.Group {
			return true
		}
	}
	return false
}

func (r *run) follow(ctx context.Context, k *source.Kind, gvr schema.GroupVersionResource) error {
	f, err := r.newFollower(k, gvr)
	if err != nil {
		return err
	}
	f.back = r.back
	f.task = r.begin(ctx, f.run)
	r.followers[k] = f
	return nil
}

// unfollow ends the following of a kind; its objects are gone.
func (r *run) unfollow(f *follower) {
	f.stop()
	<-f.ended
	f.settle()
	delete(r.followers, f.kind)
	r.log.Info("a kind is not served any more", "kind", f.kind.Name, "group", f.kind.Group)
	r.statuses.drop(f.has)
	r.intake.Replace(f.has, nil)
	r.intake.Back(f.kind.RefName())
}

var definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// watchDefinitions makes a sign in crds at each change of a CRD. It only makes kinds be found sooner: where it may not look, the
// regular looks find them.
func (r *run) watchDefinitions(ctx context.Context) {
	client := r.metadata.Resource(definitions)
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return client.List(ctx, o) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return client.Watch(ctx, o)
		},
	}
	reflector := func() *cache.Reflector {
		return cache.NewReflectorWithOptions(lw, &metav1.PartialObjectMetadata{}, sign{r.crds}, cache.ReflectorOptions{Logger: logger(ctx), Name: "definitions"})
	}
	for ctx.Err() == nil {
		if err := reflector().ListAndWatchWithContext(ctx); err != nil {
			r.log.Debug("definitions of kinds cannot be watched", "error", err)
		}
		sleep(ctx, definitionsPause)
	}
}

const definitionsPause = 5 * time.Second

// sign is a store that keeps nothing and tells that something has changed.
type sign struct{ changed chan struct{} }

func (s sign) tell() error {
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return nil
}

func (s sign) Add(any) error               { return s.tell() }
func (s sign) Update(any) error            { return s.tell() }
func (s sign) Delete(any) error            { return s.tell() }
func (s sign) Replace([]any, string) error { return s.tell() }
func (s sign) Resync() error               { return nil }
