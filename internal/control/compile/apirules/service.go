package apirules

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/weftmesh/weft/internal/control/source/document"
)

var serviceTypes = []string{string(corev1.ServiceTypeClusterIP), string(corev1.ServiceTypeNodePort), string(corev1.ServiceTypeLoadBalancer), string(corev1.ServiceTypeExternalName)}

// service judges a Service that somebody has written; those that programs make of what other systems know are as these have it.
func (c checker) service(s *corev1.ServiceSpec) {
	if !c.Written("spec") {
		return
	}
	if s.Type != "" && !slices.Contains(serviceTypes, string(s.Type)) {
		c.say("InvalidValue", "spec.type", document.DidYouMean(string(s.Type), serviceTypes), "%q is not one of %s", s.Type, strings.Join(serviceTypes, ", "))
	}
	if len(s.Ports) == 0 && s.Type != corev1.ServiceTypeExternalName && s.ClusterIP != corev1.ClusterIPNone {
		c.say("MissingField", "spec.ports", "", "it may not be empty")
	}
	for i, p := range s.Ports {
		field := at("spec.ports", i)
		if p.Name != "" {
			c.named(p.Name, field+".name", validation.IsDNS1123Label)
		}
		if p.AppProtocol != nil {
			c.named(*p.AppProtocol, field+".appProtocol", validation.IsQualifiedName)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(s.Selector)) {
		field := document.Join("spec.selector", key)
		if problems := slices.Concat(validation.IsQualifiedName(key), validation.IsValidLabelValue(s.Selector[key])); len(problems) > 0 {
			c.say("InvalidLabel", field, "", "%s=%q is not a label: %s", key, s.Selector[key], problems[0])
		}
	}
	for i, f := range s.IPFamilies {
		switch field := at("spec.ipFamilies", i); {
		case f != corev1.IPv4Protocol && f != corev1.IPv6Protocol:
			c.say("InvalidValue", field, "", "%q is not one of IPv4, IPv6", f)
		case slices.Contains(s.IPFamilies[:i], f):
			c.say("DuplicateValue", field, "", "%q is there already", f)
		}
	}
}
