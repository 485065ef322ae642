package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weftmesh/weft/internal/runtime/demand"
	"github.com/weftmesh/weft/internal/runtime/podhost"
)

const (
	// fadeTime bounds how long a sidecar that was upgraded keeps connections that its clients do not end.
	fadeTime = time.Minute
	// succeedTime bounds a successor's way to readiness. The running sidecar gives up a little earlier.
	succeedTime = 65 * time.Second
)

// Upgraded is a sidecar or gateway whose program was replaced.
type Upgraded struct {
	Pod      string
	From, To string // the programs' versions
	PID      int    // of the new process
}

// Upgrade lets the proxy program that is on disk now take over from the running proxies of a workload, one pod after the other,
// without a lost request. It ends at the first that fails, which carries on as it was, and gives those before.
func (r *Runtime) Upgrade(ctx context.Context, namespace, name string) ([]Upgraded, error) {
	k := demand.Key{Namespace: demand.NamespaceOf(namespace), Name: name}
	r.mu.Lock()
	var pods []*pod
	for _, pk := range sortedKeys(r.pods) {
		if p := r.pods[pk]; p.w.Key == k && p.sidecar != nil && !p.terminating {
			pods = append(pods, p)
		}
	}
	known := r.workloads[k] != nil
	r.mu.Unlock()
	if !known {
		return nil, notFound("workload", k)
	}
	var done []Upgraded
	for _, p := range pods {
		u, err := p.upgrade(ctx)
		if err != nil {
			return done, fmt.Errorf("%s: %w", p.Key, err)
		}
		done = append(done, u)
	}
	return done, nil
}

// upgrade is a request to the goroutine that supervises a sidecar; done has room for the answer.
type upgrade struct{ done chan error }

func (p *pod) upgrade(ctx context.Context) (Upgraded, error) {
	s := p.sidecar
	p.rt.mu.Lock()
	u, running, ready, why := Upgraded{Pod: p.Name, From: s.version}, s.running, s.ready, s.unready
	p.rt.mu.Unlock()
	switch {
	case !running:
		return u, errors.New("its proxy does not run; it starts with the program that is there then")
	case !ready:
		return u, errors.New("its proxy " + cmp.Or(why, "is not ready yet"))
	}
	ask := upgrade{make(chan error, 1)}
	var err error
	select {
	case s.upgrades <- ask:
	case <-ctx.Done():
		return u, ctx.Err()
	case <-p.done:
		return u, errors.New("it has ended")
	}
	select {
	case err = <-ask.done:
	case <-p.done:
		err = errors.New("it has ended")
	}
	p.rt.mu.Lock()
	defer p.rt.mu.Unlock()
	u.To, u.PID = s.version, s.pid
	return u, err
}

// succeed starts the successor of the running sidecar and waits until it has taken over. It gives nil and an error when the running
// one carries on.
func (s *process) succeed(ctx context.Context, running *podhost.Running) (*podhost.Running, error) {
	ctx, cancel := context.WithTimeout(ctx, succeedTime)
	defer cancel()
	before, err := s.p.sidecarInfo(ctx)
	if err != nil {
		return nil, err
	}
	if before.State == stateDraining {
		return nil, errors.New("its proxy " + s.whyUnready(&answerError{text: drainsText}))
	}
	spec, err := s.p.proxyCommand("--takeover")
	if err != nil {
		return nil, err
	}
	next, err := s.start(ctx, spec)
	if err != nil {
		return nil, err
	}
	after, err := s.awaitEpoch(ctx, next, before.Options.Epoch+1)
	if err != nil {
		s.end(next)
		return nil, err
	}
	s.p.rt.log.Info("proxy upgraded", "pod", s.p.Key.String(), "from", before.Version, "to", after.Version, "pid", next.PID())
	s.update(func() { s.pid, s.version = next.PID(), after.Version })
	return next, nil
}

// awaitEpoch waits until the proxy of that epoch answers.
func (s *process) awaitEpoch(ctx context.Context, next *podhost.Running, epoch int) (sidecarInfo, error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		info, err := s.p.sidecarInfo(ctx)
		if err == nil && info.Options.Epoch == epoch {
			return info, nil
		}
		select {
		case <-next.Done():
			return sidecarInfo{}, s.successorEnded(next.Exit())
		case <-ctx.Done():
			return sidecarInfo{}, fmt.Errorf("the new program is not ready: %w. The old one carries on", context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// exitNotTakenUp is how a successor ends that the running proxy does not let take over.
const exitNotTakenUp = 3

// successorEnded says why there is none.
func (s *process) successorEnded(how podhost.Exit) error {
	what := "the new program ended before it was ready (" + how.String() + ")"
	if how == (podhost.Exit{Code: exitNotTakenUp}) {
		what = "the running proxy does not let the new program take over"
	}
	return fmt.Errorf("%s; weft logs -n %s %s -c %s has what it said. The old one carries on", what, s.p.Namespace, s.p.w.Name, sidecarName)
}

func ended(r *podhost.Running) bool {
	select {
	case <-r.Done():
		return true
	default:
		return false
	}
}
