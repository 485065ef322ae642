package etcd

import (
	"context"
	"fmt"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/source/etcd/etcdtest"
	"github.com/weftmesh/weft/internal/control/status"
)

// plane is a replica that compiles what it reads, and keeps statuses when it leads.
type plane struct {
	*source.Set
	stop func()
}

func startPlane(t *testing.T, server *etcdtest.Server, name string) *plane {
	t.Helper()
	s := open(t, Options{Endpoints: []string{server.Endpoint}})
	p := &plane{Set: source.NewSet(source.Layers{Applied: s}, nil)}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 2)
	go func() { ended <- p.Run(ctx) }() // ends with stop, as the next one
	<-p.Ready()
	input := func() status.Input {
		snapshot := p.Snapshot()
		mesh, findings := compile.Compile(compile.Input{Objects: snapshot.Objects()})
		return status.Input{Objects: snapshot.Objects(), Mesh: mesh, Findings: append(findings, snapshot.Findings()...)}
	}
	go func() {
		ended <- s.KeepStatuses(ctx, name, func(ctx context.Context) <-chan struct{} { return p.Follow(ctx).Changed() }, input)
	}()
	stopped := false
	p.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(p.stop)
	return p
}

const rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: NAME, namespace: default}\nspec: {host: NAME.example.com}\n"

// statusOf waits until the status of a rule has some words, and gives how often it was written.
func statusOf(t *testing.T, server *etcdtest.Server, name string, words ...string) (version int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	at := DefaultPrefix + statusesPart + path(ruleKey(name))
	now, err := server.Client.Get(ctx, at)
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	has := func() bool {
		for _, w := range words {
			if !strings.Contains(strings.ReplaceAll(text, " ", ""), w) {
				return false
			}
		}
		return (text != "") == (len(words) > 0)
	}
	for _, kv := range now.Kvs {
		text, version = string(kv.Value), kv.Version
	}
	for changes := server.Client.Watch(ctx, at, clientv3.WithRev(now.Header.Revision+1)); !has(); {
		r, ok := <-changes
		if !ok {
			t.Fatalf("the status of %s has not %q: %s", name, words, text)
		}
		for _, e := range r.Events {
			text, version = string(e.Kv.Value), e.Kv.Version
		}
	}
	return version
}

func ruleKey(name string) source.Key {
	return source.Key{Group: source.GroupNetworking, Kind: "DestinationRule", Namespace: "default", Name: name}
}

// TestOneWritesStatuses: statuses are beside the objects, in force or refused; whichever replica leads, each is written once for what
// it says, and goes with its object.
func TestOneWritesStatuses(t *testing.T) {
	server := etcdtest.Start(t)
	a, b := startPlane(t, server, "a"), startPlane(t, server, "b")
	apply(t, a.Set, strings.ReplaceAll(rule, "NAME", "good"))
	at := DefaultPrefix + objectsPart + path(ruleKey("bad"))
	bad, err := server.Client.Put(t.Context(), at, strings.ReplaceAll(rule, "NAME", "bad")+"sepc: {}\n")
	if err != nil {
		t.Fatal(err)
	}
	refused := []string{`"status":"False"`, "UnknownField", `"observedGeneration":"` + fmt.Sprint(bad.Header.Revision) + `"`}
	good := statusOf(t, server, "good", `"status":"True"`)
	if n := statusOf(t, server, "bad", refused...); n != 1 || good != 1 {
		t.Errorf("written %d and %d times", n, good)
	}
	for name, text := range map[string]string{"words": "no object", "bytes": "\x00\xff"} { // the key names an object all the same
		if _, err := server.Client.Put(t.Context(), DefaultPrefix+objectsPart+path(ruleKey(name)), text); err != nil {
			t.Fatal(err)
		}
		statusOf(t, server, name, `"status":"False"`)
	}
	a.stop() // whether or not it leads
	apply(t, b.Set, strings.ReplaceAll(rule, "NAME", "later"))
	statusOf(t, server, "later", `"status":"True"`) // b leads now, and has looked at everything
	if n, m := statusOf(t, server, "good", `"status":"True"`), statusOf(t, server, "bad", refused...); n != 1 || m != 1 {
		t.Errorf("the next leader has written what was there: %d and %d times", n, m)
	}
	if _, err := server.Client.Put(t.Context(), at, strings.ReplaceAll(rule, "NAME", "bad")); err != nil {
		t.Fatal(err)
	}
	if n := statusOf(t, server, "bad", `"status":"True"`); n != 2 {
		t.Errorf("written %d times", n)
	}
	if _, err := server.Client.Put(t.Context(), DefaultPrefix+statusesPart+path(ruleKey("good")), "damaged"); err != nil {
		t.Fatal(err)
	}
	statusOf(t, server, "good", `"status":"True"`)
	if _, err := b.Delete([]source.Key{ruleKey("good")}); err != nil {
		t.Fatal(err)
	}
	statusOf(t, server, "good")
}
