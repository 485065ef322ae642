package message

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	grpcwebv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weftmesh/weft/internal/control/model"
)

// Names of the filters, Envoy's well-known ones.
const (
	HTTPManagerFilter = "envoy.filters.network.http_connection_manager"
	TCPFilter         = "envoy.filters.network.tcp_proxy"
	routerFilter      = "envoy.filters.http.router"
	FaultFilter       = "envoy.filters.http.fault"
	webFilter         = "envoy.filters.http.grpc_web"
	TLSInspector      = "envoy.filters.listener.tls_inspector"
)

// HTTPFilter is a filter for requests.
func HTTPFilter(name string, config proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: Pack(config)}}
}

// WebFilters make gRPC of gRPC-Web, before anything looks at it.
func WebFilters(p model.Protocol) []*hcmv3.HttpFilter {
	if p != model.GRPCWeb {
		return nil
	}
	return []*hcmv3.HttpFilter{HTTPFilter(webFilter, &grpcwebv3.GrpcWeb{})}
}

// Router is the filter that ends every list of filters for requests.
func Router() *hcmv3.HttpFilter { return HTTPFilter(routerFilter, &routerv3.Router{}) }

// NetworkFilter is a filter for connections.
func NetworkFilter(name string, config proto.Message) *listenerv3.Filter {
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: Pack(config)}}
}

// ADS says that a resource comes by the stream that named it.
func ADS() *corev3.ConfigSource {
	return &corev3.ConfigSource{ResourceApiVersion: corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}
}

// Pack wraps a message. Marshalling is deterministic, so that equal messages have equal bytes and thereby versions.
func Pack(m proto.Message) *anypb.Any {
	a := &anypb.Any{}
	if err := anypb.MarshalFrom(a, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		// Only invalid UTF-8 in a string gets here. A type that nobody knows makes clients refuse the whole resource, where an
		// empty message would drop, say, a policy.
		return &anypb.Any{TypeUrl: "type.googleapis.com/weft.invalid." + string(m.ProtoReflect().Descriptor().Name())}
	}
	return a
}

// Inline holds bytes in the message itself.
func Inline(b []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
}
