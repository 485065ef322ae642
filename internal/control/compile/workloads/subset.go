package workloads

import (
	"slices"
	"strings"

	"github.com/weftmesh/weft/internal/control/model"
)

// placeLabels are those that say where an endpoint runs, by their place in a locality.
var placeLabels = map[string]int{model.RegionLabel: 1, model.ZoneLabel: 2, model.SubzoneLabel: 3}

// IsPlace reports whether a label says where an endpoint runs: that is the node's, though it may be written at the Pod.
func IsPlace(label string) bool { return placeLabels[label] > 0 }

// AnyWith reports whether some endpoint has the labels of a subset.
func AnyWith(endpoints []*model.Endpoint, labels map[string]string) bool {
	return slices.ContainsFunc(endpoints, func(ep *model.Endpoint) bool { return inSubset(ep, labels) })
}

func inSubset(ep *model.Endpoint, labels map[string]string) bool {
	place := strings.SplitN(ep.Locality+"//", "/", 4)
	for k, v := range labels {
		at := placeLabels[k]
		if at > 0 && ep.Locality != "" && ep.Labels[k] == "" {
			if place[at-1] != v {
				return false
			}
		} else if have, ok := ep.Labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}
