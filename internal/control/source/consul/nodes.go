package consul

import (
	"context"
	"encoding/json"
	"hash/maphash"
	"sync"
)

// Where Consul tells its nodes, and all that is registered on one.
const (
	nodesPath = "/v1/catalog/nodes"
	nodePath  = "/v1/catalog/node-services/"
)

// registration is one of a service on a node, by its ID.
type registration struct {
	service string // its name
	text    uint64 // of all that Consul says of it
}

// nodeRegistrations are those of one node.
type nodeRegistrations map[string]registration

// sweepers is how many nodes are asked at a time. They share the places of services that are hurried, so that these come first or soon.
const sweepers = mostHurried / 2

// sweep looks through the nodes for registrations that changed.
type sweep struct {
	*run
	seed   maphash.Seed
	before map[string]nodeRegistrations // by node; nil when the nodes have not been looked through
}

// watchNodes looks through all nodes when registrations have changed, where that takes less than to ask all services, and hurries the
// services of which one is not what it was.
func (r *run) watchNodes(ctx context.Context, moved <-chan struct{}) {
	s := &sweep{run: r, seed: maphash.MakeSeed()}
	r.onceMoved(ctx, moved, nodesPath, s.once)
}

// once looks through the nodes, and gives how many bytes that took.
func (s *sweep) once(ctx context.Context) (bytes int, err error) {
	body, _, err := s.ask(ctx, nodesPath, 0, 0)
	if err != nil {
		return 0, err
	}
	var nodes []struct{ Node string }
	if err := json.Unmarshal(body, &nodes); err != nil {
		return 0, err
	}
	s.guard.Lock()
	services := len(s.services)
	s.guard.Unlock()
	if 2*len(nodes) > services {
		s.before = nil
		s.turns.swept.Store(false)
		return len(body), nil
	}
	now := make(map[string]nodeRegistrations, len(nodes))
	var mu sync.Mutex // guards now, bytes and err
	bytes = len(body)
	names := make(chan string)
	var asking sync.WaitGroup
	for range sweepers {
		asking.Go(func() { // ends with names
			for name := range names {
				all, size, e := s.node(ctx, name)
				mu.Lock()
				if bytes += size; e != nil {
					err = e
				} else {
					now[name] = all
				}
				mu.Unlock()
			}
		})
	}
	for _, n := range nodes {
		names <- n.Node
	}
	close(names)
	asking.Wait()
	if err != nil {
		return bytes, err
	}
	if s.before != nil {
		for name := range s.before {
			if now[name] == nil {
				s.differ(s.before[name], nil)
			}
		}
	}
	s.before = now
	s.turns.swept.Store(true)
	return bytes, nil
}

// node asks for what is registered on one, and hurries what is another than before.
func (s *sweep) node(ctx context.Context, name string) (all nodeRegistrations, size int, err error) {
	end := s.turns.takeForNode(ctx)
	if end == nil {
		return nil, 0, ctx.Err()
	}
	body, _, err := s.ask(ctx, nodePath+name, 0, 0)
	end()
	if err != nil {
		return nil, 0, err
	}
	var answer struct{ Services []json.RawMessage }
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, len(body), err
	}
	all = make(nodeRegistrations, len(answer.Services))
	for _, text := range answer.Services {
		var one struct{ ID, Service string }
		if err := json.Unmarshal(text, &one); err != nil {
			return nil, len(body), err
		}
		all[one.ID] = registration{one.Service, maphash.Bytes(s.seed, text)}
	}
	if s.before != nil {
		s.differ(s.before[name], all)
	}
	return all, len(body), nil
}

// differ hurries the services whose registrations on a node are not what they were.
func (s *sweep) differ(before, now nodeRegistrations) {
	services := map[string]bool{}
	for id, r := range before {
		if now[id] != r {
			services[r.service] = true
		}
	}
	for id, r := range now {
		if before[id] != r {
			services[r.service] = true
		}
	}
	s.hurryThose(services, nil)
}
