package telemetry

import (
	"cmp"
	"slices"
	"strings"
)

// Stat is one of the proxy's own counters and gauges, by Envoy's name.
type Stat struct {
	// Scope is "cluster", "listener", "udp" or "server"; Instance is which cluster or listener, empty for the server.
	Scope, Instance string
	Name            string // as after the scope in Envoy: "upstream_cx_total"
	Gauge           bool
	Value           int64
}

// Path is the name in Envoy's dotted form, where colons of an instance become underscores.
func (s Stat) Path() string {
	if s.Instance == "" {
		return s.Scope + "." + s.Name
	}
	return s.Scope + "." + strings.ReplaceAll(s.Instance, ":", "_") + "." + s.Name
}

// instanceLabel is what Envoy calls the instance in a metric's labels.
var instanceLabel = map[string]string{"cluster": "cluster_name", "listener": "listener_address", "udp": "udp_prefix"}

// Stats writes them as metrics, each name with all its instances: envoy_cluster_upstream_cx_total{cluster_name="..."}.
func (p *Page) Stats(list []Stat) {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b Stat) int {
		return cmp.Or(cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.Name, b.Name))
	})
	last := ""
	for _, s := range list {
		name, class := "envoy_"+s.Scope+"_"+s.Name, responseClass(s.Name)
		if class != "" {
			name = strings.TrimSuffix(name, "_"+class)
		}
		if name != last {
			kind := "counter"
			if s.Gauge {
				kind = "gauge"
			}
			p.Family(name, kind, "As in Envoy.")
			last = name
		}
		var labels []Label
		if s.Instance != "" {
			labels = append(labels, Label{instanceLabel[s.Scope], s.Instance})
		}
		if class != "" {
			labels = append(labels, Label{"response_code_class", class})
		}
		p.Sample(name, float64(s.Value), labels...)
	}
}

// responseClass gives the class of answers at the end of a counter's name ("2xx" of upstream_rq_2xx), which in metrics is a label;
// empty where there is none. Source: the tags of Istio's bootstrap of Envoy.
func responseClass(name string) string {
	at := strings.LastIndexByte(name, '_') + 1
	if class := name[at:]; len(class) == 3 && class[1:] == "xx" {
		return class
	}
	return ""
}
