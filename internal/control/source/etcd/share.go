package etcd

import (
	"context"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// Files gives the authority's files, by name; none when there are none yet.
func (s *Store) Files(ctx context.Context) (map[string][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	prefix := s.options.Prefix + authorityPart
	answer, err := s.client.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, s.failed("read", prefix, err)
	}
	files := map[string][]byte{}
	for _, kv := range answer.Kvs {
		files[strings.TrimPrefix(string(kv.Key), prefix)] = kv.Value
	}
	return files, nil
}

// CreateFiles keeps the authority's files, unless somebody else has been quicker: then nothing happens, and Files has theirs.
func (s *Store) CreateFiles(ctx context.Context, files map[string][]byte) error {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	prefix := s.options.Prefix + authorityPart
	ops := make([]clientv3.Op, 0, len(files))
	for name, text := range files {
		ops = append(ops, clientv3.OpPut(prefix+name, string(text)))
	}
	none := clientv3.Compare(clientv3.CreateRevision(prefix), "=", 0).WithPrefix()
	if _, err := s.client.Txn(ctx).If(none).Then(ops...).Commit(); err != nil {
		return s.failed("write", prefix, err)
	}
	return nil
}

// leaseSeconds is how long a leader that is gone is waited for.
const leaseSeconds = 10

// Lead waits until this replica is the leader, and runs lead for as long as it is; then it waits again. It returns when the context ends.
// Lead's context ends when the lease does.
func (s *Store) Lead(ctx context.Context, name string, lead func(context.Context)) error {
	for ctx.Err() == nil {
		if err := s.leadOnce(ctx, name, lead); err != nil && ctx.Err() == nil {
			s.log.Warn("the election of a leader failed; trying again", "error", err)
			sleep(ctx, firstPause)
		}
	}
	return nil
}

func (s *Store) leadOnce(ctx context.Context, name string, lead func(context.Context)) error {
	session, err := concurrency.NewSession(s.client, concurrency.WithTTL(leaseSeconds), concurrency.WithContext(ctx))
	if err != nil {
		return err
	}
	defer session.Close() // gives the lead up at once
	election := concurrency.NewElection(session, s.options.Prefix+leaderPart)
	if err := election.Campaign(ctx, name); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() { // ends with the lead
		select {
		case <-session.Done():
			cancel()
		case <-stop:
		}
	}()
	s.log.Info("this control plane leads", "name", name)
	lead(ctx)
	<-ctx.Done()
	return nil
}
