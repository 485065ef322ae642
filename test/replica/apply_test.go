package replica

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/control/source/etcd/etcdtest"
)

// author applies one object again and again, each time with the next number, to whichever replica takes it.
type author struct {
	name         string
	sent, stands int // numbers: the last one that was sent, and the last one that was confirmed
}

func (a *author) apply(ctx context.Context, client *api.Client) error {
	a.sent++
	text := fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: %s, labels: {number: n%d}}
spec: {hosts: [%s.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}
`, a.name, a.sent, a.name)
	r, err := client.Apply(ctx, api.ChangeRequest{Documents: []api.Document{{Name: a.name + ".yaml", Content: []byte(text)}}})
	if err == nil && r.Refused {
		err = fmt.Errorf("refused: %v", r.Findings)
	}
	if err == nil {
		a.stands = a.sent
	}
	return err
}

// found reports whether objects have the author's last version, or one that was sent after it and may have been taken.
func (a *author) found(objects []string) bool {
	for n := a.stands; n <= a.sent; n++ {
		its := fmt.Sprintf("name: %s, labels: {number: n%d}}", a.name, n)
		if slices.ContainsFunc(objects, func(o string) bool { return strings.Contains(o, its) }) {
			return true
		}
	}
	return false
}

// held gives the text of each object that a replica has.
func (p *plane) held(t *testing.T) []string {
	t.Helper()
	objects, err := p.client.Objects(t.Context(), api.Selection{})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, o := range objects {
		all = append(all, fmt.Sprintf("%s, %s, %s\n%s", o.Ref, o.Source, o.Created, o.YAML))
	}
	slices.Sort(all)
	return all
}

const statusesAt = "/weft/statuses/"

// statuses follows the statuses in etcd, and gives at the end those that were written again as they were.
func statuses(t *testing.T, server *etcdtest.Server) (again func() []string) {
	ctx, cancel := context.WithCancel(t.Context())
	var doubles []string
	var following sync.WaitGroup
	following.Go(func() { // ends with again
		last := map[string]string{}
		for r := range server.Client.Watch(ctx, statusesAt, clientv3.WithPrefix()) {
			for _, e := range r.Events {
				key, text := string(e.Kv.Key), string(e.Kv.Value)
				if text != "" && last[key] == text {
					doubles = append(doubles, strings.TrimPrefix(key, statusesAt))
				}
				last[key] = text
			}
		}
	})
	return func() []string {
		cancel()
		following.Wait()
		return doubles
	}
}

// TestManyApply: several clients apply to several replicas while one of these dies, etcd forgets what happened, and etcd itself goes away and
// comes back. What was confirmed is there, all replicas hold the same, and each status is written once for what it says.
func TestManyApply(t *testing.T) {
	server := etcdtest.Start(t)
	weft := program(t, "weft")
	var planes []*plane
	for n := range 3 {
		planes = append(planes, startPlane(t, weft, n, "--etcd", server.Endpoint))
	}
	again := statuses(t, server)
	w := write(t, planes[:2])
	w.more(t, 100)
	if err := planes[2].cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	w.more(t, 100)
	planes[2] = startPlane(t, weft, 3, "--etcd", server.Endpoint)
	forget(t, server)
	w.more(t, 100)
	server.Down(t)
	server.Up(t)
	forget(t, server)
	w.more(t, 100)
	w.stop()
	await(t, "all replicas hold the same", func() bool {
		first := planes[0].held(t)
		return slices.Equal(first, planes[1].held(t)) && slices.Equal(first, planes[2].held(t))
	})
	for i := range w.authors {
		if a := &w.authors[i]; !a.found(planes[0].held(t)) {
			t.Errorf("%s: %d was confirmed, and %d sent; there is %q", a.name, a.stands, a.sent, planes[0].held(t))
		}
	}
	await(t, "each status is of what is there", func() bool { return current(t, server) == len(w.authors) })
	if doubles := again(); len(doubles) > 0 {
		t.Errorf("statuses were written again as they were: %q", doubles)
	}
}

// writing is what several authors do at the same time.
type writing struct {
	authors []author
	applied atomic.Int64
	stop    func() // waits for them; idempotent
}

// write has each author apply to one replica after the other until stop.
func write(t *testing.T, planes []*plane) *writing {
	w := &writing{authors: make([]author, 6)}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var group sync.WaitGroup
	for i := range w.authors {
		a := &w.authors[i]
		a.name = fmt.Sprintf("a%d", i)
		group.Go(func() { // ends with stop
			for n := i; ctx.Err() == nil; n++ {
				// One that fails, as etcd is away, may have been made or not.
				if a.apply(context.WithoutCancel(ctx), planes[n%len(planes)].client) == nil {
					w.applied.Add(1)
				}
			}
		})
	}
	w.stop = func() {
		cancel()
		group.Wait()
	}
	t.Cleanup(w.stop)
	return w
}

// more waits until n more changes are confirmed.
func (w *writing) more(t *testing.T, n int64) {
	t.Helper()
	until := w.applied.Load() + n
	await(t, "more is applied", func() bool { return w.applied.Load() >= until })
}

// forget has etcd forget all that was before.
func forget(t *testing.T, server *etcdtest.Server) {
	t.Helper()
	now, err := server.Client.Get(t.Context(), "now")
	if err == nil {
		_, err = server.Client.Compact(t.Context(), now.Header.Revision, clientv3.WithCompactPhysical())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// current says how many statuses are of the objects as they stand in etcd.
func current(t *testing.T, server *etcdtest.Server) (n int) {
	t.Helper()
	all, err := server.Client.Get(t.Context(), "/weft/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	revisions := map[string]string{}
	for _, kv := range all.Kvs {
		if at, ok := strings.CutPrefix(string(kv.Key), "/weft/objects/"); ok {
			revisions[at] = fmt.Sprintf(`"observedGeneration":"%d"`, kv.ModRevision)
		}
	}
	for _, kv := range all.Kvs {
		if at, ok := strings.CutPrefix(string(kv.Key), statusesAt); ok && revisions[at] != "" && strings.Contains(string(kv.Value), revisions[at]) {
			n++
		}
	}
	return n
}
