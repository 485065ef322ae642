// Package consul is the source that reads the catalog and the health of a Consul, through its HTTP API with blocking queries: each
// service becomes a ServiceEntry for NAME.service.consul with the instances that are not critical, their tags and meta as labels and
// the datacenter as locality. One request waits at Consul for each service, and one for the list of services. Where there are many, they take
// turns (turns.go), and what tells of changes says who is asked at once (news.go, nodes.go).
package consul

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// Layer is that of objects from Consul.
const Layer = "consul"

// Options of New. Address is required.
type Options struct {
	Address string      // "http://host:8500"
	Token   string      // ACL token; empty for none
	TLS     *tls.Config // for "https"; nil for the system's roots
	// Namespace is where the ServiceEntries are; source.DefaultNamespace when empty.
	Namespace string
	// Check judges one decoded object (compile.Check); an error finding refuses it. Nil accepts everything.
	Check func(*source.Object) []model.Finding
	Log   *slog.Logger // slog.Default
}

// Source reads one Consul datacenter. Run is called once.
type Source struct {
	options Options
	log     *slog.Logger
	client  *http.Client
	intake  source.Intake

	unfit, against roll // tags and meta that do not count as labels

	mu      sync.Mutex
	failing map[string]bool   // paths that could not be read the last time
	told    map[string]string // of reasons, the path that was told of
	hidden  map[string]bool   // paths of whose answers ACLs have left something out
	shown   string            // that of them which was told of; empty for none
}

// New checks the options; it does not touch the network.
func New(o Options) (*Source, error) {
	u, err := url.Parse(o.Address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("consul %q: want a URL such as http://127.0.0.1:8500", o.Address)
	}
	if o.Namespace == "" {
		o.Namespace = source.DefaultNamespace
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxConnsPerHost, t.MaxIdleConnsPerHost, t.TLSClientConfig = mostConnections, mostConnections, o.TLS
	return &Source{options: o, log: o.Log, client: &http.Client{Transport: t}, failing: map[string]bool{}, told: map[string]string{}, hidden: map[string]bool{},
		unfit:   roll{code: noLabel, severity: model.Info, rest: "have tags or meta that can be no labels"},
		against: roll{code: tagsContradict, severity: model.Warning, rest: "have instances whose tags and meta contradict each other"}}, nil
}

// Layer implements source.Source.
func (s *Source) Layer() string { return Layer }

// Run implements source.Source. It first publishes when every service of the catalog has told its instances.
func (s *Source) Run(ctx context.Context, publish func(source.Change)) error {
	ctx, cancel := context.WithCancel(ctx)
	r := &run{Source: s, services: map[string]*service{}, turns: newTurns(ctx)}
	s.intake.Begin(Layer, publish)
	defer func() {
		s.intake.Close() // first, so that nothing is published any more
		cancel()
		r.followed.Wait()
		s.client.CloseIdleConnections()
	}()
	r.followed.Go(func() { s.listen(ctx) }) // ends with the run
	s.poll(ctx, servicesPath, alone, func(body []byte, index uint64) error {
		before := r.listed
		names, err := r.list(ctx, body, index)
		if err != nil {
			return err
		}
		r.take(ctx, names)
		if r.listed.index != before.index {
			r.registered(ctx, before.names, names, len(body))
		}
		if s.intake.Opened() {
			return nil
		}
		for _, one := range r.services {
			select {
			case <-one.told:
			case <-ctx.Done():
				return nil
			}
		}
		s.intake.Open()
		return nil
	})
	return nil
}

// run is the state of one Run.
type run struct {
	*Source
	followed sync.WaitGroup
	turns    *turns

	// Owned by the goroutine of Run.
	listed listed
	others map[string]string // those without ServiceEntry, and who has it; see choose
	moved  []chan<- struct{} // these are told that registrations changed; nil until services have to share

	guard    sync.Mutex
	services map[string]*service // guarded by guard; changed by the goroutine of Run alone, which need not take it to read
}

// service is one that is followed.
type service struct {
	stop  context.CancelFunc
	ended chan struct{}
	told  chan struct{} // closed when its instances are known
	hurry chan struct{} // has something when it is to be asked at once

	nodes atomic.Pointer[[]string] // where its instances are

	asked uint64 // owned by who follows it: the round in which it was asked
}

// take follows the services that are named and have a ServiceEntry, and no others.
func (r *run) take(ctx context.Context, names map[string][]string) {
	served, others := choose(names)
	r.leaveOut(others)
	for name, one := range r.services {
		if !served[name] {
			one.stop()
			<-one.ended
			r.reads(healthPath + name)
			r.noteHidden(healthPath+name, false)
			r.guard.Lock()
			delete(r.services, name)
			r.guard.Unlock()
			r.tellOddities(name, nil)
			r.intake.Update(nil, []source.Key{r.key(name)})
		}
	}
	if len(served) > mostWaiting && r.moved == nil {
		r.turns.share()
		r.watch(ctx)
	}
	for name := range served {
		if r.services[name] != nil {
			continue
		}
		ctx, stop := context.WithCancel(ctx)
		one := &service{stop: stop, ended: make(chan struct{}), told: make(chan struct{}), hurry: make(chan struct{}, 1)}
		r.guard.Lock()
		r.services[name] = one
		r.guard.Unlock()
		if r.moved != nil {
			one.hurry <- struct{}{}
		}
		r.followed.Go(func() { // ends with stop or the run
			defer close(one.ended)
			defer stop()
			r.follow(ctx, name, one)
		})
	}
}

// leaveOut says which services have no ServiceEntry, and which other service has it, if one has.
func (r *run) leaveOut(others map[string]string) {
	var came []source.Arrival
	var gone []source.Key
	for name, first := range others {
		came = append(came, r.other(name, first))
	}
	for name := range r.others {
		if _, still := others[name]; !still {
			gone = append(gone, r.otherKey(name))
		}
	}
	r.others = others
	r.intake.Update(came, gone)
}

func (r *run) follow(ctx context.Context, name string, one *service) {
	var once sync.Once
	turn := func(ctx context.Context) (time.Duration, context.Context, func()) { return r.turns.take(ctx, one) }
	r.poll(ctx, healthPath+name, turn, func(body []byte, _ uint64) error {
		var all []instance
		if err := json.Unmarshal(body, &all); err != nil {
			return err
		}
		one.nodes.Store(nodesOf(all))
		if ctx.Err() != nil {
			return nil
		}
		r.takeInstances(name, all)
		once.Do(func() { close(one.told) })
		return nil
	})
}

// takeInstances takes all that Consul knows of a service's.
func (r *run) takeInstances(name string, all []instance) {
	kept, findings := r.callable(name, all)
	if len(kept) == 0 { // about to leave the catalog, or nothing that could be called
		r.tellOddities(name, nil)
		r.intake.Update(nil, []source.Key{r.key(name)})
		if len(findings) > 0 {
			r.intake.Update([]source.Arrival{{Key: r.key(name), Findings: findings}}, nil)
		}
		return
	}
	a, odd := r.arrival(name, kept)
	r.tellOddities(name, odd)
	a.Findings = append(findings, a.Findings...)
	r.intake.Update([]source.Arrival{a}, nil)
}

// Where Consul tells its services, and the instances of one.
const (
	servicesPath = "/v1/catalog/services"
	healthPath   = "/v1/health/service/"
)

// How long Consul holds a question back for which there is no news; it adds up to a sixteenth. That about the list of services, and those about all checks,
// come back sooner: by them it is known within a minute or so when Consul does not answer them any more, although it says who leads it. An
// answer may take answerTime.
const (
	waitTime   = 4 * time.Minute
	listTime   = 30 * time.Second
	hiddenTime = 5 * time.Second // of which something is hidden
	answerTime = 30 * time.Second
)

// The pauses between attempts to reach Consul grow from the first to the last.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 10 * time.Second
)

