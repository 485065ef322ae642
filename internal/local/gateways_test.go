package local

import (
	"fmt"
	"slices"
	"testing"

	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
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

// TestGatewayServices: the built-in gateway has the Services of a cluster, with the ports of those Gateways that it serves.
func TestGatewayServices(t *testing.T) {
	objects, findings := source.Decode(source.LayerFile, "in.yaml", []byte(`
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec: {gatewayClassName: weft, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: placed, namespace: shop}
spec: {gatewayClassName: weft, addresses: [{value: 127.0.0.1}], listeners: [{name: http, port: 81, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: silent, namespace: shop}
spec: {gatewayClassName: weft, listeners: [{name: dns, port: 53, protocol: UDP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: theirs, namespace: shop}
spec: {gatewayClassName: other, listeners: [{name: http, port: 82, protocol: HTTP}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: plain, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 9000, name: tcp, protocol: TCP}, hosts: ["*"]}
  - {port: {number: 443, name: tls, protocol: TLS}, tls: {mode: PASSTHROUGH}, hosts: ["a.example.com"]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: elsewhere, namespace: default}
spec: {selector: {istio: egressgateway}, servers: [{port: {number: 83, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: istio-ingressgateway-1, namespace: istio-system, labels: {istio: ingressgateway}, ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: istio-ingressgateway, uid: u, controller: true}]}
spec: {containers: []}
status: {podIP: 10.77.0.2}
---
apiVersion: v1
kind: Service
metadata: {name: mine, namespace: istio-system}
spec: {ports: [{name: tcp, port: 9000, targetPort: 9001}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: mine-1, namespace: istio-system, labels: {kubernetes.io/service-name: mine}}
addressType: IPv4
ports: [{name: tcp, port: 9001}]
endpoints: [{addresses: [10.77.0.2], targetRef: {kind: Pod, name: istio-ingressgateway-1, namespace: istio-system}}]
`))
	if source.HasErrors(findings) {
		t.Fatal(findings)
	}
	mesh, _ := compile.Compile(compile.Input{Objects: objects})
	var got []string
	for _, s := range gatewayServices(mesh, objects) {
		line := s.Namespace + "/" + s.Name
		for _, p := range s.Spec.Ports {
			line += fmt.Sprintf(" %s:%d-%d", p.Name, p.Port, p.TargetPort.IntVal)
		}
		got = append(got, line)
	}
	want := []string{"istio-system/istio-ingressgateway http-80:80-80 http-81:81-81 tls-443:443-443 tcp-9000:9000-9001", "shop/edge-weft http-80:80-80"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if list := gatewayServices(nil, objects); list != nil {
		t.Errorf("before the first mesh: %v", list)
	}
}
