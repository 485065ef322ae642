package resolve

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	weftdns "github.com/weftmesh/weft/internal/dns"
	"github.com/weftmesh/weft/internal/proxy/conf"
)

// server is a real name server on loopback, whose answers a test decides, and which the resolver gives so much time.
func server(t *testing.T, patience time.Duration, answer func(w dns.ResponseWriter, q *dns.Msg)) *Resolver {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started, ended := make(chan struct{}), make(chan error, 1)
	s := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(answer), NotifyStartedFunc: func() { close(started) }}
	go func() { ended <- s.ActivateAndServe() }() // ends by Shutdown
	<-started
	t.Cleanup(func() {
		s.Shutdown()
		<-ended
	})
	u, err := weftdns.NewUpstreams([]string{pc.LocalAddr().String()}, patience, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &Resolver{Exchange: u.Exchange}
}

// zone answers with records in the text form, by type of question.
func zone(t *testing.T, code int, records map[uint16][]string) func(dns.ResponseWriter, *dns.Msg) {
	return func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetRcode(q, code)
		for _, text := range records[q.Question[0].Qtype] {
			rr, err := dns.NewRR(text)
			if err != nil {
				t.Error(err)
				return
			}
			m.Answer = append(m.Answer, rr)
		}
		w.WriteMsg(m)
	}
}

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func TestLookup(t *testing.T) {
	both := map[uint16][]string{
		dns.TypeA:    {"db.example. 40 IN CNAME a.example.", "a.example. 300 IN A 192.0.2.1", "a.example. 300 IN A 192.0.2.2"},
		dns.TypeAAAA: {"db.example. 20 IN AAAA 2001:db8::1"},
	}
	six := map[uint16][]string{dns.TypeAAAA: both[dns.TypeAAAA]}
	for _, tc := range []struct {
		name    string
		code    int
		records map[uint16][]string
		family  conf.Family
		want    []netip.Addr
		ttl     time.Duration
		missing bool
	}{
		{"all, by the shortest time", dns.RcodeSuccess, both, conf.AllFamilies, addrs("192.0.2.1", "192.0.2.2", "2001:db8::1"), 20 * time.Second, false},
		{"an alias counts", dns.RcodeSuccess, both, conf.V4Only, addrs("192.0.2.1", "192.0.2.2"), 40 * time.Second, false},
		{"v6 only", dns.RcodeSuccess, both, conf.V6Only, addrs("2001:db8::1"), 20 * time.Second, false},
		{"v4 preferred", dns.RcodeSuccess, both, conf.V4Preferred, addrs("192.0.2.1", "192.0.2.2"), 40 * time.Second, false},
		{"v4 preferred, not there", dns.RcodeSuccess, six, conf.V4Preferred, addrs("2001:db8::1"), 20 * time.Second, false},
		{"v6 preferred", dns.RcodeSuccess, both, conf.V6Preferred, addrs("2001:db8::1"), 20 * time.Second, false},
		{"none of the family", dns.RcodeSuccess, six, conf.V4Only, nil, 0, false},
		{"no such name", dns.RcodeNameError, nil, conf.AllFamilies, nil, 0, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, err := server(t, time.Minute, zone(t, tc.code, tc.records)).Lookup(t.Context(), "db.example", tc.family)
			if err != nil || !slices.Equal(a.Addrs, tc.want) || a.TTL != tc.ttl || a.HasTTL != (tc.ttl > 0) || a.Missing != tc.missing {
				t.Fatalf("%+v, %v", a, err)
			}
		})
	}
}

func TestLookupFails(t *testing.T) {
	r := server(t, time.Minute, zone(t, dns.RcodeServerFailure, nil))
	if a, err := r.Lookup(t.Context(), "db.example", conf.AllFamilies); err == nil || strings.Count(err.Error(), "db.example") != 1 {
		t.Fatalf("a server that fails for both families: %+v, %v", a, err)
	}
	silent := server(t, 200*time.Millisecond, func(dns.ResponseWriter, *dns.Msg) {})
	if a, err := silent.Lookup(t.Context(), "db.example", conf.V4Only); err == nil {
		t.Fatalf("a server that is silent: %+v", a)
	}
}

