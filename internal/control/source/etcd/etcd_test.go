package etcd

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/source/etcd/etcdtest"
	"github.com/weftmesh/weft/internal/control/source/sourcetest"
)

func open(t *testing.T, o Options) *Store {
	t.Helper()
	if o.Check = compile.Check; o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func key(name string) source.Key {
	return source.Key{Kind: "Service", Namespace: "default", Name: name}
}

// write is what somebody does with etcdctl.
func write(t *testing.T, server *etcdtest.Server, prefix, name, text string) {
	t.Helper()
	if _, err := server.Client.Put(context.WithoutCancel(t.Context()), prefix+objectsPart+path(key(name)), text); err != nil {
		t.Fatal(err)
	}
}

// place is a prefix of an etcd behind a cable.
func place(t *testing.T, server *etcdtest.Server, prefix string) *sourcetest.Place {
	cable := sourcetest.NewCable(t, server.Endpoint)
	return &sourcetest.Place{
		Source: open(t, Options{Endpoints: []string{cable.Addr()}, Prefix: prefix}),
		Put: func(t *testing.T, name, version string) {
			write(t, server, prefix, name, sourcetest.Service(name, version))
		},
		Delete: func(t *testing.T, name string) {
			if _, err := server.Client.Delete(context.WithoutCancel(t.Context()), prefix+objectsPart+path(key(name))); err != nil {
				t.Fatal(err)
			}
		},
		Cut: cable.Cut, Mend: cable.Mend,
	}
}

func TestContract(t *testing.T) {
	server := etcdtest.Start(t)
	n := 0
	sourcetest.Test(t, func(t *testing.T) *sourcetest.Place {
		n++
		return place(t, server, fmt.Sprintf("/test%d/", n))
	})
}

// patience bounds the wait for something that must happen.
const patience = 3 * time.Minute

// TestForgotten: what happened while the source was away is found out although etcd has forgotten it.
func TestForgotten(t *testing.T) {
	server := etcdtest.Start(t)
	p := place(t, server, DefaultPrefix)
	p.Put(t, "a", "1")
	p.Put(t, "b", "1")
	l := sourcetest.Listen(t, p)
	l.Await(t, "a=1 b=1")
	p.Cut(t)
	p.Delete(t, "a")
	p.Put(t, "b", "2")
	answer, err := server.Client.Get(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.Client.Compact(t.Context(), answer.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	p.Mend(t)
	l.Await(t, "b=2")
}

// TestServerRestarts: the server may go away and come back.
func TestServerRestarts(t *testing.T) {
	server := etcdtest.Start(t)
	p := place(t, server, DefaultPrefix)
	p.Put(t, "a", "1")
	l := sourcetest.Listen(t, p)
	l.Await(t, "a=1")
	server.Down(t)
	server.Up(t)
	p.Put(t, "b", "1")
	l.Await(t, "a=1 b=1")
}

// levels gives the levels of a log's records.
type levels chan slog.Level

func (l levels) Enabled(context.Context, slog.Level) bool      { return true }
func (l levels) WithAttrs([]slog.Attr) slog.Handler            { return l }
func (l levels) WithGroup(string) slog.Handler                 { return l }
func (l levels) Handle(_ context.Context, r slog.Record) error { l <- r.Level; return nil }

// TestServerStandsStill: a server that does not answer is told, long before its connection is given up, and so is that it answers again.
func TestServerStandsStill(t *testing.T) {
	server := etcdtest.Start(t)
	log := make(levels, 100)
	s := open(t, Options{Endpoints: []string{server.Endpoint}, Log: slog.New(log)})
	set := source.NewSet(source.Layers{Applied: s}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- set.Run(ctx) }() // ends with cancel
	<-set.Ready()
	start := time.Now()
	server.Pause(t)
	if level := <-log; level != slog.LevelWarn || time.Since(start) > patience {
		t.Errorf("after %v: %v", time.Since(start), level)
	}
	server.Resume(t)
	for level := range log {
		if level == slog.LevelInfo {
			break
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestTooLarge: a change that etcd does not take changes nothing, and the error says what is allowed.
func TestTooLarge(t *testing.T) {
	server := etcdtest.Start(t)
	s := open(t, Options{Endpoints: []string{server.Endpoint}})
	for _, n := range []int{1_600_000, 3_000_000} { // more than the server takes, and more than its client sends
		text := strings.ReplaceAll(rule, "NAME", "a") + "# " + strings.Repeat("x", n) + "\n"
		if _, err := s.Put(decode(t, text), 0); err == nil || !strings.Contains(err.Error(), "1.5 MiB") {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	there, err := server.Client.Get(t.Context(), DefaultPrefix, clientv3.WithPrefix())
	if err != nil || there.Count != 0 {
		t.Errorf("%d keys are there (%v)", there.Count, err)
	}
}

// TestHandWritten: what others write is checked; refused, it leaves in force what was good, and says where it is.
func TestHandWritten(t *testing.T) {
	server := etcdtest.Start(t)
	p := place(t, server, DefaultPrefix)
	p.Put(t, "a", "1")
	l := sourcetest.Listen(t, p)
	l.Await(t, "a=1")
	finding := func(code string, line int) {
		t.Helper()
		l.AwaitThat(t, code, func() bool {
			for _, f := range l.Last().Findings {
				if f.Code == code && f.Line == line && f.File == "etcd:/weft/objects/core/Service/default/a" && f.Object.String() == "Service/default/a" {
					return true
				}
			}
			return false
		})
		l.Await(t, "a=1")
	}
	write(t, server, DefaultPrefix, "a", sourcetest.Service("a", "2")+"sepc: {}\n")
	finding("UnknownField", 8)
	write(t, server, DefaultPrefix, "a", sourcetest.Service("b", "2"))
	finding("WrongKey", 0)
	write(t, server, DefaultPrefix, "a", sourcetest.Service("a", "2")+"---\n"+sourcetest.Service("b", "2"))
	finding("NotAnObject", 0)
	write(t, server, DefaultPrefix, "a", "{]")
	finding("SyntaxError", 1)
	write(t, server, DefaultPrefix, "a", "no object")
	finding("NotAnObject", 1)
	for _, f := range l.Last().Findings {
		if f.Code == "NotAnObject" && !strings.HasSuffix(f.Hint, "weft delete service a") {
			t.Errorf("it does not say how to be rid of it: %v", f)
		}
	}
	p.Delete(t, "a")
	l.Await(t, "")
	if f := l.Last().Findings; len(f) > 0 {
		t.Errorf("nothing is left to be said: %v", f)
	}
}

// TestMisplaced: what somebody writes under a key that names no object is told, by the key, until it is gone.
func TestMisplaced(t *testing.T) {
	server := etcdtest.Start(t)
	p := place(t, server, DefaultPrefix)
	p.Put(t, "a", "1")
	put := func(below string) {
		if _, err := server.Client.Put(t.Context(), DefaultPrefix+objectsPart+below, sourcetest.Service("b", "1")); err != nil {
			t.Fatal(err)
		}
	}
	put("core/Service")
	l := sourcetest.Listen(t, p)
	l.Await(t, "a=1")
	told := func(below ...string) {
		t.Helper()
		l.AwaitThat(t, fmt.Sprint(below), func() bool {
			var files []string
			for _, f := range l.Last().Findings {
				files = append(files, strings.TrimPrefix(f.File, "etcd:"+DefaultPrefix+objectsPart))
			}
			return slices.Equal(files, below)
		})
		l.Await(t, "a=1")
	}
	told("core/Service")
	put("core/Service//b")
	told("core/Service", "core/Service//b")
	for _, below := range []string{"core/Service", "core/Service//b"} {
		if _, err := server.Client.Delete(t.Context(), DefaultPrefix+objectsPart+below); err != nil {
			t.Fatal(err)
		}
	}
	told()
}

// TestMostObjects: a change may have as many objects as is said where there are more.
func TestMostObjects(t *testing.T) {
	s := replica(t, etcdtest.Start(t), nil)
	var texts []string
	for i := range mostObjects + 1 {
		texts = append(texts, sourcetest.Service(fmt.Sprint("s", i), "1"))
	}
	_, _, err := s.Apply(decode(t, strings.Join(texts, "---\n")))
	if want := fmt.Sprintf("%d objects would change at once, and one transaction, which an apply is, can take %d", len(texts), mostObjects); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
	apply(t, s, strings.Join(texts[:mostObjects], "---\n"))
}

// TestDeleteMany: more objects than a transaction can take are deleted in several; one that fails after the first says how far it came, and
// another deletion goes on.
func TestDeleteMany(t *testing.T) {
	server := etcdtest.Start(t)
	s := replica(t, server, nil)
	fill := func() {
		for part := range 3 {
			var texts []string
			for i := range mostObjects / 2 {
				texts = append(texts, sourcetest.Service(fmt.Sprintf("s%d-%d", part, i), "1"))
			}
			apply(t, s, strings.Join(texts, "---\n"))
		}
	}
	fill()
	all := s.Applied()
	if results, err := s.Delete(all); err != nil || len(results) != len(all) || len(all) <= mostObjects || len(s.Applied()) > 0 || len(s.Snapshot().Objects()) > 0 {
		t.Fatalf("deleted %d of %d: %v", len(results), len(all), err)
	}
	fill()
	missing := append(slices.Clone(all), key("none"))
	if _, err := s.Delete(missing); !errors.Is(err, source.ErrNotFound) || len(s.Applied()) != len(all) {
		t.Errorf("one is not there: %v, and %d are left", err, len(s.Applied()))
	}
	failed := make(chan error, 1)
	go func() { // ends with the deletion
		_, err := s.Delete(all)
		failed <- err
	}()
	for len(s.Applied()) == len(all) {
		time.Sleep(time.Millisecond)
	}
	server.Down(t)
	err := <-failed
	left := len(s.Applied())
	if want := fmt.Sprintf("etcd: %d of %d objects are deleted", len(all)-left, len(all)); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	server.Up(t)
	if _, err := s.Delete(s.Applied()); err != nil || len(s.Applied()) > 0 {
		t.Error(err)
	}
}

// allow gives etcd users, of whom the one of our certificate may do so much with the prefix.
func allow(t *testing.T, server *etcdtest.Server, rights authpb.Permission_Type) {
	t.Helper()
	ctx, admin := t.Context(), server.Client
	for _, user := range []string{"root", etcdtest.User} { // each has a role of its name; etcd knows what root may do
		_, err1 := admin.RoleAdd(ctx, user)
		_, err2 := admin.UserAdd(ctx, user, "secret")
		_, err3 := admin.UserGrantRole(ctx, user, user)
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
	}
	_, err1 := admin.RoleGrantPermission(ctx, etcdtest.User, DefaultPrefix, clientv3.GetPrefixRangeEnd(DefaultPrefix), clientv3.PermissionType(rights))
	_, err2 := admin.AuthEnable(ctx)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
}

// TestReader: a replica whose user may only read says which right it needs, and once that it cannot lead.
func TestReader(t *testing.T) {
	server := etcdtest.StartSecure(t)
	allow(t, server, clientv3.PermRead)
	told := &logged{}
	s := open(t, Options{Endpoints: []string{"https://" + server.Endpoint}, TLS: server.TLS, Log: slog.New(slog.NewTextHandler(told, nil))})
	if err := s.CreateFiles(t.Context(), map[string][]byte{"key.pem": []byte("one")}); err == nil || !strings.Contains(err.Error(), "needs readwrite on the prefix /weft/") {
		t.Errorf("got %v", err)
	}
	trying, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Lead(trying, "a", func(context.Context, Term) { t.Error("it leads") }) }() // ends with cancel
	told.await(t, "cannot lead")
	time.Sleep(8 * firstPause) // it tries again, and would say so again
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := told.count("cannot lead"); n != 1 || told.count("election") > 0 {
		t.Errorf("it is logged %d times:\n%s", n, told)
	}
}

// TestLeadIsTold: that a replica leads, and that it does not any more; and once that it cannot while etcd is away.
func TestLeadIsTold(t *testing.T) {
	server := etcdtest.Start(t)
	told := &logged{}
	s := open(t, Options{Endpoints: []string{server.Endpoint}, Timeout: time.Second, Log: slog.New(slog.NewTextHandler(told, nil))})
	ctx, cancel := context.WithCancel(t.Context())
	var both sync.WaitGroup
	both.Go(func() { _ = s.Run(ctx, func(source.Change) {}) }) // these end with cancel
	both.Go(func() { _ = s.Lead(ctx, "a", func(ctx context.Context, _ Term) { <-ctx.Done() }) })
	defer func() { cancel(); both.Wait() }()
	told.await(t, "this control plane leads")
	server.Down(t)
	told.await(t, "does not lead any more")
	told.await(t, "cannot lead while etcd does not answer")
	server.Up(t)
	for deadline := time.Now().Add(patience); told.count("this control plane leads") < 2; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not lead again:\n%s", told)
		}
	}
	if n := told.count("cannot lead while"); n != 1 {
		t.Errorf("it is logged %d times that it cannot lead:\n%s", n, told)
	}
}

// logged is what a store has logged.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logged) count(text string) int { return strings.Count(l.String(), text) }

func (l *logged) await(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(patience); l.count(text) == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%q is not logged:\n%s", text, l)
		}
	}
}

// TestUsers: where etcd has users, a replica is the one whom its certificate names, and needs to read and write the prefix.
func TestUsers(t *testing.T) {
	server := etcdtest.StartSecure(t)
	ctx := t.Context()
	allow(t, server, clientv3.PermReadWrite)
	s := open(t, Options{Endpoints: []string{"https://" + server.Endpoint}, TLS: server.TLS})
	files := map[string][]byte{"key.pem": []byte("one")}
	if err := s.CreateFiles(ctx, files); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Files(ctx); err != nil || !maps.EqualFunc(got, files, bytes.Equal) {
		t.Errorf("got %q, %v", got, err)
	}
	set := source.NewSet(source.Layers{Applied: s}, nil)
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- set.Run(running) }() // ends with stop
	<-set.Ready()
	apply(t, set, sourcetest.Service("x", "1"))
	if set.Snapshot().Get(key("x")) == nil {
		t.Error("what was applied is not there")
	}
	leading, enough := context.WithCancel(ctx)
	if err := s.Lead(leading, "a", func(context.Context, Term) { enough() }); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestAgeOfWhatOthersWrite: an object that another program writes is younger than what was applied before, and as old for every replica,
// now and later.
func TestAgeOfWhatOthersWrite(t *testing.T) {
	server := etcdtest.Start(t)
	a, b := replica(t, server, nil), replica(t, server, nil)
	apply(t, a, sourcetest.Service("applied", "1"))
	write(t, server, DefaultPrefix, "direct", sourcetest.Service("direct", "1"))
	await := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("not within %v: %s", patience, what)
			}
		}
	}
	stands := func(s *source.Set) *source.Object { return s.Snapshot().Get(key("direct")) }
	noted := func() bool {
		answer, err := server.Client.Get(t.Context(), DefaultPrefix+aboutPart+path(key("direct")))
		if err != nil {
			t.Fatal(err)
		}
		return len(answer.Kvs) > 0
	}
	await("both have the object, of one age that is noted", func() bool {
		x, y := stands(a), stands(b)
		return x != nil && y != nil && x.Born.Equal(y.Born) && noted()
	})
	if old := a.Snapshot().Get(key("applied")); !old.Born.Before(stands(a).Born) {
		t.Errorf("applied at %v, and written later by somebody else at %v", old.Born, stands(a).Born)
	}
	if later := stands(replica(t, server, nil)); later == nil || !later.Born.Equal(stands(a).Born) {
		t.Errorf("a replica that comes later has %v", later)
	}
	if _, err := server.Client.Delete(t.Context(), DefaultPrefix+objectsPart+path(key("direct"))); err != nil {
		t.Fatal(err)
	}
	await("its age is forgotten with it", func() bool { return !noted() })
}

