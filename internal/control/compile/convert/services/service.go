package services

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// service converts a Kubernetes Service.
func (p converter) service(svc *corev1.Service) {
	s := &model.Service{
		Ref: p.Ref(), Host: parts.ServiceHost(svc.Name, svc.Namespace, p.Mesh), Namespace: svc.Namespace, Name: svc.Name,
		Labels: svc.Labels, Created: p.Born, Headless: svc.Spec.ClusterIP == corev1.ClusterIPNone,
		ExportTo: p.ExportTo(parts.DefaultExport(parts.SplitList(svc.Annotations["networking.istio.io/exportTo"]), p.Mesh.ServiceExport), `metadata.annotations["networking.istio.io/exportTo"]`),
	}
	if t := svc.Spec.TrafficDistribution; t != nil {
		s.Near = slices.Contains([]string{"PreferClose", "PreferSameZone"}, *t)
		if !s.Near {
			p.Warn("Unsupported", "spec.trafficDistribution", "PreferClose and PreferSameZone are supported", "%q has no effect", *t)
		}
	}
	p.serviceAddresses(s, svc)
	p.servicePorts(s, svc)
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		p.externalName(s, svc)
	}
	p.Services = []*model.Service{s}
}

func (p converter) serviceAddresses(s *model.Service, svc *corev1.Service) {
	ips := svc.Spec.ClusterIPs
	if len(ips) == 0 && svc.Spec.ClusterIP != "" {
		ips = []string{svc.Spec.ClusterIP}
	}
	for i, ip := range ips {
		if ip == corev1.ClusterIPNone {
			continue
		}
		a, err := netip.ParseAddr(ip)
		if err != nil {
			p.Err("InvalidAddress", parts.At("spec.clusterIPs", i), "", "%q is not an IP address", ip)
			continue
		}
		s.Addresses = append(s.Addresses, a.Unmap())
	}
}

func (p converter) servicePorts(s *model.Service, svc *corev1.Service) {
	numbers, names := map[int32]int{}, map[string]int{}
	for i, port := range svc.Spec.Ports {
		field := parts.At("spec.ports", i)
		p.targetPort(port.TargetPort, field+".targetPort")
		if port.Protocol == corev1.ProtocolUDP {
			p.Info("NotTCP", field+".protocol", "let a UDPRoute lead to it from a gateway", "port %d is %s: sidecars leave it alone", port.Port, port.Protocol)
			if s.UDPPort(uint16(port.Port)) != nil {
				p.Err("DuplicatePort", field+".port", "", "port %d of UDP is there already", port.Port)
			}
			s.UDP = append(s.UDP, model.Port{Number: p.ValidPort(uint32(max(port.Port, 0)), field+".port"), Name: port.Name, Protocol: model.UDP})
			continue
		}
		if port.Protocol != "" && port.Protocol != corev1.ProtocolTCP {
			p.Info("NotTCP", field+".protocol", "", "port %d is %s and does not pass through the mesh", port.Port, port.Protocol)
			continue
		}
		number := p.ValidPort(uint32(max(port.Port, 0)), field+".port")
		if first, ok := numbers[port.Port]; ok {
			p.Err("DuplicatePort", field+".port", "", "port %d is already that of spec.ports[%d]", port.Port, first)
		}
		if first, ok := names[port.Name]; ok {
			p.Err("DuplicatePort", field+".name", "ports of a Service with several need different names", "name %q is already that of spec.ports[%d]", port.Name, first)
		}
		numbers[port.Port], names[port.Name] = i, i
		s.Ports = append(s.Ports, model.Port{Number: number, Name: port.Name, Protocol: kubeProtocol(port)})
	}
}

// targetPort judges the port of endpoints: a number, or the name of a container's.
func (p converter) targetPort(port intstr.IntOrString, field string) {
	switch {
	case port.Type == intstr.String && len(validation.IsValidPortName(port.StrVal)) > 0:
		p.Err("InvalidPort", field, "", "%q is not the name of a port: %s", port.StrVal, validation.IsValidPortName(port.StrVal)[0])
	case port.Type == intstr.Int && (port.IntVal < 0 || port.IntVal > 65535 || port.IntVal == 0 && p.Written(field)):
		p.Err("InvalidPort", field, "leave it out where it is that of the Service", "port %d is not between 1 and 65535", port.IntVal)
	}
}

// externalName makes a Service of that type an alias, reached through DNS.
func (p converter) externalName(s *model.Service, svc *corev1.Service) {
	if !p.ValidHost(svc.Spec.ExternalName, "spec.externalName", false) {
		return
	}
	name := strings.TrimSuffix(svc.Spec.ExternalName, ".")
	if p.Written("spec") && len(validation.IsDNS1123Subdomain(name)) > 0 {
		p.Err("InvalidHost", "spec.externalName", `hosts look like "www.example.com", in lower case`, "%q is not of the form that is asked for here", name)
		return
	}
	s.ExternalName = strings.ToLower(name)
	s.External, s.Resolution = true, model.DNS
	s.Endpoints = []*model.Endpoint{{Address: s.ExternalName, Ports: samePorts(s.Ports), UDP: samePorts(s.UDP), Namespace: s.Namespace, Ready: true}}
}

// samePorts maps each port to itself.
func samePorts(ports []model.Port) map[uint16]uint16 {
	if len(ports) == 0 {
		return nil
	}
	m := make(map[uint16]uint16, len(ports))
	for _, p := range ports {
		m[p.Number] = p.Number
	}
	return m
}

// kubeProtocol decides a Service port's protocol as Istio does: appProtocol, else the name's prefix, else what the port number is
// well known for, else detection.
func kubeProtocol(port corev1.ServicePort) model.Protocol {
	if port.AppProtocol != nil {
		if p, ok := parts.Protocols[strings.ToLower(*port.AppProtocol)]; ok {
			return p
		}
	}
	name := strings.ToLower(port.Name)
	if strings.HasPrefix(name, "grpc-web") {
		return model.GRPCWeb
	}
	prefix, _, _ := strings.Cut(name, "-")
	if p, ok := parts.Protocols[prefix]; ok {
		return p
	}
	switch port.Port {
	case 25, 53, 3306, 27017: // SMTP, DNS, MySQL, MongoDB: the server speaks first, or it is never HTTP
		return model.TCP
	}
	return model.Auto
}
