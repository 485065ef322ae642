package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/source/kube/kubetest"
	"github.com/weftmesh/weft/internal/control/status"
)

const (
	gatewayAPI   = "gateway.networking.k8s.io/v1"
	istioAPI     = "networking.istio.io/v1"
	ingressAPI   = "networking.k8s.io/v1"
	ourGateway   = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: %s, namespace: default}\nspec: {gatewayClassName: %s, listeners: [{name: http, port: 80, protocol: HTTP}]}\n"
	ourRoute     = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: %s, namespace: default}\nspec: {parentRefs: [{name: %s, sectionName: %s}], rules: [{matches: [{path: {type: %s, value: %q}}]}]}\n"
	unnamedRule  = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: %s, namespace: default}\nspec: {host: a.example, subsets: [{name: V_2, labels: {v: \"2\"}}]}\n"
	balancedRule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: %s, namespace: default}\nspec: {host: %s.example, trafficPolicy: {loadBalancer: {simple: RANDOM}}}\n"
)

// definitions installs the CRDs that the Gateway API and Istio publish.
func (c *cluster) definitions(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob(moduleDir(t, "sigs.k8s.io/gateway-api") + "/config/crd/standard/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no CRDs of the Gateway API", err)
	}
	for _, file := range append(files, moduleDir(t, "istio.io/api")+"/kubernetes/customresourcedefinitions.gen.yaml") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range bytes.Split(text, []byte("\n---")) {
			if bytes.Contains(doc, []byte("kind: CustomResourceDefinition")) {
				c.apply(t, "apiextensions.k8s.io/v1", "customresourcedefinitions", string(doc))
			}
		}
	}
}

func moduleDir(t *testing.T, module string) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// keeper is a source whose objects are compiled, and which keeps their statuses.
type keeper struct {
	*Source
	set *source.Set
}

func (c *cluster) keeper(t *testing.T) *keeper {
	t.Helper()
	return c.keeperBy(t, c.Config)
}

