// Package decode turns xDS messages into conf, with every check that there is: what it returns needs no second look. Anything that
// the proxy does not do is refused by resource and field; nothing that is set is passed over, except the fields that its tables
// name as without effect here.
package decode

import (
	"errors"
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/data/dns/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode/clusters"
	"github.com/weftmesh/weft/internal/proxy/decode/walk"
)

// The type URLs of the resources that are understood.
const (
	ListenerType  = "type.googleapis.com/envoy.config.listener.v3.Listener"
	RoutesType    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	ClusterType   = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	EndpointsType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	NamesType     = "type.googleapis.com/envoy.data.dns.v3.DnsTable"
)

// Resource decodes a resource of any type: *conf.Listener, *conf.RouteTable, *conf.Cluster, *conf.Assignment or *conf.Names.
// Versions are the caller's to set.
func Resource(a *anypb.Any) (any, error) {
	switch a.GetTypeUrl() {
	case ListenerType:
		return unpack(a, &listenerv3.Listener{}, Listener)
	case RoutesType:
		return unpack(a, &routev3.RouteConfiguration{}, Routes)
	case ClusterType:
		return unpack(a, &clusterv3.Cluster{}, Cluster)
	case EndpointsType:
		return unpack(a, &endpointv3.ClusterLoadAssignment{}, Endpoints)
	case NamesType:
		return unpack(a, &dnsv3.DnsTable{}, DNSTable)
	}
	return nil, fmt.Errorf("type %q: is not a resource type of this proxy", a.GetTypeUrl())
}

func unpack[M proto.Message, T any](a *anypb.Any, m M, decode func(M) (*T, error)) (any, error) {
	if err := proto.Unmarshal(a.GetValue(), m); err != nil {
		return nil, fmt.Errorf("type %s: %w", a.GetTypeUrl(), err)
	}
	v, err := decode(m)
	if err != nil {
		return nil, err
	}
	return v, nil
}

// Error is why a message was refused.
type Error struct {
	Resource string // kind and name: "listener reviews:9080"
	Field    string // path in the message: "filter_chains[0].filters[1].typed_config.access_log"; empty for the whole
	Err      error
}

// Error gives "listener reviews:9080: filter_chains[0]: reason".
func (e *Error) Error() string {
	if e.Field == "" {
		return e.Resource + ": " + e.Err.Error()
	}
	return e.Resource + ": " + e.Field + ": " + e.Err.Error()
}

// Unwrap gives the reason.
func (e *Error) Unwrap() error { return e.Err }

// decoder decodes one message. After the first error it goes on, and what it returns is not used.
type decoder struct {
	*walk.Walk
	resource string // kind and name, once they are known
	quic     bool   // the listener is for HTTP/3
}

// run decodes one message and gives the first thing that is wrong with it.
func run[T any](kind, name string, f func(*decoder) *T) (*T, error) {
	d := &decoder{Walk: &walk.Walk{}}
	if name == "" && kind != "dns table" {
		d.Fail("name: is required")
	}
	v := f(d)
	if where, err := d.Problem(); err != nil {
		return nil, &Error{Resource: kind + " " + name, Field: where, Err: err}
	}
	return v, nil
}

// Listener decodes a listener. An api_listener becomes the HTTP part of the chain that matches everything, or a chain of its own.
func Listener(m *listenerv3.Listener) (*conf.Listener, error) {
	return run("listener", m.GetName(), func(d *decoder) *conf.Listener { return d.listener(m) })
}

// Routes decodes a route table and builds its indexes.
func Routes(m *routev3.RouteConfiguration) (*conf.RouteTable, error) {
	return run("routes", m.GetName(), func(d *decoder) *conf.RouteTable { return d.routes(m) })
}

// Cluster decodes a cluster; endpoints are in it unless its Discovery is EDS.
func Cluster(m *clusterv3.Cluster) (*conf.Cluster, error) {
	return run("cluster", m.GetName(), func(d *decoder) *conf.Cluster { return clusters.Cluster(d.Walk, m) })
}

// Endpoints decodes the endpoints of a cluster. They must be addresses.
func Endpoints(m *endpointv3.ClusterLoadAssignment) (*conf.Assignment, error) {
	return run("endpoints", m.GetClusterName(), func(d *decoder) *conf.Assignment { return clusters.Endpoints(d.Walk, m) })
}

// DNSTable decodes the answer for one name: a table with one virtual domain.
func DNSTable(m *dnsv3.DnsTable) (*conf.Names, error) {
	name := ""
	if ds := m.GetVirtualDomains(); len(ds) > 0 {
		name = ds[0].GetName()
	}
	return run("dns table", name, func(d *decoder) *conf.Names { return d.names(m) })
}

var errTooDeep = errors.New("is nested too deeply")
