package demand

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// FieldValue reads a field that the downward API offers; ok is false for others.
func FieldValue(path string, p *corev1.Pod) (string, bool) {
	for prefix, values := range map[string]map[string]string{"metadata.labels": p.Labels, "metadata.annotations": p.Annotations} {
		if k, ok := strings.CutPrefix(path, prefix+"['"); ok && strings.HasSuffix(k, "']") {
			return values[strings.TrimSuffix(k, "']")], true
		}
	}
	switch path {
	case "metadata.name":
		return p.Name, true
	case "metadata.namespace":
		return p.Namespace, true
	case "metadata.uid":
		return string(p.UID), true
	case "spec.serviceAccountName":
		return p.Spec.ServiceAccountName, true
	case "spec.nodeName":
		return p.Spec.NodeName, true
	case "status.podIP", "status.podIPs":
		return p.Status.PodIP, true
	case "status.hostIP", "status.hostIPs":
		return p.Status.HostIP, true
	}
	return "", false
}
