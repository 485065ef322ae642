package consul

import (
	"cmp"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/weftmesh/weft/internal/control/source"
)

// instance is what /v1/health/service says of one.
type instance struct {
	Node struct {
		Address    string
		Datacenter string
	}
	Service struct {
		ID      string
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
	return source.DecodeArrival(s.key(name), source.Origin{Layer: Layer, File: "consul:" + name}, text, s.options.Check).Placeless()
}
