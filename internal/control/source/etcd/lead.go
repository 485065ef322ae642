package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// leaseSeconds is how long a leader that is gone without a word is waited for; revokeTime how long one waits, at its end, to say it.
const (
	leaseSeconds = 10
	revokeTime   = 3 * time.Second
)

// Term is the time for which a replica leads, as a condition of transactions: what is done under it is done by the one leader.
type Term clientv3.Cmp

// Lead waits until this replica is the leader, and runs lead for as long as it is; then it waits again. It returns when the context
// ends, having given the lead up. Lead's context ends when the lease does, and nobody else leads before lead has returned, unless
// it returns later than that, or etcd has lost its data. It goes by what Run reads, which is right after a restore of etcd too: whoever
// only waited for one claim to go would wait for ever where that happened before etcd counted as far as it was.
func (s *Store) Lead(ctx context.Context, name string, lead func(context.Context, Term)) error {
	pause, told := firstPause, ""
	for ctx.Err() == nil {
		began := time.Now()
		err := s.leadOnce(ctx, name, lead)
		if time.Since(began) > lastPause {
			pause = firstPause
		}
		if err != nil && ctx.Err() == nil {
			message := unled(err)
			if message != told { // it stays so until etcd is back, or somebody gives the right
				s.log.Warn(message+"; trying again", "error", err)
			}
			told = message
			sleep(ctx, pause)
			pause = min(2*pause, lastPause)
		} else {
			told = ""
		}
	}
	return nil
}

// unled says what came of trying to lead.
func unled(err error) string {
	switch {
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		return "this control plane cannot lead, and writes no statuses"
	case errors.Is(err, ErrSilent):
		return "this control plane cannot lead while etcd does not answer"
	}
	return "the election of a leader failed"
}

var errLeaseEnded = errors.New("etcd: the lease has ended")

func (s *Store) leadOnce(ctx context.Context, name string, lead func(context.Context, Term)) error {
	session, err := s.session(ctx)
	if err != nil {
		return err
	}
	defer s.end(ctx, session)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(session.Ctx(), func() { cancel(errLeaseEnded) })()
	c, err := s.claim(ctx, session, name)
	if err != nil {
		return err
	}
	lost := false
	if err := s.until(ctx, func(v *view) bool { lost = c.lost(v); return lost || c.first(v) }); err != nil {
		return err
	}
	if lost {
		return errLeaseEnded
	}
	s.log.Info("this control plane leads: it writes the statuses in etcd", "name", name)
	go func() { // ends with this function
		_ = s.until(ctx, func(v *view) bool { return !c.first(v) }) // fails only when ctx has ended
		cancel(errLeaseEnded)
	}()
	lead(ctx, Term(clientv3.Compare(clientv3.CreateRevision(c.key), "=", c.revision)))
	<-ctx.Done()
	s.log.Info("this control plane does not lead any more", "name", name)
	return nil
}

// claim is one to the lead. The oldest of those that are there has it; each goes with its lease.
type claim struct {
	key      string
	revision int64 // at which it was made
}

// claim makes one, and waits until what Run reads is of the etcd that has it.
func (s *Store) claim(ctx context.Context, session *concurrency.Session, name string) (claim, error) {
	s.mu.Lock()
	at, epoch := s.view.at(), s.view.epoch
	s.mu.Unlock()
	making, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	c := claim{key: fmt.Sprintf("%s%x", s.options.Prefix+leaderPart, session.Lease())}
	answer, err := s.client.Put(making, c.key, name, clientv3.WithLease(session.Lease()))
	if err != nil {
		return c, s.failed("write", c.key, err)
	}
	c.revision = answer.Header.Revision
	if at.ahead(answer.Header) {
		s.again()
		return c, s.until(ctx, func(v *view) bool { return v.epoch != epoch })
	}
	return c, nil
}

// first reports whether a claim has the lead.
func (c claim) first(v *view) bool {
	if v.claims[c.key] != c.revision {
		return false
	}
	for _, revision := range v.claims {
		if revision < c.revision {
			return false
		}
	}
	return true
}

// lost reports whether a claim that was there is not any more.
func (c claim) lost(v *view) bool { return v.revision >= c.revision && v.claims[c.key] != c.revision }

// until waits until the view is as it should be, or the context ends.
func (s *Store) until(ctx context.Context, so func(*view) bool) error {
	for {
		s.mu.Lock()
		is, moved := so(&s.view), s.moved
		s.mu.Unlock()
		if is {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// session is a lease that is kept alive until end, even after the context has ended: what is done at the end needs it.
func (s *Store) session(ctx context.Context) (*concurrency.Session, error) {
	granting, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	lease, err := s.client.Grant(granting, leaseSeconds)
	if err != nil {
		return nil, s.failed("take a lease for", s.options.Prefix+leaderPart, err)
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
