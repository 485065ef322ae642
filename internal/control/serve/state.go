package serve

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/control/model"
)

// state is one published mesh with what was generated from it so far. Nodes of one class share what they get.
type state struct {
	mesh       *model.Mesh // these are set once
	index      generate.Index
	generation uint64
	published  time.Time

	cache sync.Map // cacheKey to func() resource
}

type cacheKey struct{ typeURL, name, class string }

// resource is a generated one. Version is the hash of its content; empty when there is no such resource.
type resource struct {
	version string
	body    *anypb.Any
}

func newState(mesh *model.Mesh, generation uint64, now time.Time) *state {
	return &state{mesh: mesh, index: generate.NewIndex(mesh), generation: generation, published: now}
}

// resource gives a resource for a node, generated at most once for its class.
func (s *state) resource(g *generate.Generator, typeURL, name string) resource {
	class := g.Class(typeURL, name)
	if class == "" {
		return build(g, typeURL, name)
	}
	key := cacheKey{typeURL, name, class}
	made, ok := s.cache.Load(key)
	if !ok {
		made, _ = s.cache.LoadOrStore(key, sync.OnceValue(func() resource { return build(g, typeURL, name) }))
	}
	get, _ := made.(func() resource)
	return get()
}

func build(g *generate.Generator, typeURL, name string) resource {
	m, ok := g.Resource(typeURL, name)
	if !ok {
		return resource{}
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return resource{} // a string that is not UTF-8; sources refuse such objects
	}
	sum := sha256.Sum256(body)
	return resource{version: hex.EncodeToString(sum[:8]), body: &anypb.Any{TypeUrl: typeURL, Value: body}}
}

// order is the order in which a change is sent, so that what is referred to is there before what refers to it; what is removed goes
// in the opposite order.
var order = []string{generate.ClusterType, generate.EndpointsType, generate.ListenerType, generate.RouteType, generate.DNSType}

// shortType names a type in metrics as Istio does.
func shortType(typeURL string) string {
	switch typeURL {
	case generate.ClusterType:
		return "cds"
	case generate.EndpointsType:
		return "eds"
	case generate.ListenerType:
		return "lds"
	case generate.RouteType:
		return "rds"
	case generate.DNSType:
		return "dns"
	}
	return strings.TrimPrefix(typeURL, "type.googleapis.com/")
}
