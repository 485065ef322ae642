package consul

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// instance is what /v1/health/service says of one.
type instance struct {
	Node struct {
		Node       string // its name
		Address    string
		Datacenter string
	}
	Service struct {
		ID      string
		Service string // its name; Consul gives the instances of names that differ only by case together
		Address string
		Port    int
		Tags    []string
		Meta    map[string]string
		Weights struct{ Passing, Warning int }
	}
	Checks []struct{ Status string }
}

// The states of checks that matter.
const (
	warning  = "warning"
	critical = "critical"
)

func (i *instance) address() string { return cmp.Or(i.Service.Address, i.Node.Address) }

// weight is 0 for an instance that takes no requests.
func (i *instance) weight() int {
	w := max(i.Service.Weights.Passing, 1)
	for _, c := range i.Checks {
		switch c.Status {
		case critical:
			return 0
		case warning:
			w = max(i.Service.Weights.Warning, 1)
		}
	}
	return w
}

// labels are the meta, and the tags: "key=value" as it says, others with the value "true". What can be no label is left out.
func (i *instance) labels() map[string]string {
	l := map[string]string{}
	add := func(k, v string) {
		if len(validation.IsQualifiedName(k)) == 0 && len(validation.IsValidLabelValue(v)) == 0 {
			l[k] = v
		}
	}
	for _, tag := range i.Service.Tags {
		k, v, ok := strings.Cut(tag, "=")
		if !ok {
			v = "true"
		}
		add(k, v)
	}
	for k, v := range i.Service.Meta {
		add(k, v)
	}
	return l
}

func (s *Source) key(name string) source.Key {
	return source.Key{Group: source.GroupNetworking, Kind: "ServiceEntry", Namespace: s.options.Namespace, Name: objectName(name)}
}

// objectName makes a DNS name of a service's: in lower case, and with hyphens for what else there is.
func objectName(name string) string {
	return strings.Trim(strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' {
			return c
		}
		return '-'
	}, strings.ToLower(name)), "-.")
}

// choose splits the services by whether they have a ServiceEntry of their own. Of those that would have the same one, that one has it
// which is written as the entry is, or else the first by name; it is given for each of the others.
func choose(names map[string][]string) (served map[string]bool, others map[string]string) {
	by := map[string]string{}
	for name := range names {
		o := objectName(name)
		if before, there := by[o]; !there || name == o || before != o && name < before {
			by[o] = name
		}
	}
	served, others = make(map[string]bool, len(by)), map[string]string{}
	for name := range names {
		if first := by[objectName(name)]; first == name {
			served[name] = true
		} else {
			others[name] = first
		}
	}
	return served, others
}

// otherKey is that of what there is to say of a service without ServiceEntry. No entry has it: a service that is written as its entry
// is has one.
func (s *Source) otherKey(name string) source.Key {
	k := s.key(name)
	k.Name = name
	return k
}

// other says that a service has no ServiceEntry, because a first one has it.
func (s *Source) other(name, first string) source.Arrival {
	k := s.otherKey(name)
	return source.Arrival{Key: k, Findings: []model.Finding{{
		Severity: model.Error, Code: "NameTaken", Object: model.Ref{Kind: k.Kind, Namespace: k.Namespace, Name: k.Name}, File: origin(name),
		Message: fmt.Sprintf("the service is left out: the service %q has the ServiceEntry %s already", first, objectName(name)),
		Hint:    "give the services names that differ by more than case and by hyphens for other characters",
	}}}
}

// origin is how findings call the place of a service.
func origin(name string) string { return Layer + ":" + name }

// maxPort is the highest that there is.
const maxPort = 1<<16 - 1

// callable leaves the instances of a service that have a port, and says which have none. Those of other services are not among them.
func (s *Source) callable(name string, all []instance) (kept []instance, findings []model.Finding) {
	var without []string
	for _, in := range all {
		switch {
		case in.Service.Service != "" && in.Service.Service != name:
		case in.Service.Port < 1 || in.Service.Port > maxPort:
			without = append(without, fmt.Sprintf("%s (port %d)", cmp.Or(in.Service.ID, in.address()), in.Service.Port))
		default:
			kept = append(kept, in)
		}
	}
	if len(without) == 0 {
		return kept, nil
	}
	slices.Sort(without)
	n, more := len(without), ""
	if n > maxNamed {
		without, more = without[:maxNamed], fmt.Sprintf(" and %d more", n-maxNamed)
	}
	k := s.key(name)
	return kept, []model.Finding{{
		Severity: model.Warning, Code: "InstanceWithoutPort", Object: model.Ref{Kind: k.Kind, Namespace: k.Namespace, Name: k.Name}, File: origin(name),
		Message: "instances without a port from 1 to 65535 are left out: " + strings.Join(without, ", ") + more,
		Hint:    "register them with their port",
	}}
}

// maxNamed bounds the instances that a finding names.
const maxNamed = 5

// arrival makes the ServiceEntry of a service. The port that clients name is the lowest of the instances'; the meta "protocol" says
// what is spoken there, and is found out where it is not given.
func (s *Source) arrival(name string, all []instance) source.Arrival {
	type object = map[string]any
	slices.SortFunc(all, func(a, b instance) int {
		return cmp.Or(cmp.Compare(a.address(), b.address()), cmp.Compare(a.Service.Port, b.Service.Port), cmp.Compare(a.Service.ID, b.Service.ID))
	})
	const portName = "service"
	port, protocol, resolution := 0, "", "STATIC"
	endpoints := []object{}
	for i := range all {
		in := &all[i]
		if port == 0 || in.Service.Port < port {
			port = in.Service.Port
		}
		protocol = cmp.Or(protocol, in.Service.Meta["protocol"])
		weight := in.weight()
		if weight == 0 {
			continue
		}
		if _, err := netip.ParseAddr(in.address()); err != nil {
			resolution = "DNS"
		}
		endpoints = append(endpoints, object{"address": in.address(), "ports": object{portName: in.Service.Port}, "labels": in.labels(),
			"locality": in.Node.Datacenter, "weight": weight})
	}
	ports := object{"number": port, "name": portName}
	if protocol != "" {
		ports["protocol"] = strings.ToUpper(protocol)
	}
	spec := object{"hosts": []string{strings.ToLower(name) + ".service.consul"}, "ports": []object{ports}, "resolution": resolution,
		"location": "MESH_EXTERNAL"}
	if spec["endpoints"] = endpoints; len(endpoints) == 0 {
		// The service stays known, and calls of it fail at once: an entry without endpoints is one that selects what nothing has.
		delete(spec, "endpoints")
		spec["workloadSelector"] = object{"labels": object{"weft.dev/consul": "none"}}
	}
	// Maps of strings always marshal.
	text, _ := json.Marshal(object{
		"apiVersion": source.GroupNetworking + "/v1", "kind": "ServiceEntry",
		"metadata": object{"name": objectName(name), "namespace": s.options.Namespace},
		"spec":     spec,
	})
	return source.DecodeArrival(s.key(name), source.Origin{Layer: Layer, File: origin(name)}, text, s.options.Check).Placeless()
}
