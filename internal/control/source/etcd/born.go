package etcd

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weftmesh/weft/internal/control/source"
)

// unpaired notes an object of which nothing says when it came, as somebody else has written it, or of which only that is left, as somebody
// else has deleted it. mu is held.
func (s *Store) unpaired(k source.Key) {
	if misplaced(k) || (s.view.documents[k] == nil) == s.view.abouts[k].Born.IsZero() {
		return
	}
	s.unaged[k] = true
	select {
	case s.wakeAger <- struct{}{}:
	default:
	}
}

// age notes in etcd when objects that other programs wrote were first seen, so that all replicas agree on it, until ctx ends. The first
// to write it is right. What cannot be written is tried again when etcd is read again; until then this process goes by what it saw.
func (s *Store) age(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wakeAger:
		}
		s.mu.Lock()
		keys := slices.Collect(maps.Keys(s.unaged))
		clear(s.unaged)
		s.mu.Unlock()
		for _, k := range keys {
			if err := s.ageOf(ctx, k); err != nil {
				s.log.Warn("the age of an object in etcd was not noted", "object", k.String(), "error", err)
				break
			}
		}
	}
}

func (s *Store) ageOf(ctx context.Context, k source.Key) error {
	s.mu.Lock()
	d := s.view.documents[k]
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	object, its := s.options.Prefix+objectsPart+path(k), s.options.Prefix+aboutPart+path(k)
	if d == nil {
		_, err := s.client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(object), "=", 0)).Then(clientv3.OpDelete(its)).Commit()
		return err
	}
	text, err := json.Marshal(about{Born: d.seen.UTC()})
	if err != nil {
		return err
	}
	_, err = s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(object), "=", d.created), clientv3.Compare(clientv3.CreateRevision(its), "=", 0)).
		Then(clientv3.OpPut(its, string(text))).Commit()
	return err
}
