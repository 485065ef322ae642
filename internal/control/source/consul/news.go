package consul

import (
	"context"
	"encoding/json"
	"slices"
	"time"
)

// Where Consul tells checks: those in a state, and all.
const (
	criticalPath = "/v1/health/state/critical"
	warningPath  = "/v1/health/state/warning"
	checksPath   = "/v1/health/state/any"
)

// mostBytes bounds what is read of answers that grow with the catalog, in bytes a second and for each of their paths: the next one is
// asked for when that has had its time.
const mostBytes = 4 << 20

// digest lasts as long as an answer's bytes have to.
func digest(ctx context.Context, bytes int) {
	if d := time.Duration(bytes) * time.Second / mostBytes; d > time.Millisecond {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
}

// check is what Consul says of one.
type check struct {
	Node        string
	CheckID     string
	ServiceName string // empty for one of the node itself
	CreateIndex uint64
}

// checkKey names a check.
type checkKey struct{ node, id string }

// concern is what a check is about, and since when there has been this one of its name.
type concern struct {
	service string
	created uint64
}

// checks are those of an answer.
type checks map[checkKey]concern

func readChecks(body []byte) (checks, error) {
	var list []check
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, err
	}
	all := make(checks, len(list))
	for _, c := range list {
		all[checkKey{c.Node, c.CheckID}] = concern{c.ServiceName, c.CreateIndex}
	}
	return all, nil
}

// watch begins to look for what changed. Only services that have to share need that: the others have a question that waits for it.
func (r *run) watch(ctx context.Context) {
	checks, nodes := make(chan struct{}, 1), make(chan struct{}, 1)
	r.moved = []chan<- struct{}{checks, nodes}
	checks <- struct{}{}
	nodes <- struct{}{}
	for _, path := range []string{criticalPath, warningPath} {
		r.followed.Go(func() { r.watchState(ctx, path) }) // ends with the run
	}
	r.followed.Go(func() { r.watchRegistered(ctx, checks) }) // ends with the run
	r.followed.Go(func() { r.watchNodes(ctx, nodes) })       // ends with the run
}

// registered takes note that the list of services has been told anew, which is so whenever any registration changed: Consul does not say
// which. Those are asked at once whose tags differ, that have a new check, or one less, or of which a node has another registration; all are asked
// in a quicker round where the nodes are not looked through.
func (r *run) registered(ctx context.Context, before, now map[string][]string, bytes int) {
	if r.moved == nil {
		return
	}
	retagged := map[string]bool{}
	for name, tags := range now {
		if was, there := before[name]; there && !slices.Equal(was, tags) {
			retagged[name] = true
		}
	}
	r.hurryThose(retagged, nil)
	r.turns.round.Add(1)
	for _, moved := range r.moved {
		select {
		case moved <- struct{}{}:
		default: // it will look anyway
		}
	}
	digest(ctx, bytes)
}

// watchState hurries the services of which a check has come into a state or left it. Those that pass need no watching: a check that
// passes has come from the others, or is new.
func (r *run) watchState(ctx context.Context, path string) {
	var before checks
	r.poll(ctx, path, alone, func(body []byte, _ uint64) error {
		now, err := readChecks(body)
		if err != nil {
			return err
		}
		r.hurry(before, now)
		before = now
		digest(ctx, len(body))
		return nil
	})
}

// watchRegistered reads all checks when registrations have changed, and hurries the services that have a new one, or one less.
func (r *run) watchRegistered(ctx context.Context, moved <-chan struct{}) {
	var before checks
	r.onceMoved(ctx, moved, checksPath, func(ctx context.Context) (bytes int, err error) {
		body, _, err := r.ask(ctx, checksPath, 0, 0)
		if err != nil {
			return 0, err
		}
		now, err := readChecks(body)
		if err != nil {
			return 0, err
		}
		if before != nil {
			r.hurry(before, now)
		}
		before = now
		return len(body), nil
	})
}

// onceMoved looks at a path each time that registrations have changed, until that works, and rests by how many bytes it took.
func (r *run) onceMoved(ctx context.Context, moved <-chan struct{}, path string, look func(context.Context) (bytes int, err error)) {
	pause := firstPause
	for {
		select {
		case <-moved:
		case <-ctx.Done():
			return
		}
		for ctx.Err() == nil {
			bytes, err := look(ctx)
			if err == nil {
				r.reads(path)
				pause = firstPause
				digest(ctx, bytes)
				break
			}
			if ctx.Err() == nil {
				r.fails(path, err)
				sleep(ctx, pause)
				pause = min(2*pause, lastPause)
			}
		}
	}
}

// hurry has the services asked at once that checks concern which are among one of the two alone; for those of a node, all that have
// instances there.
func (r *run) hurry(before, now checks) {
	services, nodes := map[string]bool{}, map[string]bool{}
	differ := func(all, others checks) {
		for k, c := range all {
			switch {
			case others[k] == c:
			case c.service != "":
				services[c.service] = true
			default:
				nodes[k.node] = true
			}
		}
	}
	differ(before, now)
	differ(now, before)
	r.hurryThose(services, nodes)
}

// hurryThose has services asked at once, and those that have instances on nodes.
func (r *run) hurryThose(services, nodes map[string]bool) {
	if len(services)+len(nodes) == 0 {
		return
	}
	r.guard.Lock()
	defer r.guard.Unlock()
	for name, one := range r.services {
		if !services[name] && !one.at(nodes) {
			continue
		}
		select {
		case one.hurry <- struct{}{}:
		default: // it will be asked anyway
		}
	}
}

// at is whether instances are on one of the nodes.
func (s *service) at(nodes map[string]bool) bool {
	on := s.nodes.Load()
	return on != nil && len(nodes) > 0 && slices.ContainsFunc(*on, func(n string) bool { return nodes[n] })
}

// nodesOf gives the nodes of instances, each once.
func nodesOf(all []instance) *[]string {
	names := make([]string, len(all))
	for i := range all {
		names[i] = all[i].Node.Node
	}
	slices.Sort(names)
	names = slices.Clone(slices.Compact(names))
	return &names
}
