package failover

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
)

// some gives replicas of which some are up, by address.
func some(addresses []string, up func(string) bool) *Replicas {
	return New(addresses, func(_ context.Context, _, address string) (net.Conn, error) {
		if !up(address) {
			return nil, errors.New("refused")
		}
		conn, _ := net.Pipe()
		return conn, nil
	})
}

func TestReplicasSpread(t *testing.T) {
	all := []string{"a:1", "b:1", "c:1"}
	first := map[string]int{}
	for range 300 {
		_, address, err := some(all, func(string) bool { return true }).Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		first[address]++
	}
	for _, a := range all {
		if first[a] < 50 {
			t.Errorf("of 300 proxies %d went to %s", first[a], a)
		}
	}
}

func TestReplicasStay(t *testing.T) {
	r := some([]string{"a:1", "b:1", "c:1"}, func(string) bool { return true })
	_, first, _ := r.Dial(t.Context())
	if _, second, _ := r.Dial(t.Context()); second != first {
		t.Errorf("it went from %s to %s without need", first, second)
	}
	r.Leave(first)
	if _, third, _ := r.Dial(t.Context()); third == first {
		t.Error("it did not leave the replica that failed")
	}
}

func TestReplicasFailOver(t *testing.T) {
	all := []string{"a:1", "b:1", "unix:///c"}
	for _, last := range all {
		r := some(all, func(a string) bool { return a == strings.TrimPrefix(last, "unix://") })
		if _, got, err := r.Dial(t.Context()); err != nil || got != last {
			t.Errorf("got %s (%v), want %s", got, err, last)
		}
	}
	_, _, err := some(all, func(string) bool { return false }).Dial(t.Context())
	if err == nil || slices.ContainsFunc(all, func(a string) bool { return !strings.Contains(err.Error(), a) }) {
		t.Errorf("got %v, want every address named", err)
	}
}