// keeperBy is a keeper that reaches the server by a configuration of its own.
func (c *cluster) keeperBy(t *testing.T, config *rest.Config) *keeper {
	t.Helper()
	s, err := New(Options{Config: config, Namespace: c.namespace, Check: compile.Check, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return c.keeperOf(t, s)
}

// keeperOf compiles what a source gives.
func (c *cluster) keeperOf(t *testing.T, s *Source) *keeper {
	t.Helper()
	k := &keeper{Source: s, set: source.NewSet(source.Layers{Others: []source.Source{s}}, nil)}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- k.set.Run(ctx) }() // ends with the test
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return k
}

func (k *keeper) keep(ctx context.Context) {
	f := k.set.Follow(ctx)
	k.KeepStatuses(ctx, f.Changed(), func() status.Input {
		f.Take()
		snapshot := k.set.Snapshot()
		if snapshot == nil {
			return status.Input{}
		}
		mesh, findings := compile.Compile(compile.Input{Objects: snapshot.Objects()})
		return status.Input{Objects: snapshot.Objects(), Mesh: mesh, Findings: slices.Concat(snapshot.Findings(), findings), Addresses: []string{"192.0.2.1"}}
	})
}

// start keeps statuses until stop or the test's end.
func (k *keeper) start(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() { defer close(ended); k.keep(ctx) }() // ends with stop
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	return stop
}

// state gives an object's resource version and its status as YAML.
func (c *cluster) state(t *testing.T, groupVersion, plural, name string) (version, text string) {
	t.Helper()
	u, err := c.resource(groupVersion, plural, c.namespace).Get(context.WithoutCancel(t.Context()), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := yaml.Marshal(u.Object["status"])
	if err != nil {
		t.Fatal(err)
	}
	return u.GetResourceVersion(), string(raw)
}

// await waits until an object's status has all of the words, and none of those that begin with "!"; it gives the resource version.
func (c *cluster) await(t *testing.T, groupVersion, plural, name string, words ...string) string {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		version, text := c.state(t, groupVersion, plural, name)
		if !slices.ContainsFunc(words, func(w string) bool {
			rest, not := strings.CutPrefix(w, "!")
			return strings.Contains(text, rest) == not
		}) {
			return version
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s %s: want %q, have:\n%s", plural, name, words, text)
		}
	}
}

func (c *cluster) patchStatus(t *testing.T, groupVersion, plural, name string, status any) {
	t.Helper()
	text, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.resource(groupVersion, plural, c.namespace).Patch(t.Context(), name, types.MergePatchType, text, metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
}

// TestStatuses: what is accepted and what is refused is told where users of each API look for it; what others say there stays;
// nothing is written twice; what somebody damages is put right; what is not ours any more is given up.
func TestStatuses(t *testing.T) {
	c := newCluster(t, kubetest.Own(t))
	c.definitions(t)
	c.apply(t, gatewayAPI, "gateways", fmt.Sprintf(ourGateway, "ours", "weft"))
	c.apply(t, gatewayAPI, "gateways", fmt.Sprintf(ourGateway, "theirs", "other"))
	c.apply(t, gatewayAPI, "httproutes", fmt.Sprintf(ourRoute, "good", "ours", "http", "PathPrefix", "/good"))
	c.apply(t, gatewayAPI, "httproutes", fmt.Sprintf(ourRoute, "lost", "ours", "nowhere", "PathPrefix", "/lost"))
	c.apply(t, gatewayAPI, "httproutes", fmt.Sprintf(ourRoute, "bad", "ours", "http", "RegularExpression", "/("))
	c.apply(t, gatewayAPI, "httproutes", fmt.Sprintf(ourRoute, "foreign", "theirs", "http", "PathPrefix", "/"))
	c.apply(t, istioAPI, "destinationrules", fmt.Sprintf(balancedRule, "good", "good"))
	c.apply(t, istioAPI, "destinationrules", fmt.Sprintf(unnamedRule, "bad"))
	other := map[string]any{"parentRef": map[string]any{"name": "else"}, "controllerName": "example.com/other", "conditions": []any{
		map[string]any{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2024-01-01T12:00:00Z"}}}
	c.patchStatus(t, gatewayAPI, "httproutes", "good", map[string]any{"parents": []any{other}})
	k := c.keeper(t)
	k.start(t)

	c.await(t, gatewayAPI, "gateways", "ours", "type: Accepted", "attachedRoutes: 1", "192.0.2.1", "observedGeneration: 1", "!Pending")
	good := c.await(t, gatewayAPI, "httproutes", "good", "example.com/other", "weft.dev/gateway-controller", "reason: Accepted", "reason: ResolvedRefs")
	c.await(t, gatewayAPI, "httproutes", "lost", "reason: NoMatchingParent")
	c.await(t, gatewayAPI, "httproutes", "bad", "reason: UnsupportedValue", `status: "False"`)
	rule := c.await(t, istioAPI, "destinationrules", "good", "reason: Reconciled", `status: "True"`)
	c.await(t, istioAPI, "destinationrules", "bad", `status: "False"`, "subsets")
	_, foreign := c.state(t, gatewayAPI, "httproutes", "foreign")
	if strings.Contains(foreign, "weft") {
		t.Errorf("somebody else's route: %s", foreign)
	}

	// A further change is written, and nothing else is.
	c.apply(t, gatewayAPI, "httproutes", fmt.Sprintf(ourRoute, "lost", "ours", "http", "PathPrefix", "/found"))
	c.await(t, gatewayAPI, "httproutes", "lost", "reason: Accepted", "observedGeneration: 2", "!NoMatchingParent")
	if v, _ := c.state(t, gatewayAPI, "httproutes", "good"); v != good {
		t.Error("the good route was written again")
	}
	if v, _ := c.state(t, istioAPI, "destinationrules", "good"); v != rule {
		t.Error("the good rule was written again")
	}
	// A refused version that follows an accepted one falls back, and says so of the generation that it is about.
	c.apply(t, gatewayAPI, "httproutes", fmt.Sprintf(ourRoute, "lost", "ours", "http", "RegularExpression", "/("))
	c.await(t, gatewayAPI, "httproutes", "lost", "type: PartiallyInvalid", "observedGeneration: 3", "!observedGeneration: 2")
	c.patchStatus(t, istioAPI, "destinationrules", "good", map[string]any{"conditions": nil})
	c.await(t, istioAPI, "destinationrules", "good", "reason: Reconciled")
	c.apply(t, gatewayAPI, "httproutes", fmt.Sprintf(ourRoute, "good", "theirs", "http", "PathPrefix", "/good"))
	c.await(t, gatewayAPI, "httproutes", "good", "example.com/other", "!weft.dev")
}

// TestStatusesSurviveTheServer: a server that restarts is written to when it is back; a keeper that starts anew has nothing to
// write.
func TestStatusesSurviveTheServer(t *testing.T) {
	c := newCluster(t, kubetest.Own(t))
	c.definitions(t)
	c.apply(t, istioAPI, "destinationrules", fmt.Sprintf(balancedRule, "a", "a"))
	stop := c.keeper(t).start(t)
	a := c.await(t, istioAPI, "destinationrules", "a", "reason: Reconciled")
	c.Down(t)
	c.Up(t)
	c.apply(t, istioAPI, "destinationrules", fmt.Sprintf(balancedRule, "b", "b"))
	b := c.await(t, istioAPI, "destinationrules", "b", "reason: Reconciled")
	stop()
	c.keeper(t).start(t)
	c.apply(t, istioAPI, "destinationrules", fmt.Sprintf(balancedRule, "c", "c"))
	c.await(t, istioAPI, "destinationrules", "c", "reason: Reconciled")
	for name, version := range map[string]string{"a": a, "b": b} {
		if now, _ := c.state(t, istioAPI, "destinationrules", name); now != version {
			t.Errorf("%s was written again", name)
		}
	}
}

// TestLead: one of two leads at a time, and the other one when it ends, which gives the lease up rather than let it run out.
func TestLead(t *testing.T) {
	c := newCluster(t, kubetest.Start(t))
	var leaders atomic.Int32
	led := make(chan int, 10)
	stops, ended := make([]context.CancelFunc, 2), make([]chan struct{}, 2)
	for i := range stops {
		s, err := New(Options{Config: c.Config, Namespace: c.namespace, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		var ctx context.Context
		ctx, stops[i] = context.WithCancel(context.WithoutCancel(t.Context()))
		ended[i] = make(chan struct{})
		go func() { // ends with stop
			defer close(ended[i])
			if err := s.Lead(ctx, fmt.Sprint(i), func(ctx context.Context) {
				if leaders.Add(1) > 1 {
					t.Error("two lead at once")
				}
				led <- i
				<-ctx.Done()
				leaders.Add(-1)
			}); err != nil {
				t.Error(err)
			}
		}()
		t.Cleanup(func() { stops[i](); <-ended[i] })
	}
	first := <-led
	stops[first]()
	<-ended[first]
	lease, err := c.resource("coordination.k8s.io/v1", "leases", c.namespace).Get(t.Context(), LeaseName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if holder, _, _ := unstructured.NestedString(lease.Object, "spec", "holderIdentity"); holder == fmt.Sprint(first) {
		t.Error("the lease was not given up")
	}
	select {
	case second := <-led:
		if second == first {
			t.Error("the same one leads again")
		}
	case <-time.After(patience):
		t.Error("nobody else leads")
	}
}
