package local

import (
	"context"
	"reflect"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/weftmesh/weft/internal/control"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/runtime"
)

// openControl opens a control plane on the mesh's state directory.
func (m *Mesh) openControl() (*control.Control, error) {
	return control.New(control.Options{
		StateDir: m.opt.StateDir, Paths: m.opt.Paths, LocalRuntime: true, Settings: m.opt.Settings,
		Address: orNone(m.opt.XDSAddress), HTTPAddress: orNone(m.opt.MetricsAddress), Socket: m.xdsSocket(),
		Gatherers: m.gatherers(), Authority: m.authority, Tokens: m.tokens, Log: m.log,
	})
}

// orNone is how the control plane is told that there is no such listener.
func orNone(address string) string {
	if address == "" {
		return "-"
	}
	return address
}

// feedRuntime begins the exchange with a new control plane: what it accepts is run, what runs is told to it.
func (m *Mesh) feedRuntime(ctx context.Context, c *control.Control) {
	m.tellControl(c)
	changes := c.Changes(ctx)
	go func() { // ends with the control plane's run
		var last runtime.Desired
		for range changes {
			// What the runtime reports changes the control plane's objects too: without the comparison, the two would tell each
			// other the same for ever.
			if d := desired(c.Mesh(), c.Objects()); !reflect.DeepEqual(d, last) {
				m.runtime.SetDesired(d)
				last = d
			}
			m.fed.Store(true)
		}
	}()
}

// desired picks what the runtime runs out of all objects. What the runtime itself reported (services with their address) is not
// fed back to it: it would keep alive what no file asks for any more. mesh is what was made of the objects, or nil.
func desired(mesh *model.Mesh, objects []*source.Object) runtime.Desired {
	d := runtime.Desired{Gateways: gatewayServices(mesh, objects)}
	for _, o := range objects {
		if o.Origin.Layer == source.LayerRuntime {
			continue
		}
		switch k := o.Kube.(type) {
		case *appsv1.Deployment:
			d.Deployments = append(d.Deployments, k)
		case *corev1.Service:
			d.Services = append(d.Services, k)
		case *corev1.ServiceAccount:
			d.ServiceAccounts = append(d.ServiceAccounts, k)
		}
	}
	return d
}

// feedControl tells the control plane of each change in what runs, until the context ends.
func (m *Mesh) feedControl(ctx context.Context) {
	var last runtime.Observed
	for range m.runtime.Changes(ctx) {
		now := m.runtime.Observed()
		if reflect.DeepEqual(now, last) {
			continue
		}
		last = now
		if c, _, _ := m.plane.get(); c != nil {
			m.tellControl(c)
		}
	}
}

func (m *Mesh) tellControl(c *control.Control) {
	m.telling.Lock() // the latest observation must also be the last to arrive
	defer m.telling.Unlock()
	o := m.runtime.Observed()
	objects := make([]source.Kube, 0, len(o.Pods)+len(o.Services)+len(o.EndpointSlices))
	for _, p := range o.Pods {
		objects = append(objects, p)
	}
	for _, s := range o.Services {
		objects = append(objects, s)
	}
	for _, e := range o.EndpointSlices {
		objects = append(objects, e)
	}
	if err := c.SetRuntimeObjects(objects); err != nil {
		m.log.Error("the control plane does not take what the runtime observes", "error", err)
	}
}
