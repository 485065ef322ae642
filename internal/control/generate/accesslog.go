package generate

import (
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/model"
)

// usualObject has Istio's names.
// Source: istio.io/latest/docs/tasks/observability/logs/access-log.
var usualObject = map[string]any{
	"start_time": "%START_TIME%", "route_name": "%ROUTE_NAME%", "method": "%REQ(:METHOD)%", "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
	"protocol": "%PROTOCOL%", "response_code": "%RESPONSE_CODE%", "response_flags": "%RESPONSE_FLAGS%",
	"response_code_details": "%RESPONSE_CODE_DETAILS%", "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%",
	"bytes_received": "%BYTES_RECEIVED%", "bytes_sent": "%BYTES_SENT%", "duration": "%DURATION%",
	"upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%", "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
	"user_agent": "%REQ(USER-AGENT)%", "request_id": "%REQ(X-REQUEST-ID)%", "authority": "%REQ(:AUTHORITY)%",
	"upstream_host": "%UPSTREAM_HOST%", "upstream_cluster": "%UPSTREAM_CLUSTER%", "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%",
	"downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%", "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
	"requested_server_name": "%REQUESTED_SERVER_NAME%", "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
	"peer": "%DOWNSTREAM_PEER_URI_SAN%", "reason": ownOperator,
}

// ownOperator is known to our own proxies alone.
const ownOperator = "%WEFT_REASON%"

// accessLogs are what the mesh's settings say; none leaves it to the client. gRPC programs do not log.
func (g *Generator) accessLogs() []*accesslogv3.AccessLog {
	s := g.mesh.Settings().Log
	if s == nil || g.node.Proxyless {
		return nil
	}
	m := &filev3.FileAccessLog{Path: s.File}
	if f := g.logFormat(s); f != nil {
		m.AccessLogFormat = &filev3.FileAccessLog_LogFormat{LogFormat: f}
	}
	return []*accesslogv3.AccessLog{{Name: "envoy.access_loggers.file", ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: message.Pack(m)}}}
}

func (g *Generator) logFormat(s *model.AccessLogging) *corev3.SubstitutionFormatString {
	switch {
	case s.JSON:
		object := s.Object
		if object == nil {
			object = usualObject
		}
		m, err := structpb.NewStruct(object)
		if err != nil {
			return nil // it was read from JSON, which has nothing that a Struct has not
		}
		if g.node.Classic {
			withoutOwn(structpb.NewStructValue(m))
		}
		return &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: m}}
	case s.Text != "":
		text := s.Text
		if g.node.Classic {
			text = strings.ReplaceAll(text, ownOperator, "-")
		}
		return &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_TextFormatSource{
			TextFormatSource: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: text}}}}
	}
	return nil
}

// withoutOwn takes our own operator out of a format for Envoys, which would refuse it.
func withoutOwn(v *structpb.Value) {
	switch k := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		k.StringValue = strings.ReplaceAll(k.StringValue, ownOperator, "-")
	case *structpb.Value_StructValue:
		for _, field := range k.StructValue.GetFields() {
			withoutOwn(field)
		}
	case *structpb.Value_ListValue:
		for _, e := range k.ListValue.GetValues() {
			withoutOwn(e)
		}
	}
}
