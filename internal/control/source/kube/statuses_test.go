package kube

import (
	"context"
	"fmt"
	"net/http"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/source/kube/kubetest"
)

// tally counts the statuses that are written, by kind and name ("httproutes/a").
type tally struct {
	mu      sync.Mutex
	writes  map[string]int
	before  func(object string) // called ahead of each write; may be nil
	refused map[string]int      // by the status of the answer
}

// by gives a configuration of which the writes are counted.
func (y *tally) by(config *rest.Config) *rest.Config {
	y.writes, y.refused = map[string]int{}, map[string]int{}
	config = rest.CopyConfig(config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) { return y.trip(next, r) })
	})
	return config
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (y *tally) trip(next http.RoundTripper, r *http.Request) (*http.Response, error) {
	object, status := strings.CutSuffix(r.URL.Path, "/status")
	if r.Method != http.MethodPatch || !status {
		return next.RoundTrip(r)
	}
	object = path.Join(path.Base(path.Dir(object)), path.Base(object))
	if y.before != nil {
		y.before(object)
	}
	answer, err := next.RoundTrip(r)
	y.mu.Lock()
	defer y.mu.Unlock()
	y.writes[object]++
	if err == nil && answer.StatusCode != http.StatusOK {
		y.refused[fmt.Sprint(answer.StatusCode)]++
	}
	return answer, err
}

// of gives how often statuses of objects were written whose names begin so.
func (y *tally) of(prefix string) (n int) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for object, writes := range y.writes {
		if strings.HasPrefix(object, prefix) {
			n += writes
		}
	}
	return n
}

func (y *tally) answered(status string) int {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.refused[status]
}

// passed waits until a keeper has judged whatever was applied before: it writes in one pass what it finds, and a rule that comes last
// is found last.
func (c *cluster) passed(t *testing.T, name string) {
	t.Helper()
	c.apply(t, istioAPI, "destinationrules", fmt.Sprintf(balancedRule, name, name))
	c.await(t, istioAPI, "destinationrules", name, "reason: Reconciled")
}

const reader = `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: %[1]s}
rules:
- {apiGroups: ["*"], resources: ["*"], verbs: [get, list, watch]}
- {apiGroups: [networking.istio.io], resources: [destinationrules/status], verbs: [patch]}
- {apiGroups: [gateway.networking.k8s.io], resources: [%[2]s], verbs: [patch]}
`

// TestForbiddenStatuses: a kind whose statuses may not be written holds up no other, and is not asked about at every change.
func TestForbiddenStatuses(t *testing.T) {
	c := newCluster(t, kubetest.Own(t))
	c.definitions(t)
	c.apply(t, "rbac.authorization.k8s.io/v1", "clusterroles", fmt.Sprintf(reader, "weft-reader", "nothing/status"))
	c.apply(t, "rbac.authorization.k8s.io/v1", "clusterrolebindings", "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: weft-reader}\n"+
		"roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: weft-reader}\nsubjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: weft}]\n")
	c.apply(t, gatewayAPI, "gateways", fmt.Sprintf(ourGateway, "ours", "weft"))
	for i := range 5 {
		c.apply(t, gatewayAPI, "httproutes", fmt.Sprintf(ourRoute, fmt.Sprintf("r%d", i), "ours", "http", "PathPrefix", "/"))
	}
	var written tally
	config := written.by(c.Config)
	config.Impersonate.UserName = "weft"
	awaitRight(t, config, c.namespace, "list networking.istio.io destinationrules", true)
	awaitRight(t, config, c.namespace, "patch networking.istio.io destinationrules/status", true)
	began := time.Now()
	c.keeperBy(t, config).start(t)
	for i := range 3 {
		c.passed(t, fmt.Sprintf("rule-%d", i))
	}
	most := 1 + int(time.Since(began)/refusedPause) // then it is asked again
	if n := written.of("httproutes/"); n < 1 || n > most {
		t.Errorf("the server was asked %d times to write statuses of HTTPRoutes, which it forbids", n)
	}
	if n := written.of("gateways/"); n < 1 || n > most {
		t.Errorf("the server was asked %d times to write statuses of Gateways, which it forbids", n)
	}
	if n := written.answered("403"); n == 0 {
		t.Error("nothing was forbidden: the test proves nothing")
	}
	if n := written.of("destinationrules/"); n != 3 {
		t.Errorf("3 rules got %d statuses", n)
	}
}

