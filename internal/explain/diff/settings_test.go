package diff_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/explain/diff"
)

// TestSettingsThatNoRequestShows: what proxies are told otherwise is said, also where no request of the comparison tells.
func TestSettingsThatNoRequestShows(t *testing.T) {
	rule := "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: s1, namespace: n1}\nspec: {host: s1, trafficPolicy: {%s}}\n"
	mesh := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: \"pathNormalization: {normalization: %s}\"}\n"
	outlier := "outlierDetection: {consecutive5xxErrors: 3%s}"
	for name, x := range map[string]struct{ before, after, want string }{
		"health":    {fmt.Sprintf(rule, fmt.Sprintf(outlier, "")), fmt.Sprintf(rule, fmt.Sprintf(outlier, ", minHealthPercent: 50")), "s1.n1:80"},
		"cookie":    {fmt.Sprintf(rule, "loadBalancer: {consistentHash: {httpCookie: {name: x, ttl: 1s}}}"), fmt.Sprintf(rule, "loadBalancer: {consistentHash: {httpCookie: {name: x, ttl: 2s}}}"), "hash_policy.cookie.ttl"},
		"paths":     {fmt.Sprintf(mesh, "BASE"), fmt.Sprintf(mesh, "MERGE_SLASHES"), "merge_slashes"},
		"addresses": {entry("10.5.5.5"), entry("10.5.5.6"), "10.5.5.5 -> 10.5.5.6"},
	} {
		t.Run(name, func(t *testing.T) {
			r := diff.Compare(large(t, 3, x.before), large(t, 3, x.after))
			var b strings.Builder
			_ = r.WriteText(&b, false)
			if !r.Different() || !strings.Contains(b.String(), "settings that change") || !strings.Contains(b.String(), x.want) {
				t.Errorf("no %q in\n%s", x.want, b.String())
			}
		})
	}
}

func entry(address string) string {
	return "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e, namespace: n1}\nspec:\n  hosts: [e.example.com]\n  addresses: [" + address +
		"]\n  ports: [{number: 80, name: http, protocol: HTTP}]\n  resolution: STATIC\n  endpoints: [{address: 10.1.1.1}]\n"
}
