package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// gatewayObjects are a program, and ways to it through the gateway: of Istio's kinds at 8080 and, where a Service of the user's leads to
// another port, at 82; of the Gateway API at 80.
const gatewayObjects = `apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 8000}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, command: [program, http, "8000"], ports: [{containerPort: 8000}]}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: web}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 8080, name: http, protocol: HTTP}, hosts: ["*"]}
  - {port: {number: 82, name: http-moved, protocol: HTTP}, hosts: ["*"]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec: {hosts: ["*"], gateways: [web], http: [{route: [{destination: {host: web, port: {number: 8000}}, headers: {response: {set: {x-gateway: istio}}}}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: moved, namespace: istio-system}
spec: {selector: {istio: ingressgateway}, ports: [{name: http, port: 82, targetPort: 8082}, {name: http-direct, port: 83, targetPort: 8080}]}
`

const edgeObjects = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec: {gatewayClassName: weft, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: edge}]
  hostnames: [edge-weft, shop.example.com, istio-ingressgateway.istio-system]
  rules:
  - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-gateway, value: api}]}}]
    backendRefs: [{name: web, port: 8000}]
`

// TestGatewayFromWorkloads: workloads call the gateway by its Services, which follow its ports, its process and its instance.
func TestGatewayFromWorkloads(t *testing.T) {
	t.Parallel()
	everyFlavour(t, func(t *testing.T, s settings) {
		s.bare, s.manifests = true, map[string]string{"web.yaml": gatewayObjects, "edge.yaml": edgeObjects}
		s.flags = []string{"--publish", "80=0", "--publish", "82=0", "--publish", "8082=0"}
		m := start(t, s)
		all := map[string]string{ // the way by URL
			"http://istio-ingressgateway.istio-system:8080/":                   "istio",
			"http://istio-ingressgateway.istio-system.svc.cluster.local:8080/": "istio",
			"http://istio-ingressgateway.istio-system/":                        "api",
			"http://istio-ingressgateway.istio-system:82/":                     "istio",
			"http://moved.istio-system:82/":                                    "istio",
			"http://moved.istio-system:83/":                                    "istio",
			"http://edge-weft/":                                                "api",
		}
		m.throughGateway(all)
		if s.isolation == "netns" { // where the way of a connection does not hang on the name
			for _, url := range []string{"http://edge-weft/", "http://istio-ingressgateway.istio-system/"} {
				if r := m.inPod("web", "get", url, "shop.example.com"); !strings.Contains(r.stdout, "x-gateway: api") {
					m.Errorf("a host of the gateway's at %s: %s", url, r)
				}
			}
		}
		contains(t, "explain", m.must("explain", "--from", "web", "http://istio-ingressgateway.istio-system:8080/"), "1 of 1 endpoints ready")

		m.must("proxy", "upgrade", "istio-system/istio-ingressgateway")
		m.throughGateway(all)
		before := m.readyPods("istio-ingressgateway")
		m.must("restart", "-n", "istio-system", "istio-ingressgateway")
		m.eventually(20*time.Second, "the gateway is replaced", func() error {
			if now := m.readyPods("istio-ingressgateway"); len(now) != 1 || now[0].Name == before[0].Name {
				return fmt.Errorf("%+v", now)
			}
			return m.ready("istio-ingressgateway")
		})
		m.throughGateway(all)

		m.write("edge.yaml", "")
		m.eventually(5*time.Second, "the Gateway's Service goes with it", func() error {
			if r := m.weft("get", "services"); strings.Contains(r.stdout, "edge-weft") || !strings.Contains(r.stdout, "istio-ingressgateway") {
				return errors.New(r.String())
			}
			return nil
		})
	})
}

// throughGateway has a workload call URLs until all are answered, by the way that goes with each.
func (m *mesh) throughGateway(ways map[string]string) {
	m.Helper()
	for url, way := range ways {
		m.eventually(10*time.Second, url+" is answered", func() error {
			if r := m.inPod("web", "get", url); !strings.HasPrefix(r.stdout, "200 ") || !strings.Contains(r.stdout, "this is web-") || !strings.Contains(r.stdout, "x-gateway: "+way) {
				return errors.New(r.String())
			}
			return nil
		})
	}
}
