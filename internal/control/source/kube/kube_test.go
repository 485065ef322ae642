package kube

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/source/kube/kubetest"
	"github.com/weftmesh/weft/internal/control/source/sourcetest"
)

// patience bounds the wait for something that must happen. What the server refused once is asked again after refusedPause.
const patience = 3*time.Minute + refusedPause

// cluster is a namespace of a server, for one test.
type cluster struct {
	*kubetest.Server
	client    dynamic.Interface
	namespace string
}

func newCluster(t *testing.T, s *kubetest.Server) *cluster {
	t.Helper()
	config := rest.CopyConfig(s.Config)
	config.QPS = -1 // the tests' own requests wait for nothing
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{Server: s, client: client, namespace: fmt.Sprintf("weft-test-%d", time.Now().UnixNano())}
	c.apply(t, "v1", "namespaces", fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n", c.namespace))
	t.Cleanup(func() {
		ns := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"})
		if err := ns.Delete(context.WithoutCancel(t.Context()), c.namespace, metav1.DeleteOptions{}); err != nil && !s.Own {
			t.Error(err)
		}
	})
	return c
}

func (c *cluster) resource(groupVersion, plural, namespace string) dynamic.ResourceInterface {
	gv, _ := schema.ParseGroupVersion(groupVersion)
	r := c.client.Resource(gv.WithResource(plural))
	if namespace == "" {
		return r
	}
	return r.Namespace(namespace)
}

// apply writes an object, new or not. Of those of a namespace, it is the test's.
func (c *cluster) apply(t *testing.T, groupVersion, plural, text string) {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		t.Fatal(err)
	}
	if u.GetNamespace() != "" {
		u.SetNamespace(c.namespace)
	}
	c.applyTo(t, c.resource(groupVersion, plural, u.GetNamespace()), u)
}

