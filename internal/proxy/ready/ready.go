// Package ready holds what a proxy's readiness depends on, and says in words what is missing.
package ready

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// State is what is there of a proxy. Its methods may be called from any goroutine.
type State struct {
	gateway    bool          // set once; it is nothing without its ports
	configured chan struct{} // closed when there is identity and configuration

	mu       sync.Mutex
	identity bool
	done     bool
	bound    bool
	ports    int
	unbound  map[string]string
	settled  chan struct{} // closed when the ports of the configuration were bound, or tried
}

// New is the state of a proxy that has nothing yet; gateway says that it needs ports of its own.
func New(gateway bool) *State {
	return &State{gateway: gateway, configured: make(chan struct{}), settled: make(chan struct{})}
}

// Configured is closed once identity and first configuration are there.
func (s *State) Configured() <-chan struct{} { return s.configured }

// Settled is closed once the ports that the configuration names were bound, or tried.
func (s *State) Settled() <-chan struct{} { return s.settled }

// HasIdentity notes that there is a certificate.
func (s *State) HasIdentity() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.identity = true
}

// HasConfiguration notes that there is a configuration too. It is called once.
func (s *State) HasConfiguration() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = true
	close(s.configured)
}

// Accepts notes that the listeners of the bootstrap are served.
func (s *State) Accepts() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bound = true
}

// Ports notes how many of the ports that the configuration names are open, and why others are not, by listener. failed is not changed
// afterwards.
func (s *State) Ports(open int, failed map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.settled:
	default:
		close(s.settled)
	}
	s.ports, s.unbound = open, failed
}

// Unbound says why ports that the configuration names are not open, by listener.
func (s *State) Unbound() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unbound
}

// Missing says why the proxy cannot serve; empty when it can.
func (s *State) Missing() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.identity:
		return "no certificate yet"
	case !s.done:
		return "no configuration yet"
	case !s.bound:
		return "listeners are not open yet"
	case s.gateway && !s.tried():
		return "gateway ports are not bound yet"
	case !s.tried():
		return "the ports of the Sidecar object are not bound yet"
	case s.gateway && len(s.unbound) > 0 && s.ports == 0:
		return "no gateway port can be bound: " + unboundText(s.unbound)
	}
	return ""
}

// Lacking says which ports are not open though the proxy can serve; empty for none.
func (s *State) Lacking() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return unboundText(s.unbound)
}

func (s *State) tried() bool {
	select {
	case <-s.settled:
		return true
	default:
		return false
	}
}

// unboundText lists gateway listeners that are not bound, in the order of their ports: "port 8080: address already in use".
func unboundText(why map[string]string) string {
	port := func(listener string) int {
		n, err := strconv.Atoi(listener[strings.LastIndexByte(listener, '_')+1:])
		if err != nil {
			return -1 // not named by wire.GatewayListenerName
		}
		return n
	}
	names := slices.SortedFunc(maps.Keys(why), func(a, b string) int { return cmp.Or(cmp.Compare(port(a), port(b)), cmp.Compare(a, b)) })
	for i, name := range names {
		if n := port(name); n >= 0 {
			names[i] = "port " + strconv.Itoa(n)
		}
		names[i] += ": " + why[name]
	}
	return strings.Join(names, "; ")
}
