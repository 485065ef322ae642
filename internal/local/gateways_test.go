package local

import (
	"testing"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/runtime"
)

func TestServerScheme(t *testing.T) {
	for _, c := range []struct {
		protocol model.Protocol
		tls      *model.ServerTLS
		want     string
	}{
		{model.HTTP, nil, "http"},
		{model.GRPC, nil, "http"},
		{model.HTTPS, &model.ServerTLS{Mode: model.TLSMutual}, "https"},
		{model.HTTPS, &model.ServerTLS{Mode: model.TLSPassthrough}, "tls"},
		{model.TLS, &model.ServerTLS{Mode: model.TLSSimple}, "tls"},
		{model.TCP, &model.ServerTLS{Mode: model.TLSSimple}, "tls"},
		{model.TCP, nil, "tcp"},
	} {
		if got := serverScheme(&model.Server{Protocol: c.protocol, TLS: c.tls}); got != c.want {
			t.Errorf("%s %+v: %s", c.protocol, c.tls, got)
		}
	}
}

func TestGatewayScheme(t *testing.T) {
	mesh := &model.Mesh{Gateways: []*model.Gateway{{Servers: []model.Server{{Port: 53, Protocol: model.UDP}, {Port: 80, Protocol: model.HTTP},
		{Port: 443, Protocol: model.HTTPS, TLS: &model.ServerTLS{Mode: model.TLSSimple}}, {Port: 53, Protocol: model.TCP}}}}}
	mesh.Workloads.Put("istio-system/edge", &model.Workload{Gateway: true, Targets: []model.Target{{Port: 443, Number: 8443}}})
	for port, want := range map[runtime.Published]string{{Port: 53}: "tcp", {Port: 53, UDP: true}: "udp", {Port: 80}: "http", {Port: 443}: "https", {Port: 8080}: "", {Port: 8443}: "https"} {
		if got := gatewayScheme(mesh, port); got != want {
			t.Errorf("%+v: %q, want %q", port, got, want)
		}
	}
	if got := gatewayScheme(nil, runtime.Published{Port: 80}); got != "" {
		t.Errorf("before the first mesh: %q", got)
	}
}
