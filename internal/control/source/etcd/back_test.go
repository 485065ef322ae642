package etcd

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/source/etcd/etcdtest"
	"github.com/weftmesh/weft/internal/control/source/sourcetest"
)

// TestWentBack: an etcd that was restored from a backup, or has lost everything, is read anew by all replicas, which say so; what is
// applied afterwards counts.
func TestWentBack(t *testing.T) {
	for name, lost := range map[string]bool{"restored": false, "lost": true} {
		t.Run(name, func(t *testing.T) {
			server := etcdtest.Start(t)
			one, two := place(t, server, DefaultPrefix), place(t, server, DefaultPrefix)
			one.Put(t, "a", "1")
			server.Down(t)
			backup, left := server.Backup(t), "a=1"
			if lost {
				backup, left = "", ""
			}
			server.Up(t)
			set := replica(t, server, nil)
			apply(t, set, sourcetest.Service("b", "1"))
			for i := range 40 {
				one.Put(t, "a", fmt.Sprint(i))
			}
			listeners := []*sourcetest.Listener{sourcetest.Listen(t, one), sourcetest.Listen(t, two)}
			for _, l := range listeners {
				l.Await(t, "a=39 b=1")
			}
			server.Down(t)
			server.Restore(t, backup)
			server.Up(t)
			for _, l := range listeners {
				l.Await(t, left)
				l.AwaitThat(t, "a finding", func() bool {
					return slices.ContainsFunc(l.Last().Findings, func(f model.Finding) bool { return f.Code == "SourceWentBack" })
				})
			}
			if got := apply(t, set, sourcetest.Service("b", "1")); got != "b "+string(source.Created) {
				t.Errorf("applied again: %s", got)
			}
			one.Put(t, "c", "1")
			for _, l := range listeners {
				l.Await(t, sorted(left, "b=1 c=1"))
			}
		})
	}
}

// TestWentBackAndPast: one that does not hear of etcd until the restored one, or the new one, has counted past what was read of it, says that it
// went back all the same; one that hears nothing for as long of an etcd that goes on says nothing.
func TestWentBackAndPast(t *testing.T) {
	for name, restored := range map[string]func(backup string) (from, left string){
		"restored": func(backup string) (from, left string) { return backup, "a=1" },
		"lost":     func(string) (from, left string) { return "", "" },
		"goes on":  nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := etcdtest.Start(t)
			place := place(t, server, DefaultPrefix)
			place.Put(t, "a", "1")
			server.Down(t)
			backup := server.Backup(t)
			server.Up(t)
			place.Put(t, "a", "2")
			place.Put(t, "gone", "1")
			l := sourcetest.Listen(t, place)
			l.Await(t, "a=2 gone=1")
			place.Cut(t)
			left := "a=2"
			if restored == nil {
				place.Delete(t, "gone")
			} else {
				server.Down(t)
				backup, left = restored(backup)
				server.Restore(t, backup)
				server.Up(t)
			}
			for i := range 40 {
				place.Put(t, "new", fmt.Sprint(i))
			}
			place.Mend(t)
			l.Await(t, sorted(left, "new=39"))
			said := func() bool {
				return slices.ContainsFunc(l.Last().Findings, func(f model.Finding) bool {
					return f.Code == "SourceWentBack" && strings.Contains(f.Message, "does not have what it had")
				})
			}
			if restored != nil {
				l.AwaitThat(t, "a finding", said)
			} else if said() {
				t.Errorf("got %v", l.Last().Findings)
			}
		})
	}
}

func sorted(left, more string) string {
	if left == "" {
		return more
	}
	return left + " " + more
}

// within bounds what must happen in a time that the manual names, on a machine that has other things to do.
func within(d time.Duration) time.Duration { return d + time.Minute }

