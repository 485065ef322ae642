package api

import (
	"slices"
	"testing"
)

// TestShortKinds: every abbreviation is one of a kind that there is.
func TestShortKinds(t *testing.T) {
	for short, want := range map[string]string{"cm": "ConfigMap", "ep": "EndpointSlice", "gtw": "Gateway", "gc": "GatewayClass", "wg": "WorkloadGroup"} {
		if !KindMatches(want, short) {
			t.Errorf("%s is no %s", short, want)
		}
	}
	for short := range shortKinds {
		if !slices.ContainsFunc(Kinds(), func(k string) bool { return KindMatches(k, short) }) {
			t.Errorf("%s is short for no kind", short)
		}
	}
}
