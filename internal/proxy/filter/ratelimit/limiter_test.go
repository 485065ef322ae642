package ratelimit

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/message"
)

func ask(path string, fields ...string) *Request {
	r := &message.Request{Method: "GET", Path: path, Authority: "shop"}
	for i := 0; i+1 < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	return &Request{Request: r, Remote: netip.MustParseAddr("203.0.113.7"), Source: "app", Destination: "cluster"}
}

func now() int64 { return time.Now().UnixNano() }

func TestBucketGainsTokensEvenly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(&conf.TokenBucket{Max: 3, Fill: 2, Interval: time.Second})
		for left := uint32(3); left > 0; left-- {
			if ok, l, _ := b.take(now()); !ok || l != left-1 {
				t.Fatalf("with %d left: %v, %d", left, ok, l)
			}
		}
		if ok, _, reset := b.take(now()); ok || reset != 1500*time.Millisecond {
			t.Fatalf("empty: %v, full in %v", ok, reset)
		}
		time.Sleep(499 * time.Millisecond)
		if ok, _, _ := b.take(now()); ok {
			t.Error("a token came too soon")
		}
		time.Sleep(time.Millisecond)
		if ok, _, _ := b.take(now()); !ok {
			t.Error("no token came")
		}
		time.Sleep(time.Hour)
		if ok, l, _ := b.take(now()); !ok || l != 2 || b.isFull(now()) {
			t.Errorf("it holds more than its maximum: %d", l)
		}
	})
}