// turn gives when a question may be asked how long it may wait at Consul, not at all for 0; a context that ends when others need the
// turn; and what ends it, which is nil when the given context has ended.
type turn = func(context.Context) (wait time.Duration, during context.Context, end func())

// alone is the turn of a question that shares with no others.
func alone(ctx context.Context) (time.Duration, context.Context, func()) {
	return listTime, ctx, func() {}
}

// poll asks again and again, when it is its turn, and hands over each answer that may be news, with its index, until the context ends. What
// a token may see changes without the index: of an answer that was not whole the next one may be news, and is not waited for as long.
func (s *Source) poll(ctx context.Context, path string, t turn, take func(body []byte, index uint64) error) {
	index, pause := uint64(0), firstPause
	for ctx.Err() == nil {
		wait, during, end := t(ctx)
		if end == nil {
			return
		}
		hidden := s.isHidden(path)
		if hidden {
			wait = min(wait, hiddenTime)
		}
		began := time.Now()
		body, next, err := s.ask(during, path, index, wait)
		cut := during.Err() != nil
		end()
		if err != nil && cut && ctx.Err() == nil {
			continue // the turn was over
		}
		early := next == index && time.Since(began) < wait
		if err == nil && (next != index || hidden || s.isHidden(path)) {
			err = take(body, next)
		}
		if err == nil {
			// An index that goes back is another server's, or that of one which was restored: begin anew. One that is restored
			// wakes whoever waits, with what there was, and does not answer again before it has come to that index once more.
			if next < index || early {
				next = 0
			}
			index, pause = next, firstPause
			s.reads(path)
			if early {
				sleep(ctx, firstPause)
			}
			continue
		}
		if ctx.Err() != nil {
			return
		}
		s.fails(path, err)
		sleep(ctx, pause)
		index, pause = 0, min(2*pause, lastPause)
	}
}