// replica is one of several control planes' view of the objects.
func replica(t *testing.T, server *etcdtest.Server, validate func([]*source.Object) []model.Finding) *source.Set {
	t.Helper()
	set := source.NewSet(source.Layers{Applied: open(t, Options{Endpoints: []string{server.Endpoint}})}, validate)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- set.Run(ctx) }() // ends with the test
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-set.Ready():
	case <-time.After(patience):
		t.Fatal("the replica does not become ready")
	}
	return set
}

func decode(t *testing.T, text string) []*source.Object {
	t.Helper()
	objects, findings := source.Decode(source.LayerApplied, "apply.yaml", []byte(text))
	if len(findings) > 0 {
		t.Fatal(findings)
	}
	return objects
}

func apply(t *testing.T, set *source.Set, text string) string {
	t.Helper()
	results, findings, err := set.Apply(decode(t, text))
	if err != nil || source.HasErrors(findings) {
		t.Fatal(err, findings)
	}
	return actions(results)
}

func actions(results []source.Result) string {
	var words []string
	for _, r := range results {
		words = append(words, r.Key.Name+" "+string(r.Action))
	}
	return strings.Join(words, ", ")
}

func TestReplicasShare(t *testing.T) {
	server := etcdtest.Start(t)
	a, b := replica(t, server, nil), replica(t, server, nil)
	both := sourcetest.Service("x", "1") + "---\n" + sourcetest.Service("y", "1")
	if got := apply(t, a, both); got != "x created, y created" {
		t.Error(got)
	}
	// The other replica may not have heard of it yet; what it does counts on top of it all the same.
	if got := apply(t, b, sourcetest.Service("z", "1")); got != "z created" {
		t.Error(got)
	}
	if got := apply(t, b, both); got != "x unchanged, y unchanged" {
		t.Error(got)
	}
	if got := apply(t, b, sourcetest.Service("x", "2")); got != "x configured" {
		t.Error(got)
	}
	ofA, ofB := a.Snapshot(), b.Snapshot()
	if x := ofB.Get(key("x")); x == nil || x.GetLabels()[sourcetest.Label] != "2" || x.Origin.File != "apply.yaml" || x.Origin.Line != 1 {
		t.Errorf("x is %+v", x)
	} else if old := ofA.Get(key("x")); !old.Born.Equal(x.Born) {
		t.Errorf("born %v, and then %v", old.Born, x.Born)
	}
	if y := ofB.Get(key("y")); y == nil || y.Origin.Line != 9 || y.Line("spec") != 15 {
		t.Errorf("y is in line %d, its spec in %d", y.Origin.Line, y.Line("spec"))
	}
	results, err := a.Delete([]source.Key{key("y"), key("z")})
	if err != nil || actions(results) != "y deleted, z deleted" {
		t.Error(results, err)
	}
	if a.Snapshot().Get(key("y")) != nil {
		t.Error("y is still there")
	}
	if _, err := a.Delete([]source.Key{key("y")}); !errors.Is(err, source.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	// A replica that starts now has the same.
	if got := replica(t, server, nil).Snapshot().Get(key("x")); got == nil || !got.Born.Equal(ofB.Get(key("x")).Born) {
		t.Errorf("x is %+v", got)
	}
}

// TestJudgedTogether: two objects that are not good together are never both accepted, whichever replicas they are given to at the
// same time.
func TestJudgedTogether(t *testing.T) {
	server := etcdtest.Start(t)
	only := make([]*source.Set, 3)
	for i := range only {
		var set *source.Set
		set = replica(t, server, func(objects []*source.Object) []model.Finding {
			for _, o := range objects {
				for _, other := range set.Snapshot().Objects() {
					if other.GetName() != o.GetName() {
						return []model.Finding{o.Finding(model.Error, "OnlyOne", "", "there is another one", "")}
					}
				}
			}
			return nil
		})
		only[i] = set
	}
	for round := range 20 {
		var g sync.WaitGroup
		accepted := make([]bool, len(only))
		for i, set := range only {
			g.Go(func() {
				results, _, err := set.Apply(decode(t, sourcetest.Service(fmt.Sprintf("s%d", i), "1")))
				if err != nil {
					t.Error(err)
				}
				accepted[i] = results != nil
			})
		}
		g.Wait()
		count := 0
		for i, yes := range accepted {
			if yes {
				count++
				if _, err := only[(i+1)%len(only)].Delete([]source.Key{key(fmt.Sprintf("s%d", i))}); err != nil && !errors.Is(err, source.ErrNotFound) {
					t.Fatal(err)
				}
			}
		}
		if count != 1 {
			t.Fatalf("round %d: %d were accepted, want one", round, count)
		}
		if _, err := server.Client.Delete(t.Context(), DefaultPrefix, clientv3.WithPrefix()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestJudgedBeforeAChange: what comes while objects are being judged, and is already published when they are to be kept, was not
// judged together with them.
func TestJudgedBeforeAChange(t *testing.T) {
	server := etcdtest.Start(t)
	other := replica(t, server, nil)
	var set *source.Set
	judgements := 0
	set = replica(t, server, func([]*source.Object) []model.Finding {
		judgements++
		if set.Snapshot().Get(key("other")) != nil {
			return []model.Finding{{Severity: model.Error, Code: "OnlyOne"}}
		}
		apply(t, other, sourcetest.Service("other", "1"))
		for deadline := time.Now().Add(patience); set.Snapshot().Get(key("other")) == nil && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		return nil // of what was there at first
	})
	results, findings, err := set.Apply(decode(t, sourcetest.Service("s", "1")))
	if err != nil || results != nil || !source.HasErrors(findings) || judgements != 2 {
		t.Errorf("judged %d times: %v, %v, %v", judgements, results, findings, err)
	}
}

// TestChangesElsewhere: revisions that others use up in the same etcd keep nobody waiting.
func TestChangesElsewhere(t *testing.T) {
	server := etcdtest.Start(t)
	a, b := replica(t, server, nil), replica(t, server, nil)
	for n := range 20 {
		if _, err := server.Client.Put(t.Context(), "/elsewhere", fmt.Sprint(n)); err != nil {
			t.Fatal(err)
		}
		var g sync.WaitGroup
		for i, set := range []*source.Set{a, b} {
			g.Go(func() { apply(t, set, sourcetest.Service(fmt.Sprintf("s%d", i), fmt.Sprint(n))) })
		}
		g.Wait()
	}
}

// TestManyAtOnce: more objects than one of etcd's transactions takes are applied and deleted all together.
func TestManyAtOnce(t *testing.T) {
	server := etcdtest.Start(t)
	set := replica(t, server, nil)
	var text strings.Builder
	var keys []source.Key
	for n := range 500 {
		name := fmt.Sprintf("s%d", n)
		text.WriteString(sourcetest.Service(name, "1") + "---\n")
		keys = append(keys, key(name))
	}
	apply(t, set, text.String())
	if n := len(set.Snapshot().Objects()); n != 500 {
		t.Errorf("%d objects", n)
	}
	if _, err := set.Delete(keys); err != nil {
		t.Error(err)
	}
	if n := len(set.Snapshot().Objects()); n != 0 {
		t.Errorf("%d objects are left", n)
	}
}

// campaign is one who wants to lead.
type campaign struct {
	store *Store
	stop  context.CancelFunc
	led   chan context.Context // takes the context of each lead
	ended chan struct{}
}

func campaigns(t *testing.T, server *etcdtest.Server, name string, leaders *atomic.Int32) *campaign {
	t.Helper()
	c := &campaign{store: open(t, Options{Endpoints: []string{server.Endpoint}}), led: make(chan context.Context, 10), ended: make(chan struct{})}
	var ctx context.Context
	ctx, c.stop = context.WithCancel(context.WithoutCancel(t.Context()))
	var following sync.WaitGroup
	following.Go(func() { _ = c.store.Run(ctx, func(source.Change) {}) }) // ends with stop
	go func() {                                                           // ends with stop
		defer close(c.ended)
		defer following.Wait()
		_ = c.store.Lead(ctx, name, func(ctx context.Context, _ Term) {
			if leaders.Add(1) > 1 {
				t.Error("two lead at once")
			}
			defer leaders.Add(-1)
			c.led <- ctx
			<-ctx.Done()
		})
	}()
	t.Cleanup(func() { c.stop(); <-c.ended })
	return c
}

func (c *campaign) awaitLead(t *testing.T) context.Context {
	t.Helper()
	select {
	case ctx := <-c.led:
		return ctx
	case <-time.After(patience):
		t.Fatal("it does not lead")
		return nil
	}
}

// TestLead: one replica leads at a time; another one does when it ends, which takes its claim back rather than let the lease run out.
func TestLead(t *testing.T) {
	server := etcdtest.Start(t)
	var leaders atomic.Int32
	a := campaigns(t, server, "a", &leaders)
	a.awaitLead(t)
	b := campaigns(t, server, "b", &leaders)
	first := queued(t, server, 2)[0]
	began := time.Now()
	a.stop()
	<-a.ended
	took := time.Since(began)
	answer, err := server.Client.Get(t.Context(), string(first.Key))
	if err != nil {
		t.Fatal(err)
	}
	if len(answer.Kvs) > 0 && took < revokeTime { // else etcd had not time enough to take it
		t.Error("its claim is still there")
	}
	b.awaitLead(t)
}

// TestClaimEndsWithTheLease: whoever waits for longer than its lease lasts has to queue up again, and does not lead by what it had.
func TestClaimEndsWithTheLease(t *testing.T) {
	server := etcdtest.Start(t)
	var leaders atomic.Int32
	a := campaigns(t, server, "a", &leaders)
	leads := a.awaitLead(t)
	b := campaigns(t, server, "b", &leaders)
	queue := queued(t, server, 2)
	if _, err := server.Client.Revoke(t.Context(), clientv3.LeaseID(queue[1].Lease)); err != nil {
		t.Fatal(err)
	}
	await := time.After(patience)
	for again := queued(t, server, 2); again[1].Lease == queue[1].Lease; again = queued(t, server, 2) {
		select {
		case <-await:
			t.Fatal("b does not queue up again")
		case <-time.After(10 * time.Millisecond):
		}
	}
	if leads.Err() != nil {
		t.Error("a has done nothing to lose the lead")
	}
	a.stop()
	b.awaitLead(t)
}

// queued waits until so many want to lead, and gives their keys in order.
func queued(t *testing.T, server *etcdtest.Server, n int) []*mvccpb.KeyValue {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		answer, err := server.Client.Get(t.Context(), DefaultPrefix+leaderPart, clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
		if err != nil {
			t.Fatal(err)
		}
		if len(answer.Kvs) == n {
			return answer.Kvs
		}
	}
	t.Fatalf("no %d in the queue", n)
	return nil
}

// TestLeadEndsWithoutEtcd: whoever waits for the lead, or has it, can stop while etcd is away.
func TestLeadEndsWithoutEtcd(t *testing.T) {
	server := etcdtest.Start(t)
	var leaders atomic.Int32
	a := campaigns(t, server, "a", &leaders)
	a.awaitLead(t)
	b := campaigns(t, server, "b", &leaders)
	queued(t, server, 2)
	server.Down(t)
	for _, c := range []*campaign{a, b} {
		c.stop()
		select {
		case <-c.ended:
		case <-time.After(patience):
			t.Fatal("it does not end")
		}
		if err := c.store.Close(); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	server.Up(t)
}

// TestAppliedWhileEtcdIsAway: a change that etcd cannot take at once is made once, when it is back.
func TestAppliedWhileEtcdIsAway(t *testing.T) {
	server := etcdtest.Start(t)
	set := replica(t, server, nil)
	apply(t, set, sourcetest.Service("s", "1"))
	server.Down(t)
	var g sync.WaitGroup
	g.Go(func() {
		if got := apply(t, set, sourcetest.Service("s", "2")); got != "s configured" {
			t.Error(got)
		}
	})
	server.Up(t)
	g.Wait()
	answer, err := server.Client.Get(t.Context(), DefaultPrefix+objectsPart+path(key("s")))
	if err != nil || len(answer.Kvs) != 1 || answer.Kvs[0].Version != 2 {
		t.Error(answer, err)
	}
}

// TestUnansweredChange: one that was made without an answer coming back is known for what it is, and is not made again.
func TestUnansweredChange(t *testing.T) {
	server := etcdtest.Start(t)
	s := open(t, Options{Endpoints: []string{server.Endpoint}})
	l := sourcetest.Listen(t, &sourcetest.Place{Source: s})
	l.Await(t, "")
	_, c, err := s.puts(decode(t, sourcetest.Service("s", "1")), s.Mark())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.commit(c); err != nil {
			t.Fatal(err)
		}
	}
	l.Await(t, "s=1")
	if c.name = "another"; !errors.Is(s.commit(c), source.ErrConflict) {
		t.Error("another change at the same place must be judged anew")
	}
	answer, err := server.Client.Get(t.Context(), DefaultPrefix+objectsPart+path(key("s")))
	if err != nil || len(answer.Kvs) != 1 || answer.Kvs[0].Version != 1 {
		t.Error(answer, err)
	}
}

func TestFilesAreMadeOnce(t *testing.T) {
	server := etcdtest.Start(t)
	s := open(t, Options{Endpoints: []string{server.Endpoint}})
	if files, err := s.Files(t.Context()); err != nil || len(files) > 0 {
		t.Fatal(files, err)
	}
	for _, text := range []string{"one", "two"} {
		if err := s.CreateFiles(t.Context(), map[string][]byte{"key.pem": []byte(text)}); err != nil {
			t.Fatal(err)
		}
	}
	if files, err := s.Files(t.Context()); err != nil || string(files["key.pem"]) != "one" {
		t.Error(files, err)
	}
}

func TestNoAnswerNamesWhoWasAsked(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := Open(Options{Endpoints: []string{l.Addr().String()}, Timeout: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Files(t.Context()); err == nil || !strings.Contains(err.Error(), "no answer from "+l.Addr().String()) {
		t.Error(err)
	}
}

// TestTLS: with the right certificate everything works; without one, or with roots that are not etcd's, the error says so.
func TestTLS(t *testing.T) {
	server := etcdtest.StartSecure(t)
	s := open(t, Options{Endpoints: []string{"https://" + server.Endpoint}, TLS: server.TLS})
	if err := s.CreateFiles(t.Context(), map[string][]byte{"key.pem": []byte("one")}); err != nil {
		t.Fatal(err)
	}
	nobody := &tls.Config{RootCAs: server.TLS.RootCAs}
	for want, config := range map[string]*tls.Config{"bad certificate": nobody, "certificate signed by unknown authority": {}} {
		s := open(t, Options{Endpoints: []string{"https://" + server.Endpoint}, TLS: config, Timeout: 2 * time.Second})
		for deadline := time.Now().Add(patience); ; { // the reason has only so much time to be found
			_, err := s.Files(t.Context())
			if errors.Is(err, ErrSilent) && strings.Contains(err.Error(), want) {
				break
			}
			if !errors.Is(err, ErrSilent) || time.Now().After(deadline) {
				t.Fatalf("want %q, got %v", want, err)
			}
		}
	}
}