func TestBucketGivesNoTokenTwice(t *testing.T) {
	b := newBucket(&conf.TokenBucket{Max: 1000, Fill: 1, Interval: time.Hour})
	var taken atomic.Int64
	var wg sync.WaitGroup
	at := now()
	for range 8 {
		wg.Go(func() {
			for range 500 {
				if ok, _, _ := b.take(at); ok {
					taken.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if taken.Load() != 1000 {
		t.Errorf("%d tokens of 1000", taken.Load())
	}
}

var perUser = &conf.LocalLimit{MaxDynamic: 64, AlwaysBucket: false, Bucket: &conf.TokenBucket{Max: 100, Fill: 1, Interval: time.Second},
	Descriptors: []conf.LimitDescriptor{
		{Entries: []conf.LimitEntry{{Key: "user", Value: "root"}}, Bucket: conf.TokenBucket{Max: 5, Fill: 1, Interval: time.Hour}},
		{Entries: []conf.LimitEntry{{Key: "user"}}, Bucket: conf.TokenBucket{Max: 2, Fill: 1, Interval: time.Hour}},
	}}

var byUser = [2][]conf.LimitRule{{{Actions: []conf.LimitAction{{Kind: conf.LimitHeader, Key: "user", Name: "x-user"}}}}}

func TestDescriptorsHaveBucketsOfTheirOwn(t *testing.T) {
	l, s, at := New(perUser), &Scratch{}, now()
	for user, want := range map[string]int{"root": 5, "amy": 2, "bob": 2} {
		got := 0
		for range 10 {
			if v := l.Check(at, ask("/", "X-User", user), byUser, s); !v.Over {
				got++
			}
		}
		if got != want {
			t.Errorf("%s: %d requests, want %d", user, got, want)
		}
	}
	if v := l.Check(at, ask("/"), byUser, s); v.Over || v.Limit != 100 || v.Left != 99 {
		t.Errorf("a request of nobody: %+v", v)
	}
	if v := l.Check(at, ask("/", "X-User", "amy"), [2][]conf.LimitRule{{{Stage: 1, Actions: byUser[0][0].Actions}}}, s); v.Over || v.Limit != 100 {
		t.Errorf("rules of another stage: %+v", v)
	}
}

func TestDefaultBucketBesideDescriptors(t *testing.T) {
	c := *perUser
	c.AlwaysBucket, c.Bucket = true, &conf.TokenBucket{Max: 3, Fill: 1, Interval: time.Hour}
	l, s, at := New(&c), &Scratch{}, now()
	over := 0
	for i := range 5 {
		if v := l.Check(at, ask("/", "x-user", fmt.Sprint(i)), byUser, s); v.Over {
			over++
		}
	}
	if over != 2 {
		t.Errorf("%d of 5 requests over a limit of 3 for all", over)
	}
}

// TestValuesAreBounded comes with ever new values: the memory stays, and a value that is used up may be forgotten only for others.
func TestValuesAreBounded(t *testing.T) {
	l, s, at := New(perUser), &Scratch{}, now()
	for i := range 10000 {
		l.Check(at, ask("/", "x-user", fmt.Sprint(i)), byUser, s)
	}
	n := 0
	for i := range l.open[0].shards {
		n += len(l.open[0].shards[i].buckets)
	}
	if n > perUser.MaxDynamic {
		t.Errorf("%d buckets, want %d at most", n, perUser.MaxDynamic)
	}
}

func TestActions(t *testing.T) {
	exact := func(name, v string) []conf.HeaderMatch {
		return []conf.HeaderMatch{{Name: name, Value: conf.StringMatch{Kind: conf.Exact, Value: v}}}
	}
	for name, c := range map[string]struct {
		action conf.LimitAction
		want   string // "" for no description
	}{
		"generic":          {conf.LimitAction{Value: "v"}, "v"},
		"header":           {conf.LimitAction{Kind: conf.LimitHeader, Name: "x-user"}, "amy"},
		"absent header":    {conf.LimitAction{Kind: conf.LimitHeader, Name: "x-none"}, ""},
		"pseudo header":    {conf.LimitAction{Kind: conf.LimitHeader, Name: ":method"}, "GET"},
		"parameter":        {conf.LimitAction{Kind: conf.LimitQuery, Name: "q"}, "a b"},
		"matching headers": {conf.LimitAction{Kind: conf.LimitHeaders, Value: "m", Expect: true, Headers: exact(":path", "/a?q=a%20b")}, "m"},
		"other headers":    {conf.LimitAction{Kind: conf.LimitHeaders, Value: "m", Expect: true, Headers: exact(":path", "/b")}, ""},
		"expected to miss": {conf.LimitAction{Kind: conf.LimitHeaders, Value: "m", Headers: exact(":path", "/b")}, "m"},
		"matching parameter": {conf.LimitAction{Kind: conf.LimitParams, Value: "m", Expect: true, Query: []conf.QueryMatch{{Name: "q",
			Value: conf.StringMatch{Kind: conf.PrefixOf, Value: "a"}}}}, "m"},
		"address":     {conf.LimitAction{Kind: conf.LimitRemote}, "203.0.113.7"},
		"network":     {conf.LimitAction{Kind: conf.LimitRemote, Masked: true, V4: 24, V6: 64}, "203.0.113.0/24"},
		"source":      {conf.LimitAction{Kind: conf.LimitSource}, "app"},
		"destination": {conf.LimitAction{Kind: conf.LimitDestination}, "cluster"},
	} {
		c.action.Key = "k"
		got := Describe(nil, &conf.LimitRule{Actions: []conf.LimitAction{{Key: "first", Value: "1"}, c.action}}, ask("/a?q=a%20b", "X-User", "amy"))
		if c.want == "" && len(got) != 0 || c.want != "" && (len(got) != 2 || got[1] != conf.LimitEntry{Key: "k", Value: c.want}) {
			t.Errorf("%s: %v, want %q", name, got, c.want)
		}
		c.action.SkipAbsent = true
		if got = Describe(nil, &conf.LimitRule{Actions: []conf.LimitAction{{Key: "first", Value: "1"}, c.action}}, ask("/a?q=a%20b", "X-User", "amy")); c.want == "" && len(got) != 1 {
			t.Errorf("%s: what is absent is not skipped: %v", name, got)
		}
	}
}

func TestKeeperKeepsBucketsOfWhatDidNotChange(t *testing.T) {
	var k Keeper
	a, b, c := *perUser, *perUser, *perUser
	a.Key, b.Key, c.Key = "same", "same", "other"
	kept := k.Get(&a)
	if k.Get(&a) != kept || k.Get(&b) != kept || k.Get(&c) == kept {
		t.Error("buckets are kept by another rule than the key")
	}
	for range 3 * maxKept {
		n := a
		k.Get(&n)
	}
	if n := k.known.Load(); n > maxKept {
		t.Errorf("%d limits are remembered", n)
	}
	if k.Get(&a) != k.Get(&b) {
		t.Error("the buckets were lost on the way")
	}
}

func TestCheckAllocatesNothing(t *testing.T) {
	l, s, at := New(perUser), &Scratch{}, now()
	r := ask("/", "x-user", "amy")
	rules := [2][]conf.LimitRule{{{Actions: []conf.LimitAction{{Kind: conf.LimitHeader, Key: "user", Name: "x-user"}}},
		{Actions: []conf.LimitAction{{Kind: conf.LimitRemote, Key: "remote_address"}}}}}
	l.Check(at, r, rules, s)
	if n := testing.AllocsPerRun(100, func() { l.Check(at, r, rules, s) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCheck(b *testing.B) {
	l := New(perUser)
	b.RunParallel(func(pb *testing.PB) {
		s, r, at := &Scratch{}, ask("/", "x-user", "root"), now()
		for pb.Next() {
			l.Check(at, r, byUser, s)
		}
	})
}
