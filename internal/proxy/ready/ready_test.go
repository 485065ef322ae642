package ready

import (
	"testing"

	"github.com/weftmesh/weft/internal/wire"
)

func TestMissingInOrder(t *testing.T) {
	s := New(true)
	steps := []struct {
		missing string
		then    func()
	}{
		{"no certificate yet", s.HasIdentity},
		{"no configuration yet", s.HasConfiguration},
		{"listeners are not open yet", s.Accepts},
		{"gateway ports are not bound yet", func() {
			s.Ports(0, map[string]string{wire.GatewayListenerName(8080): "address already in use", wire.GatewayListenerName(443): "broker is gone"})
		}},
		{"no gateway port can be bound: port 443: broker is gone; port 8080: address already in use", func() {
			s.Ports(1, map[string]string{wire.GatewayListenerName(443): "broker is gone"})
		}},
		{"", func() {}},
	}
	for _, step := range steps {
		if got := s.Missing(); got != step.missing {
			t.Fatalf("%q, want %q", got, step.missing)
		}
		step.then()
	}
	<-s.Configured()
	<-s.Settled()
}

func TestSidecarNeedsNoPorts(t *testing.T) {
	s := New(false)
	s.HasIdentity()
	s.HasConfiguration()
	s.Accepts()
	if why := s.Missing(); why != "the ports of the Sidecar object are not bound yet" {
		t.Fatal(why)
	}
	s.Ports(0, map[string]string{"outbound 127.0.0.1:3306": "address already in use"})
	if why := s.Missing(); why != "" {
		t.Fatal(why)
	}
	if got := s.Lacking(); got != "outbound 127.0.0.1:3306: address already in use" {
		t.Fatal(got)
	}
}
