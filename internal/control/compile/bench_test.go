package compile

import (
	"fmt"
	"runtime"
	"testing"

	networkingapi "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// The mesh of the goals: 10,000 services of 10 endpoints each, with a Pod for each endpoint, two subsets and a route.
const (
	benchServices  = 10_000
	benchEndpoints = 10
)

func kube(tb testing.TB, k source.Kube) *source.Object {
	o, err := source.FromKube(source.LayerRuntime, k)
	if err != nil {
		tb.Fatal(err)
	}
	return o
}

func meta(name string, labels map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "default", Name: name, Labels: labels}
}

func benchService(tb testing.TB, i int) *source.Object {
	return kube(tb, &corev1.Service{ObjectMeta: meta(fmt.Sprintf("s%d", i), nil), Spec: corev1.ServiceSpec{
		ClusterIP: fmt.Sprintf("10.78.%d.%d", i/250, i%250+1), Selector: map[string]string{"app": fmt.Sprintf("s%d", i)},
		Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}})
}

func benchSlice(tb testing.TB, i, without int) *source.Object {
	name, port := "http", int32(8080)
	slice := &discoveryv1.EndpointSlice{ObjectMeta: meta(fmt.Sprintf("s%d", i), map[string]string{discoveryv1.LabelServiceName: fmt.Sprintf("s%d", i)}),
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port}}}
	for j := range benchEndpoints {
		if j+1 != without {
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{benchAddress(i, j)},
				TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: fmt.Sprintf("s%d-%d", i, j)}})
		}
	}
	return kube(tb, slice)
}

func benchAddress(i, j int) string { return fmt.Sprintf("10.%d.%d.%d", i/250, i%250, j+1) }

func benchPod(tb testing.TB, i, j int) *source.Object {
	return kube(tb, &corev1.Pod{ObjectMeta: meta(fmt.Sprintf("s%d-%d", i, j), map[string]string{"app": fmt.Sprintf("s%d", i), "version": "v1"}),
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "x"}}}, Status: corev1.PodStatus{PodIP: benchAddress(i, j)}})
}

func benchRule(tb testing.TB, i int) *source.Object {
	return kube(tb, &networking.DestinationRule{ObjectMeta: meta(fmt.Sprintf("s%d", i), nil), Spec: networkingapi.DestinationRule{Host: fmt.Sprintf("s%d", i),
		Subsets: []*networkingapi.Subset{{Name: "v1", Labels: map[string]string{"version": "v1"}}, {Name: "v2", Labels: map[string]string{"version": "v2"}}}}})
}

func benchRoute(tb testing.TB, i int, subset string) *source.Object {
	host := fmt.Sprintf("s%d", i)
	return kube(tb, &networking.VirtualService{ObjectMeta: meta(host, nil), Spec: networkingapi.VirtualService{Hosts: []string{host},
		Http: []*networkingapi.HTTPRoute{{Route: []*networkingapi.HTTPRouteDestination{{Destination: &networkingapi.Destination{Host: host, Subset: subset}}}}}}})
}

func benchObjects(tb testing.TB) (list []*source.Object) {
	for i := range benchServices {
		list = append(list, benchService(tb, i), benchSlice(tb, i, 0), benchRule(tb, i), benchRoute(tb, i, "v1"))
		for j := range benchEndpoints {
			list = append(list, benchPod(tb, i, j))
		}
	}
	return list
}

func benchCompiler(b *testing.B) (*Compiler, *model.Mesh) {
	k := New(model.Settings{})
	mesh, _ := k.Apply(benchObjects(b), nil)
	if mesh.Services.Len() != benchServices || mesh.Workloads.Len() != benchServices*benchEndpoints || len(k.Findings()) > 0 {
		b.Fatal(mesh.Services.Len(), mesh.Workloads.Len(), k.Findings())
	}
	return k, mesh
}

// BenchmarkCold compiles the mesh from nothing, and reports what compiler and mesh keep beside the objects.
func BenchmarkCold(b *testing.B) {
	objects := benchObjects(b)
	var k *Compiler
	for b.Loop() {
		k = New(model.Settings{})
		k.Apply(objects, nil)
	}
	kept := inUse()
	runtime.KeepAlive(k)
	k = nil
	b.ReportMetric(float64(kept-inUse())/(1<<20), "MiB-kept")
	runtime.KeepAlive(objects)
}

func inUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkEndpoint takes an endpoint of one service away and brings it back.
func BenchmarkEndpoint(b *testing.B) {
	k, _ := benchCompiler(b)
	slices := []*source.Object{benchSlice(b, 5000, 3), benchSlice(b, 5000, 0)}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if _, delta := k.Apply(slices[n%2:n%2+1], nil); len(delta.Endpoints) != 1 || len(delta.Services) > 0 {
			b.Fatal(delta)
		}
	}
}

// BenchmarkRoute changes the route of one service.
func BenchmarkRoute(b *testing.B) {
	k, _ := benchCompiler(b)
	routes := []*source.Object{benchRoute(b, 5000, "v2"), benchRoute(b, 5000, "v1")}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if _, delta := k.Apply(routes[n%2:n%2+1], nil); len(delta.Routes) != 1 {
			b.Fatal(delta)
		}
	}
}

// BenchmarkTry judges a route before it is applied.
func BenchmarkTry(b *testing.B) {
	k, _ := benchCompiler(b)
	route := []*source.Object{benchRoute(b, 5000, "v3")}
	b.ReportAllocs()
	for b.Loop() {
		if f := k.Try(route); len(f) != 1 || f[0].Code != "SubsetNotFound" {
			b.Fatal(f)
		}
	}
}

// BenchmarkChurn makes 1,000 endpoint changes in 1,000 services, one by one, and reports by how much the heap has grown at the end.
func BenchmarkChurn(b *testing.B) {
	k, _ := benchCompiler(b)
	var changes []*source.Object
	for i := range 1000 {
		changes = append(changes, benchSlice(b, i*10, 1+i%benchEndpoints))
	}
	for i := range 1000 {
		changes = append(changes, benchSlice(b, i*10, 0))
	}
	before := inUse()
	for b.Loop() {
		for _, o := range changes {
			k.Apply([]*source.Object{o}, nil)
		}
	}
	b.ReportMetric(float64(inUse()-before)/(1<<20), "MiB-grown")
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(changes)), "µs/change")
	runtime.KeepAlive(k)
}
