package source

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	securityapi "istio.io/api/security/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"
)

func policy(rest string) string {
	return "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\n" + rest + "\n"
}

// standIn gives the policy that stands in for the refused one, if any.
func standIn(t *testing.T, s state) *security.AuthorizationPolicy {
	t.Helper()
	for _, o := range s.Objects {
		if p, ok := o.Kube.(*security.AuthorizationPolicy); ok {
			return p
		}
	}
	return nil
}

func TestRefusedPolicyFailsClosed(t *testing.T) {
	const broken = "rules: [{form: []}]"
	for name, c := range map[string]struct {
		text   string
		labels map[string]string
		denies bool
	}{
		"selected":      {policy("spec: {selector: {matchLabels: {app: web, v: '1'}}, action: ALLOW, " + broken + "}"), map[string]string{"app": "web", "v": "1"}, true},
		"all":           {policy("spec: {action: DENY, " + broken + "}"), nil, true},
		"wrong action":  {policy("spec: {action: ALOW}"), nil, true},
		"audit":         {policy("spec: {action: AUDIT, " + broken + "}"), nil, false},
		"dry run":       {strings.Replace(policy("spec: {"+broken+"}"), "namespace", "annotations: {istio.io/dry-run: 'true'}, namespace", 1), nil, false},
		"whom for":      {policy("spec: {selector: {matchLabel: {app: web}}, " + broken + "}"), nil, false},
		"bad labels":    {policy("spec: {selector: {matchLabels: [app]}, " + broken + "}"), nil, false},
		"targets":       {policy("spec: {targetRefs: [{kind: Gateway, nam: x}]}"), nil, false},
		"no spec":       {policy("spek: {}"), nil, false},
		"other kind":    {strings.Replace(policy("spec: {mtlz: {}}"), "AuthorizationPolicy", "PeerAuthentication", 1), nil, false},
		"name is wrong": {strings.Replace(policy("spec: {"+broken+"}"), "name: p", "name: [p]", 1), nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, "p.yaml", c.text)
			write(t, dir, "a.yaml", service("a", "1"))
			l := listen(t, quick(dir))
			s := l.awaitState(t, func(s state) bool { return len(s.Findings) > 0 && len(s.Objects) > 0 }, "findings")
			p := standIn(t, s)
			if (p != nil) != c.denies {
				t.Fatalf("stands in: %v, findings %v", p, s.Findings)
			}
			told := 0
			for _, f := range s.Findings {
				if f.Code == "PolicyFailsClosed" && f.File == filepath.Join(dir, "p.yaml") && f.Line == 1 && f.Object.Name == "p" {
					told++
				}
			}
			if p == nil {
				if told != 0 {
					t.Errorf("told of what is not: %v", s.Findings)
				}
				return
			}
			if told != 1 || p.Name != "p" || p.Namespace != "shop" || p.Spec.Action != securityapi.AuthorizationPolicy_DENY ||
				len(p.Spec.Rules) != 1 || len(p.Spec.Rules[0].From)+len(p.Spec.Rules[0].To)+len(p.Spec.Rules[0].When) != 0 ||
				len(p.Spec.Selector.GetMatchLabels()) != len(c.labels) {
				t.Errorf("stands in: %v, findings %v", p, s.Findings)
			}
			for k, v := range c.labels {
				if p.Spec.Selector.MatchLabels[k] != v {
					t.Errorf("selects %v", p.Spec.Selector)
				}
			}
			write(t, dir, "p.yaml", policy("spec: {}"))
			s = l.awaitState(t, func(s state) bool { return len(s.Findings) == 0 }, "no findings")
			if p := standIn(t, s); p == nil || p.Spec.Action != securityapi.AuthorizationPolicy_ALLOW {
				t.Errorf("after it was put right: %v", p)
			}
			// Broken again, it is the accepted version that stays.
			write(t, dir, "p.yaml", c.text)
			s = l.awaitState(t, func(s state) bool { return len(s.Findings) > 0 }, "findings")
			if p := standIn(t, s); p == nil || p.Spec.Action != securityapi.AuthorizationPolicy_ALLOW {
				t.Errorf("broken after it was right: %v", p)
			}
		})
	}
}

// TestStandInIsNotRemembered: over a restart, what stands in is not taken for a version that was accepted.
func TestStandInIsNotRemembered(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "db")
	write(t, dir, "p.yaml", policy("spec: {rules: 1}"))
	for range 2 {
		store, err := OpenStore(file)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		s := NewSet(Layers{Files: quick(dir), Applied: store}, nil)
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		<-s.Ready()
		if got := summary(s.Snapshot().Objects(), s.Snapshot().Findings()); got != "p= !PolicyFailsClosed !WrongType" {
			t.Errorf("got %q: %v", got, s.Snapshot().Findings())
		}
		cancel()
		if err := errors.Join(<-done, store.Close()); err != nil {
			t.Fatal(err)
		}
	}
}
