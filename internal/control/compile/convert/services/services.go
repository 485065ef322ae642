// Package services converts what says which services and workloads there are: Service, ServiceEntry, WorkloadEntry and WorkloadGroup.
package services

import (
	networking "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
)

type converter struct{ *parts.Part }

// Convert fills a part whose object is of this family; others are left alone.
func Convert(part *parts.Part) {
	p := converter{part}
	switch k := p.Kube.(type) {
	case *corev1.Service:
		p.service(k)
	case *networking.ServiceEntry:
		p.serviceEntry(k)
	case *networking.WorkloadEntry:
		p.workloadEntry(&k.Spec, "spec")
	case *networking.WorkloadGroup:
		p.workloadGroup(k)
	}
}
