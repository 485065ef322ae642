package serve

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/control/index"
)

// value is the content of a resource, marshalled once for all who get it. It is immutable.
type value struct {
	version uint64 // hash of the body; never 0, which stands for "there is none"
	// record is the resource as it stands in delta responses, field 2 of DeltaDiscoveryResponse. bare is the part of it that is an Any
	// with its tag, which happens to be how it stands in state-of-the-world responses, field 2 of DiscoveryResponse.
	record, bare []byte
}

// versionOf is the version of what there may be none of.
func (v *value) versionOf() uint64 {
	if v == nil {
		return 0
	}
	return v.version
}

// made is what generation gave, and what it was made from.
type made struct {
	value *value
	names []string // of a list
	seen  []index.Key
	// large: it has more parts than are made while others wait; given up where there was such a bound.
	large bool
}

// listName is the name of the list of all resources of a type, which clients subscribe to by wildcard.
const listName = "*"

// attempt is build, unless that would take long: then it gives the resource up.
func (c *cache) attempt(g *generate.Generator, typeURL, name string) made {
	b := generate.Bound{Most: c.aside.atOnce}
	m := build(g.Under(&b), typeURL, name)
	if b.Exceeded() {
		return made{large: true}
	}
	return m
}

func build(g *generate.Generator, typeURL, name string) made {
	if name == listName {
		names, seen := g.TracedNames(typeURL)
		return made{names: slices.Compact(names), seen: seen}
	}
	m, ok, seen := g.Traced(typeURL, name)
	if !ok {
		return made{seen: seen}
	}
	return made{value: newValue(typeURL, name, m), seen: seen}
}

// The fields of envoy.service.discovery.v3.Resource, of google.protobuf.Any, and of DeltaDiscoveryResponse and DiscoveryResponse, which
// have the same numbers.
const (
	resourceVersion, resourceAny, resourceName = 1, 2, 3
	anyType, anyValue                          = 1, 2
	responseVersion, responseResources         = 1, 2
	responseType, responseNonce                = 4, 5
	responseRemoved                            = 6
)

// noVersion has the length of every version.
const noVersion = "0000000000000000"

// newValue makes a value of a message, which is written once, where it stays. It is nil for one that cannot be: with a string that is not
// UTF-8, and sources refuse such objects.
func newValue(typeURL, name string, m proto.Message) *value {
	marshal := proto.MarshalOptions{Deterministic: true}
	size := marshal.Size(m)
	marshal.UseCachedSize = true
	any := field(len(typeURL)) + field(size)
	resource := field(len(noVersion)) + field(any) + field(len(name))
	b := make([]byte, 0, field(resource))
	b = protowire.AppendTag(b, responseResources, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(resource))
	b = appendText(b, resourceVersion, noVersion)
	before := len(b)
	b = protowire.AppendTag(b, resourceAny, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(any))
	b = appendText(b, anyType, typeURL)
	b = protowire.AppendTag(b, anyValue, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	start := len(b)
	b, err := marshal.MarshalAppend(b, m)
	if err != nil || len(b)-start != size {
		return nil
	}
	sum := sha256.Sum256(b[start:])
	v := &value{version: max(1, binary.BigEndian.Uint64(sum[:])), bare: b[before:len(b):len(b)]}
	copy(b[before-len(noVersion):], versionText(v.version))
	v.record = appendText(b, resourceName, name)
	return v
}

// field is the size of a field of n bytes, of a number below 16.
func field(n int) int { return 1 + protowire.SizeBytes(n) }

func appendText(b []byte, number protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, number, protowire.BytesType), s)
}

// versionText is a version as it stands on the wire.
func versionText(v uint64) string { return fmt.Sprintf("%016x", v) }

// foreignVersion stands for a version that is none of ours, which a client brought along.
const foreignVersion = ^uint64(0)

func parseVersion(s string) uint64 {
	v, err := strconv.ParseUint(s, 16, 64)
	if err != nil || v == 0 || versionText(v) != s {
		return foreignVersion
	}
	return v
}

// order is the order in which a change is sent, so that what is referred to is there before what refers to it; what is removed goes
// in the opposite order.
var order = []string{generate.ClusterType, generate.EndpointsType, generate.ListenerType, generate.RouteType, generate.DNSType}

// rank is a type's place in the order; types of which nothing is known come last.
func rank(typeURL string) int {
	if i := slices.Index(order, typeURL); i >= 0 {
		return i
	}
	return len(order)
}

// knownType gives the one copy of a type's name, so that no subscription keeps a request's.
func knownType(typeURL string) string {
	if i := slices.Index(order, typeURL); i >= 0 {
		return order[i]
	}
	return strings.Clone(typeURL)
}

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

// metricType names a type in metrics: types that we do not know, which clients make up, count as one.
func metricType(typeURL string) string {
	if rank(typeURL) == len(order) {
		return "other"
	}
	return shortType(typeURL)
}
