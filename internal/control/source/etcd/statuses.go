package etcd

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"sigs.k8s.io/yaml"

	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/status"
)

// How statuses are written: a moment after the last change, so that those that follow closely are one, and after a failure when the
// next one comes, or after a while.
const (
	settleTime  = 200 * time.Millisecond
	failedPause = time.Minute
)

// KeepStatuses writes beside the objects in etcd what status.Compute says of them, now and after each change, while this replica leads
// all that share them, until the context ends. Input gives what the mesh was made of and what came of it; objects that were refused are
// added to it. The name is for people.
func (s *Store) KeepStatuses(ctx context.Context, name string, changes func(context.Context) <-chan struct{}, input func() status.Input) error {
	return s.Lead(ctx, name, func(ctx context.Context, t Term) {
		w := writer{Store: s, term: t, input: input, right: map[source.Key]said{}}
		changed := changes(ctx)
		for ctx.Err() == nil {
			err := w.catchUp(ctx)
			if err == nil {
				err = w.writeAll(ctx)
			}
			if err != nil && ctx.Err() == nil {
				s.log.Warn("statuses cannot be written to etcd; trying again", "error", err, "in", failedPause)
			}
			if !w.await(ctx, changed) {
				return
			}
		}
	})
}

// writer is the state of one term.
type writer struct {
	*Store
	term  Term
	input func() status.Input
	ready bool // the view has what was written before the term

	computer status.Computer
	right    map[source.Key]said // what was looked at, and is as it should be
}

// said is all that decides about what is written of an object. Two that are equal need the same.
type said struct {
	object *source.Object
	has    string
	wanted status.Status // of the writer's Computer: the same pointer says the same
}

// catchUp waits until the view has what the leader before has written, which would be written again otherwise.
func (w *writer) catchUp(ctx context.Context) error {
	if w.ready {
		return nil
	}
	at := w.options.Prefix + statusesPart
	last, err := w.client.Get(ctx, at, append(clientv3.WithLastRev(), clientv3.WithKeysOnly())...)
	if err != nil {
		return w.failed("read", at, err)
	}
	for _, kv := range last.Kvs {
		if err := w.Store.await(ctx, kv.ModRevision); err != nil {
			return err
		}
	}
	w.ready = true
	return nil
}

// await waits for a change and what follows it closely. False when the context ends.
func (w *writer) await(ctx context.Context, changes <-chan struct{}) bool {
	t := time.NewTimer(failedPause)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-changes:
	case <-w.touched:
	}
	sleep(ctx, settleTime)
	return ctx.Err() == nil
}

