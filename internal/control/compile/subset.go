package compile

import (
	"fmt"
	"maps"
	"slices"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/compile/workloads"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// joinSubsets reports the subsets of a host that none of its endpoints is in, ready or not, though routes lead there. What is about to come
// counts as there: a Pod without an address, the Pods that a Deployment is going to have. So nothing is said while workloads start or are
// replaced. Of a service without any endpoint nothing is said either: that is not the subsets' fault. Nor of a subset that no route leads
// to: it does no harm, and rules that name every version of a service, there or not, are common.
func (c *compiler) joinSubsets(u *unit) {
	some := false
	for _, r := range c.ask(topic{about: onRule, a: u.name}) {
		rule, ok := r.Kube.(*networking.DestinationRule)
		if !ok || len(rule.Spec.Subsets) == 0 {
			continue
		}
		some = true
		s := c.populated(u.name, rule.Namespace)
		if s == nil || len(s.Endpoints) == 0 || s.Resolution == model.None || s.Resolution == model.ByHost || c.behind(s, rule.Namespace) != s {
			continue
		}
		p := c.about(r.Object)
		for i, subset := range rule.Spec.Subsets {
			users := c.ask(topic{about: onSubset, a: u.name, b: subset.Name})
			if len(users) == 0 || workloads.AnyWith(s.Endpoints, subset.Labels) || c.coming(s, subset.Labels) {
				continue
			}
			p.Warn("SubsetEmpty", parts.At("spec.subsets", i)+".labels", "write the labels of the pods",
				"no endpoint of %s has the labels %s: what %s to subset %q gets 503", s.Host, parts.LabelList(subset.Labels), leaders(users), subset.Name)
		}
	}
	if !some {
		delete(c.state.subsets, u.name)
		u.gone = true
	}
}

// leaders says which objects lead somewhere, in words.
func leaders(users []*record) string {
	first := users[0].Ref().String()
	switch n := len(users) - 1; n {
	case 0:
		return first + " leads"
	case 1:
		return first + " and another lead"
	default:
		return fmt.Sprintf("%s and %d others lead", first, n)
	}
}

// subsetsOf are the topics of the subsets that routes lead requests, connections or copies of them to.
func subsetsOf(rs *model.RouteSet) (list []topic) {
	seen := map[topic]bool{}
	add := func(d model.WeightedDestination) {
		if t := (topic{about: onSubset, a: d.Host, b: d.Subset}); d.Subset != "" && !seen[t] {
			seen[t] = true
			list = append(list, t)
		}
	}
	for i := range rs.HTTP {
		for _, d := range rs.HTTP[i].Destinations {
			add(d)
		}
		for _, m := range rs.HTTP[i].Mirrors {
			add(m.Destination)
		}
	}
	for _, r := range rs.TCP {
		for _, d := range r.Destinations {
			add(d)
		}
	}
	for _, r := range rs.TLS {
		for _, d := range r.Destinations {
			add(d)
		}
	}
	return list
}

// populated finds what a host means to clients of a namespace, with its endpoints.
func (c *compiler) populated(host, namespace string) *model.Service {
	c.read(topic{about: onEndpoints, a: host})
	return c.serviceFor(host, namespace)
}

// coming reports whether workloads that a service selects and that have the labels of a subset are there without being endpoints, or
// are going to be.
func (c *compiler) coming(s *model.Service, labels map[string]string) bool {
	all := c.selectorOf(s)
	if all == nil {
		return false
	}
	for k, v := range labels {
		if have, ok := all[k]; ok && have != v {
			return false
		}
		all[k] = v
	}
	return c.planned(s.Namespace, all) || c.pending(s, all)
}

// selectorOf gives a copy of the labels by which a service finds its workloads; nil when it does not.
func (c *compiler) selectorOf(s *model.Service) map[string]string {
	o := c.object(s.Ref)
	if o == nil {
		return nil
	}
	var selector map[string]string
	switch k := o.Kube.(type) {
	case *corev1.Service:
		selector = k.Spec.Selector
	case *networking.ServiceEntry:
		selector = k.Spec.WorkloadSelector.GetLabels()
	}
	if len(selector) == 0 {
		return nil
	}
	return maps.Clone(selector)
}

// planned reports whether a Deployment asks for Pods with some labels.
func (c *compiler) planned(namespace string, labels map[string]string) bool {
	return slices.ContainsFunc(c.inNamespace("Deployment", namespace), func(r *record) bool {
		d, ok := r.Kube.(*appsv1.Deployment)
		return ok && (d.Spec.Replicas == nil || *d.Spec.Replicas > 0) && selects(labels, d.Spec.Template.Labels)
	})
}

// pending reports whether a Pod with some labels is not an endpoint yet. Where it is going to run is not known.
func (c *compiler) pending(s *model.Service, labels map[string]string) bool {
	own := maps.Clone(labels)
	maps.DeleteFunc(own, func(k, _ string) bool { return workloads.IsPlace(k) })
	return slices.ContainsFunc(c.selected("Pod", s.Namespace, own), func(r *record) bool {
		pod := source.PodOf(r.Kube)
		return pod != nil && !workloads.Ended(pod) &&
			!slices.ContainsFunc(s.Endpoints, func(ep *model.Endpoint) bool { return ep.Instance == pod.Name })
	})
}
