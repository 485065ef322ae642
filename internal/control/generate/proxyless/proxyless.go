// Package proxyless makes of Envoy's messages what gRPC's own xDS clients and servers take. They read a part of each message and refuse
// a resource that says more than they know (gRFCs A27 to A101), so each is rebuilt of what all of gRPC's implementations read, in the
// form in which they read it.
//
// What gRPC cannot do is left out where a call then goes its ordinary way (mirrors, changes of headers). Where it would go wrong (plain
// text where the user asked for TLS), the listener does not exist and the cluster has no endpoints. docs/clients.md has the list.
package proxyless

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/wire"
)

// Names of the filters and sockets, Envoy's well-known ones.
const (
	hcmFilter    = "envoy.filters.network.http_connection_manager"
	routerFilter = "envoy.filters.http.router"
	faultFilter  = "envoy.filters.http.fault"
	rbacFilter   = "envoy.filters.http.rbac"
	tlsSocket    = "envoy.transport_sockets.tls"
)

// Listener gives what a client reads of an outbound listener; false where no requests are routed on it.
func Listener(l *listenerv3.Listener) (*listenerv3.Listener, bool) {
	var h hcmv3.HttpConnectionManager
	if l.GetApiListener() == nil || l.GetApiListener().GetApiListener().UnmarshalTo(&h) != nil {
		return nil, false
	}
	out := &hcmv3.HttpConnectionManager{StatPrefix: h.StatPrefix, RouteSpecifier: h.RouteSpecifier}
	for _, f := range h.HttpFilters {
		if f.Name == faultFilter || f.Name == routerFilter {
			out.HttpFilters = append(out.HttpFilters, f)
		}
	}
	if r, ok := h.RouteSpecifier.(*hcmv3.HttpConnectionManager_RouteConfig); ok {
		out.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: Routes(r.RouteConfig)}
	}
	return &listenerv3.Listener{Name: l.Name, ApiListener: &listenerv3.ApiListener{ApiListener: pack(out)}}, true
}

// Server gives the listener of a gRPC server at an address: calls are authorized by the policies, which are filters of HTTP, and
// handled by the server itself. Without a socket the server uses what it was started with, plain text as a rule.
func Server(name string, address *corev3.Address, socket *corev3.TransportSocket, policies []*hcmv3.HttpFilter) (*listenerv3.Listener, error) {
	filters, err := serverFilters(policies)
	if err != nil {
		return nil, err
	}
	h := &hcmv3.HttpConnectionManager{
		StatPrefix:  "inbound",
		HttpFilters: filters,
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
			Name: "inbound",
			VirtualHosts: []*routev3.VirtualHost{{Name: "inbound", Domains: []string{"*"}, Routes: []*routev3.Route{{
				Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
				Action: &routev3.Route_NonForwardingAction{NonForwardingAction: &routev3.NonForwardingAction{}},
			}}}},
		}},
	}
	return &listenerv3.Listener{
		Name: name, Address: address, TrafficDirection: corev3.TrafficDirection_INBOUND,
		FilterChains: []*listenerv3.FilterChain{{Name: "inbound", TransportSocket: socket, Filters: []*listenerv3.Filter{
			{Name: hcmFilter, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(h)}}}}},
	}, nil
}

// Cluster gives what a client reads of a cluster; false where it cannot use it: its endpoints are wherever a connection was going, or
// its TLS needs more than certificates that the client has.
func Cluster(c *clusterv3.Cluster) (*clusterv3.Cluster, bool) {
	out := &clusterv3.Cluster{Name: c.Name, EdsClusterConfig: c.EdsClusterConfig, Metadata: c.Metadata,
		OutlierDetection: outlier(c.OutlierDetection), CircuitBreakers: breakers(c.CircuitBreakers)}
	switch c.GetType() {
	case clusterv3.Cluster_EDS:
		out.ClusterDiscoveryType = c.ClusterDiscoveryType
	case clusterv3.Cluster_STRICT_DNS, clusterv3.Cluster_LOGICAL_DNS:
		// Of names a client takes one.
		if len(c.GetLoadAssignment().GetEndpoints()) != 1 || len(c.LoadAssignment.Endpoints[0].LbEndpoints) != 1 {
			return nil, false
		}
		out.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_LOGICAL_DNS}
		out.LoadAssignment = c.LoadAssignment
	default:
		return nil, false
	}
	balance(out, c)
	var ok bool
	out.TransportSocket, ok = clientSocket(c)
	return out, ok
}

// Nobody names the endpoints of clusters that clients cannot use: none, ever. They are not those of the cluster's own name, which must
// not be spoken to in another way than the mesh says.
const Nobody = wire.BlackHoleCluster

// Unusable gives a cluster that calls fail in.
func Unusable(name string) *clusterv3.Cluster {
	return &clusterv3.Cluster{Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: message.ADS(), ServiceName: Nobody}}
}

// pack wraps a message. It is made of parts that were marshalled before, so that it can be.
func pack(m proto.Message) *anypb.Any {
	a := &anypb.Any{}
	if err := anypb.MarshalFrom(a, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		// Clients refuse a type that nobody knows, where an empty message would drop, say, a policy.
		return &anypb.Any{TypeUrl: "type.googleapis.com/weft.invalid." + string(m.ProtoReflect().Descriptor().Name())}
	}
	return a
}
