package etcd

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weftmesh/weft/internal/control/source"
)

// Preview implements source.Keeper.
func (s *Store) Preview(objects []*source.Object) ([]*source.Object, []source.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.preview(objects)
}

// preview is called with mu held.
func (s *Store) preview(objects []*source.Object) ([]*source.Object, []source.Result) {
	v, now := &s.view, s.now()
	aged := make([]*source.Object, len(objects))
	results := make([]source.Result, len(objects))
	for i, o := range objects {
		c := *o
		c.Origin.Layer = source.LayerApplied
		if a := v.abouts[o.Key()]; !a.Born.IsZero() {
			c.Born = a.Born
		} else if c.Born.IsZero() {
			c.Born = now
		}
		aged[i] = &c
		results[i] = source.Result{Key: o.Key(), Action: v.effect(o)}
	}
	return aged, results
}

// effect says what writing an object does.
func (v *view) effect(o *source.Object) source.Action {
	d := v.documents[o.Key()]
	if d == nil {
		return source.Created
	}
	old, _ := source.Decode(source.LayerApplied, "", d.text)
	if len(old) == 1 && old[0].Key() == o.Key() && sameContent(old[0], o) {
		return source.Unchanged
	}
	return source.Changed
}

func sameContent(a, b *source.Object) bool {
	x, err1 := json.Marshal(a.Kube)
	y, err2 := json.Marshal(b.Kube)
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

// Mark implements source.Keeper: it is a revision.
func (s *Store) Mark() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view.revision
}

// Kept implements source.Keeper. What stands under keys that name no object is not among it.
func (s *Store) Kept() []source.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := slices.DeleteFunc(slices.Collect(maps.Keys(s.view.documents)), misplaced)
	slices.SortFunc(keys, source.Key.Compare)
	return keys
}

// Put implements source.Keeper.
func (s *Store) Put(objects []*source.Object, judged int64) ([]source.Result, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	results, c, err := s.puts(objects, judged)
	if err != nil {
		return results, err
	}
	return results, s.commit(c)
}

// change is what is to be done to what etcd held at a revision, when something was last applied at another. One without operations
// does nothing, but only if that is right.
type change struct {
	name              string // by which it is known again in etcd
	ops               []clientv3.Op
	revision, applied int64
	cluster           uint64 // of which that is
	epoch             int
}

// change begins one to what was there at a revision.
func (v *view) change(revision int64) change {
	return change{name: rand.Text(), revision: revision, applied: v.applied, cluster: v.cluster, epoch: v.epoch}
}

func (s *Store) puts(objects []*source.Object, judged int64) ([]source.Result, change, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if judged > s.view.revision { // etcd went back since
		return nil, change{}, fmt.Errorf("etcd: %w", source.ErrConflict)
	}
	c := s.view.change(judged)
	aged, results := s.preview(objects)
	for i, o := range aged {
		k := o.Key()
		old := s.view.abouts[k]
		a := about{File: o.Origin.File, Line: o.Origin.Line, Born: o.Born.UTC(), Changed: old.Changed, Generation: old.Generation}
		if results[i].Action != source.Unchanged {
			a.Changed, a.Generation = s.now().UTC(), old.Generation+1
		} else if bytes.Equal(s.view.documents[k].text, o.Raw) && a == old {
			continue
		}
		text, err := json.Marshal(a)
		if err != nil {
			return nil, c, fmt.Errorf("etcd: %s: %w", k, err)
		}
		c.ops = append(c.ops, clientv3.OpPut(s.options.Prefix+objectsPart+path(k), string(o.Raw)),
			clientv3.OpPut(s.options.Prefix+aboutPart+path(k), string(text)))
	}
	return results, c, nil
}

