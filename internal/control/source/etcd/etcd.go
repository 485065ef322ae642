// Package etcd keeps the applied objects of several control planes in etcd, where each of them reads them and any may change them.
//
// Below a prefix, "/weft/" by default:
//
//	objects/GROUP/KIND/NAMESPACE/NAME   the document, YAML or JSON; "core" stands for the group of Kubernetes' core, and "_" for no
//	                                    namespace. Others may write here too: what is refused is told, and what was good before stays.
//	about/GROUP/KIND/NAMESPACE/NAME     what is known of it: its age, and the file that it was in when `weft apply` took it
//	applied                             how often something was applied
//	authority/FILE                      the authority's keys and certificates that all replicas share
//	leader/                             who of the replicas leads: it writes the statuses
//	statuses/GROUP/KIND/NAMESPACE/NAME  what has come of an object, in JSON, as its kind's status field has it; its observedGeneration is
//	                                    the revision at which the object was written
//
// A change is one transaction: all of its objects or none, and only on top of what was judged. Whoever was judged together with
// something else that has changed since is judged again.
package etcd

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// DefaultPrefix is that of Weft's keys.
const DefaultPrefix = "/weft/"

// Options of Open. Endpoints are required.
type Options struct {
	Endpoints []string    // "host:port", or URLs
	Prefix    string      // DefaultPrefix; it ends with a slash
	TLS       *tls.Config // its certificate names the user, where etcd has users
	// Check judges one decoded object (compile.Check); an error finding refuses it. Nil accepts everything.
	Check func(*source.Object) []model.Finding
	// Timeout bounds one request; 10 s.
	Timeout time.Duration
	Log     *slog.Logger // slog.Default
}

// Store is a source.Keeper. Its methods may be called from any goroutine.
type Store struct {
	options Options // these are set once
	log     *slog.Logger
	client  *clientv3.Client
	now     func() time.Time

	connections *connections // that the client has made

	intake source.Intake

	changing sync.Mutex // one change at a time from this process

	mu      sync.Mutex
	view    view          // written by Run's goroutine alone, and read there without mu
	moved   chan struct{} // closed and replaced when the view's revision has moved on
	running bool

	unaged   map[source.Key]bool // what age is to look at; guarded by mu
	wakeAger chan struct{}       // has room for one
	touched  chan struct{}       // has room for one: a status is another than before, or an object was refused anew
	anew     chan struct{}       // has room for one: everything is to be read again
}

// Open prepares a store; it does not touch the network. The caller closes it.
func Open(o Options) (*Store, error) {
	if len(o.Endpoints) == 0 {
		return nil, errors.New("etcd: endpoints are required")
	}
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	if !strings.HasSuffix(o.Prefix, "/") {
		o.Prefix += "/"
	}
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	made := &connections{}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: o.Endpoints, TLS: o.TLS,
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 5 * time.Second, DialOptions: dialing(made), Logger: zap.NewNop(),
	})
	if err != nil {
		return nil, fmt.Errorf("etcd %s: %w", strings.Join(o.Endpoints, ","), err)
	}
	return &Store{options: o, log: o.Log, client: client, now: time.Now, connections: made, view: newView(), moved: make(chan struct{}), touched: make(chan struct{}, 1),
		unaged: map[source.Key]bool{}, wakeAger: make(chan struct{}, 1), anew: make(chan struct{}, 1)}, nil
}

// Close ends the connection.
func (s *Store) Close() error {
	return s.client.Close()
}

// The pauses between attempts to reach etcd grow from the first to the last.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
)

// Layer implements source.Source: whatever writes into etcd, it is applied.
func (s *Store) Layer() string { return source.LayerApplied }

