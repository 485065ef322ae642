package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
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

// leaseSeconds is how long a leader that is gone without a word is waited for; revokeTime how long one waits, at its end, to say it.
const (
	leaseSeconds = 10
	revokeTime   = 3 * time.Second
)

// Term is the time for which a replica leads, as a condition of transactions: what is done under it is done by the one leader.
type Term clientv3.Cmp

// Lead waits until this replica is the leader, and runs lead for as long as it is; then it waits again. It returns when the context
// ends, having given the lead up. Lead's context ends when the lease does, and nobody else leads before lead has returned, unless
// it returns later than that.
func (s *Store) Lead(ctx context.Context, name string, lead func(context.Context, Term)) error {
	pause := firstPause
	for ctx.Err() == nil {
		began := time.Now()
		err := s.leadOnce(ctx, name, lead)
		if time.Since(began) > lastPause {
			pause = firstPause
		}
		if err != nil && ctx.Err() == nil {
			s.log.Warn("the election of a leader failed; trying again", "error", err, "in", pause)
			sleep(ctx, pause)
			pause = min(2*pause, lastPause)
		}
	}
	return nil
}

var errLeaseEnded = errors.New("etcd: the lease has ended")

func (s *Store) leadOnce(ctx context.Context, name string, lead func(context.Context, Term)) error {
	session, err := s.session(ctx)
	if err != nil {
		return err
	}
	defer s.end(ctx, session)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(session.Ctx(), cancel)()
	election := concurrency.NewElection(session, strings.TrimSuffix(s.options.Prefix+leaderPart, "/"))
	if err := s.campaign(ctx, election, name); err != nil {
		return err
	}
	// Those who were ahead of us may have been waited for longer than our own lease lasted; then whoever came after us leads.
	select {
	case <-session.Done():
		return errLeaseEnded
	default:
	}
	s.log.Info("this control plane leads: it writes the statuses in etcd", "name", name)
	lead(ctx, Term(clientv3.Compare(clientv3.CreateRevision(election.Key()), "=", election.Rev())))
	<-ctx.Done()
	return nil
}

// campaign waits for the lead, or for the context. The library's own campaign does not end with that while etcd is away, since it says
// first that it has ended; it is left to itself then. The lease ends its claim in any case.
func (s *Store) campaign(ctx context.Context, e *concurrency.Election, name string) error {
	won := make(chan error, 1)
	s.campaigns.Go(func() { won <- e.Campaign(ctx, name) }) // ends with the client, or before
	select {
	case err := <-won:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// session is a lease that is kept alive until end, even after the context has ended: what is done at the end needs it.
func (s *Store) session(ctx context.Context) (*concurrency.Session, error) {
	granting, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	lease, err := s.client.Grant(granting, leaseSeconds)
	if err != nil {
		return nil, fmt.Errorf("etcd: lease: %w", err)
	}
	return concurrency.NewSession(s.client, concurrency.WithLease(lease.ID), concurrency.WithContext(context.WithoutCancel(ctx)))
}

// end gives the lease up, so that the next one need not wait for it to run out.
func (s *Store) end(ctx context.Context, session *concurrency.Session) {
	session.Orphan()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revokeTime)
	defer cancel()
	if _, err := s.client.Revoke(ctx, session.Lease()); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		s.log.Debug("a lease could not be given up and runs out by itself", "error", err)
	}
}