func (c *cluster) applyTo(t *testing.T, r dynamic.ResourceInterface, u *unstructured.Unstructured) {
	t.Helper()
	// A new API server makes its namespaces and kinds a moment after it is ready.
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		_, err := r.Apply(context.WithoutCancel(t.Context()), u.GetName(), u, metav1.ApplyOptions{FieldManager: "test", Force: true})
		if err == nil {
			return
		}
		if !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func (c *cluster) delete(t *testing.T, groupVersion, plural, namespace, name string) {
	t.Helper()
	if err := c.resource(groupVersion, plural, namespace).Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// place is a cluster behind a cable.
func (c *cluster) place(t *testing.T) *sourcetest.Place {
	t.Helper()
	return c.placeFor(t, "", slog.New(slog.DiscardHandler))
}

// placeFor has the source act as a user of less rights; empty for one who may do everything.
func (c *cluster) placeFor(t *testing.T, user string, log *slog.Logger) *sourcetest.Place {
	t.Helper()
	u, err := url.Parse(c.Config.Host)
	if err != nil {
		t.Fatal(err)
	}
	cable := sourcetest.NewCable(t, u.Host)
	config := rest.CopyConfig(c.Config)
	if config.Host = "https://" + cable.Addr(); !config.Insecure {
		config.ServerName = u.Hostname()
	}
	config.Impersonate.UserName = user
	s, err := New(Options{Config: config, Namespace: c.namespace, Check: compile.Check, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return &sourcetest.Place{
		Source: s,
		Put: func(t *testing.T, name, version string) {
			c.apply(t, "v1", "services", sourcetest.Service(name, version))
		},
		Delete: func(t *testing.T, name string) { c.delete(t, "v1", "services", c.namespace, name) },
		Cut:    cable.Cut, Mend: cable.Mend,
		Describe: func(o *source.Object) (string, string, bool) {
			v, ours := o.GetLabels()[sourcetest.Label]
			return o.GetName(), v, ours && o.GetNamespace() == c.namespace
		},
	}
}

func TestContract(t *testing.T) {
	server := kubetest.Start(t)
	sourcetest.Test(t, func(t *testing.T) *sourcetest.Place { return newCluster(t, server).place(t) })
}

const virtualServices = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: virtualservices.networking.istio.io}
spec:
  group: networking.istio.io
  names: {kind: VirtualService, plural: virtualservices, singular: virtualservice, listKind: VirtualServiceList}
  scope: Namespaced
  versions:
    - name: v1
      served: true
      storage: true
      subresources: {status: {}}
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

func virtualService(name, version, fields string) string {
	return fmt.Sprintf("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: %s, namespace: default, labels: {%s: %q}}\nspec: {hosts: [%s], %s}\n",
		name, sourcetest.Label, version, name, fields)
}

// TestKindsAppear: a kind whose CRD is not there holds nothing up, is taken when it comes and dropped when it goes; what our decoder
// refuses is told by field, and what was accepted before stays.
func TestKindsAppear(t *testing.T) {
	c := newCluster(t, kubetest.Own(t))
	p := c.place(t)
	p.Put(t, "a", "1")
	l := sourcetest.Listen(t, p)
	l.Await(t, "a=1")
	c.apply(t, "apiextensions.k8s.io/v1", "customresourcedefinitions", virtualServices)
	good := "http: [{route: [{destination: {host: x}}]}]"
	c.apply(t, "networking.istio.io/v1", "virtualservices", virtualService("vs", "1", good))
	l.Await(t, "a=1 vs=1")
	o := l.Get(source.Key{Group: "networking.istio.io", Kind: "VirtualService", Namespace: c.namespace, Name: "vs"})
	if o.Origin.Layer != Layer || o.Born.IsZero() || o.GetManagedFields() != nil || strings.Contains(string(o.Raw), "managedFields") {
		t.Errorf("got %+v: %s", o.Origin, o.Raw)
	}
	c.apply(t, "networking.istio.io/v1", "virtualservices", virtualService("vs", "2", good+", htpp: []"))
	l.AwaitThat(t, "a finding", func() bool {
		for _, f := range l.Last().Findings {
			if f.Code == "UnknownField" && f.Field == "spec.htpp" && f.Object.Name == "vs" && f.Line == 0 {
				return true
			}
		}
		return false
	})
	l.Await(t, "a=1 vs=1")
	c.apply(t, "networking.istio.io/v1", "virtualservices", virtualService("vs", "3", good))
	l.Await(t, "a=1 vs=3")
	if f := l.Last().Findings; len(f) > 0 {
		t.Errorf("it was put right: %v", f)
	}
	c.delete(t, "apiextensions.k8s.io/v1", "customresourcedefinitions", "", "virtualservices.networking.istio.io")
	l.Await(t, "a=1")
}

// TestServerRestarts: while the API server is away, what was read stays; then all that was missed is there, although the
// versions that the source knows are too old for the server by then.
func TestServerRestarts(t *testing.T) {
	c := newCluster(t, kubetest.Own(t))
	p := c.place(t)
	p.Put(t, "a", "1")
	p.Put(t, "b", "1")
	l := sourcetest.Listen(t, p)
	l.Await(t, "a=1 b=1")
	p.Cut(t)
	p.Delete(t, "a")
	p.Put(t, "b", "2")
	c.Down(t)
	c.Up(t)
	p.Put(t, "c", "1")
	l.Await(t, "a=1 b=1")
	p.Mend(t)
	l.Await(t, "b=2 c=1")
}

// TestServerHangs: a server that hangs is said to be away, although its watches stay open, until it answers again; then what changes is heard.
func TestServerHangs(t *testing.T) {
	c := newCluster(t, kubetest.Own(t))
	p := c.place(t)
	p.Put(t, "a", "1")
	l := sourcetest.Listen(t, p)
	l.Await(t, "a=1")
	resume, began := c.Hang(t), time.Now()
	l.AwaitThat(t, "a finding", func() bool { return len(about(l.Last().Findings, "SourceUnreadable")) > 0 })
	t.Logf("said after %v", time.Since(began))
	resume()
	l.AwaitThat(t, "no finding any more", func() bool { return len(l.Last().Findings) == 0 })
	p.Put(t, "b", "1")
	l.Await(t, "a=1 b=1")
}

// TestServerRestored: after etcd was restored from a backup, versions that the source has seen are those of other objects, or yet to
// come. It is found out whether the source sees that the server was away or not, and whether or not the versions have passed by then;
// also where nobody but the library sees that the server was away, which tries again.
func TestServerRestored(t *testing.T) {
	for name, restored := range map[string]struct{ unseen, passed, retried bool }{"away": {}, "unseen": {unseen: true}, "passed": {passed: true},
		"retried": {passed: true, retried: true}} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, kubetest.Own(t))
			p := c.place(t)
			p.Put(t, "a", "1")
			p.Put(t, "c", "1")
			restore := c.Backup(t)
			silent := new(atomic.Bool)
			if restored.unseen {
				c.Config = rest.CopyConfig(c.Config)
				c.Config.Wrap(func(rt http.RoundTripper) http.RoundTripper { return patient{rt, silent} })
				p = c.place(t)
			}
			if restored.retried {
				gate := newGate()
				admin := c.Config
				c.Config = rest.CopyConfig(admin)
				c.Config.Wrap(func(rt http.RoundTripper) http.RoundTripper { return gated{rt, gate} })
				p = c.place(t)
				c.Config = admin
				p.Cut, p.Mend = func(*testing.T) { gate.shut() }, func(*testing.T) { gate.open() }
			}
			l := sourcetest.Listen(t, p)
			l.Await(t, "a=1 c=1")
			p.Put(t, "b", "1")
			p.Delete(t, "c")
			writes := 100 // more than the server writes by itself when it starts
			for i := range writes {
				p.Put(t, "a", fmt.Sprint(i+2))
			}
			l.Await(t, "a=101 b=1")
			if restored.passed {
				p.Cut(t)
			}
			silent.Store(true)
			restore()
			if restored.passed {
				for i := range 2 * writes {
					p.Put(t, "d", fmt.Sprint(i))
				}
				p.Delete(t, "d")
				p.Mend(t)
			}
			p.Put(t, "e", "1")
			l.Await(t, "a=1 c=1 e=1")
			l.AwaitThat(t, "whether it is told", func() bool {
				return restored.passed != slices.ContainsFunc(l.Last().Findings, func(f model.Finding) bool { return f.Code == "SourceWentBack" })
			})
			p.Put(t, "c", "2")
			p.Delete(t, "a")
			l.Await(t, "c=2 e=1")
		})
	}
}

