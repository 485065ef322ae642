package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A server whose etcd was restored from a backup counts versions from an earlier one. A watch goes on in silence until they have passed
// the one it was at, and never tells of what differs below. That is found out in two ways. The server is asked for its version, which must
// not be lower than one before. And whoever lists a kind again, since a watch broke off or the server failed to answer, lists what is there
// rather than what came since: while etcd is restored the server is away, and by then its versions may have passed those that were read.
// What remains unseen is a server that was restored behind our back, without a watch that breaks off or a request that fails, and has
// passed within the ten seconds between two questions. The library tries a watch again by itself when its connection breaks off, and says
// nothing of it, so that what fails is noted beneath it.

// errAnew ends a reflector whose server was away.
var errAnew = errors.New("the server was away")

// wentBack is a version that the server had, and the lower one that it has now.
type wentBack struct{ from, to uint64 }

// failed reports whether an error is one of the server or of the way to it, not an answer to what was asked.
func failed(err error) bool {
	status := apierrors.APIStatus(nil)
	return err != nil && (!errors.As(err, &status) || status.Status().Code >= http.StatusInternalServerError)
}

// brokenKey is that of a context's *bool, which becomes true when the server fails to answer a request.
type brokenKey struct{}

// heedBroken gives a context for requests, and whether the server has failed to answer one of them.
func heedBroken(ctx context.Context) (context.Context, *bool) {
	broken := new(bool)
	return context.WithValue(ctx, brokenKey{}, broken), broken
}

// attempts is a transport that notes for each context of heedBroken whether an attempt fails.
type attempts struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper. The client calls it in the goroutine of who asks.
func (a attempts) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := a.RoundTripper.RoundTrip(r)
	if broken, ok := r.Context().Value(brokenKey{}).(*bool); ok && (err != nil || answer.StatusCode >= http.StatusInternalServerError) {
		*broken = true
	}
	return answer, err
}

// anew gives errAnew once a server that was away answers again.
func (f *follower) anew(ctx context.Context) error {
	if _, err := f.ask(ctx); failed(err) {
		f.heed(ctx, err)
		return err
	}
	f.log.Debug("Kubernetes was away; a kind is listed anew")
	return errAnew
}

// ask gives the version of the server. It is not older than any that the server has told anybody before.
func (f *follower) ask(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, lastLook)
	defer cancel()
	some, err := f.list(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return 0, err
	}
	m, err := meta.ListAccessor(some)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(m.GetResourceVersion(), 10, 64)
}

// reached notes the version up to which the kind was read.
func (f *follower) reached(version string) {
	now, err := strconv.ParseUint(version, 10, 64)
	if err != nil {
		return // no Kubernetes: its versions are numbers that grow
	}
	if was := f.read.Swap(now); now < was {
		select {
		case f.back <- wentBack{was, now}:
		default:
		}
	}
}

// seen is the highest version that the server had as far as the follower knows; zero for one that has not read its kind.
func (f *follower) seen() uint64 {
	read := f.read.Load()
	if read == 0 {
		return 0
	}
	return max(read, f.asked)
}

// lookBack asks the server for its version, by the kind of which the highest one is known: kinds may be in an etcd of their own. One
// that may not be read any more says nothing, and of one that is selected from, the server may have to read many to give the first.
// It is an error when the server does not answer, as one that hangs: the watches hear nothing then, and do not break off.
func (r *run) lookBack(ctx context.Context) error {
	all := make([]*follower, 0, len(r.followers))
	known := map[*follower]uint64{}
	for _, f := range r.followers {
		if v := f.seen(); v > 0 && selectors[f.kind.Name] == "" {
			all, known[f] = append(all, f), v
		}
	}
	slices.SortFunc(all, func(a, b *follower) int { return cmp.Compare(known[b], known[a]) })
	for _, f := range all {
		now, err := f.ask(ctx)
		switch {
		case err == nil && now < known[f]:
			r.startAnew(ctx, wentBack{known[f], now})
			return nil
		case err == nil:
			f.asked = now
			return nil
		case failed(err):
			return err
		}
	}
	return nil
}

// startAnew says that the server went back, and has all kinds read as if nothing of them were known, save that it stays in force until
// they are.
func (r *run) startAnew(ctx context.Context, b wentBack) {
	tasks := []task{r.definitions}
	for _, f := range r.followers {
		tasks = append(tasks, f.task)
	}
	for _, t := range tasks {
		t.stop()
	}
	for _, t := range tasks {
		<-t.ended
	}
	select {
	case <-r.back: // it is the same
	default:
	}
	r.tellWentBack(b)
	r.definitions = r.begin(ctx, r.watchDefinitions)
	for _, f := range r.followers {
		f.asked, f.away = 0, false
		f.read.Store(0)
		f.task = r.begin(ctx, f.run)
	}
}

func (r *run) tellWentBack(b wentBack) {
	message := fmt.Sprintf("Kubernetes went back from version %d to %d at or before %s, as after a restore of its etcd; what is there is read anew and counts, deletions included",
		b.from, b.to, time.Now().UTC().Format(time.RFC3339))
	r.log.Warn(message)
	r.intake.WentBack(message, "what was changed since the backup has to be changed again, policies too")
}
