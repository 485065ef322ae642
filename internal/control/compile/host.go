package compile

import (
	"net/netip"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/weftmesh/weft/internal/control/model"
)

// serviceHost gives a Kubernetes service's canonical host.
func serviceHost(name, namespace string, s model.Settings) string {
	return name + "." + namespace + ".svc." + s.ClusterDomain
}

// fullHost gives the canonical form of a host that an Istio object names: one without dots is a service of the object's own
// namespace, anything else stands for itself.
func (p *part) fullHost(host string) string {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "" || strings.ContainsAny(host, ".*:") {
		return host
	}
	return serviceHost(host, p.GetNamespace(), p.settings)
}

// validHost checks "name", "a.b.c", "*", "*.b.c" and, where wanted, IP addresses.
func (p *part) validHost(host, field string, allowIP bool) bool {
	if host == "" {
		p.err("MissingField", field, "", "a host is missing")
		return false
	}
	if host == "*" {
		return true
	}
	if _, err := netip.ParseAddr(host); err == nil {
		if !allowIP {
			p.err("InvalidHost", field, "", "%q is an address: want a host name", host)
		}
		return allowIP
	}
	name := strings.TrimPrefix(strings.ToLower(strings.TrimSuffix(host, ".")), "*.")
	if problems := validation.IsDNS1123Subdomain(strings.ReplaceAll(name, "_", "-")); len(problems) > 0 {
		p.err("InvalidHost", field, `hosts look like "reviews", "www.example.com" or "*.example.com"`, "%q is not a valid host name", host)
		return false
	}
	return true
}

// hostCovers reports whether a host or wildcard takes in all of another: "*" and "*.example.com" cover "a.example.com".
func hostCovers(pattern, host string) bool {
	if pattern == "*" || pattern == host {
		return true
	}
	suffix, ok := strings.CutPrefix(pattern, "*")
	return ok && len(host) > len(suffix) && strings.HasSuffix(host, suffix)
}

// hostsMeet gives the more specific of two hosts that overlap.
func hostsMeet(a, b string) (string, bool) {
	switch {
	case hostCovers(a, b):
		return b, true
	case hostCovers(b, a):
		return a, true
	}
	return "", false
}

// exportTo reads a list of namespaces: "*" all, "." the own, "~" none, else names.
func (p *part) exportTo(list []string, field string) model.Visibility {
	var v model.Visibility
	for i, ns := range list {
		switch ns {
		case "*":
			if len(list) > 1 {
				p.err("InvalidValue", at(field, i), "", `"*" stands for all namespaces and cannot be combined with others`)
			}
			return model.Visibility{}
		case ".":
			v.Namespaces = append(v.Namespaces, p.GetNamespace())
		case "~":
			if len(list) > 1 {
				p.err("InvalidValue", at(field, i), "", `"~" stands for no namespace and cannot be combined with others`)
			}
			// A name that no namespace can have.
			v.Namespaces = append(v.Namespaces, "~")
		default:
			if problems := validation.IsDNS1123Label(ns); len(problems) > 0 {
				p.err("InvalidValue", at(field, i), "", "%q is not a namespace: %s", ns, problems[0])
			}
			v.Namespaces = append(v.Namespaces, ns)
		}
	}
	if len(v.Namespaces) == 1 && v.Namespaces[0] == p.GetNamespace() {
		return model.Visibility{Private: true}
	}
	return v
}

// validPort checks a port number.
func (p *part) validPort(port uint32, field string) uint16 {
	if port < 1 || port > 65535 {
		p.err("InvalidPort", field, "", "port %d is not between 1 and 65535", port)
		return 0
	}
	return uint16(port)
}

// validLabels checks a label selector.
func (p *part) validLabels(labels map[string]string, field string) map[string]string {
	for _, k := range sortedKeys(labels) {
		problems := append(validation.IsQualifiedName(k), validation.IsValidLabelValue(labels[k])...)
		if strings.Contains(k, "*") || strings.Contains(labels[k], "*") {
			problems = []string{"wildcards are not supported in selectors"}
		}
		if len(problems) > 0 {
			p.err("InvalidLabel", key(field, k), "", "%s", problems[0])
		}
	}
	return labels
}
