package parts

import (
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/weftmesh/weft/internal/control/model"
)

// ServiceHost gives a Kubernetes service's canonical host.
func ServiceHost(name, namespace string, s model.Settings) string {
	return name + "." + namespace + ".svc." + s.ClusterDomain
}

// HostName gives the form in which a host is known: in lower case, without a dot at the end.
func HostName(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

// FullHost gives the canonical form of a host that an Istio object names: one without dots is a service of the object's own
// namespace, anything else stands for itself.
func (p *Part) FullHost(host string) string {
	host = HostName(host)
	if host == "" || strings.ContainsAny(host, ".*:") {
		return host
	}
	return ServiceHost(host, p.GetNamespace(), p.Mesh)
}

// ValidHost checks "name", "a.b.c", "*", "*.b.c" and, where wanted, IP addresses.
func (p *Part) ValidHost(host, field string, allowIP bool) bool {
	if host == "" {
		p.Err("MissingField", field, "", "a host is missing")
		return false
	}
	if host == "*" {
		return true
	}
	if _, err := netip.ParseAddr(host); err == nil {
		if !allowIP {
			p.Err("InvalidHost", field, "", "%q is an address: want a host name", host)
		}
		return allowIP
	}
	name := strings.TrimPrefix(strings.ToLower(strings.TrimSuffix(host, ".")), "*.")
	// Names in DNS may have underscores anywhere, as "_grpc._tcp.example.com", services of Consul and the server names of sidecars have,
	// though Istio takes the last alone.
	long := slices.ContainsFunc(strings.Split(name, "."), func(label string) bool { return len(label) > validation.DNS1123LabelMaxLength })
	if long || len(validation.IsDNS1123Subdomain(strings.ReplaceAll(name, "_", "u"))) > 0 {
		p.Err("InvalidHost", field, `hosts look like "reviews", "www.example.com" or "*.example.com"`, "%q is not a valid host name", host)
		return false
	}
	return true
}

// HostCovers reports whether a host or wildcard takes in all of another: "*" and "*.example.com" cover "a.example.com".
func HostCovers(pattern, host string) bool {
	if pattern == "*" || pattern == host {
		return true
	}
	suffix, ok := strings.CutPrefix(pattern, "*")
	return ok && len(host) > len(suffix) && strings.HasSuffix(host, suffix)
}

// HostsMeet gives the more specific of two hosts that overlap.
func HostsMeet(a, b string) (string, bool) {
	switch {
	case HostCovers(a, b):
		return b, true
	case HostCovers(b, a):
		return a, true
	}
	return "", false
}

// ExportTo reads a list of namespaces: "*" all, "." the own, "~" none, else names.
func (p *Part) ExportTo(list []string, field string) model.Visibility {
	var v model.Visibility
	seen := map[string]bool{}
	for i, ns := range list {
		own := ns
		if ns == "." {
			own = p.GetNamespace()
		}
		if seen[own] {
			p.Err("DuplicateValue", At(field, i), "", "%q is there already", ns)
		}
		seen[own] = true
		switch ns {
		case "*":
			if len(list) > 1 {
				p.Err("InvalidValue", At(field, i), "", `"*" stands for all namespaces and cannot be combined with others`)
			}
			return model.Visibility{}
		case ".":
			v.Namespaces = append(v.Namespaces, p.GetNamespace())
		case "~":
			if len(list) > 1 {
				p.Err("InvalidValue", At(field, i), "", `"~" stands for no namespace and cannot be combined with others`)
			}
			if p.Written(field) && p.Kind.Name != "DestinationRule" { // of which who links them says more
				p.Info("NoEffect", At(field, i), `leave it out, or write "." for its own namespace`, "no namespace sees it")
			}
			// A name that no namespace can have.
			v.Namespaces = append(v.Namespaces, "~")
		default:
			if problems := validation.IsDNS1123Label(ns); len(problems) > 0 {
				p.Err("InvalidValue", At(field, i), "", "%q is not a namespace: %s", ns, problems[0])
			}
			v.Namespaces = append(v.Namespaces, ns)
		}
	}
	if len(v.Namespaces) == 1 && v.Namespaces[0] == p.GetNamespace() {
		return model.Visibility{Private: true}
	}
	return v
}

// NamespaceName checks the name of a namespace; "" names none.
func (p *Part) NamespaceName(ns, field string) string {
	if ns == "" {
		return ""
	}
	if problems := validation.IsDNS1123Label(ns); len(problems) > 0 {
		p.Err("InvalidValue", field, "", "%q is not a namespace: %s", ns, problems[0])
	}
	return ns
}

// ValidPort checks a port number.
func (p *Part) ValidPort(port uint32, field string) uint16 {
	if port < 1 || port > 65535 {
		p.Err("InvalidPort", field, "", "port %d is not between 1 and 65535", port)
		return 0
	}
	return uint16(port)
}

// PortName checks the name of a port, in letters of either case.
func (p *Part) PortName(name, field string) {
	if len(validation.IsDNS1123Label(strings.ToLower(name))) > 0 {
		p.Err("InvalidName", field, `use letters, digits and, between them, "-": 63 at most`, "%q is not the name of a port", name)
	}
}

// ValidLabels checks a label selector.
func (p *Part) ValidLabels(labels map[string]string, field string) map[string]string {
	for _, k := range SortedKeys(labels) {
		problems := append(validation.IsQualifiedName(k), validation.IsValidLabelValue(labels[k])...)
		if strings.Contains(k, "*") || strings.Contains(labels[k], "*") {
			problems = []string{"wildcards are not supported in selectors"}
		}
		if len(problems) > 0 {
			p.Err("InvalidLabel", Key(field, k), "", "%s", problems[0])
		}
	}
	return labels
}

// DefaultExport is the list of an object that may leave its own out.
func DefaultExport(own, otherwise []string) []string {
	if len(own) > 0 {
		return own
	}
	return otherwise
}