// Remove implements source.Keeper. What a transaction can take goes all or none; more goes in several, and an error of a later one says how
// far that came.
func (s *Store) Remove(keys []source.Key) ([]source.Result, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	results, c, err := s.removes(keys)
	if err != nil || len(c.ops) == 0 {
		return results, err
	}
	if len(keys) <= mostRemoved {
		return results, s.commit(c)
	}
	gone := 0
	for part := range slices.Chunk(keys, mostRemoved) {
		if err := s.removePart(part, gone == 0); err != nil && gone == 0 {
			return nil, err
		} else if err != nil { // not wrapped: whoever tries again must not begin with what is gone
			return nil, fmt.Errorf("etcd: %d of %d objects are deleted, and the others are not yet; delete again to go on: %v", gone, len(keys), err)
		}
		gone += len(part)
	}
	return results, nil
}

// removePart removes some of the objects of a Remove. After the first part the rest goes whatever others change meanwhile, and what they
// have removed is gone.
func (s *Store) removePart(keys []source.Key, first bool) error {
	for try := 1; ; try++ {
		if !first {
			keys = s.kept(keys)
		}
		_, c, err := s.removes(keys)
		if err != nil || len(c.ops) == 0 {
			return err
		}
		if err = s.commit(c); first || try == conflicts || !errors.Is(err, source.ErrConflict) {
			return err
		}
	}
}

// conflicts bounds how often a later part of a Remove is tried against others who change things at the same time.
const conflicts = 10

// kept leaves of keys those that there are documents of.
func (s *Store) kept(keys []source.Key) []source.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(keys), func(k source.Key) bool { return s.view.documents[k] == nil })
}

func (s *Store) removes(keys []source.Key) ([]source.Result, change, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.view.change(s.view.revision)
	results := make([]source.Result, len(keys))
	for i, k := range keys {
		if s.view.documents[k] == nil {
			return nil, c, fmt.Errorf("%s: %w", k, source.ErrNotFound)
		}
		results[i] = source.Result{Key: k, Action: source.Deleted}
		c.ops = append(c.ops, clientv3.OpDelete(s.options.Prefix+objectsPart+path(k)), clientv3.OpDelete(s.options.Prefix+aboutPart+path(k)))
	}
	return results, c, nil
}

// commit makes a change if etcd still holds what it was made for, and waits until it has been published.
func (s *Store) commit(c change) error {
	ctx, cancel := context.WithTimeout(context.Background(), s.options.Timeout)
	defer cancel()
	applied, objects := s.options.Prefix+appliedPart, s.options.Prefix+objectsPart
	unchanged := []clientv3.Cmp{
		clientv3.Compare(clientv3.ModRevision(applied), "=", c.applied),
		clientv3.Compare(clientv3.ModRevision(applied), "<", c.revision+1),
		clientv3.Compare(clientv3.ModRevision(objects), "<", c.revision+1).WithPrefix(),
	}
	newest := []clientv3.Op{
		clientv3.OpGet(applied),
		clientv3.OpGet(objects, append(clientv3.WithLastRev(), clientv3.WithKeysOnly())...),
	}
	ops := slices.Clone(c.ops)
	if len(ops) > 0 {
		ops = append(ops, clientv3.OpPut(applied, c.name))
	}
	ops, err := nest(ops)
	if err != nil {
		return err
	}
	answer, err := s.transact(ctx, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return s.client.Txn(ctx).If(unchanged...).Then(ops...).Else(newest...).Commit()
	})
	switch {
	case errors.Is(err, rpctypes.ErrRequestTooLarge) || status.Code(err) == codes.ResourceExhausted:
		return fmt.Errorf("etcd: %w: a change may have 1.5 MiB, if etcd is not told otherwise (--max-request-bytes), and this one has %d bytes; apply the objects in several steps, and split one that is larger",
			err, size(c.ops))
	case passing(err):
		return fmt.Errorf("%w; it may have been made all the same", s.failed("change", s.options.Prefix, err))
	case err != nil:
		return s.failed("change", s.options.Prefix, err)
	}
	return s.published(ctx, c, answer)
}

// size of what operations write.
func size(ops []clientv3.Op) (n int) {
	for _, op := range ops {
		n += len(op.KeyBytes()) + len(op.ValueBytes())
	}
	return n
}