// TestAuthorityIsPutBack: of an etcd that lost it, by whoever has it, so that all that start have it too; one that has another, as after a
// restore of a backup from before, is told of it until there is ours again.
func TestAuthorityIsPutBack(t *testing.T) {
	server := etcdtest.Start(t)
	own := map[string][]byte{"key.pem": []byte("key"), "root.pem": []byte("root")}
	place := place(t, server, DefaultPrefix)
	s := place.Source.(*Store)
	if err := s.CreateFiles(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	l := sourcetest.Listen(t, place)
	l.Await(t, "")
	ctx, stop := context.WithCancel(t.Context())
	var keeping sync.WaitGroup
	keeping.Go(func() { // ends with stop
		s.KeepFiles(ctx, own, func(there map[string][]byte) model.Finding {
			return model.Finding{Severity: model.Error, Code: "Differs", File: "etcd", Message: string(there["key.pem"])}
		})
	})
	defer func() { stop(); keeping.Wait() }()
	told := func() bool {
		return slices.ContainsFunc(l.Last().Findings, func(f model.Finding) bool { return f.Code == "Differs" })
	}
	back := func(what string) {
		t.Helper()
		for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
			there, err := s.Files(t.Context())
			if err == nil && maps.EqualFunc(there, own, bytes.Equal) && !told() {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: there is %q (%v)", what, there, err)
			}
		}
	}
	server.Down(t)
	server.Restore(t, "")
	server.Up(t)
	began := time.Now()
	back("everything was lost")
	if took := time.Since(began); took > within(ReturnTime) {
		t.Errorf("it took %v", took)
	}
	at := DefaultPrefix + authorityPart
	if _, err := server.Client.Delete(t.Context(), at+"key.pem"); err != nil {
		t.Fatal(err)
	}
	back("one file was lost")
	for _, other := range []string{"key.pem", "chain.pem"} {
		if _, err := server.Client.Put(t.Context(), at+other, "other"); err != nil {
			t.Fatal(err)
		}
		l.AwaitThat(t, "it is told of", told)
		if there, err := s.Files(t.Context()); err != nil || string(there[other]) != "other" {
			t.Errorf("it is not left alone: %q %v", there, err)
		}
		if _, err := server.Client.Delete(t.Context(), at+other); err != nil {
			t.Fatal(err)
		}
		back("it was taken away")
	}
}

// holder is a campaign's last term.
type holder struct {
	*campaign
	term atomic.Pointer[Term]
}

// holds leads whenever it can, and remembers by what right.
func holds(t *testing.T, server *etcdtest.Server, name string) *holder {
	t.Helper()
	h := &holder{campaign: &campaign{store: open(t, Options{Endpoints: []string{server.Endpoint}}), ended: make(chan struct{})}}
	var ctx context.Context
	ctx, h.stop = context.WithCancel(context.WithoutCancel(t.Context()))
	var both sync.WaitGroup
	both.Go(func() { _ = h.store.Run(ctx, func(source.Change) {}) }) // these end with stop
	both.Go(func() {
		_ = h.store.Lead(ctx, name, func(ctx context.Context, term Term) {
			h.term.Store(&term)
			<-ctx.Done()
			h.term.Store(nil)
		})
	})
	end := func() { h.stop(); both.Wait() }
	h.stop = sync.OnceFunc(h.stop)
	t.Cleanup(end)
	return h
}

// leading gives who leads, by what etcd takes of them.
func leading(t *testing.T, all []*holder) (now []*holder) {
	t.Helper()
	for _, h := range all {
		term := h.term.Load()
		if term == nil {
			continue
		}
		answer, err := h.store.client.Txn(t.Context()).If(clientv3.Cmp(*term)).Commit()
		if err == nil && answer.Succeeded {
			now = append(now, h)
		}
	}
	return now
}

func awaitLeader(t *testing.T, all []*holder, bound time.Duration) *holder {
	t.Helper()
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		switch now := leading(t, all); {
		case len(now) > 1:
			t.Fatalf("%d lead at once", len(now))
		case len(now) == 1:
			return now[0]
		}
		if time.Since(began) > bound {
			t.Fatalf("nobody leads after %v", bound)
		}
	}
}

// TestLeadWentBack: after a restore and after a loss one leads again, soon, and another one when that ends: also where the leader's claim
// was gone again before the restored etcd had counted as far as whoever waits for it had read.
func TestLeadWentBack(t *testing.T) {
	for name, lost := range map[string]bool{"restored": false, "lost": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := etcdtest.Start(t)
			all := []*holder{holds(t, server, "a")}
			awaitLeader(t, all, patience)
			between := holds(t, server, "b")
			queued(t, server, 2)
			all = append(all, holds(t, server, "c"))
			queued(t, server, 3)
			server.Down(t)
			backup := server.Backup(t)
			if lost {
				backup = ""
			}
			server.Up(t)
			between.stop() // the backup has its claim, which ends with its lease
			queued(t, server, 2)
			place := place(t, server, DefaultPrefix)
			for i := range 50 { // revisions that the backup has not
				place.Put(t, "a", fmt.Sprint(i))
			}
			for _, h := range all {
				if err := h.store.until(t.Context(), func(v *view) bool { return len(v.documents) == 1 }); err != nil {
					t.Fatal(err)
				}
			}
			server.Down(t)
			server.Restore(t, backup)
			server.Up(t)
			leader := awaitLeader(t, all, within(leaseSeconds*time.Second+ReturnTime))
			leader.stop()
			rest := slices.DeleteFunc(slices.Clone(all), func(h *holder) bool { return h == leader })
			awaitLeader(t, rest, within(leaseSeconds*time.Second+ReturnTime))
		})
	}
}
