package status

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// gatewayAddresses gives where the workloads are reached that serve Gateways and Ingresses: what their Services' load balancers say,
// else the Services' external addresses, else their own. Without a Service, what the caller knows.
func (s *state) gatewayAddresses() []gatewayv1.GatewayStatusAddress {
	var labels []map[string]string
	for _, w := range s.in.Mesh.Workloads.All() {
		if w.Gateway && model.Selects(parts.IngressSelector(), w.Labels) {
			labels = append(labels, w.Labels)
		}
	}
	var public, private []gatewayv1.GatewayStatusAddress
	for _, o := range s.in.Objects {
		svc, ok := o.Kube.(*corev1.Service)
		if !ok || len(svc.Spec.Selector) == 0 || !slices.ContainsFunc(labels, func(l map[string]string) bool { return model.Selects(svc.Spec.Selector, l) }) {
			continue
		}
		for _, in := range svc.Status.LoadBalancer.Ingress {
			public = addAddress(addAddress(public, in.IP), in.Hostname)
		}
		for _, ip := range svc.Spec.ExternalIPs {
			public = addAddress(public, ip)
		}
		if ip := svc.Spec.ClusterIP; ip != corev1.ClusterIPNone {
			private = addAddress(private, ip)
		}
	}
	switch {
	case len(public) > 0:
		return public
	case len(s.in.Addresses) > 0:
		for _, a := range s.in.Addresses {
			public = addAddress(public, a)
		}
		return public
	}
	return private
}

func addAddress(list []gatewayv1.GatewayStatusAddress, value string) []gatewayv1.GatewayStatusAddress {
	if value == "" || slices.ContainsFunc(list, func(a gatewayv1.GatewayStatusAddress) bool { return a.Value == value }) {
		return list
	}
	kind := gatewayv1.HostnameAddressType
	if _, err := netip.ParseAddr(value); err == nil {
		kind = gatewayv1.IPAddressType
	}
	return append(list, gatewayv1.GatewayStatusAddress{Type: &kind, Value: value})
}

// usable gives those of the gateway's addresses that a Gateway asks for, all when it asks for none, and what it asks for in vain.
func (s *state) usable(asked []gatewayv1.GatewaySpecAddress) (have []gatewayv1.GatewayStatusAddress, unusable []string) {
	named := false
	for _, a := range asked {
		if a.Value == "" {
			continue
		}
		named = true
		i := slices.IndexFunc(s.addresses, func(h gatewayv1.GatewayStatusAddress) bool { return h.Value == a.Value })
		if i < 0 {
			unusable = append(unusable, a.Value)
			continue
		}
		have = append(have, s.addresses[i])
	}
	if !named {
		return s.addresses, nil
	}
	return have, unusable
}
