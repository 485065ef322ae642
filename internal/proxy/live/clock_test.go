package live

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weftmesh/weft/internal/proxy/ads"
	"github.com/weftmesh/weft/internal/wire"
)

// silent is a transport that takes subscriptions and answers nothing by itself.
type silent struct {
	mu     sync.Mutex
	wanted []key
}

func (s *silent) Subscribe(t string, names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range names {
		s.wanted = append(s.wanted, key{t, n})
	}
}

func (s *silent) Unsubscribe(t string, names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted = slices.DeleteFunc(s.wanted, func(k key) bool { return k.typeURL == t && slices.Contains(names, k.name) })
}

func (s *silent) Hold(t, name, _ string) { s.Subscribe(t, name) }

func (s *silent) Run(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func (s *silent) wants(k key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.wanted, k)
}

func running(t *testing.T, o Options) (*Live, *silent) {
	o.Node = wire.Node{Role: wire.Sidecar, Namespace: "default", ServiceAccount: "a", Name: "a"}
	l, s := newLive(o), &silent{}
	l.begin(s)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { // ends by cancel
		defer close(done)
		if err := l.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	l.Connected()
	return l, s
}

func answerUnknown(l *Live, name string) {
	l.Apply(ads.Update{Type: listenerType, Removed: []string{name}})
}

func answerTCP(t *testing.T, l *Live, name, cluster string) {
	pack := func(m proto.Message) *anypb.Any {
		a, err := anypb.New(m)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	ln := &listenerv3.Listener{Name: name, FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(&tcpv3.TcpProxy{ClusterSpecifier: &tcpv3.TcpProxy_Cluster{Cluster: cluster}})}}}}}}
	if rejected := l.Apply(ads.Update{Type: listenerType, Changed: []ads.Resource{{Name: name, Version: "1", Body: pack(ln)}}}); rejected != nil {
		t.Fatal(rejected)
	}
	l.Apply(ads.Update{Type: clusterType, Removed: []string{cluster}})
}

func TestUnusedNamesAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s := running(t, Options{KeepUnused: time.Hour, KeepUnknown: time.Minute})
		go func() { _, _ = l.Resolve(t.Context(), "used:1") }()
		go func() { _, _ = l.Resolve(t.Context(), "idle:1") }()
		go func() { _, _ = l.Resolve(t.Context(), "unknown:1") }()
		synctest.Wait()
		answerTCP(t, l, "used:1", "c1")
		answerTCP(t, l, "idle:1", "c2")
		answerUnknown(l, "unknown:1")
		synctest.Wait()
		if n := len(l.Snapshot().Outbound); n != 3 {
			t.Fatalf("%d names", n)
		}
		time.Sleep(2 * time.Minute)
		if _, held := l.Snapshot().Outbound["unknown:1"]; held || s.wants(key{listenerType, "unknown:1"}) {
			t.Error("the unknown name is held for longer than KeepUnknown")
		}
		for range 13 {
			time.Sleep(5 * time.Minute)
			if _, err := l.Resolve(t.Context(), "used:1"); err != nil {
				t.Fatal(err)
			}
		}
		snap := l.Snapshot()
		if snap.Outbound["used:1"] == nil || snap.Outbound["idle:1"] != nil || !s.wants(key{clusterType, "c1"}) || s.wants(key{clusterType, "c2"}) {
			t.Errorf("after an hour: %v, subscribed to %v", snap.Outbound, s.wanted)
		}
		l.Disconnected(ErrUnreachable)
		time.Sleep(3 * time.Hour)
		if l.Snapshot().Outbound["used:1"] == nil {
			t.Error("a name was dropped while the control plane was away")
		}
	})
}

// failing resolves a name that is not answered, and tells how long that took.
func failing(t *testing.T, l *Live, name string) (time.Duration, error) {
	start := time.Now()
	_, err := l.Resolve(t.Context(), name)
	if err == nil {
		t.Errorf("%s: resolved without an answer", name)
	}
	return time.Since(start), err
}

