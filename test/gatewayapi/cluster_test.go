package gatewayapi

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/status"
)

// cluster is an API server in memory with a control plane behind it.
type cluster struct {
	t *testing.T
	client.Client
	mu   sync.Mutex // over each change with what follows from it
	objs map[source.Key]client.Object
}

// read are the kinds that the control plane reads here.
var read = []func() client.ObjectList{
	func() client.ObjectList { return &corev1.ServiceList{} }, func() client.ObjectList { return &corev1.PodList{} },
	func() client.ObjectList { return &corev1.SecretList{} }, func() client.ObjectList { return &corev1.ConfigMapList{} },
	func() client.ObjectList { return &corev1.NamespaceList{} },
	func() client.ObjectList { return &gatewayv1.GatewayClassList{} }, func() client.ObjectList { return &gatewayv1.GatewayList{} },
	func() client.ObjectList { return &gatewayv1.ListenerSetList{} }, func() client.ObjectList { return &gatewayv1.HTTPRouteList{} },
	func() client.ObjectList { return &gatewayv1.GRPCRouteList{} }, func() client.ObjectList { return &gatewayv1.TLSRouteList{} },
	func() client.ObjectList { return &gatewayv1.TCPRouteList{} }, func() client.ObjectList { return &gatewayv1.UDPRouteList{} },
	func() client.ObjectList { return &gatewayv1.BackendTLSPolicyList{} },
	func() client.ObjectList { return &gatewayv1.ReferenceGrantList{} },
}

func newCluster(t *testing.T, objects ...client.Object) *cluster {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, gatewayv1.Install, apiextensionsv1.AddToScheme} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	c := &cluster{t: t}
	c.Client = fake.NewClientBuilder().WithScheme(s).WithStatusSubresource(&gatewayv1.GatewayClass{}, &gatewayv1.Gateway{}, &gatewayv1.ListenerSet{},
		&gatewayv1.HTTPRoute{}, &gatewayv1.GRPCRoute{}, &gatewayv1.TLSRoute{}, &gatewayv1.TCPRoute{}, &gatewayv1.UDPRoute{},
		&gatewayv1.BackendTLSPolicy{}).
		WithInterceptorFuncs(interceptor.Funcs{Create: c.create, Update: c.update, Patch: c.patch, Delete: c.delete}).Build()
	for _, o := range objects {
		if err := c.Create(context.Background(), o); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c *cluster) create(ctx context.Context, w client.WithWatch, o client.Object, opts ...client.CreateOption) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	o.SetGeneration(1)
	o.SetCreationTimestamp(metav1.Now())
	setDefaults(o)
	if err := w.Create(ctx, o, opts...); err != nil {
		return err
	}
	c.deploy(ctx, w, o)
	c.follow(ctx, w)
	return nil
}

func (c *cluster) update(ctx context.Context, w client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	o.SetGeneration(o.GetGeneration() + 1)
	setDefaults(o)
	err := w.Update(ctx, o, opts...)
	c.follow(ctx, w)
	return err
}

func (c *cluster) patch(ctx context.Context, w client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := w.Patch(ctx, o, p, opts...); err != nil {
		return err
	}
	o.SetGeneration(o.GetGeneration() + 1)
	if err := w.Update(ctx, o); err != nil {
		return err
	}
	c.follow(ctx, w)
	return nil
}

func (c *cluster) delete(ctx context.Context, w client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := w.Delete(ctx, o, opts...)
	c.follow(ctx, w)
	return err
}

// setDefaults does what the API's definitions have a server fill in, as far as tests compare it.
func setDefaults(o client.Object) {
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return
	}
	spec, _, _ := unstructured.NestedMap(u.Object, "spec")
	if spec == nil || u.GroupVersionKind().Group != gatewayv1.GroupName {
		return
	}
	refs, _, _ := unstructured.NestedSlice(u.Object, "spec", "parentRefs")
	for _, r := range refs {
		m := r.(map[string]any)
		for k, v := range map[string]any{"group": gatewayv1.GroupName, "kind": "Gateway"} {
			if _, ok := m[k]; !ok {
				m[k] = v
			}
		}
	}
	if len(refs) > 0 {
		_ = unstructured.SetNestedSlice(u.Object, refs, "spec", "parentRefs")
	}
}

// deploy makes a ready pod for each Deployment's, since nobody else does.
func (c *cluster) deploy(ctx context.Context, w client.WithWatch, o client.Object) {
	if o.GetObjectKind().GroupVersionKind().Kind != "Deployment" {
		return
	}
	d := &appsv1.Deployment{}
	if err := w.Get(ctx, client.ObjectKeyFromObject(o), d); err != nil {
		c.t.Fatal(err)
	}
	p := pod(d.Namespace, d.Name+"-0", d.Spec.Template.Labels)
	if err := w.Create(ctx, p); err != nil {
		c.t.Fatal(err)
	}
}

var pods = 0

func pod(namespace, name string, labels map[string]string) *corev1.Pod {
	pods++
	return &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "x"}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: fmt.Sprintf("10.1.%d.%d", pods/250, pods%250+1),
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}}
}

// follow compiles what there is, and writes the statuses that changed.
func (c *cluster) follow(ctx context.Context, w client.WithWatch) {
	var objects []*source.Object
	c.objs = map[source.Key]client.Object{}
	var findings = c.decode(ctx, w, &objects)
	mesh, found := compile.Compile(compile.Input{Objects: objects})
	findings = append(findings, found...)
	for key, wanted := range status.Compute(status.Input{Objects: objects, Mesh: mesh, Findings: findings}) {
		o := c.objs[key]
		merged, changed := status.Merge(status.Of(o), wanted, o.GetCreationTimestamp().Time, time.Now())
		if !changed {
			continue
		}
		reflect.ValueOf(status.Of(o)).Elem().Set(reflect.ValueOf(merged).Elem())
		if err := w.Status().Update(ctx, o); err != nil {
			c.t.Errorf("status of %s: %v", key, err)
		}
	}
}

func gvkOf(w client.Client, o runtime.Object) schema.GroupVersionKind {
	gvk, err := w.GroupVersionKindFor(o)
	if err != nil {
		panic(err)
	}
	return gvk
}

// marshal renders an object as it would be in a file.
func marshal(w client.Client, o client.Object) []byte {
	o.GetObjectKind().SetGroupVersionKind(gvkOf(w, o))
	o.SetManagedFields(nil)
	data, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	return data
}