// Run implements source.Source. While etcd is away, what was read stays in force.
func (s *Store) Run(ctx context.Context, publish func(source.Change)) error {
	s.intake.Begin("etcd", publish)
	defer s.intake.Close()
	s.run(true)
	defer s.run(false)
	ctx, cancel := context.WithCancel(ctx)
	var telling sync.WaitGroup
	telling.Go(func() { s.watchOver(ctx) })
	telling.Go(func() { s.age(ctx) })
	defer telling.Wait()
	defer cancel()
	pause := firstPause
	for {
		began := time.Now()
		revision, err := s.read(ctx)
		if err == nil {
			s.intake.Back(s.options.Prefix)
			if !s.intake.Opened() {
				s.intake.Open()
			}
			err = s.watch(ctx, revision)
		}
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errAnew) {
			continue
		}
		if time.Since(began) > lastPause {
			pause = firstPause
		}
		s.intake.Lost(s.options.Prefix, err.Error())
		s.log.Warn("etcd cannot be followed; "+s.intake.Meanwhile(), "error", err, "again in", pause)
		s.rest(ctx, pause/2+rand.N(pause/2))
		pause = min(2*pause, lastPause)
	}
}

// rest is a pause that ends early when etcd answers again.
func (s *Store) rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-s.anew:
	case <-t.C:
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// ErrSilent says that etcd does not answer, which may be over the next time.
var ErrSilent = errors.New("no answer")

// failed is the error of a request; one without an answer names who was asked, and why there was none.
func (s *Store) failed(verb, prefix string, err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("etcd: %s %s: %w from %s in %v%s", verb, prefix, ErrSilent, strings.Join(s.options.Endpoints, ", "), s.options.Timeout, s.reason())
	case passing(err):
		return fmt.Errorf("etcd: %s %s: %w: %w", verb, prefix, ErrSilent, err)
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		return fmt.Errorf("etcd: %s %s: %w: the user that the certificate names needs readwrite on the prefix %s", verb, prefix, err, s.options.Prefix)
	}
	return fmt.Errorf("etcd: %s %s: %w", verb, prefix, err)
}

func (s *Store) run(running bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = running
	s.announce()
}

// announce wakes those who wait for the view to move on. mu is held.
func (s *Store) announce() {
	close(s.moved)
	s.moved = make(chan struct{})
}

// read takes everything that is there, and gives the revision at which it was so.
func (s *Store) read(ctx context.Context) (revision int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	answer, err := s.client.Get(ctx, s.options.Prefix, clientv3.WithPrefix())
	if err != nil {
		return 0, s.failed("read", s.options.Prefix, err)
	}
	v := newView()
	for _, kv := range answer.Kvs {
		v.put(s.options.Prefix, kv, s.now())
	}
	v.revision, v.cluster, v.epoch = answer.Header.Revision, answer.Header.ClusterId, s.view.epoch
	another := !v.follows(&s.view)
	if another {
		v.epoch++
		s.tellWentBack(&v)
	}
	all := make([]source.Arrival, 0, len(v.documents))
	for k, d := range v.documents {
		d.sameAs(s.view.documents[k])
		a, refused := s.arrival(&v, k)
		all, d.refused = append(all, a), refused
	}
	s.intake.Replace(func(source.Key) bool { return true }, all)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.view = v
	for k := range v.documents {
		s.unpaired(k)
	}
	s.announce()
	if another {
		s.touch()
	}
	return v.revision, nil
}

// watch follows what happens after a revision, until that cannot be told any more: etcd has forgotten it, or has no leader.
func (s *Store) watch(ctx context.Context, after int64) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	responses := s.client.Watch(ctx, s.options.Prefix, clientv3.WithPrefix(), clientv3.WithRev(after+1), clientv3.WithProgressNotify())
	for {
		var r clientv3.WatchResponse
		var more bool
		select {
		case r, more = <-responses:
		case <-s.anew:
			return errAnew
		}
		if !more {
			return errors.New("etcd: the watch has ended")
		}
		if err := r.Err(); err != nil {
			return fmt.Errorf("etcd: watch %s: %w", s.options.Prefix, err)
		}
		if n := len(r.Events); n > 0 {
			// The revision of the header may be ahead of the events that are still to come.
			s.follow(r.Events, r.Events[n-1].Kv.ModRevision)
		}
	}
}