// sleep lasts about as long as is said, so that those who wait do not come all at once.
func sleep(ctx context.Context, about time.Duration) {
	t := time.NewTimer(about/2 + rand.N(about/2))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// maxReasons bounds the lines that one failure of Consul can bring.
const maxReasons = 10

// notEstablished is what the transport says of a connection over TLS that was refused, once it has said why.
const notEstablished = "http2: client conn could not be established"

// fails notes that a path cannot be read. Each reason is told of by one path until that can be read again: there may be thousands.
func (s *Source) fails(path string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	reason := source.OutageReason(err)
	if s.failing[path] && reason == notEstablished {
		return // what was said before tells more
	}
	s.failing[path] = true
	if s.told[reason] != "" || len(s.told) >= maxReasons {
		return
	}
	s.told[reason] = path
	s.intake.Lost(path, reason)
	s.log.Warn("Consul cannot be read; "+s.intake.Meanwhile()+"; trying again", "path", path, "error", reason)
}

// reads notes that a path can be read, or need not be any more.
func (s *Source) reads(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.failing[path] {
		return
	}
	delete(s.failing, path)
	maps.DeleteFunc(s.told, func(_, by string) bool { return by == path })
	s.intake.Back(path)
	if len(s.failing) == 0 {
		s.log.Info("Consul is read again")
	}
}

// hides takes from an answer whether ACLs left something out of it: Consul answers as if that were not there. Of answers without a token it
// does not say so.
func (s *Source) hides(path string, h http.Header) {
	unsure := path == servicesPath && s.options.Token == "" && h.Get("X-Consul-Default-Acl-Policy") == "deny"
	s.noteHidden(path, unsure || h.Get("X-Consul-Results-Filtered-By-Acls") == "true")
}

// noteHidden tells of one path of whose answers something is left out, the list of services before others, for as long as there are any.
func (s *Source) noteHidden(path string, hidden bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if hidden == s.hidden[path] {
		return
	}
	delete(s.hidden, path)
	if hidden {
		s.hidden[path] = true
	}
	was := s.shown
	if s.hidden[servicesPath] {
		s.shown = servicesPath
	} else if !s.hidden[s.shown] {
		s.shown = ""
		for s.shown = range s.hidden {
			break
		}
	}
	if s.shown == was {
		return
	}
	f := s.hiding(s.shown)
	s.intake.Remark(servicesHidden, f)
	if f != nil && (was == "" || s.shown == servicesPath) {
		s.log.Warn(f.Message, "hint", f.Hint)
	}
}

// isHidden reports whether something was left out of the last answer of a path.
func (s *Source) isHidden(path string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hidden[path]
}

// servicesHidden is the code of what hiding says.
const servicesHidden = "ServicesHidden"

// hiding says what ACLs leave out of the answers of a path; nil for none.
func (s *Source) hiding(path string) *model.Finding {
	f := &model.Finding{Severity: model.Warning, Code: servicesHidden, File: Layer, Hint: "give a token with service:read and node:read in CONSUL_HTTP_TOKEN"}
	switch {
	case path == "":
		return nil
	case path == servicesPath && s.options.Token == "":
		f.Severity = model.Info
		f.Message = "Consul's ACLs hide services from who has no token, save those that everybody may read; the mesh does not know them"
	case path == servicesPath:
		f.Message = "Consul's ACLs hide services; the mesh does not know them"
	default:
		f.Message = "Consul's ACLs hide instances, such as of " + path + "; the mesh does not know them"
	}
	return f
}

// maxAnswer bounds what is read of one answer, in bytes.
const maxAnswer = 64 << 20

// ask gives what Consul says at a path: at once when wait is 0, otherwise when its index is past the one given or the wait is over.
func (s *Source) ask(ctx context.Context, path string, index uint64, wait time.Duration) (body []byte, next uint64, err error) {
	query := url.Values{}
	if wait > 0 {
		query = url.Values{"index": {fmt.Sprint(index)}, "wait": {wait.String()}}
	}
	return s.get(ctx, path, query, wait)
}

// get gives what Consul answers, which it may take its time for.
func (s *Source) get(ctx context.Context, path string, query url.Values, wait time.Duration) (body []byte, index uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, wait+wait/16+answerTime)
	defer cancel()
	at := strings.TrimSuffix(s.options.Address, "/") + (&url.URL{Path: path, RawQuery: query.Encode()}).String()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, 0, err
	}
	if s.options.Token != "" {
		req.Header.Set("X-Consul-Token", s.options.Token)
	}
	answer, err := s.client.Do(req)
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.New("no answer")
	}
	if err != nil {
		return nil, 0, err
	}
	defer answer.Body.Close()
	if body, err = io.ReadAll(io.LimitReader(answer.Body, maxAnswer)); err != nil {
		return nil, 0, err
	}
	if answer.StatusCode != http.StatusOK {
		return nil, 0, fmt.Errorf("status %s: %.200s", answer.Status, body)
	}
	index, err = strconv.ParseUint(answer.Header.Get("X-Consul-Index"), 10, 64)
	if err != nil || index == 0 {
		return nil, 0, errors.New("the answer has no X-Consul-Index")
	}
	if path == servicesPath || strings.HasPrefix(path, healthPath) {
		s.hides(path, answer.Header)
	}
	return body, index, nil
}
