package parts

import (
	"strings"

	"github.com/weftmesh/weft/internal/control/model"
)

// protocols by name, as appProtocol, as the part of a port's name before its first "-", and as Istio's port protocols.
var Protocols = map[string]model.Protocol{
	"http": model.HTTP, "http2": model.HTTP2, "grpc": model.GRPC, "grpc-web": model.GRPCWeb, "https": model.HTTPS, "tls": model.TLS,
	"tcp": model.TCP, "mongo": model.TCP, "mysql": model.TCP, "redis": model.TCP,
	"kubernetes.io/h2c": model.HTTP2, "kubernetes.io/ws": model.HTTP, "kubernetes.io/wss": model.HTTPS,
}

// Protocol reads the protocol of a port of Istio's own kinds; when none is given, the name's prefix decides.
func (p *Part) Protocol(protocol, name, field string) model.Protocol {
	if protocol == "" {
		name = strings.ToLower(name)
		if strings.HasPrefix(name, "grpc-web") {
			return model.GRPCWeb
		}
		prefix, _, _ := strings.Cut(name, "-")
		if known, ok := Protocols[prefix]; ok {
			return known
		}
		return model.Auto
	}
	known, ok := Protocols[strings.ToLower(protocol)]
	switch {
	case strings.EqualFold(protocol, "UDP"):
		p.Err("InvalidProtocol", field, "write a Service of type ExternalName, or one without selector and an EndpointSlice, and a UDPRoute to it",
			"sidecars leave UDP alone, and UDPRoutes lead to Services")
		return model.Auto
	case !ok || strings.Contains(protocol, "/"):
		p.Err("InvalidProtocol", field, "use one of HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, TLS, TCP, MONGO, MYSQL, REDIS",
			"%q is not a protocol that the mesh carries", protocol)
		return model.Auto
	}
	return known
}
