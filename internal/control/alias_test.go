package control

import (
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/control/source"
)

// TestAliasFollowsItsService: a further name of a service has the ports that the service has now. The alias itself never changes.
func TestAliasFollowsItsService(t *testing.T) {
	c := start(t, shortDir(t))
	c.report(nil)
	const target = `
apiVersion: v1
kind: Service
metadata: {name: opinions, namespace: default}
spec: {clusterIP: 10.78.0.9, ports: [{name: http, port: 9080}]}
`
	apply := func(text string) {
		t.Helper()
		if _, findings, err := c.Apply(t.Context(), decode(t, source.LayerApplied, text)); err != nil || source.HasErrors(findings) {
			t.Fatal(findings, err)
		}
	}
	apply(target)
	apply(`
apiVersion: v1
kind: Service
metadata: {name: views, namespace: default}
spec: {type: ExternalName, externalName: opinions.default.svc.cluster.local}
`)
	p := c.proxy()
	const old, fresh = "views:9080", "views:9081"
	p.subscribe(generate.ListenerType, old)
	p.want(generate.ListenerType, old)
	p.subscribe(generate.ListenerType, fresh)
	p.want(generate.ListenerType, "-"+fresh)

	apply(strings.Replace(target, "ports: [", "ports: [{name: http-more, port: 9081}, ", 1))
	p.want(generate.ListenerType, fresh)

	if _, err := c.Delete(t.Context(), []source.Key{{Kind: "Service", Namespace: "default", Name: "opinions"}}); err != nil {
		t.Fatal(err)
	}
	p.want(generate.ListenerType, "-"+old, "-"+fresh)
	if f := c.Findings(); len(f) != 1 || f[0].Code != "HostNotFound" || f[0].Field != "spec.externalName" {
		t.Errorf("findings: %v", f)
	}

	apply(target)
	p.want(generate.ListenerType, old)
	if f := c.Findings(); len(f) > 0 {
		t.Errorf("findings: %v", f)
	}
}
