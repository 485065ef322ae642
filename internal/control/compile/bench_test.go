package compile

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/control/source"
)

// BenchmarkCompile measures a mesh of 1,000 services with 5 instances, a route and two subsets each.
func BenchmarkCompile(b *testing.B) {
	var text strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&text, `apiVersion: v1
kind: Service
metadata: {name: s%[1]d}
spec: {clusterIP: 10.78.%[2]d.%[3]d, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: s%[1]d}
spec: {host: s%[1]d, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: s%[1]d}
spec:
  hosts: [s%[1]d]
  http:
  - match: [{headers: {end-user: {exact: jason}}}]
    route: [{destination: {host: s%[1]d, subset: v2}}]
  - route: [{destination: {host: s%[1]d, subset: v1}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: s%[1]d, labels: {kubernetes.io/service-name: s%[1]d}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
`, i, i/250, i%250+1)
		for j := range 5 {
			fmt.Fprintf(&text, "- {addresses: [10.%d.%d.%d], targetRef: {kind: Pod, name: s%d-%d}}\n", i/250, i%250, j+1, i, j)
		}
		text.WriteString("---\n")
		for j := range 5 {
			fmt.Fprintf(&text, "apiVersion: v1\nkind: Pod\nmetadata: {name: s%d-%d, labels: {version: v1}}\nspec: {containers: [{name: x}]}\nstatus: {podIP: 10.%d.%d.%d}\n---\n",
				i, j, i/250, i%250, j+1)
		}
	}
	objects, findings := source.Decode(source.LayerFile, "all.yaml", []byte(text.String()))
	if len(findings) > 0 || len(objects) != 9000 {
		b.Fatal(len(objects), findings)
	}
	b.ReportAllocs()
	for b.Loop() {
		mesh, found := Compile(Input{Objects: objects})
		if mesh.Services.Len() != 1000 || len(found) > 0 {
			b.Fatal(mesh.Services.Len(), found)
		}
	}
}
