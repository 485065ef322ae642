package kube

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordination "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/weftmesh/weft/internal/control/source"
)

// LeaseName is that of the Lease by which control planes agree on who of them writes to the cluster.
const LeaseName = "weft-leader"

// How long a leader that is gone without a word is waited for, when one that cannot renew its lease stops, which is sooner, and how
// often both look.
const (
	leaseTime = 15 * time.Second
	renewTime = 10 * time.Second
	retryTime = 2 * time.Second
)

// Lead waits until this process is the leader of all that use the cluster and the namespace, and runs lead for as long as it is; then
// it waits again. It returns when the context ends, having given the lease up. Lead's context ends before the lease does, and the
// lease is given up only after lead has returned.
func (s *Source) Lead(ctx context.Context, identity string, lead func(context.Context)) error {
	client, err := coordination.NewForConfig(s.options.Config)
	if err != nil {
		return fmt.Errorf("kubernetes: %w", err)
	}
	lock := &heededLock{log: s.log, Interface: &resourcelock.LeaseLock{
		LeaseMeta: metav1.ObjectMeta{Namespace: s.options.Namespace, Name: LeaseName},
		Client:    client, LockConfig: resourcelock.ResourceLockConfig{Identity: identity}}}
	for ctx.Err() == nil {
		if err := s.leadOnce(ctx, lock, lead); err != nil {
			return fmt.Errorf("kubernetes: lease %s: %w", LeaseName, err)
		}
	}
	return nil
}

// heededLock logs once why the lease cannot be read or written; the elector tries again and again.
type heededLock struct {
	resourcelock.Interface
	log  *slog.Logger
	told string // guarded by the elector, which makes one call at a time
}

// Get implements resourcelock.Interface, as the methods below do.
func (l *heededLock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	record, raw, err := l.Interface.Get(ctx)
	l.heed(ctx, err)
	return record, raw, err
}

// Create makes the lease.
func (l *heededLock) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	err := l.Interface.Create(ctx, record)
	l.heed(ctx, err)
	return err
}

// Update renews the lease.
func (l *heededLock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	err := l.Interface.Update(ctx, record)
	l.heed(ctx, err)
	return err
}

func (l *heededLock) heed(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil, apierrors.IsNotFound(err), apierrors.IsConflict(err), apierrors.IsAlreadyExists(err): // another was sooner
	case err == nil:
		l.told = ""
	case l.told != source.OutageReason(err):
		l.told = source.OutageReason(err)
		l.log.Warn("control planes cannot agree on a leader, and this one writes no statuses to Kubernetes; trying again",
			"lease", l.Describe(), "error", l.told)
	}
}

func (s *Source) leadOnce(ctx context.Context, lock resourcelock.Interface, lead func(context.Context)) error {
	// The elector's own context ends after lead has: it gives the lease up as soon as that ends.
	held, release := context.WithCancel(quietly(context.WithoutCancel(ctx), s.log))
	defer release()
	var mu sync.Mutex
	leading, over := false, false // over: it is too late to begin to lead
	defer context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		if over = true; !leading {
			release()
		}
	})()
	ended := make(chan struct{})
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, Name: LeaseName, LeaseDuration: leaseTime, RenewDeadline: renewTime, RetryPeriod: retryTime, ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(held context.Context) {
				mu.Lock()
				leading = !over
				mu.Unlock()
				if !leading {
					return
				}
				defer close(ended)
				defer release()
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				defer context.AfterFunc(held, cancel)()
				s.log.Info("this control plane leads: it writes to Kubernetes", "identity", lock.Identity())
				lead(ctx)
				<-ctx.Done()
				s.log.Info("this control plane does not lead any more", "identity", lock.Identity())
			},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return err
	}
	elector.Run(held)
	mu.Lock()
	over = true
	wait := leading
	mu.Unlock()
	if wait {
		<-ended
	}
	return nil
}
