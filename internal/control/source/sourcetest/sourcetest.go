// Package sourcetest is the contract that every source of objects keeps, as a test, and a cable that can be cut for those that have
// one.
package sourcetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// Place is where a source's objects are, as a test changes it. The funcs may be called concurrently.
type Place struct {
	// Source makes a source of what is there. It is run once.
	Source source.Source
	// Put adds or changes the object of a name; Delete removes it. The version is to be found in the object.
	Put    func(t *testing.T, name, version string)
	Delete func(t *testing.T, name string)
	// Describe gives name and version of an object of the place's; others are not looked at. Nil takes Label of every object.
	Describe func(*source.Object) (name, version string, ours bool)
	// Cut parts the source from its objects, which can be changed meanwhile; Mend joins them. Nil where nothing is between them.
	Cut, Mend func(t *testing.T)
}

// Label has the version of an object of a test.
const Label = "v"

// Service is the text of a Service, in YAML, that tells its version by the label.
func Service(name, version string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata:\n  name: %s\n  namespace: default\n  labels: {%s: %q}\nspec: {ports: [{port: 80}]}\n",
		name, Label, version)
}

// patience bounds the wait for something that must happen.
const patience = 3 * time.Minute

// Test holds sources to the contract. place makes a new and empty place for each part.
func Test(t *testing.T, place func(t *testing.T) *Place) {
	parts := []struct {
		name string
		part func(*testing.T, *Place)
	}{
		{"nothing", nothing}, {"complete at first", complete}, {"changes", changes}, {"again the same", again},
		{"end", end}, {"many at once", manyAtOnce}, {"reconnect", reconnect},
		{"away at first", awayAtFirst},
	}
	for _, p := range parts {
		t.Run(p.name, func(t *testing.T) { p.part(t, place(t)) })
	}
}

// nothing: a place without objects is told of too, so that nobody waits for it.
func nothing(t *testing.T, p *Place) {
	Listen(t, p).Await(t, "")
}

// complete: the first thing that is published is everything.
func complete(t *testing.T, p *Place) {
	want := map[string]string{}
	for n := range 25 {
		name := fmt.Sprintf("s%02d", n)
		p.Put(t, name, "1")
		want[name] = "1"
	}
	l := Listen(t, p)
	l.Await(t, summary(want))
	if got := l.first(); got != summary(want) {
		t.Errorf("first it published %q, want %q", got, summary(want))
	}
}

func changes(t *testing.T, p *Place) {
	p.Put(t, "a", "1")
	l := Listen(t, p)
	l.Await(t, "a=1")
	p.Put(t, "b", "1")
	l.Await(t, "a=1 b=1")
	p.Put(t, "a", "2")
	l.Await(t, "a=2 b=1")
	p.Delete(t, "b")
	l.Await(t, "a=2")
	p.Put(t, "b", "3")
	l.Await(t, "a=2 b=3")
	p.Delete(t, "a")
	p.Delete(t, "b")
	l.Await(t, "")
}

// again: what is written again as it was changes nothing.
func again(t *testing.T, p *Place) {
	p.Put(t, "a", "1")
	l := Listen(t, p)
	l.Await(t, "a=1")
	p.Put(t, "a", "1")
	p.Put(t, "b", "1")
	l.Await(t, "a=1 b=1")
	p.Put(t, "a", "1")
	p.Put(t, "b", "2")
	l.Await(t, "a=1 b=2")
}

// end: when its context has ended, Run returns nil, and nothing is published any more.
func end(t *testing.T, p *Place) {
	p.Put(t, "a", "1")
	l := Listen(t, p)
	l.Await(t, "a=1")
	l.End(t)
	p.Put(t, "b", "1")
	p.Delete(t, "a")
	if late := l.late.Load(); late > 0 {
		t.Errorf("%d changes were published after the end", late)
	}
}

// manyAtOnce: whoever changes things at the same time, the last state of each object is the one that is told.
func manyAtOnce(t *testing.T, p *Place) {
	l := Listen(t, p)
	var g sync.WaitGroup
	want := map[string]string{}
	for n := range 8 {
		name := fmt.Sprintf("s%d", n)
		g.Go(func() {
			for v := range 5 {
				p.Put(t, name, fmt.Sprint(v))
				if n%2 == 1 {
					p.Delete(t, name)
				}
			}
		})
		if n%2 == 0 {
			want[name] = "4"
		}
	}
	g.Wait()
	l.Await(t, summary(want))
}

// reconnect: while it is cut off, a source says that it is, and nothing else; afterwards it has all that was missed.
func reconnect(t *testing.T, p *Place) {
	if p.Cut == nil {
		t.Skip("there is nothing between this source and its objects")
	}
	for _, name := range []string{"a", "b", "c"} {
		p.Put(t, name, "1")
	}
	l := Listen(t, p)
	l.Await(t, "a=1 b=1 c=1")
	p.Cut(t)
	p.Put(t, "a", "2")
	p.Delete(t, "b")
	p.Put(t, "d", "1")
	l.AwaitThat(t, "a finding about the outage", l.away)
	if got := l.state(); got != "a=1 b=1 c=1" {
		t.Errorf("cut off, it published %q", got)
	}
	p.Mend(t)
	l.Await(t, "a=2 c=1 d=1")
	l.AwaitThat(t, "no finding any more", func() bool { return !l.away() })
	p.Put(t, "c", "2")
	l.Await(t, "a=2 c=2 d=1")
}