// TestConflictingStatuses: who was quicker keeps what it wrote, and ours is written on top of it at once.
func TestConflictingStatuses(t *testing.T) {
	c := newCluster(t, kubetest.Own(t))
	c.definitions(t)
	c.apply(t, gatewayAPI, "gateways", fmt.Sprintf(ourGateway, "ours", "weft"))
	c.apply(t, gatewayAPI, "httproutes", fmt.Sprintf(ourRoute, "contended", "ours", "http", "PathPrefix", "/"))
	var written tally
	var once sync.Once
	written.before = func(object string) {
		if object != "httproutes/contended" {
			return
		}
		once.Do(func() {
			patch := `{"status": {"parents": [{"parentRef": {"name": "else"}, "controllerName": "example.com/other", "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2024-01-01T12:00:00Z"}]}]}}`
			if _, err := c.resource(gatewayAPI, "httproutes", c.namespace).Patch(context.WithoutCancel(t.Context()), "contended", types.MergePatchType, []byte(patch), metav1.PatchOptions{}, "status"); err != nil {
				t.Error(err)
			}
		})
	}
	c.keeperBy(t, written.by(c.Config)).start(t)
	c.await(t, gatewayAPI, "httproutes", "contended", "example.com/other", "weft.dev/gateway-controller", "reason: ResolvedRefs")
	c.passed(t, "rule") // what is seen may still be on its way to whom it is counted for
	if n := written.answered("409") + written.answered("422"); n != 1 {
		t.Errorf("%d conflicts", n)
	}
	if n := written.of("httproutes/contended"); n != 2 {
		t.Errorf("it was written %d times", n)
	}
}

// TestIngressStatuses: an Ingress of ours has the gateway's addresses; what somebody else says of one of theirs stays.
func TestIngressStatuses(t *testing.T) {
	c := newCluster(t, kubetest.Own(t))
	c.definitions(t)
	const ingress = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: %s, namespace: default}\nspec: {ingressClassName: %s, defaultBackend: {service: {name: web, port: {number: 80}}}}\n"
	c.apply(t, ingressAPI, "ingresses", fmt.Sprintf(ingress, "ours", "weft"))
	c.apply(t, ingressAPI, "ingresses", fmt.Sprintf(ingress, "theirs", "other"))
	c.patchStatus(t, ingressAPI, "ingresses", "theirs", map[string]any{"loadBalancer": map[string]any{"ingress": []any{map[string]any{"ip": "198.51.100.7"}}}})
	c.keeper(t).start(t)
	c.await(t, ingressAPI, "ingresses", "ours", "ip: 192.0.2.1")
	c.passed(t, "rule")
	c.await(t, ingressAPI, "ingresses", "theirs", "ip: 198.51.100.7", "!192.0.2.1")
	c.apply(t, ingressAPI, "ingresses", fmt.Sprintf(ingress, "theirs", "weft"))
	c.await(t, ingressAPI, "ingresses", "theirs", "ip: 192.0.2.1")
	c.apply(t, ingressAPI, "ingresses", fmt.Sprintf(ingress, "ours", "other"))
	c.patchStatus(t, ingressAPI, "ingresses", "ours", map[string]any{"loadBalancer": map[string]any{"ingress": []any{map[string]any{"ip": "198.51.100.8"}}}})
	c.passed(t, "rule-2")
	c.await(t, ingressAPI, "ingresses", "ours", "ip: 198.51.100.8", "!192.0.2.1")
}

