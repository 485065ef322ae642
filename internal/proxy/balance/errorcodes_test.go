package balance

import (
	"testing"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// TestErrorCodes: where errors are named, no other response is one.
func TestErrorCodes(t *testing.T) {
	named, plain := New(&conf.Cluster{ErrorCodes: []int{401, 429, 503}}, nil, Options{}), New(&conf.Cluster{}, nil, Options{})
	for status, want := range map[int][2]Outcome{200: {Answered, Answered}, 429: {ServerError, Answered}, 500: {Answered, ServerError},
		503: {GatewayError, GatewayError}, 504: {Answered, GatewayError}} {
		if got := [2]Outcome{named.OutcomeOf(status), plain.OutcomeOf(status)}; got != want {
			t.Errorf("%d: %v, want %v", status, got, want)
		}
	}
}
