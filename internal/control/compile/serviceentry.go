package compile

import (
	networking "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert"
	"github.com/weftmesh/weft/internal/control/model"
)

// addServiceEntries puts the services of ServiceEntries into the mesh. A host belongs to the Kubernetes service of that name,
// else to the oldest entry.
func (c *compiler) addServiceEntries() {
	for _, p := range c.byKind["ServiceEntry"] {
		for i, s := range p.Services {
			if other := c.mesh.Services.Get(s.Host); other != nil {
				first := c.owner[other]
				p.Warn("DuplicateHost", convert.At("spec.hosts", i), "keep one of them",
					"host %s already belongs to %s, which is older or a Kubernetes service: this one has no effect", s.Host, first.Ref())
				first.Warn("DuplicateHost", "", "keep one of them", "host %s is also claimed by %s, which has no effect", s.Host, p.Ref())
				continue
			}
			c.addService(s, p)
		}
		c.selectForEntry(p)
	}
}

// selectForEntry gives the services of an entry with a workloadSelector the pods and WorkloadEntries it selects.
func (c *compiler) selectForEntry(p *part) {
	se, ok := p.Kube.(*networking.ServiceEntry)
	if !ok || se.Spec.WorkloadSelector == nil {
		return
	}
	for _, s := range p.Services {
		for _, e := range c.entriesOf(se.Namespace, se.Spec.WorkloadSelector.Labels) {
			ep := convert.EntryEndpoint(&e.Spec, e.Namespace, e.Name, entryLabels(e))
			c.addEndpoint(s, ep, convert.TargetPorts(se.Spec.Ports, e.Spec.Ports))
		}
		for _, pod := range c.byKind["Pod"] {
			k, ok := pod.Kube.(*corev1.Pod)
			if !ok || k.Namespace != se.Namespace || k.Status.PodIP == "" || !selects(se.Spec.WorkloadSelector.Labels, k.Labels) {
				continue
			}
			ep := &model.Endpoint{Address: k.Status.PodIP, Ready: isReady(k)}
			describePod(ep, k)
			c.addEndpoint(s, ep, convert.TargetPorts(se.Spec.Ports, nil))
		}
	}
}
