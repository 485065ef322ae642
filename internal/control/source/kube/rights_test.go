package kube

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	authorization "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/source/kube/kubetest"
	"github.com/weftmesh/weft/internal/control/source/sourcetest"
	"github.com/weftmesh/weft/internal/control/status"
)

// rightsFile has the roles that users apply.
const rightsFile = "../../../../deploy/kubernetes/rbac.yaml"

const rightsNamespace = "weft-system"

// rightsDocuments gives the file's documents.
func rightsDocuments(t *testing.T) (docs []string) {
	t.Helper()
	text, err := os.ReadFile(rightsFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range bytes.Split(text, []byte("\n---\n")) {
		docs = append(docs, string(doc))
	}
	return docs
}

// grants gives the rights of one of some documents' roles, as "verb group resource".
func grants(docs []string, role string) map[string]bool {
	all := map[string]bool{}
	for _, doc := range docs {
		var r rbacv1.ClusterRole // a Role has the same fields
		if err := yaml.Unmarshal([]byte(doc), &r); err != nil || r.Name != role {
			continue
		}
		for _, rule := range r.Rules {
			for _, g := range rule.APIGroups {
				for _, res := range rule.Resources {
					for _, v := range rule.Verbs {
						all[strings.Join([]string{v, g, res}, " ")] = true
					}
				}
			}
		}
	}
	return all
}

// TestRightsAreWhatIsUsed: the file gives the rights on each kind that is read, and on each whose status is written, and no others.
func TestRightsAreWhatIsUsed(t *testing.T) {
	read := map[string]bool{"list apiextensions.k8s.io customresourcedefinitions": true, "watch apiextensions.k8s.io customresourcedefinitions": true}
	write := map[string]bool{}
	for _, k := range source.Kinds() {
		for _, v := range []string{"list", "watch"} {
			read[v+" "+k.Group+" "+plural(k)] = true
		}
		if status.Of(k.New()) != nil {
			write["get "+k.Group+" "+plural(k)] = true
			write["patch "+k.Group+" "+plural(k)+"/status"] = true
		}
	}
	lead := map[string]bool{}
	for _, v := range []string{"get", "create", "update"} {
		lead[v+" coordination.k8s.io leases"] = true
	}
	for role, want := range map[string]map[string]bool{"weft-read": read, "weft-write": write, "weft-lead": lead} {
		got := grants(rightsDocuments(t), role)
		for right := range want {
			if !got[right] {
				t.Errorf("%s lacks %s", role, right)
			}
		}
		for right := range got {
			if !want[right] {
				t.Errorf("%s gives %s, which is not used", role, right)
			}
		}
	}
}

// plural is the resource of a kind.
func plural(k *source.Kind) string {
	name := strings.ToLower(k.Name)
	switch {
	case strings.HasSuffix(name, "s"):
		return name + "es"
	case strings.HasSuffix(name, "y") && !strings.HasSuffix(name, "way"):
		return strings.TrimSuffix(name, "y") + "ies"
	}
	return name + "s"
}

// applyRights applies the file as it is, save what edit makes of its documents, and gives what reaches the server as its account.
func (c *cluster) applyRights(t *testing.T, edit func(string) string) *rest.Config {
	t.Helper()
	docs := rightsDocuments(t)
	var edited []string
	for _, doc := range docs {
		doc = edit(doc)
		edited = append(edited, doc)
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(doc), &u.Object); err != nil {
			t.Fatal(err)
		}
		gv, resource := u.GetAPIVersion(), strings.ToLower(u.GetKind())+"s"
		c.applyTo(t, c.resource(gv, resource, u.GetNamespace()), u)
	}
	config := c.As(t, rightsNamespace, "weft")
	for _, role := range []string{"weft-read", "weft-write", "weft-lead"} {
		given := grants(edited, role)
		for right := range grants(docs, role) {
			awaitRight(t, config, rightsNamespace, right, given[right])
		}
	}
	return config
}

// awaitRight waits until the server goes by what was said of a right, as in grants, which it learns a moment after it was written.
func awaitRight(t *testing.T, config *rest.Config, namespace, right string, given bool) {
	t.Helper()
	config = rest.CopyConfig(config)
	config.QPS = -1
	client, err := authorization.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Split(right, " ")
	resource, part, _ := strings.Cut(words[2], "/")
	name := ""
	if resource == "leases" {
		name = LeaseName // the only one
	}
	question := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
		Namespace: namespace, Verb: words[0], Group: words[1], Resource: resource, Subresource: part, Name: name}}}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		answer, err := client.SelfSubjectAccessReviews().Create(context.WithoutCancel(t.Context()), question, metav1.CreateOptions{})
		if err == nil && answer.Status.Allowed == given {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: want %v, got %v (%v)", right, given, answer.Status, err)
		}
	}
}

