package consul

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	networking "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/source/sourcetest"
)

// stuck is the way to a Consul on which questions about a service that may wait do not get through any more.
type stuck struct {
	way     http.RoundTripper
	closed  atomic.Bool
	waiting chan string   // has the service of each that does not
	checks  chan struct{} // has one when all checks were read
	nodes   chan struct{} // has one when a node was looked through
}

func (s *stuck) RoundTrip(r *http.Request) (*http.Response, error) {
	if s.closed.Load() && strings.HasPrefix(r.URL.Path, healthPath) && r.URL.RawQuery != "" {
		select {
		case s.waiting <- strings.TrimPrefix(r.URL.Path, healthPath):
		case <-r.Context().Done():
		}
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	answer, err := s.way.RoundTrip(r)
	read := map[string]chan struct{}{checksPath: s.checks, nodePath + "n": s.nodes}[r.URL.Path]
	if err == nil && read != nil {
		select {
		case read <- struct{}{}:
		default:
		}
	}
	return answer, err
}

// many are more services than may wait at a time.
const many = mostWaiting + 10

func serviceName(i int) string { return fmt.Sprint("s", i) }

// listenStuck listens until all of the services have a version, and gives the way, still open, and what tells a service's version.
func listenStuck(t *testing.T, s *server, first string) (*sourcetest.Listener, *stuck, func(int) string) {
	t.Helper()
	p := s.place(t)
	src := p.Source.(*Source)
	way := &stuck{way: src.client.Transport, waiting: make(chan string), checks: make(chan struct{}, 1), nodes: make(chan struct{}, 1)}
	src.client.Transport = way
	l := sourcetest.Listen(t, p)
	version := func(i int) string {
		o := l.Get(source.Key{Group: source.GroupNetworking, Kind: "ServiceEntry", Namespace: "default", Name: serviceName(i)})
		if o == nil || len(o.Kube.(*networking.ServiceEntry).Spec.Endpoints) == 0 {
			return ""
		}
		return o.Kube.(*networking.ServiceEntry).Spec.Endpoints[0].Labels[sourcetest.Label]
	}
	l.AwaitThat(t, "all", func() bool {
		for i := range many {
			if version(i) != first {
				return false
			}
		}
		return true
	})
	return l, way, version
}

// shut closes the way, and gives the services whose turn it is not, and will not be.
func (s *stuck) shut() (free []int) {
	s.closed.Store(true)
	asked := map[string]bool{}
	for range mostWaiting {
		asked[<-s.waiting] = true
	}
	for i := range many {
		if !asked[serviceName(i)] {
			free = append(free, i)
		}
	}
	return free
}

// TestHurried: services of which a check changes, or which have a new one or one less, are asked at once and not only when it is their turn.
func TestHurried(t *testing.T) {
	s := start(t)
	register := func(i, instance int, status string) {
		id := fmt.Sprintf("s%d-%d", i, instance)
		s.put(t, "/v1/catalog/register", map[string]any{"Node": fmt.Sprint("n", i), "Address": "10.0.0.9",
			"Service": map[string]any{"ID": id, "Service": serviceName(i), "Address": fmt.Sprint("10.1.1.", 100-instance), "Port": 80,
				"Meta": map[string]string{sourcetest.Label: fmt.Sprint(instance)}},
			"Check": map[string]any{"Node": fmt.Sprint("n", i), "CheckID": "of " + id, "Name": "answers", "Status": status, "ServiceID": id}})
	}
	for i := range many {
		register(i, 1, "passing")
	}
	l, way, version := listenStuck(t, s, "1")
	free := way.shut()
	<-way.checks
	for _, step := range []struct {
		what string
		do   func()
		of   int
		want string
	}{
		{"critical", func() { register(free[0], 1, critical) }, free[0], ""},
		{"passing again", func() { register(free[0], 1, "passing") }, free[0], "1"},
		{"a new instance", func() { register(free[1], 2, "passing") }, free[1], "2"},
		{"one less", func() {
			s.put(t, "/v1/catalog/deregister", map[string]any{"Node": fmt.Sprint("n", free[1]), "ServiceID": fmt.Sprintf("s%d-2", free[1])})
		}, free[1], "1"},
		{"a node that is critical", func() {
			node := fmt.Sprint("n", free[2])
			s.put(t, "/v1/catalog/register", map[string]any{"Node": node, "Address": "10.0.0.9",
				"Check": map[string]any{"Node": node, "CheckID": "alive", "Name": "alive", "Status": critical}})
		}, free[2], ""},
		{"a new service", func() { register(many, 1, "passing") }, many, "1"},
		{"a tag", func() {
			s.put(t, "/v1/catalog/register", map[string]any{"Node": fmt.Sprint("n", free[3]), "Address": "10.0.0.9",
				"Service": map[string]any{"ID": fmt.Sprintf("s%d-1", free[3]), "Service": serviceName(free[3]), "Address": "10.1.1.99", "Port": 80,
					"Meta": map[string]string{sourcetest.Label: "2"}, "Tags": []string{"b", "a"}}})
		}, free[3], "2"},
	} {
		step.do()
		l.AwaitThat(t, step.what, func() bool { return version(step.of) == step.want })
	}
}

// TestConcerned: what is new of checks is said by node and id, and when they came; not by what else is told of them.
func TestConcerned(t *testing.T) {
	read := func(text string) checks {
		all, err := readChecks([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	r := &run{services: map[string]*service{}}
	for _, name := range []string{"a", "b", "c"} {
		r.services[name] = &service{hurry: make(chan struct{}, 1)}
	}
	r.services["b"].nodes.Store(&[]string{"m", "n"})
	const before = `[{"Node":"n","CheckID":"1","ServiceName":"a","CreateIndex":1,"ModifyIndex":1,"Output":"x"},{"Node":"n","CheckID":"2","CreateIndex":2}]`
	for _, test := range []struct{ now, want string }{
		{before, ""},
		{strings.ReplaceAll(before, `"ModifyIndex":1,"Output":"x"`, `"ModifyIndex":9,"Output":"y"`), ""},
		{`[]`, "a b"},
		{strings.ReplaceAll(before, `"CreateIndex":2`, `"CreateIndex":3`), "b"},
		{strings.ReplaceAll(before, `"CreateIndex":1`, `"CreateIndex":3`), "a"},
		{strings.ReplaceAll(before, `"ServiceName":"a"`, `"ServiceName":"c"`), "a c"},
		{strings.ReplaceAll(before, `"Node":"n"`, `"Node":"m"`), "a b"},
	} {
		r.hurry(read(before), read(test.now))
		var got []string
		for _, name := range []string{"a", "b", "c"} {
			select {
			case <-r.services[name].hurry:
				got = append(got, name)
			default:
			}
		}
		if g := strings.Join(got, " "); g != test.want {
			t.Errorf("%s: got %q, want %q", test.now, g, test.want)
		}
	}
}

// TestSwept: where the nodes are fewer than the services, they are looked through for registrations that changed and have no check to tell it.
func TestSwept(t *testing.T) {
	s := start(t)
	register := func(node string, i int, version string) {
		s.put(t, "/v1/catalog/register", map[string]any{"Node": node, "Address": "10.0.0.9", "Service": map[string]any{"ID": serviceName(i), "Service": serviceName(i),
			"Address": "10.1.1." + version, "Port": 80, "Meta": map[string]string{sourcetest.Label: version}}})
	}
	for i := range many {
		register("n", i, "5")
	}
	l, way, version := listenStuck(t, s, "5")
	<-way.nodes // what the first look has found stands from here on
	free := way.shut()
	for _, step := range []struct {
		what string
		do   func()
		of   int
		want string
	}{
		{"another registration", func() { register("n", free[0], "6") }, free[0], "6"},
		{"an instance on another node", func() { register("m", free[1], "1") }, free[1], "1"},
		{"one less", func() {
			s.put(t, "/v1/catalog/deregister", map[string]any{"Node": "m", "ServiceID": serviceName(free[1])})
		}, free[1], "5"},
		{"an instance on a node again", func() { register("m", free[1], "2") }, free[1], "2"},
		{"a node less", func() { s.put(t, "/v1/catalog/deregister", map[string]any{"Node": "m"}) }, free[1], "5"},
	} {
		step.do()
		l.AwaitThat(t, step.what, func() bool { return version(step.of) == step.want })
	}
}