// One family that fails does not hide the other.
func TestLookupHalf(t *testing.T) {
	r := server(t, time.Minute, func(w dns.ResponseWriter, q *dns.Msg) {
		if q.Question[0].Qtype == dns.TypeAAAA {
			w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeServerFailure))
			return
		}
		zone(t, dns.RcodeSuccess, map[uint16][]string{dns.TypeA: {"db.example. 9 IN A 192.0.2.7"}})(w, q)
	})
	a, err := r.Lookup(t.Context(), "db.example", conf.AllFamilies)
	if err != nil || !slices.Equal(a.Addrs, addrs("192.0.2.7")) || a.TTL != 9*time.Second {
		t.Fatalf("%+v, %v", a, err)
	}
}

func TestSystem(t *testing.T) {
	a, err := (&Resolver{}).Lookup(t.Context(), "localhost", conf.V4Only)
	if err != nil || !slices.Equal(a.Addrs, addrs("127.0.0.1")) || a.HasTTL {
		t.Fatalf("%+v, %v", a, err)
	}
}

// The time between lookups: by the records' time within bounds, by the configuration without one, growing after failures.
func TestRun(t *testing.T) {
	failed := errors.New("no answer")
	ttl := func(d time.Duration) Answer { return Answer{TTL: d, HasTTL: true} }
	for _, tc := range []struct {
		name        string
		dns         conf.DNS
		answer      Answer
		err         error
		least, most []time.Duration
	}{
		{"the records' time", conf.DNS{RespectTTL: true, Refresh: time.Hour}, ttl(20 * time.Second), nil, []time.Duration{20 * time.Second}, nil},
		{"not too often", conf.DNS{RespectTTL: true}, ttl(0), nil, []time.Duration{time.Second}, nil},
		{"not too seldom", conf.DNS{RespectTTL: true}, ttl(time.Hour), nil, []time.Duration{5 * time.Minute}, nil},
		{"the records' time does not count", conf.DNS{Refresh: 7 * time.Second}, ttl(time.Second), nil, []time.Duration{7 * time.Second}, nil},
		{"nothing found", conf.DNS{RespectTTL: true, Refresh: 7 * time.Second}, Answer{Missing: true}, nil, []time.Duration{7 * time.Second}, nil},
		{"jitter", conf.DNS{Refresh: 7 * time.Second, Jitter: time.Second}, Answer{}, nil, []time.Duration{7 * time.Second}, []time.Duration{8 * time.Second}},
		{"failures", conf.DNS{Refresh: time.Hour, FailureBase: 2 * time.Second, FailureMax: 6 * time.Second}, Answer{}, failed,
			[]time.Duration{time.Second, 2 * time.Second, 3 * time.Second, 3 * time.Second},
			[]time.Duration{2 * time.Second, 4 * time.Second, 6 * time.Second, 6 * time.Second}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var at []time.Time
				Run(t.Context(), tc.dns, func(context.Context) (Answer, error) {
					at = append(at, time.Now())
					return tc.answer, tc.err
				}, func(Answer, error, time.Duration) bool { return len(at) <= len(tc.least) })
				for i, least := range tc.least {
					most := least
					if tc.most != nil {
						most = tc.most[i]
					}
					if d := at[i+1].Sub(at[i]); d < least || d > most {
						t.Errorf("lookup %d after %s, want %s to %s", i+1, d, least, most)
					}
				}
			})
		})
	}
}

// A lookup that is under way when the name is not wanted any more tells nobody.
func TestRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var told, ended atomic.Bool
		go func() {
			Run(ctx, conf.DNS{Refresh: time.Second}, func(ctx context.Context) (Answer, error) {
				<-ctx.Done()
				return Answer{}, ctx.Err()
			}, func(Answer, error, time.Duration) bool { told.Store(true); return true })
			ended.Store(true)
		}()
		synctest.Wait()
		cancel()
		synctest.Wait()
		if told.Load() || !ended.Load() {
			t.Fatalf("told %v, ended %v", told.Load(), ended.Load())
		}
	})
}