// TestWaitsAreBounded checks that the time for a lost control plane to return is counted once, and not for each name.
func TestWaitsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := running(t, Options{})
		resolve := func() time.Duration {
			d, _ := failing(t, l, "a:1")
			return d
		}
		if d := resolve(); d != 5*time.Second {
			t.Errorf("waited %s for a silent control plane", d)
		}
		l.Disconnected(ErrUnreachable)
		if d := resolve(); d != 1500*time.Millisecond {
			t.Errorf("waited %s for an unreachable control plane", d)
		}
		if d := resolve(); d != 0 {
			t.Errorf("the second waiter waited %s", d)
		}
		time.Sleep(time.Hour)
		l.Disconnected(ErrUnreachable) // once more, as after every attempt
		switch d, err := failing(t, l, "b:1"); {
		case d != 0:
			t.Errorf("another name waited %s", d)
		case !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "for 1h0m1.5s"):
			t.Errorf("another name: %v", err)
		}
		l.Connected()
		if d := resolve(); d != 5*time.Second {
			t.Errorf("waited %s after the return", d)
		}
		w := l.Status().Waits
		if w.Count != 5 || w.Longest != 5*time.Second || w.Outcome["timeout"] != 2 || w.Outcome["unreachable"] != 3 {
			t.Errorf("waits: %+v", w)
		}
	})
}

func TestShortLossIsRiddenOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := running(t, Options{})
		for range 3 { // each loss has its own time
			l.Disconnected(errors.New("restarting"))
			time.Sleep(time.Second)
			l.Connected()
		}
		l.Disconnected(errors.New("restarting"))
		time.Sleep(time.Second)
		go func() {
			time.Sleep(400 * time.Millisecond)
			l.Connected()
			time.Sleep(time.Second)
			answerTCP(t, l, "a:1", "c")
		}()
		start := time.Now()
		if target, err := l.Resolve(t.Context(), "a:1"); target == nil || err != nil || time.Since(start) != 1400*time.Millisecond {
			t.Errorf("Resolve = %v, %v after %s", target, err, time.Since(start))
		}
		l.Disconnected(errors.New("gone"))
		time.Sleep(time.Second)
		if d, err := failing(t, l, "b:1"); d != 500*time.Millisecond || !strings.Contains(err.Error(), "gone") {
			t.Errorf("failed after %s: %v", d, err)
		}
	})
}

// TestStart checks that names wait until the first attempt to connect has failed, but not for an attempt that is never made.
func TestStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := func() *Live {
			l := newLive(Options{Node: wire.Node{Role: wire.Sidecar, Namespace: "default", ServiceAccount: "a", Name: "a"}})
			l.begin(&silent{})
			return l
		}
		l := begin()
		time.AfterFunc(700*time.Millisecond, func() { l.Disconnected(errors.New("refused")) })
		if d, err := failing(t, l, "a:1"); d != 700*time.Millisecond || !strings.Contains(err.Error(), "refused") {
			t.Errorf("failed after %s: %v", d, err)
		}
		if d, _ := failing(t, l, "b:1"); d != 0 {
			t.Errorf("a second name waited %s", d)
		}
		if d, err := failing(t, begin(), "a:1"); d != 1500*time.Millisecond || !errors.Is(err, ErrUnreachable) {
			t.Errorf("failed after %s: %v", d, err)
		}
	})
}

func TestManyWaitersOneSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, s := running(t, Options{})
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if target, err := l.Resolve(t.Context(), "a:1"); err != nil || target == nil {
					t.Errorf("Resolve = %v, %v", target, err)
				}
			})
		}
		synctest.Wait()
		if n := len(s.wanted); n != 3 { // and what a sidecar always asks for
			t.Errorf("subscriptions: %v", s.wanted)
		}
		answerTCP(t, l, "a:1", "c")
		wg.Wait()
	})
}

func TestCancelledWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := running(t, Options{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := l.Resolve(ctx, "a:1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Resolve: %v", err)
		}
		answerTCP(t, l, "a:1", "c")
		if target, err := l.Resolve(t.Context(), "a:1"); target == nil || err != nil {
			t.Errorf("Resolve = %v, %v", target, err)
		}
	})
}
