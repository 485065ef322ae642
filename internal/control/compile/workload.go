package compile

import (
	"cmp"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	networking "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/weftmesh/weft/internal/control/compile/workloads"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// instance names a workload.
type instance struct{ namespace, name string }

func (i instance) String() string { return i.namespace + "/" + i.name }

// lead is an endpoint of a service that is a workload: of the first, or of what others say of its host.
type lead struct {
	unit *unit
	nth  int
	ep   *model.Endpoint
}

func (l lead) service() *model.Service {
	if l.nth == 0 {
		return l.unit.service
	}
	return l.unit.service.Others[l.nth-1]
}

// moveLeads has the workloads that are a service's endpoints know it. Same says that all else of the service is as it was.
func (k *Compiler) moveLeads(u *unit, old, s *model.Service, same bool) {
	keep := map[*model.Endpoint]bool{}
	if same {
		for o := range s.All() {
			for _, ep := range o.Endpoints {
				keep[ep] = true
			}
		}
	}
	had := map[*model.Endpoint]bool{}
	for o := range old.All() {
		for _, ep := range o.Endpoints {
			if keep[ep] {
				had[ep] = true
				continue
			}
			i := instance{ep.Namespace, ep.Instance}
			if list := slices.DeleteFunc(k.leads[i], func(l lead) bool { return l.unit == u && l.ep == ep }); len(list) > 0 {
				k.leads[i] = list
			} else {
				delete(k.leads, i)
			}
			k.stirred[i] = struct{}{}
		}
	}
	nth := 0
	for o := range s.All() {
		for _, ep := range o.Endpoints {
			if had[ep] || ep.Instance == "" {
				continue
			}
			i := instance{ep.Namespace, ep.Instance}
			k.leads[i] = append(k.leads[i], lead{u, nth, ep})
			k.stirred[i] = struct{}{}
		}
		nth++
	}
}

// joinWorkloads makes those that may have changed.
func (k *Compiler) joinWorkloads() {
	for i := range k.stirred {
		k.setWorkload(i, k.workload(i))
	}
	k.stirred = map[instance]struct{}{} // one that was cleared would be as long to go through as it ever was, which is all of the mesh
}

// workload makes a workload of a WorkloadEntry or pod, with the ports that services have of it; nil when there is none.
func (k *Compiler) workload(i instance) *model.Workload {
	var w *model.Workload
	if r := k.records[model.Ref{Kind: "WorkloadEntry", Namespace: i.namespace, Name: i.name}]; r != nil && !r.refused {
		if e, ok := r.Kube.(*networking.WorkloadEntry); ok {
			w = workloads.OfEntry(e)
		}
	} else if r := k.records[model.Ref{Kind: "Pod", Namespace: i.namespace, Name: i.name}]; r != nil && !r.refused {
		if pod := source.PodOf(r.Kube); pod != nil && !workloads.Ended(pod) {
			w = workloads.OfPod(pod)
		}
	}
	if w == nil {
		return nil
	}
	leads := slices.Clone(k.leads[i])
	slices.SortFunc(leads, func(a, b lead) int {
		return cmp.Or(strings.Compare(a.unit.name, b.unit.name), cmp.Compare(a.nth, b.nth), workloads.Compare(a.ep, b.ep))
	})
	var targets workloads.Targets
	for _, l := range leads {
		if _, err := netip.ParseAddr(l.ep.Address); err != nil {
			continue
		}
		s := l.service()
		for _, port := range s.Ports {
			if target, ok := l.ep.Ports[port.Number]; ok {
				workloads.AddPort(w, model.WorkloadPort{Number: target, Protocol: port.Protocol, ServiceHost: l.unit.name, ServicePort: port.Number})
			}
		}
		targets.Add(s, l.ep)
	}
	w.Targets = targets.List()
	return w
}

// setWorkload puts a workload into the mesh, and passes on what differs from before.
func (k *Compiler) setWorkload(i instance, w *model.Workload) {
	name := i.String()
	old := k.mesh.Workloads.Get(name)
	if old == nil && w == nil || old != nil && w != nil && reflect.DeepEqual(old, w) {
		return
	}
	k.delta.Workloads[name] = true
	if w == nil {
		k.mesh.Workloads.Delete(name)
	} else {
		k.mesh.Workloads.Put(name, w)
	}
	if old != nil && old.Gateway || w != nil && w.Gateway {
		delete(k.gates, i)
		if w != nil && w.Gateway {
			k.gates[i] = w
		}
		k.dirty(topic{about: onGateways})
	}
	if isOpaque(old) || isOpaque(w) {
		k.setOpaque(i, w)
	}
}

// isOpaque reports whether a workload has ports, none of which carries HTTP. What comes to a gateway's is for its Gateways to say.
func isOpaque(w *model.Workload) bool {
	return w != nil && !w.Gateway && len(w.Ports) > 0 &&
		!slices.ContainsFunc(w.Ports, func(port model.WorkloadPort) bool { return port.Protocol.IsHTTP() || port.Protocol == model.Auto })
}

func (k *Compiler) setOpaque(i instance, w *model.Workload) {
	list := k.opaque[i.namespace]
	if list == nil {
		list = map[string]*model.Workload{}
		k.opaque[i.namespace] = list
	}
	if isOpaque(w) {
		list[i.name] = w
	} else if delete(list, i.name); len(list) == 0 {
		delete(k.opaque, i.namespace)
	}
	k.dirty(topic{about: onOpaque, a: i.namespace})
	k.dirty(topic{about: onOpaque})
}

// opaqueWorkload gives the first, by name, of the workloads of a namespace ("" for any) that a selector picks and that carry no
// HTTP; nil for none.
func (c *compiler) opaqueWorkload(namespace string, selector map[string]string) (first *model.Workload) {
	c.read(topic{about: onOpaque, a: namespace})
	name := func(w *model.Workload) string { return w.Namespace + "/" + w.Name }
	look := func(list map[string]*model.Workload) {
		for _, w := range list {
			if selects(selector, w.Labels) && (first == nil || name(w) < name(first)) {
				first = w
			}
		}
	}
	if namespace != "" {
		look(c.state.opaque[namespace])
		return first
	}
	for _, list := range c.state.opaque {
		look(list)
	}
	return first
}

// gatewayWorkloads gives the workloads that are gateways, by name.
func (c *compiler) gatewayWorkloads() []*model.Workload {
	c.read(topic{about: onGateways})
	return slices.SortedFunc(maps.Values(c.state.gates), func(a, b *model.Workload) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
}

// selects reports whether labels fulfil a selector; an empty one selects everything.
func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}