// follow takes events of whole revisions up to one.
func (s *Store) follow(events []*clientv3.Event, revision int64) {
	touched, statuses := map[source.Key]bool{}, false
	s.mu.Lock()
	for _, e := range events {
		statuses = statuses || strings.HasPrefix(string(e.Kv.Key), s.options.Prefix+statusesPart)
		var k source.Key
		var ours bool
		if e.Type == clientv3.EventTypeDelete {
			k, ours = s.view.remove(s.options.Prefix, string(e.Kv.Key))
		} else {
			k, ours = s.view.put(s.options.Prefix, e.Kv, s.now())
		}
		if ours {
			touched[k] = true
		}
	}
	s.mu.Unlock()
	var came []source.Arrival
	var gone []source.Key
	refused := map[source.Key]*source.Object{}
	for k := range touched {
		if s.view.documents[k] == nil {
			gone = append(gone, k)
			continue
		}
		a, r := s.arrival(&s.view, k)
		came, refused[k] = append(came, a), r
	}
	s.intake.Update(came, gone)
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, r := range refused {
		s.view.documents[k].refused = r
		s.unpaired(k)
	}
	for _, k := range gone {
		s.unpaired(k)
	}
	s.view.revision = max(s.view.revision, revision)
	s.announce()
	if statuses || len(touched) > 0 {
		s.touch()
	}
}

// touch wakes who writes statuses.
func (s *Store) touch() {
	select {
	case s.touched <- struct{}{}:
	default:
	}
}

// arrival decodes a document of the view; one that is refused, and whose kind has a status, comes back apart.
func (s *Store) arrival(v *view, k source.Key) (_ source.Arrival, refused *source.Object) {
	d, about := v.documents[k], v.abouts[k]
	origin := source.Origin{Layer: source.LayerApplied, File: about.File, Line: about.Line}
	if about.File == "" {
		origin.File = "etcd:" + s.options.Prefix + objectsPart + path(k)
	}
	if misplaced(k) {
		return source.Arrival{Key: k, Findings: []model.Finding{{Severity: model.Error, Code: "WrongKey", File: origin.File,
			Message: "the key names no object", Hint: "write it under " + s.options.Prefix + objectsPart +
				`GROUP/KIND/NAMESPACE/NAME, with "core" for the group of Kubernetes' core and "_" for no namespace, or ` + s.removal(k)}}}, nil
	}
	a := source.DecodeArrival(k, origin, d.text, s.options.Check)
	o := a.Object
	if o == nil {
		for i := range a.Findings {
			s.offerRemoval(&a.Findings[i], k)
		}
		refused = unaccepted(k, origin, d.text)
		o = refused
	}
	if o != nil {
		o.SetGeneration(d.changed)
		o.Born = about.Born
		if about.Born.IsZero() {
			o.Born = d.seen // somebody else has written it, see age
		}
	}
	return a, refused
}

// offerRemoval adds to a finding about what is no object how to be rid of it.
func (s *Store) offerRemoval(f *model.Finding, k source.Key) {
	if !slices.Contains([]string{"NotAnObject", "SyntaxError", "NotText", "FileTooLarge", "TooDeep", "TooManyAliases", "WrongKey"}, f.Code) {
		return
	}
	f.Hint = cmp.Or(f.Hint, "put it right") + ", or " + s.removal(k)
}

// removal says how to take away what stands under the key of an object.
func (s *Store) removal(k source.Key) string {
	if source.LookupKind(k.Group, k.Kind) == nil {
		return "delete it: etcdctl del " + s.options.Prefix + objectsPart + path(k)
	}
	command := "weft delete " + strings.ToLower(k.Kind) + " " + k.Name
	if k.Namespace != "" && k.Namespace != source.DefaultNamespace {
		command += " -n " + k.Namespace
	}
	return "delete it: " + command
}