// awayAtFirst: one that cannot be read says so before it has spoken, and has everything as soon as it can be.
func awayAtFirst(t *testing.T, p *Place) {
	if p.Cut == nil {
		t.Skip("there is nothing between this source and its objects")
	}
	p.Put(t, "a", "1")
	p.Cut(t)
	l := Listen(t, p)
	l.AwaitThat(t, "a finding about the outage", l.away)
	if l.Spoken() {
		t.Error("it has spoken, and could not be read")
	}
	for _, f := range l.Last().Findings {
		if f.File == "" || !strings.Contains(f.Hint, "nothing is served") {
			t.Errorf("the finding does not say whose it is and what comes of it: %v", f)
		}
	}
	p.Mend(t)
	l.Await(t, "a=1")
	if got := l.first(); got != "a=1" {
		t.Errorf("first it published %q", got)
	}
	l.AwaitThat(t, "no finding any more", func() bool { return !l.away() })
}

// away reports whether the source says that it cannot be read.
func (l *Listener) away() bool {
	return slices.ContainsFunc(l.Last().Findings, func(f model.Finding) bool { return f.Code == "SourceUnreadable" })
}

// Listener keeps what a source says, as a source.Set would.
type Listener struct {
	describe func(*source.Object) (string, string, bool)
	layer    string
	signal   chan struct{}
	busy     atomic.Bool
	over     atomic.Bool
	late     atomic.Int32
	cancel   context.CancelFunc
	done     chan error
	ended    sync.Once

	mu      sync.Mutex
	objects map[source.Key]*source.Object
	opening *string // the first state; nil before
	faults  []string
	last    source.Change
}

// Listen runs a place's source until the test ends, or End.
func Listen(t *testing.T, p *Place) *Listener {
	t.Helper()
	l := &Listener{describe: p.Describe, layer: p.Source.Layer(), signal: make(chan struct{}, 1), done: make(chan error, 1), objects: map[source.Key]*source.Object{}}
	if l.describe == nil {
		l.describe = func(o *source.Object) (string, string, bool) {
			v, ours := o.GetLabels()[Label]
			return o.GetName(), v, ours
		}
	}
	var ctx context.Context
	ctx, l.cancel = context.WithCancel(context.Background())
	go func() { l.done <- p.Source.Run(ctx, l.take) }() // ends with the test, at the latest
	t.Cleanup(func() {
		l.End(t)
		for _, f := range l.faults {
			t.Error(f)
		}
	})
	return l
}

// End ends the source's run.
func (l *Listener) End(t *testing.T) {
	t.Helper()
	l.ended.Do(func() {
		l.cancel()
		select {
		case err := <-l.done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run does not end with its context")
		}
		l.over.Store(true)
	})
}

func (l *Listener) take(c source.Change) {
	if l.over.Load() {
		l.late.Add(1)
	}
	if !l.busy.CompareAndSwap(false, true) {
		l.fault("publish was called concurrently")
	}
	defer l.busy.Store(false)
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.Reset {
		l.objects = map[source.Key]*source.Object{}
	}
	for _, o := range c.Set {
		l.objects[o.Key()] = o
		if o.Origin.Layer != l.layer {
			l.faults = append(l.faults, fmt.Sprintf("%s is of layer %q, and the source of %q", o.Key(), o.Origin.Layer, l.layer))
		}
	}
	for _, k := range c.Gone {
		delete(l.objects, k)
	}
	l.last = c
	if l.opening == nil && c.Reset {
		s := l.summary()
		l.opening = &s
	}
	if l.opening == nil && len(c.Set)+len(c.Gone) > 0 {
		l.faults = append(l.faults, "the first change of objects is no reset")
	}
	select {
	case l.signal <- struct{}{}:
	default:
	}
}

func (l *Listener) fault(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = append(l.faults, text)
}

// Await waits until the objects are as wanted: "a=1 b=2", by name.
func (l *Listener) Await(t *testing.T, want string) {
	t.Helper()
	l.AwaitThat(t, want, func() bool { return l.Spoken() && l.state() == want })
}

// AwaitThat waits for anything that changes with what is published.
func (l *Listener) AwaitThat(t *testing.T, what string, is func() bool) {
	t.Helper()
	late := time.After(patience)
	for !is() {
		select {
		case <-l.signal:
		case err := <-l.done:
			t.Fatalf("Run ended: %v", err)
		case <-late:
			t.Fatalf("got %q, want %q", l.state(), what)
		}
	}
}

// Last gives what was published last.
func (l *Listener) Last() source.Change {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// Get gives an object; nil when there is none.
func (l *Listener) Get(k source.Key) *source.Object {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.objects[k]
}

// Spoken reports whether the source has published what it has.
func (l *Listener) Spoken() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.opening != nil
}

func (l *Listener) state() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.summary()
}

func (l *Listener) first() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return *l.opening
}

// summary is called with mu held.
func (l *Listener) summary() string {
	state := map[string]string{}
	for _, o := range l.objects {
		if name, version, ours := l.describe(o); ours {
			state[name] = version
		}
	}
	return summary(state)
}

func summary(state map[string]string) string {
	words := make([]string, 0, len(state))
	for _, name := range slices.Sorted(maps.Keys(state)) {
		words = append(words, name+"="+state[name])
	}
	return strings.Join(words, " ")
}