// TestStatusesAreWrittenOnce: one write for each object, and none for changes that say nothing new of it.
func TestStatusesAreWrittenOnce(t *testing.T) {
	c := newCluster(t, kubetest.Own(t))
	c.definitions(t)
	const rules = 100
	for i := range rules {
		name := fmt.Sprintf("rule-%03d", i)
		c.apply(t, istioAPI, "destinationrules", fmt.Sprintf(balancedRule, name, name))
	}
	var written tally
	c.keeperBy(t, written.by(c.Config)).start(t)
	c.passed(t, "z-1")
	if n := written.of("destinationrules/rule-"); n != rules {
		t.Errorf("%d rules got %d writes", rules, n)
	}
	for i := range 5 {
		name := fmt.Sprintf("s%d", i)
		c.apply(t, "v1", "services", fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: default}\nspec: {ports: [{port: 80}]}\n", name))
		c.apply(t, istioAPI, "destinationrules", strings.Replace(fmt.Sprintf(balancedRule, "rule-000", "rule-000"), "namespace: default", "namespace: default, labels: {n: "+name+"}", 1))
	}
	c.passed(t, "z-2")
	if n := written.of("destinationrules/rule-"); n != rules {
		t.Errorf("%d writes more, and nothing to say", n-rules)
	}
}

// TestLostLease: a leader whose lease another one has taken writes nothing any more.
func TestLostLease(t *testing.T) {
	c := newCluster(t, kubetest.Own(t))
	c.definitions(t)
	c.apply(t, istioAPI, "destinationrules", fmt.Sprintf(balancedRule, "before", "before"))
	var written tally
	k := c.keeperBy(t, written.by(c.Config))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	lost, ended := make(chan struct{}, 1), make(chan struct{})
	go func() { // ends with the test
		defer close(ended)
		if err := k.Lead(ctx, "us", func(ctx context.Context) {
			k.keep(ctx)
			lost <- struct{}{}
		}); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	c.await(t, istioAPI, "destinationrules", "before", "reason: Reconciled")
	c.takeLease(t, k.options.Namespace)
	select {
	case <-lost:
	case <-time.After(patience):
		t.Fatal("it leads on without the lease")
	}
	so := written.of("")
	c.apply(t, istioAPI, "destinationrules", fmt.Sprintf(balancedRule, "after", "after"))
	for deadline := time.Now().Add(patience); !k.has(source.Key{Group: "networking.istio.io", Kind: "DestinationRule", Namespace: c.namespace, Name: "after"}); {
		if time.Now().After(deadline) {
			t.Fatal("the rule does not arrive")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if _, text := c.state(t, istioAPI, "destinationrules", "after"); strings.Contains(text, "Reconciled") || written.of("") != so {
		t.Errorf("it was written without the lease: %s", text)
	}
}

// TestStatusesRestored: when etcd is restored from a backup that is older than a status and the lease, both are written again.
func TestStatusesRestored(t *testing.T) {
	c := newCluster(t, kubetest.Own(t))
	c.definitions(t)
	c.apply(t, istioAPI, "destinationrules", fmt.Sprintf(balancedRule, "rule", "rule"))
	restore := c.Backup(t)
	k := c.keeper(t)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() { // ends with the test
		defer close(ended)
		if err := k.Lead(ctx, "us", k.keep); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	c.await(t, istioAPI, "destinationrules", "rule", "reason: Reconciled")
	restore()
	c.await(t, istioAPI, "destinationrules", "rule", "reason: Reconciled")
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		_, err := c.resource("coordination.k8s.io/v1", "leases", c.namespace).Get(t.Context(), LeaseName, metav1.GetOptions{})
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// takeLease has somebody else hold the lease.
func (c *cluster) takeLease(t *testing.T, namespace string) {
	t.Helper()
	now := metav1.NowMicro().UTC().Format("2006-01-02T15:04:05.000000Z")
	patch := fmt.Sprintf(`{"spec": {"holderIdentity": "them", "leaseDurationSeconds": 3600, "acquireTime": %q, "renewTime": %q}}`, now, now)
	if _, err := c.resource("coordination.k8s.io/v1", "leases", namespace).Patch(t.Context(), LeaseName, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

// has reports whether an object has been read.
func (k *keeper) has(key source.Key) bool {
	snapshot := k.set.Snapshot()
	if snapshot == nil {
		return false
	}
	for _, o := range snapshot.Objects() {
		if o.Key() == key {
			return true
		}
	}
	return false
}
