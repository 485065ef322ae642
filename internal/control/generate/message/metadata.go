package message

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// IstioMetadata holds fields in the namespace of Istio's filters.
func IstioMetadata(fields map[string]*structpb.Value) *corev3.Metadata {
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"istio": {Fields: fields}}}
}

// Refused adds to a cluster's metadata why nothing is connected to.
func Refused(m *corev3.Metadata, why string) {
	m.FilterMetadata["weft"] = &structpb.Struct{Fields: map[string]*structpb.Value{"refused": structpb.NewStringValue(why)}}
}

// DescribeService names a service, as metadata of clusters does.
func DescribeService(host, name, namespace string) map[string]*structpb.Value {
	service := structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{
		"host": structpb.NewStringValue(host), "name": structpb.NewStringValue(name), "namespace": structpb.NewStringValue(namespace),
	}})
	return map[string]*structpb.Value{"services": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{service}})}
}