// without takes a resource out of a role of the file.
func without(role, resource string) func(string) string {
	return func(doc string) string {
		var r rbacv1.ClusterRole
		if err := yaml.Unmarshal([]byte(doc), &r); err != nil || r.Name != role || r.Kind != "ClusterRole" {
			return doc
		}
		for i := range r.Rules {
			r.Rules[i].Resources = slices.DeleteFunc(r.Rules[i].Resources, func(s string) bool { return s == resource })
		}
		r.Rules = slices.DeleteFunc(r.Rules, func(rule rbacv1.PolicyRule) bool { return len(rule.Resources) == 0 })
		text, err := yaml.Marshal(r)
		if err != nil {
			panic(err)
		}
		return string(text)
	}
}

func asItIs(doc string) string { return doc }

// TestRightsAreEnough: with what the file gives, everything is read, a leader is found, and statuses are written.
func TestRightsAreEnough(t *testing.T) {
	c := newCluster(t, kubetest.Own(t))
	c.definitions(t)
	config := c.applyRights(t, asItIs)
	c.apply(t, istioAPI, "destinationrules", fmt.Sprintf(balancedRule, "a", "a"))
	c.apply(t, gatewayAPI, "httproutes", fmt.Sprintf(ourRoute, "r", "gw", "http", "PathPrefix", "/"))
	c.apply(t, gatewayAPI, "gateways", fmt.Sprintf(ourGateway, "gw", "weft"))
	var log lines
	s, err := New(Options{Config: config, Namespace: rightsNamespace, Check: compile.Check, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		t.Fatal(err)
	}
	k := c.keeperOf(t, s)
	select {
	case <-k.set.Ready():
	case <-time.After(patience):
		_, findings := k.set.Waiting()
		t.Fatalf("it waits: %v", findings)
	}
	if f := about(k.set.Snapshot().Findings(), "SourceUnreadable"); len(f) > 0 {
		t.Errorf("findings: %v", f)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Lead(ctx, "us", k.keep) }() // ends by cancel
	c.await(t, istioAPI, "destinationrules", "a", "reason: Reconciled")
	c.await(t, gatewayAPI, "gateways", "gw", "reason: Accepted")
	c.await(t, gatewayAPI, "httproutes", "r", "reason: Accepted")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if text := log.String(); strings.Contains(text, "forbidden") {
		t.Errorf("logged %s", text)
	}
}

func about(all []model.Finding, code string) []model.Finding {
	return slices.DeleteFunc(slices.Clone(all), func(f model.Finding) bool { return f.Code != code })
}

// TestRightsMissing: a kind that may not be read is named with what a role needs for it, holds up the start, and is taken when the right is
// given; one of which nothing is made that proxies get is named too, and not waited for.
func TestRightsMissing(t *testing.T) {
	server := kubetest.Own(t)
	for _, missing := range []struct {
		resource, kind, group string
		waited                bool
	}{{"secrets", "Secret", `""`, true}, {"ingressclasses", "IngressClass", "networking.k8s.io", true},
		{"deployments", "Deployment", "apps", false}, {"serviceaccounts", "ServiceAccount", `""`, false}} {
		t.Run(missing.resource, func(t *testing.T) {
			c := newCluster(t, server)
			config := c.applyRights(t, without("weft-read", missing.resource))
			s, err := New(Options{Config: config, Namespace: rightsNamespace, Check: compile.Check, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			p := c.place(t)
			p.Put(t, "a", "1")
			p.Source = s
			l := sourcetest.Listen(t, p)
			need := fmt.Sprintf("a role needs {apiGroups: [%s], resources: [%s], verbs: [list, watch]}", missing.group, missing.resource)
			l.AwaitThat(t, need, func() bool {
				f := about(l.Last().Findings, "SourceUnreadable")
				return len(f) == 1 && strings.HasPrefix(f[0].Message, missing.kind+" cannot be read since ") && strings.HasSuffix(f[0].Message, need) &&
					strings.Contains(f[0].Message, "cannot list resource")
			})
			if !missing.waited {
				l.Await(t, "a=1")
			} else if l.Spoken() {
				t.Error("it did not wait")
			}
			c.applyRights(t, asItIs)
			l.Await(t, "a=1")
			l.AwaitThat(t, "no finding any more", func() bool { return len(l.Last().Findings) == 0 })
		})
	}
}

// TestKindGoesWhileWaited: a start does not wait for a kind that is not served any more.
func TestKindGoesWhileWaited(t *testing.T) {
	c := newCluster(t, kubetest.Own(t))
	p := c.place(t)
	p.Put(t, "a", "1")
	c.apply(t, "apiextensions.k8s.io/v1", "customresourcedefinitions", virtualServices)
	c.apply(t, "networking.istio.io/v1", "virtualservices", virtualService("vs", "1", "http: [{route: [{destination: {host: x}}]}]")) // served by now
	s, err := New(Options{Config: c.applyRights(t, without("weft-read", "virtualservices")), Check: compile.Check, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	p.Source = s
	l := sourcetest.Listen(t, p)
	l.AwaitThat(t, "a finding", func() bool { return len(about(l.Last().Findings, "SourceUnreadable")) > 0 })
	c.delete(t, "apiextensions.k8s.io/v1", "customresourcedefinitions", "", "virtualservices.networking.istio.io")
	l.Await(t, "a=1")
	l.AwaitThat(t, "no finding any more", func() bool { return len(l.Last().Findings) == 0 })
}