// published waits until the view has what came of a change, and says whether that is the change.
func (s *Store) published(ctx context.Context, c change, answer *clientv3.TxnResponse) error {
	if (position{c.cluster, c.revision}).ahead(answer.Header) {
		s.again()
		err := s.awaitThat(ctx, func(v *view) bool { return v.epoch != c.epoch && v.revision >= answer.Header.Revision })
		if err != nil || answer.Succeeded && len(c.ops) > 0 {
			return err
		}
		return fmt.Errorf("etcd: %w", source.ErrConflict)
	}
	switch {
	case answer.Succeeded && len(c.ops) == 0:
		return nil
	case answer.Succeeded:
		return s.await(ctx, answer.Header.Revision)
	}
	// The revision of the answer may be that of a change elsewhere, of which the view never hears.
	revision := c.revision + 1
	for _, r := range answer.Responses {
		for _, kv := range r.GetResponseRange().Kvs {
			if string(kv.Value) == c.name { // an attempt that was not answered has made it
				return s.await(ctx, kv.ModRevision)
			}
			revision = max(revision, kv.ModRevision)
		}
	}
	if err := s.awaitThat(ctx, func(v *view) bool { return v.revision >= revision || v.epoch != c.epoch }); err != nil {
		return err
	}
	return fmt.Errorf("etcd: %w", source.ErrConflict)
}

// attempts are how many may be made in the time of one change: who leads in etcd may go just now, and leave it unanswered.
const attempts = 3

// transact makes a transaction, again if need be. It must do no harm if it was made before.
func (s *Store) transact(ctx context.Context, commit func(context.Context) (*clientv3.TxnResponse, error)) (*clientv3.TxnResponse, error) {
	for {
		attempt, cancel := context.WithTimeout(ctx, s.options.Timeout/attempts)
		answer, err := commit(attempt)
		cancel()
		if !passing(err) || ctx.Err() != nil {
			return answer, err
		}
		sleep(ctx, firstPause)
	}
}

// passing reports whether an error may be gone the next time, and leaves open whether the request was followed.
func passing(err error) bool {
	var e rpctypes.EtcdError
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &e) && e.Code() == codes.Unavailable || status.Code(err) == codes.Unavailable
}

// fanout is how many operations a transaction may have, which etcd bounds to 128 for each and those nested in it together. With two
// levels, two operations for each object and one more for them all, a change may have mostObjects.
const (
	fanout      = 64
	mostObjects = (fanout*fanout - 1) / 2
	// mostRemoved keeps a transaction that deletes objects within 1.5 MiB, too, with the longest names that there are.
	mostRemoved = 1000
)

// nest packs operations into transactions within one, since etcd bounds how many one may have.
func nest(ops []clientv3.Op) ([]clientv3.Op, error) {
	if len(ops) <= fanout {
		return ops, nil
	}
	if len(ops) > fanout*fanout {
		return nil, fmt.Errorf("etcd: %d objects would change at once, and one transaction, which an apply is, can take %d; apply them in several steps",
			len(ops)/2, mostObjects)
	}
	var nested []clientv3.Op
	for len(ops) > 0 {
		n := min(fanout, len(ops))
		nested = append(nested, clientv3.OpTxn(nil, ops[:n], nil))
		ops = ops[n:]
	}
	return nested, nil
}

// await waits until the view has come to a revision.
func (s *Store) await(ctx context.Context, revision int64) error {
	return s.awaitThat(ctx, func(v *view) bool { return v.revision >= revision })
}

// awaitThat waits until the view is as it should be.
func (s *Store) awaitThat(ctx context.Context, so func(*view) bool) error {
	for {
		s.mu.Lock()
		is, running, moved := so(&s.view), s.running, s.moved
		s.mu.Unlock()
		if is {
			return nil
		}
		if !running {
			return errors.New("etcd: the change is made, but is not followed any more")
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("etcd: the change is made, but has not been seen within %v: %w", s.options.Timeout.Round(time.Second), ctx.Err())
		}
	}
}
