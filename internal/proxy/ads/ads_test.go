package ads_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/weftmesh/weft/internal/proxy/ads"
	"github.com/weftmesh/weft/internal/proxy/ads/adstest"
	"github.com/weftmesh/weft/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const endpointsType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"

// recorder is a handler that keeps what it hears as lines: "+name", "-name", "up", "down".
type recorder struct {
	mu     sync.Mutex
	lines  []string
	moved  chan struct{}
	refuse map[string]error
}

func newRecorder() *recorder {
	return &recorder{moved: make(chan struct{}), refuse: map[string]error{}}
}

func (r *recorder) note(lines ...string) {
	r.lines = append(r.lines, lines...)
	close(r.moved)
	r.moved = make(chan struct{})
}

func (r *recorder) Apply(u ads.Update) (rejected []ads.Rejection) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range u.Changed {
		r.note("+" + c.Name)
		if err := r.refuse[c.Name]; err != nil {
			rejected = append(rejected, ads.Rejection{Name: c.Name, Err: err})
		}
	}
	for _, n := range u.Removed {
		r.note("-" + n)
	}
	return rejected
}

func (r *recorder) Connected() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note("up")
}

func (r *recorder) Disconnected(error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note("down")
}

// await waits until a line was heard n times.
func (r *recorder) await(t *testing.T, line string, n int) {
	t.Helper()
	ctx := soon(t)
	for {
		r.mu.Lock()
		lines, moved := slices.Clone(r.lines), r.moved
		r.mu.Unlock()
		count := 0
		for _, l := range lines {
			if l == line {
				count++
			}
		}
		if count >= n {
			return
		}
		select {
		case <-moved:
		case <-ctx.Done():
			t.Fatalf("%q was not heard %d times: %v", line, n, lines)
		}
	}
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func start(t *testing.T, s *adstest.Server, r *recorder) *ads.Client {
	t.Helper()
	c, err := ads.New(s.Conn(t), wire.Node{Role: wire.Sidecar, Name: "a", Namespace: "default", ServiceAccount: "sa", Labels: map[string]string{"app": "a"}}, r, ads.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	return c
}

func set(s *adstest.Server, names ...string) {
	ms := map[string]proto.Message{}
	for _, n := range names {
		ms[n] = &endpointv3.ClusterLoadAssignment{ClusterName: n}
	}
	s.Set(ms)
}

// TestLargeResource gets what is more than gRPC's clients take by default.
func TestLargeResource(t *testing.T) {
	s, r := adstest.New(t), newRecorder()
	s.Set(map[string]proto.Message{"large": &endpointv3.ClusterLoadAssignment{ClusterName: strings.Repeat("x", 9<<20)}})
	start(t, s, r).Subscribe(endpointsType, "large")
	r.await(t, "+large", 1)
}

func TestSubscribe(t *testing.T) {
	s, r := adstest.New(t), newRecorder()
	set(s, "a")
	c := start(t, s, r)
	c.Subscribe(endpointsType, "a", "b")
	r.await(t, "+a", 1)
	r.await(t, "-b", 1)
	set(s, "b")
	r.await(t, "+b", 1)
	first, err := s.Await(soon(t), func(r *discoveryv3.DeltaDiscoveryRequest) bool { return r.Node != nil })
	if err != nil {
		t.Fatal(err)
	}
	meta := first.Node.Metadata.Fields
	if first.Node.Id != "sidecar~0.0.0.0~a.default~default.svc.cluster.local" || meta["SERVICE_ACCOUNT"].GetStringValue() != "sa" ||
		meta["LABELS"].GetStructValue().Fields["app"].GetStringValue() != "a" {
		t.Errorf("node: %v", first.Node)
	}
	c.Unsubscribe(endpointsType, "a")
	if _, err := s.Await(soon(t), func(r *discoveryv3.DeltaDiscoveryRequest) bool {
		return slices.Equal(r.ResourceNamesUnsubscribe, []string{"a"})
	}); err != nil {
		t.Error(err)
	}
	c.Subscribe(endpointsType, "a")
	r.await(t, "+a", 2)
}

// TestDroppedAndWantedAgain subscribes again before the first subscription's end was sent: the content is sent anew.
func TestDroppedAndWantedAgain(t *testing.T) {
	s, r := adstest.New(t), newRecorder()
	set(s, "a")
	c := start(t, s, r)
	c.Subscribe(endpointsType, "a")
	r.await(t, "+a", 1)
	for range 50 {
		c.Unsubscribe(endpointsType, "a")
		c.Subscribe(endpointsType, "a")
	}
	r.await(t, "+a", 2)
}

func TestRejectionNamesTheResource(t *testing.T) {
	s, r := adstest.New(t), newRecorder()
	r.refuse["bad"] = errors.New("weights add up to 0")
	set(s, "bad", "good")
	c := start(t, s, r)
	c.Subscribe(endpointsType, "bad", "good")
	nack, err := s.Await(soon(t), func(r *discoveryv3.DeltaDiscoveryRequest) bool { return r.ErrorDetail != nil })
	if err != nil || nack.ResponseNonce == "" || nack.ErrorDetail.Message != "bad: weights add up to 0" {
		t.Fatalf("nack: %v, %v", nack, err)
	}
	s.Stop()
	s.Forget()
	s.Start()
	again, err := s.Await(soon(t), func(r *discoveryv3.DeltaDiscoveryRequest) bool { return len(r.ResourceNamesSubscribe) == 2 })
	if err != nil || again.InitialResourceVersions["good"] == "" || again.InitialResourceVersions["bad"] != "" {
		t.Errorf("resumed with %v, %v", again, err)
	}
}

func TestReconnects(t *testing.T) {
	s, r := adstest.New(t), newRecorder()
	set(s, "a")
	c := start(t, s, r)
	c.Subscribe(endpointsType, "a")
	r.await(t, "up", 1)
	for i := range 3 {
		s.Stop()
		r.await(t, "down", i+1)
		s.Remove(endpointsType, "a")
		set(s, fmt.Sprintf("new-%d", i))
		c.Subscribe(endpointsType, fmt.Sprintf("new-%d", i))
		s.Start()
		r.await(t, fmt.Sprintf("+new-%d", i), 1)
		r.await(t, "up", i+2)
	}
	r.await(t, "-a", 1)
	if st := c.Stats(); st.Streams < 4 || st.Updates < 4 {
		t.Errorf("stats: %+v", st)
	}
}

func TestHeldVersionIsNotSentAgain(t *testing.T) {
	s, r := adstest.New(t), newRecorder()
	set(s, "a", "b")
	c := start(t, s, r)
	c.Subscribe(endpointsType, "a")
	r.await(t, "+a", 1)
	held, err := s.Await(soon(t), func(r *discoveryv3.DeltaDiscoveryRequest) bool { return r.ResponseNonce != "" })
	if err != nil || held.ErrorDetail != nil {
		t.Fatalf("ack: %v, %v", held, err)
	}
	s.Stop()
	s.Start()
	c.Subscribe(endpointsType, "b")
	r.await(t, "+b", 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := slices.Index(r.lines[slices.Index(r.lines, "+a")+1:], "+a"); n >= 0 {
		t.Errorf("sent again: %v", r.lines)
	}
}

func TestWildcard(t *testing.T) {
	s, r := adstest.New(t), newRecorder()
	set(s, "a")
	c := start(t, s, r)
	c.Hold(endpointsType, "x", "1") // a name of its own
	c.Subscribe(endpointsType, ads.Wildcard)
	r.await(t, "+a", 1)
	set(s, "b")
	r.await(t, "+b", 1)
	s.Remove(endpointsType, "a")
	r.await(t, "-a", 1)
	s.Stop()
	s.Forget()
	s.Start()
	again, err := s.Await(soon(t), func(r *discoveryv3.DeltaDiscoveryRequest) bool {
		return slices.Contains(r.ResourceNamesSubscribe, ads.Wildcard)
	})
	if err != nil || again.InitialResourceVersions["b"] == "" || again.InitialResourceVersions["a"] != "" {
		t.Errorf("resumed with %v, %v", again, err)
	}
}
