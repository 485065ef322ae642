package local

import (
	"testing"

	"github.com/weftmesh/weft/internal/control/model"
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
	mesh := &model.Mesh{Gateways: []*model.Gateway{{Servers: []model.Server{{Port: 80, Protocol: model.HTTP}, {Port: 443, Protocol: model.HTTPS, TLS: &model.ServerTLS{Mode: model.TLSSimple}}}}}}
	for port, want := range map[uint16]string{80: "http", 443: "https", 8080: ""} {
		if got := gatewayScheme(mesh, port); got != want {
			t.Errorf("%d: %q, want %q", port, got, want)
		}
	}
	if got := gatewayScheme(nil, 80); got != "" {
		t.Errorf("before the first mesh: %q", got)
	}
}