// patient is a transport that knows no failure: it tries until there is an answer, and answers that break off just end. Once it is
// silent, there is none to watches from a version on, as there is none of servers which have not had that yet.
type patient struct {
	http.RoundTripper
	silent *atomic.Bool
}

func (p patient) RoundTrip(r *http.Request) (*http.Response, error) {
	q := r.URL.Query()
	if p.silent.Load() && q.Get("watch") != "" && q.Get("resourceVersion") != "" {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	for {
		answer, err := p.RoundTripper.RoundTrip(r)
		switch {
		case err == nil && answer.StatusCode < http.StatusInternalServerError:
			if q.Get("watch") != "" {
				answer.Body = ending{answer.Body}
			}
			return answer, nil
		case r.Context().Err() != nil:
			return answer, err
		case err == nil:
			_ = answer.Body.Close() // it failed
		}
		select {
		case <-r.Context().Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// gate lets through what is asked of a server while it is open.
type gate struct {
	mu     sync.Mutex
	opened chan struct{} // closed while it is open
}

func newGate() *gate {
	g := &gate{opened: make(chan struct{})}
	close(g.opened)
	return g
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.opened = make(chan struct{})
}

func (g *gate) open() { close(g.through()) }

// through is closed when the gate is open.
func (g *gate) through() chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.opened
}

// gated is a transport through a gate. While that is shut, connections of watches break off, which the library tries again by itself, and
// other requests wait.
type gated struct {
	http.RoundTripper
	gate *gate
}

func (g gated) RoundTrip(r *http.Request) (*http.Response, error) {
	through := g.gate.through()
	if r.URL.Query().Get("watch") != "" {
		select {
		case <-through:
		default:
			return nil, io.ErrUnexpectedEOF
		}
	}
	select {
	case <-through:
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	return g.RoundTripper.RoundTrip(r)
}

// ending is a watch that does not break off, and takes more than a second to end: the client takes what is shorter for a failure.
type ending struct{ io.ReadCloser }

func (e ending) Read(b []byte) (int, error) {
	n, err := e.ReadCloser.Read(b)
	if err != nil {
		time.Sleep(1100 * time.Millisecond)
		err = io.EOF
	}
	return n, err
}

const rbacGroup = "rbac.authorization.k8s.io/v1"

// allow has a user do what the rule says, and nothing else.
func (c *cluster) allow(t *testing.T, user, rule string) {
	t.Helper()
	c.apply(t, rbacGroup, "clusterroles", fmt.Sprintf("{apiVersion: %s, kind: ClusterRole, metadata: {name: %s}, rules: [%s]}", rbacGroup, user, rule))
	c.apply(t, rbacGroup, "clusterrolebindings", fmt.Sprintf("{apiVersion: %[1]s, kind: ClusterRoleBinding, metadata: {name: %[2]s}, "+
		"roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: %[2]s}, subjects: [{kind: User, name: %[2]s}]}", rbacGroup, user))
}

// TestRightsTaken: a kind that may not be read any more is told of, and only that; what was read stays in force.
func TestRightsTaken(t *testing.T) {
	c := newCluster(t, kubetest.Start(t))
	user := c.namespace
	all := `{apiGroups: ["*"], resources: ["*"], verbs: [list, watch]}`
	c.allow(t, user, all)
	t.Cleanup(func() {
		c.delete(t, rbacGroup, "clusterrolebindings", "", user)
		c.delete(t, rbacGroup, "clusterroles", "", user)
	})
	p := c.placeFor(t, user, slog.New(slog.DiscardHandler))
	p.Put(t, "a", "1")
	l := sourcetest.Listen(t, p)
	l.Await(t, "a=1")

	p.Cut(t) // a watch that is open stays so
	c.allow(t, user, `{apiGroups: [""], resources: [services], verbs: [list, watch]}`)
	p.Mend(t)
	p.Put(t, "b", "1")
	l.Await(t, "a=1 b=1")
	lost := func(kind string) bool {
		return slices.ContainsFunc(l.Last().Findings, func(f model.Finding) bool {
			return f.Code == "SourceUnreadable" && f.File == Layer && strings.HasPrefix(f.Message, kind+" cannot be read since ") && strings.Contains(f.Message, "forbidden")
		})
	}
	l.AwaitThat(t, "a finding about Secrets", func() bool { return lost("Secret") })
	l.AwaitThat(t, "none about Services", func() bool { return !lost("Service") })

	c.allow(t, user, all)
	l.AwaitThat(t, "no finding any more", func() bool { return len(l.Last().Findings) == 0 })
}

// TestMayNotLead: who has no right to the lease is told so once, however often it is tried.
func TestMayNotLead(t *testing.T) {
	c := newCluster(t, kubetest.Start(t))
	tries := make(chan struct{}, 100)
	c.Config = rest.CopyConfig(c.Config)
	c.Config.Wrap(func(rt http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if strings.Contains(r.URL.Path, "/leases/") {
				tries <- struct{}{}
			}
			return rt.RoundTrip(r)
		})
	})
	var log lines
	p := c.placeFor(t, c.namespace, slog.New(slog.NewTextHandler(&log, nil)))
	s, _ := p.Source.(*Source)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Lead(ctx, "us", func(context.Context) { t.Error("it leads") }) }() // ends by cancel
	for range 4 {
		<-tries
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "level=WARN") || !strings.Contains(text, "forbidden") {
		t.Errorf("logged %q, want one warning", text)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// lines is a log, which may be written while it is read.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestSecrets: only those that may be certificates leave the server; ConfigMaps only with an authority in them.
func TestSecrets(t *testing.T) {
	c := newCluster(t, kubetest.Start(t))
	secret := func(name, kind string) {
		c.apply(t, "v1", "secrets", fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: default, labels: {%s: \"1\"}}\ntype: %s\nstringData: {password: word, username: name}\n",
			name, sourcetest.Label, kind))
	}
	secret("opaque", "Opaque")
	secret("login", "kubernetes.io/basic-auth")
	for name, key := range map[string]string{"with": authorityKey, "without": "x"} {
		c.apply(t, "v1", "configmaps", fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: default, labels: {%s: \"1\"}}\ndata: {%s: text}\n",
			name, sourcetest.Label, key))
	}
	sourcetest.Listen(t, c.place(t)).Await(t, "opaque=1 with=1")
}
