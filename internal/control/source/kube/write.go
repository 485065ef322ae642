package kube

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/status"
)

// How statuses are written: a moment after the last change, so that those that follow closely are one; not faster than the server
// should be asked to; and what the server refuses, seldom again.
const (
	settleTime      = 200 * time.Millisecond
	writesPerSecond = 100
	writesAtOnce    = 200
	refusedPause    = time.Minute
	conflicts       = 5
	fieldManager    = "weft"
)

// KeepStatuses writes to the objects in this cluster what status.Compute says of them, now and after each change, until the context
// ends; then nothing is written any more. Input gives what the mesh was made of and what came of it; objects that were refused are
// added to it. Only one process may do this at a time: see Lead.
func (s *Source) KeepStatuses(ctx context.Context, changes <-chan struct{}, input func() status.Input) {
	w := &writer{Source: s, input: input, pace: flowcontrol.NewTokenBucketRateLimiter(writesPerSecond, writesAtOnce),
		put: map[string]time.Time{}, right: map[source.Key]said{}}
	defer w.pace.Stop()
	pause := firstPause
	for ctx.Err() == nil {
		again := refusedPause
		if err := w.writeAll(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("statuses cannot be written to Kubernetes; trying again", "error", err, "in", pause)
			again, pause = pause, min(2*pause, lastPause)
		} else {
			pause = firstPause
		}
		if !w.await(ctx, changes, again) {
			return
		}
	}
}

// await waits for a change and what follows it closely, or for some time. False when the context ends.
func (w *writer) await(ctx context.Context, changes <-chan struct{}, most time.Duration) bool {
	t := time.NewTimer(most)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-changes:
	case <-w.statuses.moved:
	}
	return sleep(ctx, settleTime)
}

// writer is the state of one KeepStatuses, whose one goroutine owns it.
type writer struct {
	*Source
	input func() status.Input
	pace  flowcontrol.RateLimiter
	put   map[string]time.Time // until when kinds or objects, whose status the server refuses, are put aside

	computer status.Computer
	right    map[source.Key]said // what was looked at, and is as it should be
}

// said is all that decides about what is written of an object. Two that are equal need the same.
type said struct {
	object *source.Object
	has    uint64        // see kept.reading
	wanted status.Status // of the writer's Computer: the same pointer says the same
}

// writeAll writes what differs. An error says that the server cannot be reached or does not work.
func (w *writer) writeAll(ctx context.Context) error {
	in := w.input()
	if in.Mesh == nil {
		return nil
	}
	var ours map[source.Key]*source.Object
	in.Objects, ours = w.asWritten(in)
	wanted := w.computer.Compute(in)
	for _, k := range w.unsure(ours, wanted) {
		if err := w.write(ctx, ours[k], wanted[k]); err != nil {
			return err
		}
	}
	return nil
}

// unsure gives the objects of which something is another than when their status was last found right, so that a change costs what it
// touches.
func (w *writer) unsure(ours map[source.Key]*source.Object, wanted map[source.Key]status.Status) []source.Key {
	if len(w.right) > len(ours) {
		maps.DeleteFunc(w.right, func(k source.Key, _ said) bool { return ours[k] == nil })
	}
	var keys []source.Key
	w.statuses.each(func(k source.Key, at kept) {
		if o := ours[k]; o != nil && w.right[k] != (said{o, at.reading, wanted[k]}) {
			keys = append(keys, k)
		}
	})
	slices.SortFunc(keys, source.Key.Compare)
	return keys
}

// asWritten gives objects as they stand in Kubernetes rather than as they are in force, and those among them that are this cluster's.
func (s *Source) asWritten(in status.Input) (all []*source.Object, ours map[source.Key]*source.Object) {
	return source.AsWritten(in.Objects, s.statuses.refused(), in.Findings, func(_ source.Key, o *source.Object) bool {
		return o.Origin.Layer == Layer && o.Origin.File == s.options.Cluster // what was applied over it has no status here
	})
}

// write has an object's status become what is wanted, on top of what others write at the same time.
func (w *writer) write(ctx context.Context, o *source.Object, wanted status.Status) error {
	k := o.Key()
	at, known := w.statuses.get(k)
	if !known || w.aside(at, k) {
		return nil
	}
	client := dynamic.ResourceInterface(w.dynamic.Resource(at.resource))
	if !o.Kind.ClusterScoped {
		client = w.dynamic.Resource(at.resource).Namespace(k.Namespace)
	}
	var err error
	for range conflicts {
		var ops []operation
		if ops, err = difference(at, o, wanted, time.Now()); err != nil {
			break
		}
		if ops == nil {
			w.right[k] = said{o, at.reading, wanted}
			break
		}
		if err = w.pace.Wait(ctx); err != nil {
			return err
		}
		if err = w.patch(ctx, client, k, at, ops); !apierrors.IsConflict(err) && !apierrors.IsInvalid(err) {
			break
		}
		fresh, getErr := client.Get(ctx, k.Name, metav1.GetOptions{})
		if getErr != nil {
			err = getErr
			break
		}
		if fresh.GetResourceVersion() == at.version {
			break // it is not that somebody was quicker
		}
		at.version, at.status = fresh.GetResourceVersion(), fresh.Object["status"]
	}
	return w.told(ctx, at, k, err)
}

// patch writes, unless the object is another than it was thought to be.
func (w *writer) patch(ctx context.Context, client dynamic.ResourceInterface, k source.Key, at kept, ops []operation) error {
	text, err := json.Marshal(append([]operation{{"replace", "/metadata/resourceVersion", at.version}}, ops...))
	if err != nil {
		return err
	}
	u, err := client.Patch(ctx, k.Name, types.JSONPatchType, text, metav1.PatchOptions{FieldManager: fieldManager}, "status")
	if err != nil {
		return err
	}
	now := at
	now.version, now.status = u.GetResourceVersion(), u.Object["status"]
	w.statuses.wrote(k, at.version, now)
	return nil
}

// aside reports whether a kind or an object has been put aside.
func (w *writer) aside(at kept, k source.Key) bool {
	for _, name := range []string{at.resource.String(), k.String()} {
		if until, is := w.put[name]; is && time.Now().Before(until) {
			return true
		}
	}
	return false
}

// told takes what the server has said. What concerns one kind or one object is logged once, and those are put aside for a while;
// only what concerns all comes back.
func (w *writer) told(ctx context.Context, at kept, k source.Key, err error) error {
	name, hint := at.resource.String(), ""
	switch {
	case err == nil || ctx.Err() != nil:
		return ctx.Err()
	case apierrors.IsForbidden(err):
		hint = "give Weft the right to patch " + at.resource.GroupResource().String() + "/status"
	case apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse) && apierrors.IsNotFound(err), apierrors.IsMethodNotSupported(err):
		hint = "its definition has no status subresource"
	case apierrors.IsNotFound(err):
		return nil // it is gone
	case apierrors.IsConflict(err), apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsRequestEntityTooLargeError(err):
		name = k.String()
	default:
		return err
	}
	if _, again := w.put[name]; !again {
		w.log.Warn("a status is not written to Kubernetes", "object", k.String(), "error", err, "hint", hint)
	}
	w.put[name] = time.Now().Add(refusedPause)
	return nil
}
