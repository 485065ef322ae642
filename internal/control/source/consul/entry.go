package consul

import (
	"cmp"
	"encoding/json"
	"fmt"
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
// which is written as the entry is, or else the first by name; it is given for each of the others. It is empty for one whose name no host
// can have.
func choose(names map[string][]string) (served map[string]bool, others map[string]string) {
	by := map[string]string{}
	served, others = make(map[string]bool, len(names)), map[string]string{}
	for name := range names {
		if !nameable(name) {
			others[name] = ""
			continue
		}
		o := objectName(name)
		if before, there := by[o]; !there || name == o || before != o && name < before {
			by[o] = name
		}
	}
	for name := range names {
		if _, none := others[name]; none {
			continue
		}
		if first := by[objectName(name)]; first == name {
			served[name] = true
		} else {
			others[name] = first
		}
	}
	return served, others
}

// nameable is whether a host can have the name of a service: labels of letters, digits, hyphens and underscores, parted by dots.
func nameable(name string) bool {
	if objectName(name) == "" || len(host(name)) > maxHost {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' || strings.IndexFunc(label, func(c rune) bool {
			return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_'
		}) >= 0 {
			return false
		}
	}
	return len(validation.IsDNS1123Subdomain(objectName(name))) == 0
}

// What DNS allows.
const (
	maxHost  = 253
	maxLabel = 63
)

// host is by what name clients call a service.
func host(name string) string { return strings.ToLower(name) + ".service.consul" }

// otherKey is that of what there is to say of a service without ServiceEntry. No entry has it: a service that is written as its entry
// is has one.
func (s *Source) otherKey(name string) source.Key {
	k := s.key(name)
	k.Name = name
	return k
}

// other says that a service has no ServiceEntry, because a first one has it, or for its name.
func (s *Source) other(name, first string) source.Arrival {
	if first == "" {
		return source.Arrival{Key: s.otherKey(name), Findings: []model.Finding{s.finding(name, s.otherKey(name), model.Error, "InvalidName",
			fmt.Sprintf("the service %q of Consul is left out: no host can be called %q", name, host(name)),
			"register it in Consul by a name of letters, digits and hyphens, up to 63 characters, as its DNS needs, too; what it was called may stay as a tag or in its meta")}}
	}
	return source.Arrival{Key: s.otherKey(name), Findings: []model.Finding{s.finding(name, s.otherKey(name), model.Error, "NameTaken",
		fmt.Sprintf("the service is left out: the service %q has the ServiceEntry %s already", first, objectName(name)),
		"give the services names that differ by more than case and by hyphens for other characters")}}
}

// finding makes one about a service, as the object that is called so.
func (s *Source) finding(service string, k source.Key, severity model.Severity, code, message, hint string) model.Finding {
	return model.Finding{Severity: severity, Code: code, Object: model.Ref{Kind: k.Kind, Namespace: k.Namespace, Name: k.Name}, File: origin(service),
		Message: message, Hint: hint}
}

// origin is how findings call the place of a service.
func origin(name string) string { return Layer + ":" + name }

// arrival makes the ServiceEntry of a service, and says what of its tags and meta is no label of an endpoint. The meta "protocol" says what is spoken at its port, and is found out where it is not given.
func (s *Source) arrival(name string, all []instance) (source.Arrival, *oddities) {
	type object = map[string]any
	slices.SortFunc(all, func(a, b instance) int {
		return cmp.Or(cmp.Compare(a.address(), b.address()), cmp.Compare(a.Service.Port, b.Service.Port), cmp.Compare(a.Service.ID, b.Service.ID))
	})
	const portName = "service"
	port, protocol, findings := s.agree(name, all)
	resolution, endpoints, odd := "STATIC", []object{}, newOddities()
	for i := range all {
		in := &all[i]
		labels := in.labels(odd)
		weight := in.weight()
		if weight == 0 {
			continue
		}
		if !in.hasIP() {
			resolution = "DNS"
		}
		endpoints = append(endpoints, object{"address": in.address(), "ports": object{portName: in.Service.Port}, "labels": labels,
			"locality": in.Node.Datacenter, "weight": weight})
	}
	ports := object{"number": port, "name": portName}
	if protocol != "" {
		ports["protocol"] = protocol
	}
	spec := object{"hosts": []string{host(name)}, "ports": []object{ports}, "resolution": resolution,
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
	a := source.DecodeArrival(s.key(name), source.Origin{Layer: Layer, File: origin(name)}, text, s.options.Check).Placeless()
	a.Findings = append(findings, a.Findings...)
	return a, odd
}