// writeAll writes what differs, as long as the term lasts.
func (w *writer) writeAll(ctx context.Context) error {
	in := w.input()
	if in.Mesh == nil {
		return nil
	}
	var ours map[source.Key]*source.Object
	var has map[source.Key]string
	var ops []clientv3.Op
	in.Objects, ours, has, ops = w.asWritten(in)
	more, err := w.differences(ours, has, w.computer.Compute(in))
	if err != nil {
		return err
	}
	ops = append(ops, more...)
	for part := range slices.Chunk(ops, fanout) {
		if err := w.write(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// differences gives what has to be done to statuses. It decodes and compares only those of which something is another than when it last
// found them right, so that a change costs what it touches.
func (w *writer) differences(ours map[source.Key]*source.Object, has map[source.Key]string, wanted map[source.Key]status.Status) (ops []clientv3.Op, err error) {
	var unsure []source.Key
	for k, o := range ours {
		if w.right[k] != (said{o, has[k], wanted[k]}) {
			unsure = append(unsure, k)
		}
	}
	slices.SortFunc(unsure, source.Key.Compare)
	for _, k := range unsure {
		op, err := w.difference(ours[k], has[k], wanted[k])
		if err != nil {
			return nil, err
		}
		if ops = append(ops, op...); len(op) == 0 {
			w.right[k] = said{ours[k], has[k], wanted[k]}
		}
	}
	if len(w.right) > len(ours) {
		maps.DeleteFunc(w.right, func(k source.Key, _ said) bool { return ours[k] == nil })
	}
	return ops, nil
}

// difference gives what has to be done to a status for it to become what is wanted.
func (w *writer) difference(o *source.Object, has string, wanted status.Status) ([]clientv3.Op, error) {
	at := w.statusAt(o.Key())
	switch {
	case wanted == nil && has != "":
		return []clientv3.Op{clientv3.OpDelete(at)}, nil
	case wanted == nil:
		return nil, nil
	}
	old, there := status.Of(o.Kind.New()), has != ""
	if there && json.Unmarshal([]byte(has), old) != nil {
		old, there = status.Of(o.Kind.New()), false // somebody has written what cannot be; ours takes its place
	}
	merged, changed := status.Merge(old, wanted, o.Born, time.Now())
	if there && !changed {
		return nil, nil
	}
	text, err := json.Marshal(merged)
	if err != nil {
		return nil, fmt.Errorf("status of %s: %w", o.Key(), err)
	}
	return []clientv3.Op{clientv3.OpPut(at, string(text))}, nil
}

// write does some of it, if the term lasts still.
func (w *writer) write(ctx context.Context, ops []clientv3.Op) error {
	answer, err := w.transact(ctx, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return w.client.Txn(ctx).If(clientv3.Cmp(w.term)).Then(ops...).Commit()
	})
	switch {
	case err != nil:
		return w.failed("write", w.options.Prefix+statusesPart, err)
	case !answer.Succeeded:
		return errLeaseEnded
	}
	return w.Store.await(ctx, answer.Header.Revision) // the next look at what is there sees it
}

// Status gives the status that is kept of an object; nil when there is none.
func (s *Store) Status(o *source.Object) status.Status {
	s.mu.Lock()
	text := s.view.statuses[o.Key()]
	s.mu.Unlock()
	kept := status.Of(o.Kind.New())
	if text == "" || kept == nil || json.Unmarshal([]byte(text), kept) != nil {
		return nil
	}
	return kept
}

func (s *Store) statusAt(k source.Key) string { return s.options.Prefix + statusesPart + path(k) }

// asWritten gives objects as they stand in etcd rather than as they are in force, those among them that are in etcd, the statuses that
// are there, and what takes away those of objects that are gone.
func (s *Store) asWritten(in status.Input) (all []*source.Object, ours map[source.Key]*source.Object, has map[source.Key]string, gone []clientv3.Op) {
	s.mu.Lock()
	defer s.mu.Unlock()
	has = maps.Clone(s.view.statuses)
	refused := map[source.Key]*source.Object{}
	for k, d := range s.view.documents {
		if d.refused != nil {
			refused[k] = d.refused
		}
	}
	for k := range has {
		if s.view.documents[k] == nil {
			gone = append(gone, clientv3.OpDelete(s.statusAt(k)))
		}
	}
	all, ours = source.AsWritten(in.Objects, refused, in.Findings, func(k source.Key, _ *source.Object) bool { return s.view.documents[k] != nil })
	return all, ours, has, gone
}

// unaccepted gives an object that was refused as far as it can be read, so that its status can say so; nil for kinds that have none.
// It is never in force.
func unaccepted(k source.Key, origin source.Origin, text []byte) *source.Object {
	kind := source.LookupKind(k.Group, k.Kind)
	if kind == nil || status.Of(kind.New()) == nil {
		return nil
	}
	o := kind.New()
	if yaml.Unmarshal(text, o) != nil || o.GetNamespace() != k.Namespace || o.GetName() != k.Name {
		o = kind.New()
		o.SetNamespace(k.Namespace)
		o.SetName(k.Name)
	}
	return &source.Object{Kube: o, Kind: kind, Origin: origin}
}
